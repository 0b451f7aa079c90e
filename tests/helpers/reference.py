"""The page of errors: its generated parts, made from the tables that the code uses, and what its recipes find
at the ports that they name.

`python tests/test_docs.py` writes the generated parts anew.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent

import quicgreen
import quicgreen.websocket  # it adds rows to the table of causes
from quicgreen import exceptions, hub
from quicgreen._engine import CONN
from quicgreen.cli import meanings
from quicgreen.exceptions import CAUSES, H3_ERRORS, TRANSPORT_ERRORS, QuicException, QuicWarning
from quicgreen.stream import H3_INTERNAL_ERROR
from quicgreen.testing import Certificate, Link

from .processes import Peer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ERROR_AND_EXCEPTION_REFERENCE.md"

MESSAGES = {
    "Connection handshake took too long": (
        "error, and warning",
        ["QuicTimeoutException", "QuicWarningConnectionSlow"],
    ),
    "Received unknown QUIC frame type 0x1f": (
        "warning, and error",
        ["QuicWarningPartialData", "QuicErrorUnknownFrame"],
    ),
    "Unable to initialize QUIC context": ("error", ["QuicException"]),
    "TLS handshake failed: invalid certificate": ("error", ["QuicTlsHandshakeException"]),
}
"""The documentation's own, and how each comes."""

# ---------------------------------------------------------------- generated parts


def _classes(base: type) -> list[type]:
    """Those of the core, in the order of the source."""
    return [v for v in vars(exceptions).values() if isinstance(v, type) and issubclass(v, base)]


EXCEPTIONS = [c.__name__ for c in _classes(QuicException)]
WARNINGS = [c.__name__ for c in _classes(QuicWarning) if c is not QuicWarning]


def _numbers() -> dict[int, str]:
    return {getattr(exceptions, name): name for name in meanings.CODES}


def _table(*rows: tuple[str, ...]) -> str:
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return (
        "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        .replace("| --- ", "|---")
        .replace("|--- |", "|---|")
    )


def _quoted(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _exceptions() -> str:
    rows = []
    for kind in _classes(QuicException):
        causes = {c: row for c, row in CAUSES.items() if row.exception is kind}
        codes = sorted({row.code for row in causes.values()})
        when = " ".join((kind.__doc__ or "").split())
        rows.append((f"`{kind.__name__}`", when, _quoted(causes), ", ".join(map(str, codes))))
    return _table(("class", "when", "causes", "codes"), *rows)


def _warnings() -> str:
    rows = [
        (f"`{kind.__name__}`", " ".join((kind.__doc__ or "").split()), meanings.WARNINGS[kind.__name__])
        for kind in _classes(QuicWarning)
        if kind is not QuicWarning
    ]
    return _table(("warning", "when", "what to do"), *rows)


def _messages() -> str:
    rows = [(text, severity, _quoted(names)) for text, (severity, names) in MESSAGES.items()]
    return _table(("message", "comes as", "class"), *rows)


def _codes() -> str:
    rows = [(f"`{name}`", str(n), *meanings.CODES[name]) for n, name in _numbers().items()]
    return _table(("constant", "value", "meaning", "what to do"), *rows)


def _causes() -> str:
    rows = [
        (f"`{cause}`", f"`{c.exception.__name__}`", f"`{_numbers()[c.code]}`", c.message, c.advice)
        for cause, c in CAUSES.items()
    ]
    return _table(("cause", "class", "code", "what it says", "what to do"), *rows)


def _wire() -> str:
    http3 = [(f"{n:#x}", f"`{name}`", *meanings.HTTP3[name]) for n, name in H3_ERRORS.items()]
    quic = [(f"{n:#x}", f"`{name}`", *meanings.TRANSPORT[name]) for n, name in TRANSPORT_ERRORS.items()]
    alerts = [
        (f"{0x100 + n:#x}", f"alert {n}, `{name}`", what, then)
        for n, (name, what, then) in meanings.ALERTS.items()
    ]
    head = ("number", "name", "meaning", "what to do")
    return (
        f"HTTP/3 and QPACK (RFC 9114, section 8.1; RFC 9204, section 6):\n\n{_table(head, *http3)}\n"
        f"QUIC (RFC 9000, section 20.1):\n\n{_table(head, *quic)}\n"
        f"QUIC, for TLS (RFC 9001, section 4.8; RFC 8446, section 6):\n\n{_table(head, *alerts)}"
    )


_PARTS: dict[str, Callable[[], str]] = {
    "exceptions": _exceptions,
    "warnings": _warnings,
    "messages": _messages,
    "codes": _codes,
    "causes": _causes,
    "wire": _wire,
}


def renewed(page: str) -> str:
    """The page, with its generated parts as the code is now."""

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}{_PARTS[found[2]]()}<!-- end -->"

    return re.sub(r"(<!-- generated: (\w+) -->\n)(?:.*?)<!-- end -->", part, page, flags=re.DOTALL)


def headings(page: str) -> dict[str, str]:
    """What stands under each heading of a recipe."""
    pieces = re.split(r"^### (.+)$", page, flags=re.MULTILINE)[1:]
    return {
        name: re.split(r"^## ", text, flags=re.MULTILINE)[0]
        for name, text in zip(pieces[::2], pieces[1::2], strict=True)
    }


# ---------------------------------------------------------------- what recipes talk to


class Faulty:
    """A handler that fails the first time, where its path says how, and answers the second time."""

    def __init__(self, answer: Callable[[quicgreen.Request], None]) -> None:
        self._answer = answer
        self._asked: set[str] = set()

    def __call__(self, request: quicgreen.Request) -> None:
        again = request.path in self._asked
        self._asked.add(request.path)
        if request.path == "/missing":
            request.respond(404)
        elif request.path == "/slow":
            gevent.sleep(1.5)
            request.respond(200, None, b"at last")
        elif request.path not in ("/flaky", "/restarts"):
            self._answer(request)
        elif again:
            request.respond(200, None, b"done")
        elif request.path == "/flaky":
            request.start_response(200).reset(H3_INTERNAL_ERROR)
        else:
            engine = hub.current().engine
            engine.conn_close(request._record[CONN], True, 0x100, b"restart")


def free_port() -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.bind(("::", 0))
        port: int = s.getsockname()[1]
        return port


@contextlib.contextmanager
def neighbours(code: str, port: int, certificate: Certificate) -> Iterator[str]:
    """The code, with the ports of those that it names: each is started when it is one of them."""
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    starts: dict[str, Callable[[], Any]] = {
        "4434": lambda: Peer("aioquic_server.py", **files),
        "4435": lambda: Peer("datagram_peer.py"),
        "4436": lambda: Peer("datagram_peer.py", says="versions"),
        "4438": lambda: Link(("127.0.0.1", port), delay_ms=100),
    }
    with contextlib.ExitStack() as stack:
        ports = {
            number: stack.enter_context(start()).port for number, start in starts.items() if number in code
        }
        ports |= {"4433": port, "4437": free_port()}
        # All at once: one of these may have the digits of another in it.
        yield re.sub("|".join(ports), lambda found: str(ports[found[0]]), code)
