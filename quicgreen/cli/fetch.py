"""`quicgreen fetch`."""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, BinaryIO, Literal
from urllib.parse import quote

import gevent

from .. import settings
from ..client import Session
from ..configuration import Timeout
from ..exceptions import QuicException, QuicWarningTicketStore
from ..session_modes import SessionMode, open_store
from . import trust
from .output import (
    EXIT_CODES,
    EXIT_READ,
    OutputError,
    complain,
    exit_code,
    put,
    quiet_interrupts,
    say,
    warn,
    warnings_to,
    words,
)
from .session_file import SessionFile
from .stores import Watched, describe, mode_of_commands

_TICKETS_S = 0.25
"""How long is waited for new tickets when none came with the response: a round trip, on most networks."""

_Say = Callable[[str], None]


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_fetch)
    parser.add_argument("url", metavar="URL")
    trust.add(parser)
    parser.add_argument(
        "--ssl-sessions", metavar="FILE", help="read session tickets from FILE, and save them there"
    )
    parser.add_argument(
        "--sessionid",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="resume an earlier TLS session, and keep tickets for the next time",
    )
    parser.add_argument(
        "--tls-earlydata",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="send a GET, HEAD or OPTIONS before a resumed handshake is complete (0-RTT)",
    )
    parser.add_argument(
        "--qlog", metavar="FILE", help="write the connection's qlog there, or to a new file in that folder"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="tell what happens, on stderr")
    parser.add_argument("-s", "--silent", action="store_true", help="no progress, no error text")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the body there instead of stdout")
    parser.add_argument("-i", "--include", action="store_true", help="write the head too")
    parser.add_argument("-I", "--head", action="store_true", help="ask for the head only")
    parser.add_argument("-f", "--fail", action="store_true", help="fail for a status of 400 and more")
    parser.add_argument("-X", "--request", metavar="METHOD")
    parser.add_argument("-H", "--header", metavar="NAME: VALUE", action="append", default=[])
    parser.add_argument(
        "-d",
        "--data",
        metavar="DATA",
        action="append",
        help="POST a form: DATA, or @FILE (@- for stdin) without its line ends; several are joined by &",
    )
    parser.add_argument("-T", "--upload-file", metavar="FILE", help="send FILE (- for stdin) as PUT")
    parser.add_argument("-m", "--max-time", type=float, metavar="SECONDS", help="for everything together")
    parser.add_argument("--connect-timeout", type=float, default=10.0, metavar="SECONDS")


def _fetch(options: argparse.Namespace) -> int:
    quiet_interrupts()
    limit = gevent.Timeout(options.max_time)
    limit.start()
    try:
        with warnings_to(lambda warning: _show_warning(options, warning)):
            return _fetch_within(options, limit.close)
    except gevent.Timeout as e:
        if e is not limit:
            raise
        if not options.silent:
            complain(f"not done after {options.max_time} s (-m gives it more time)")
        return EXIT_CODES["deadline"]
    except QuicException as e:
        if not options.silent:
            complain(words(e))
        return exit_code(e)
    finally:
        limit.close()


def _show_warning(options: argparse.Namespace, warning: Warning) -> None:
    """A store that fails costs a full handshake, no more: only who asks what happens wants to know."""
    if not isinstance(warning, QuicWarningTicketStore):
        if not options.silent:
            warn(warning)
    elif options.verbose:
        say(f"* Warning: {warning}")


def _fetch_within(options: argparse.Namespace, done: Callable[[], None]) -> int:
    """`done` is called when all that was asked for is there."""
    tell: _Say = say if options.verbose else lambda text: None
    timeout = Timeout(connect=options.connect_timeout, read=options.max_time)
    headers = [header(text) for text in options.header]
    with ExitStack() as opened:
        try:
            body, method, more = _body(options, opened)
        except OSError as e:
            if not options.silent:
                complain(f"cannot read: {e}")
            return EXIT_READ
        given = {name.lower() for name, _ in headers}
        headers += [(name, value) for name, value in more if name not in given]
        store, mode = _tickets(options, tell)
        if store is not False:
            opened.callback(_close, store, tell)
        session = opened.enter_context(
            Session(
                **trust.arguments(options),
                timeout=timeout,
                tickets=store,
                session_mode=mode,
                early_data=options.tls_earlydata,
            )
        )
        if options.qlog:
            session.on_connection = lambda connection: connection.qlog(options.qlog)
        started = time.monotonic()
        with session.stream(method, _target(options), headers=headers, data=body) as response:
            _tell_connection(tell, response.connection, store)
            _tell_exchange(tell, response, headers)
            if options.fail:
                response.raise_for_status()
            written = _write(options, response)
            took = time.monotonic() - started
            done()
            if store is not False:
                _await_tickets(store)
        tell(f"* {written} bytes in {took:.3f} s")
    return 0


# ------------------------------------------------------------------ sessions


def _tickets(options: argparse.Namespace, tell: _Say) -> tuple[Watched | Literal[False], SessionMode]:
    """The store to be used, False for none, and the session mode."""
    if not options.sessionid:
        return False, SessionMode.LIVE
    mode = SessionMode.TICKET
    if not options.ssl_sessions:
        settings.load()  # a wrong setting is an error; a store that cannot be had is none
        mode = mode_of_commands()
    try:
        store = SessionFile(options.ssl_sessions) if options.ssl_sessions else open_store(mode, required=True)
    except QuicException as e:
        tell(f"* Warning: session tickets: {e}")
        return False, mode
    tell(f"* Session tickets: {options.ssl_sessions or describe(mode)}")
    return Watched(store), mode


def _close(store: Watched, tell: _Say) -> None:
    try:
        store.close()
    except QuicException as e:
        tell(f"* Warning: session tickets: {e}")


def _await_tickets(store: Watched) -> None:
    """The ticket that was used up is gone. The response to early data may be here before the next ones."""
    with gevent.Timeout(_TICKETS_S, False):
        while not store.got:
            gevent.sleep(0.005)


def _tell_connection(tell: _Say, connection: Any, store: Watched | Literal[False]) -> None:
    info = connection.info()
    ip, port = info.get("remote_address", ("?", 0))
    tell(f"* Connected to {ip} port {port} (QUIC version 1)")
    if connection.is_resumed:
        tell("* TLS session resumed")
    elif store is not False and store.gave:
        tell("* TLS full handshake: the server did not take the session ticket")
    else:
        tell("* TLS full handshake: no session ticket for this server")
    said = {True: "accepted", False: "refused, sent again after the handshake", None: "not used"}
    tell(f"* Early data: {said[connection.early_data]}")
    tell(f"* ALPN: server accepted {info.get('alpn')}")


# ------------------------------------------------------------------ requests


def _body(options: argparse.Namespace, opened: ExitStack) -> tuple[Any, str, list[tuple[str, str]]]:
    """(body, method, fields that it brings)."""
    if options.data is not None:
        form = b"&".join(_form_data(text) for text in options.data)
        return form, options.request or "POST", [("content-type", "application/x-www-form-urlencoded")]
    name = options.upload_file
    if name is None:
        return None, options.request or ("HEAD" if options.head else "GET"), []
    method = options.request or "PUT"
    if name == "-":
        return sys.stdin.buffer, method, []
    file = opened.enter_context(open(name, "rb"))  # noqa: SIM115
    about = os.fstat(file.fileno())
    length = [("content-length", str(about.st_size))] if stat.S_ISREG(about.st_mode) else []
    return file, method, length


def _form_data(text: str) -> bytes:
    if not text.startswith("@"):
        return os.fsencode(text)
    if text == "@-":
        data = sys.stdin.buffer.read()
    else:
        with open(text[1:], "rb") as file:
            data = file.read()
    return data.translate(None, b"\r\n\0")


def _target(options: argparse.Namespace) -> str:
    """The URL; a file is uploaded by its name where the URL names a folder."""
    url: str = options.url
    if options.upload_file not in (None, "-") and url.endswith("/"):
        url += quote(os.path.basename(options.upload_file))
    return url


def header(text: str) -> tuple[str, str]:
    """(name, value) of -H, as curl has it."""
    name, colon, value = text.partition(":")
    if not colon:
        sys.exit(f"quicgreen: -H {text!r} is not of the form NAME: VALUE")
    return name.strip(), value.strip()


def _tell_exchange(tell: _Say, response: Any, headers: list[tuple[str, str]]) -> None:
    tell(f"> {response.request_method} {response.url} HTTP/3")
    for name, value in headers:
        tell(f"> {name}: {value}")
    tell(f"< HTTP/3 {response.status_code} {response.reason}")
    for name, value in response.headers.multi_items():
        tell(f"< {name}: {value}")


def _write(options: argparse.Namespace, response: Any) -> int:
    """The body to where it is wanted; returns its length."""
    if not options.output or options.output == "-":
        return _copy(options, response, sys.stdout.buffer)
    try:
        file = open(options.output, "wb")  # noqa: SIM115 - closed below; errors here are not those of the network
    except OSError as e:
        raise OutputError(e) from None
    with file:
        return _copy(options, response, file)


def _copy(options: argparse.Namespace, response: Any, file: BinaryIO) -> int:
    if options.include or options.head:
        lines = [f"HTTP/3 {response.status_code}"]
        lines += [f"{name}: {value}" for name, value in response.headers.multi_items()]
        put(file, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    meter = _Meter(response.content_length) if _wants_meter(options) else None
    written = 0
    for piece in response.iter_bytes():
        put(file, piece)
        written += len(piece)
        if meter is not None:
            meter.show(written)
    if meter is not None:
        meter.end(written)
    return written


def _wants_meter(options: argparse.Namespace) -> bool:
    to_file = bool(options.output) and options.output != "-"
    return to_file and not options.silent and not options.verbose and sys.stderr.isatty()


class _Meter:
    """Progress on one line of a terminal."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._started = self._shown = time.monotonic()

    def show(self, done: int) -> None:
        now = time.monotonic()
        if now - self._shown >= 0.1:
            self._shown = now
            self._print(done, now)

    def end(self, done: int) -> None:
        self._print(done, time.monotonic())
        print(file=sys.stderr)

    def _print(self, done: int, now: float) -> None:
        share = f" {100 * done // self._total:3d} %" if self._total else ""
        rate = done / max(now - self._started, 1e-6) / 1e6
        print(f"\r{done / 1e6:10.1f} MB{share}  {rate:8.1f} MB/s", end="", file=sys.stderr, flush=True)
