"""`quicgreen explain`: what a code or a name means, why it comes, and what to do next.

Exit statuses: 0 it is known; 1 it is not.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

from .. import exceptions
from ..exceptions import CAUSES, H3_ERRORS, TRANSPORT_ERRORS, QuicException, QuicWarning
from ..websocket import exceptions as websocket_exceptions
from . import meanings
from .output import EXIT_NOTHING, complain, tell

_ALIKE = 4
"""Names that are offered instead of one that is not known."""


class Entry(NamedTuple):
    """One meaning."""

    name: str
    kind: str
    what: str
    why: list[str]
    then: list[str]


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "What a code or a name means, why it comes, and what to do next."
    parser.set_defaults(command=_explain)
    parser.add_argument(
        "what",
        nargs="*",
        metavar="CODE_OR_NAME",
        help="0 to 8 (quicpro_get_last_error, exception.code); QUIC_ERROR_*; an exception or a warning; a "
        "cause (exception.cause); a code of HTTP/3, QPACK or QUIC as number or name; a TLS alert; a message "
        "that was printed. Nothing: all names",
    )


def _explain(options: argparse.Namespace) -> int:
    text = " ".join(options.what).strip()
    if not options.what:
        for entry in everything():
            tell(f"{entry.name:<34} {entry.kind}: {entry.what}")
        return 0
    found = find(text)
    for number, entry in enumerate(found):
        if number:
            tell("")
        tell(f"{entry.name} ({entry.kind})")
        for label, lines in (("what", [entry.what]), ("why", entry.why), ("next", entry.then)):
            for line in lines:
                tell(f"  {label:<5} {line}")
                label = ""
    if not found:
        complain(_unknown(text))
    return 0 if found else EXIT_NOTHING


# ---------------------------------------------------------------- what there is


def everything() -> list[Entry]:
    """All that has a name."""
    return [*_codes(), *_classes(), *_causes(), *_wire(), *_alerts(), *_closes()]


def _advice(rows: Iterable[tuple[str, exceptions.Cause]]) -> tuple[list[str], list[str]]:
    """(why, next) of some causes."""
    rows = list(rows)
    return [f"{cause}: {row.message}" for cause, row in rows], [
        f"{cause}: {row.advice}" for cause, row in rows
    ]


def _codes() -> list[Entry]:
    found = []
    for name, (what, then) in meanings.CODES.items():
        number = getattr(exceptions, name)
        why, _ = _advice((c, row) for c, row in CAUSES.items() if row.code == number)
        found.append(Entry(name, f"code {number}", what, why, [then, *_elsewhere(number)]))
    return found


def _elsewhere(number: int) -> list[str]:
    known = number in TRANSPORT_ERRORS
    return [f"as a code of the wire of QUIC: quicgreen explain {number:#x}"] if known else []


def _classes() -> list[Entry]:
    modules = (exceptions, websocket_exceptions)
    kinds = {v for m in modules for v in vars(m).values() if isinstance(v, type) and issubclass(v, Exception)}
    found = []
    for kind in sorted((k for k in kinds if k.__module__.startswith("quicgreen.")), key=lambda k: k.__name__):
        bases = ", ".join(b.__name__ for b in kind.__bases__)
        doc = " ".join((kind.__doc__ or "").split())
        if issubclass(kind, QuicWarning):
            then = [meanings.WARNINGS.get(kind.__name__, "see which of its kinds it is")]
            found.append(Entry(kind.__name__, f"warning, a {bases}", doc, [], then))
        elif issubclass(kind, QuicException):
            why, then = _advice((c, row) for c, row in CAUSES.items() if row.exception is kind)
            below = [f"one of its kinds: {k.__name__}" for k in sorted(kind.__subclasses__(), key=str)]
            then = then or ["catch it last: exception.cause, and the message, tell which"]
            found.append(Entry(kind.__name__, f"exception, a {bases}", doc, [*why, *below], then))
    return found


def _causes() -> list[Entry]:
    codes = {getattr(exceptions, name): name for name in meanings.CODES}
    return [
        Entry(
            cause,
            "cause",
            row.message,
            [f"raised as {row.exception.__name__}, with {codes[row.code]} ({row.code})"],
            [row.advice],
        )
        for cause, row in CAUSES.items()
    ]


def _wire() -> list[Entry]:
    found = []
    for codes, table, document in (
        (H3_ERRORS, meanings.HTTP3, "HTTP/3"),
        (TRANSPORT_ERRORS, meanings.TRANSPORT, "QUIC"),
    ):
        for number, name in codes.items():
            what, then = table[name]
            where = "QPACK" if name.startswith("QPACK") else document
            found.append(Entry(name, f"{number:#x} on the wire of {where}", what, [], [then]))
    return found


def _alerts() -> list[Entry]:
    return [
        Entry(name, f"TLS alert {number}, {0x100 + number:#x} on the wire of QUIC", what, [], [then])
        for number, (name, what, then) in meanings.ALERTS.items()
    ]


def _closes() -> list[Entry]:
    then = ["see ConnectionClosed: its code and reason are the peer's, where it sent some"]
    return [
        Entry(f"websocket {number}", "close code of a WebSocket", what, [], then)
        for number, what in websocket_exceptions.CODE_NAMES.items()
    ]


# ---------------------------------------------------------------- looking up


def find(text: str) -> list[Entry]:
    """All that `text` may mean, the likeliest first."""
    number = _number(text)
    if number is not None:
        hexadecimal = text.lower().startswith("0x")
        ours = [] if hexadecimal else [e for e in _codes() if e.kind == f"code {number}"]
        return ours or _of_wire(number, hexadecimal)
    asked = _plain(text)
    alert = re.fullmatch(r"(?:tls )?alert (\d{1,3})", asked)
    if alert:
        return [e for e in _alerts() if e.kind.startswith(f"TLS alert {int(alert[1])},")]
    exact = [e for e in everything() if _plain(e.name) == asked]
    if exact:
        return exact
    short = [
        e for e in _wire() if _plain(e.name).split(" ", 1)[-1] == asked and e.name.startswith(("H3", "QPACK"))
    ]
    # A line of a log: the longest message that it contains says most.
    said = [e for e in _causes() if len(e.what) > len("timed out") and e.what in text]
    return short or sorted(said, key=lambda e: -len(e.what))[:1]


def _number(text: str) -> int | None:
    try:
        return int(text, 0) if text.isascii() and text[:1].isdecimal() else None
    except ValueError:
        return int(text) if text.isdecimal() else None  # 007


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().lower()


def _of_wire(number: int, hexadecimal: bool) -> list[Entry]:
    found = [e for e in _wire() if e.kind.startswith(f"{number:#x} ")]
    alerts = {0x100 + a: a for a in meanings.ALERTS} | (
        {} if hexadecimal else {a: a for a in meanings.ALERTS}
    )
    if number in alerts:
        found += [e for e in _alerts() if e.kind.startswith(f"TLS alert {alerts[number]},")]
    elif 0x100 <= number <= 0x1FF:
        what = f"the handshake failed for TLS alert {number - 0x100}, for which we have no words"
        then = ["see IANA's registry of TLS alerts"]
        found.append(Entry("CRYPTO_ERROR", f"{number:#x} on the wire of QUIC", what, [], then))
    if not hexadecimal:
        found += [e for e in _closes() if e.name == f"websocket {number}"]
    if not found and number >= 0x21 and (number - 0x21) % 0x1F == 0:
        what = (
            "reserved, so that codes which are not known stay harmless: it means H3_NO_ERROR (RFC 9114, 8.1)"
        )
        found.append(Entry("reserved", f"{number:#x} on the wire of HTTP/3", what, [], ["nothing"]))
    return found


def _unknown(text: str) -> str:
    if _number(text) is not None:
        return (
            f"{text} is no code of ours, nor of HTTP/3, QPACK, QUIC or TLS; an application may mean one by it"
        )
    names = {_plain(e.name): e.name for e in everything()}
    alike = difflib.get_close_matches(_plain(text), names, _ALIKE, 0.5)
    hint = (
        f"did you mean {', '.join(names[a] for a in alike)}?"
        if alike
        else "quicgreen explain lists all names"
    )
    return f"nothing is called {text!r}: {hint}"
