"""`quicgreen tickets`: a look into the store of session tickets, and ways in and out of it.

Exit statuses: 0 done; 1 there is no such ticket; 2 the store cannot be used, or wrong usage; 3 a wrong
argument; 23 and 26 as in curl: a file could not be written, or read.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from ..configuration import trust as trusted_files
from ..exceptions import error
from ..tickets import Ticket, TicketStore, ticket_key
from ..urls import split_authority
from . import stores, trust
from .output import EXIT_NOTHING, EXIT_READ, OutputError, complain, put, tell
from .session_file import HEADER, from_line, to_line, write_privately

_Entry = tuple[str, Ticket]

_KEY_MIN = 6
"""Digits that are enough to name a key, and that no short host name is taken for."""

_IMPORT_MAX = 64 << 20


def add(parser: argparse.ArgumentParser) -> None:
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--store",
        metavar="PLACE",
        help="a folder, a shared-memory file, a file of --ssl-sessions or a Redis URL, instead of what the "
        "settings say (quicgreen info)",
    )
    commands = parser.add_subparsers(required=True, metavar="WHAT")

    def command(
        name: str, run: Callable[[argparse.Namespace, TicketStore], int], text: str
    ) -> argparse.ArgumentParser:
        found = commands.add_parser(name, parents=[where], help=text, description=text)
        found.set_defaults(command=_run, run=run, makes=name == "import")
        return found

    command("list", _list, "all tickets, as a table")
    which: dict[str, Any] = {
        "metavar": "KEY_OR_HOST",
        "help": "a key, or its first digits; or HOST, or HOST:PORT",
    }
    command("show", _show, "all that is known of some tickets").add_argument("which", **which)
    export = command("export", _export, "take the newest ticket out of the store, for use elsewhere")
    export.add_argument("which", **which)
    export.add_argument(
        "-o", "--output", metavar="FILE", help="write its bytes there (mode 0600), not text to stdout"
    )
    export.add_argument("--text", action="store_true", help="write text to FILE too")
    take_in = command("import", _import, "put tickets that were exported, or a session file, into the store")
    take_in.add_argument("file", metavar="FILE", help="bytes or text; - for stdin")
    trust.add(take_in)
    clear = command("clear", _clear, "drop all tickets, or some")
    clear.add_argument("which", nargs="?", **which)


def _run(options: argparse.Namespace) -> int:
    run: Callable[[argparse.Namespace, TicketStore], int] = options.run
    store = stores.at(options.store, make=options.makes) if options.store else stores.in_force()
    try:
        if not stores.is_shared(store):
            mode = stores.mode_of_commands().name
            raise error("argument", f"session mode {mode} keeps tickets in memory; --store names a place")
        return run(options, store)
    finally:
        store.close()


# ------------------------------------------------------------------ which


def _entries(store: TicketStore) -> list[_Entry]:
    """All of a store: by host, the newest first."""
    return sorted(store.items(), key=lambda entry: (entry[1].host, entry[1].port, -entry[1].issued_at))


def _matching(store: TicketStore, which: str) -> list[_Entry]:
    """Those of a key, of the only key that begins so, or of a host."""
    entries = _entries(store)
    if re.fullmatch(rf"[0-9a-f]{{{_KEY_MIN},32}}", which):
        keys = {key for key, _ in entries if key.startswith(which)}
        if len(keys) > 1:
            raise error("argument", f"{len(keys)} keys begin with {which}")
        if keys:
            return [entry for entry in entries if entry[0] in keys]
    host, port = which.lower(), None
    if which.count(":") == 1 or which.startswith("["):
        host, port = split_authority(which.lower())
        if which.endswith("]"):
            port = None
    return [(k, t) for k, t in entries if t.host.lower() == host and port in (None, t.port)]


def _none(which: str) -> int:
    complain(f"no ticket for {which}")
    return EXIT_NOTHING


# ------------------------------------------------------------------ list, show


def _list(options: argparse.Namespace, store: TicketStore) -> int:
    now = time.time()
    rows = [("KEY", "SERVER", "ALPN", "AGE", "EXPIRES IN", "EARLY DATA", "SIZE")]
    for key, ticket in _entries(store):
        rows.append(
            (
                key[:12],
                _server(ticket),
                ticket.alpn,
                _duration(now - ticket.issued_at),
                _duration(ticket.ends_at - now),
                "yes" if ticket.early_data else "no",
                str(len(ticket.to_bytes())),
            )
        )
    if len(rows) == 1:
        complain("no tickets")
        return 0
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        tell("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _server(ticket: Ticket) -> str:
    host = f"[{ticket.host}]" if ":" in ticket.host else ticket.host
    return f"{host}:{ticket.port}"


def _duration(seconds: float) -> str:
    """The two largest units."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (parts and len(parts) < 2) or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def _show(options: argparse.Namespace, store: TicketStore) -> int:
    entries = _matching(store, options.which)
    now = time.time()
    for number, (key, ticket) in enumerate(entries):
        if number:
            tell("")
        tell(f"key         {key}")
        tell(f"server      {_server(ticket)}")
        tell(f"alpn        {ticket.alpn}")
        tell(f"issued      {_date(ticket.issued_at)}, {_duration(now - ticket.issued_at)} ago")
        tell(f"expires     {_date(ticket.ends_at)}, in {_duration(ticket.ends_at - now)}")
        tell(f"early data  {'yes' if ticket.early_data else 'no'}")
        tell(f"size        {len(ticket.to_bytes())} bytes, {len(ticket.data)} of them the session's")
    return 0 if entries else _none(options.which)


# ------------------------------------------------------------------ out and in


def _export(options: argparse.Namespace, store: TicketStore) -> int:
    """The ticket is taken out: it is good for one connection, here or there."""
    entries = _matching(store, options.which)
    keys = list(dict.fromkeys(key for key, _ in entries))
    if len(keys) > 1:
        complain(f"{options.which} has tickets of {len(keys)} kinds, say which: {', '.join(keys)}")
        return EXIT_NOTHING
    ticket = store.pop(keys[0]) if keys else None
    if ticket is None:
        return _none(options.which)
    text = HEADER + to_line(keys[0], ticket)
    try:
        if options.output and options.output != "-":
            try:
                write_privately(options.output, text.encode() if options.text else ticket.to_bytes())
            except OSError as e:
                raise OutputError(e) from None
        else:
            put(sys.stdout.buffer, text.encode())
    except OutputError:
        store.put(keys[0], ticket)
        raise
    return 0


def _import(options: argparse.Namespace, store: TicketStore) -> int:
    try:
        data = _read(options.file)
    except OSError as e:
        complain(f"cannot read: {e}")
        return EXIT_READ
    key_of = _own_key(options)
    count = 0
    for key, ticket in _parse(data):
        if ticket.expired(time.time()):
            complain(f"the ticket for {_server(ticket)} has expired")
            continue
        store.put(key_of(ticket) if key is None or _says_trust(options) else key, ticket)
        count += 1
    tell(f"{count} {'ticket' if count == 1 else 'tickets'} imported")
    return 0 if count else EXIT_NOTHING


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(_IMPORT_MAX)
    with open(name, "rb") as file:
        return file.read(_IMPORT_MAX)


def _parse(data: bytes) -> list[tuple[str | None, Ticket]]:
    """(key if it is said, ticket) of each that is in a file of any of the forms: bytes, lines of a session
    file, or bytes in base64.

    Raises:
        QuicClientException: with cause "ticket", there is none in it.
    """
    if data.startswith(b"QGT"):
        return [(None, Ticket.from_bytes(data))]
    text = data.decode("ascii", "replace")
    found: list[tuple[str | None, Ticket]] = [e for e in map(from_line, text.splitlines()) if e is not None]
    if found or text.startswith(HEADER[:26]):
        return found
    try:
        return [(None, Ticket.from_bytes(base64.b64decode("".join(text.split()), validate=True)))]
    except (binascii.Error, ValueError):
        raise error("ticket", "this is not one") from None


def _says_trust(options: argparse.Namespace) -> bool:
    return bool(options.insecure or options.cacert or options.cert)


def _own_key(options: argparse.Namespace) -> Callable[[Ticket], str]:
    """The key under which `fetch` with the same options looks for the ticket."""
    chosen = trust.arguments(options)
    file, folder = trusted_files(chosen["verify"])

    def key(ticket: Ticket) -> str:
        return ticket_key(
            ticket.host,
            ticket.port,
            alpn=(ticket.alpn,),
            verify=chosen["verify"] is not False,
            ca_file=file,
            ca_dir=folder,
            cert=options.cert,
        )

    return key


# ------------------------------------------------------------------ clear


def _clear(options: argparse.Namespace, store: TicketStore) -> int:
    if options.which is None:
        store.clear()
        return 0
    entries = _matching(store, options.which)
    if not entries:
        return _none(options.which)
    for key in dict.fromkeys(key for key, _ in entries):
        store.delete(key)
    tell(f"{len(entries)} {'ticket' if len(entries) == 1 else 'tickets'} dropped")
    return 0
