"""`quicgreen ws`: a WebSocket at the terminal, or in a pipe.

What is typed is sent, a line a message, and what comes is printed, a message a line. In a pipe it is the same
without anything around it: lines of stdin are messages, and messages are lines of stdout. Binary messages are
printed in hexadecimal.

Where stdin ends is not where the conversation ends: answers to the last lines are still on their way. So the
connection is closed when for a while (`--wait`) nothing came, or when the server closes it.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
import sys
import time
from collections.abc import Iterator

import gevent
from gevent.socket import wait_read

from ..client import Session
from ..exceptions import QuicException, error
from ..websocket import ConnectionClosed, InvalidStatus, WebSocket
from . import trust
from .fetch import header
from .output import EXIT_CODES, EXIT_READ, complain, exit_code, put, quiet_interrupts, say

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a terminal would take as a command: all control characters but tabs and line ends."""

_READ_SIZE = 65536

_CLEAN = (1000, 1001, 1005)
"""Close codes of those who are done; 1005: the peer gave none (RFC 6455, section 7.4.1)."""

_MAX_SIZE = 16 << 20
"""Of a message that comes. A program allows a sixteenth by itself; here there is one socket, and no other."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Talk to a WebSocket: lines of stdin are sent, messages are printed. Ctrl-D or Ctrl-C close it."
    )
    parser.set_defaults(command=_ws)
    parser.add_argument("url", metavar="URL", help="wss://HOST[:PORT]/PATH")
    trust.add(parser)
    parser.add_argument("-H", "--header", metavar="NAME: VALUE", action="append", default=[])
    parser.add_argument("--origin", metavar="URL", help="the page that a browser would be on")
    parser.add_argument(
        "--subprotocol", metavar="NAME", action="append", help="offer it; several in order of preference"
    )
    parser.add_argument(
        "--compression",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="offer to compress messages (RFC 7692)",
    )
    parser.add_argument(
        "--http3",
        choices=["only", "auto"],
        default="only",
        help="auto: over TCP where HTTP/3 is not to be had",
    )
    parser.add_argument(
        "--binary", action="store_true", help="send binary messages, and write those that come as they are"
    )
    parser.add_argument("-n", "--count", type=int, metavar="COUNT", help="close after so many messages came")
    parser.add_argument(
        "-w",
        "--wait",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="after the end of stdin, close when nothing came for so long (1)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="tell what happens, on stderr")
    parser.add_argument("--connect-timeout", type=float, default=10.0, metavar="SECONDS")


def _ws(options: argparse.Namespace) -> int:
    if options.count is not None and options.count < 1:
        raise error("argument", "-n is at least 1")
    quiet_interrupts()
    interactive = sys.stdin.isatty()
    with Session(**trust.arguments(options)) as session:
        try:
            ws = _open(session, options)
        except InvalidStatus as e:
            complain(f"the server refused: {e.response.status_code} {e.response.reason}".rstrip())
            return exit_code(e)
        if interactive or options.verbose:
            chosen = f", subprotocol {ws.subprotocol}" if ws.subprotocol else ""
            say(f"* Connected to {options.url}{chosen}" + (" (Ctrl-D closes)" if interactive else ""))
        return _Conversation(ws, options, interactive).run()


def _open(session: Session, options: argparse.Namespace) -> WebSocket:
    return session.websocket(
        options.url,
        additional_headers=[header(text) for text in options.header],
        origin=options.origin,
        subprotocols=options.subprotocol,
        compression="deflate" if options.compression else None,
        open_timeout=options.connect_timeout,
        max_size=_MAX_SIZE,
        http3=options.http3,
    )


class _Conversation:
    """One WebSocket, and what is typed for it."""

    def __init__(self, ws: WebSocket, options: argparse.Namespace, interactive: bool) -> None:
        self._ws = ws
        self._options = options
        self._interactive = interactive
        self._last = time.monotonic()
        """When a message came, or stdin ended."""

        self._failure: str = ""
        """Why stdin could not be read to its end."""

    def run(self) -> int:
        """Returns the exit status."""
        sender = gevent.spawn(self._send)
        try:
            self._receive()
        except KeyboardInterrupt:
            self._ws.close()  # as is usual for a conversation; once more does not wait
        finally:
            sender.kill()
            self._ws.close()
        if self._failure:
            complain(f"cannot read: {self._failure}")
            return EXIT_READ
        return self._sum_up()

    # ---------------------------------------------------------------- what comes

    def _receive(self) -> None:
        came = 0
        try:
            while came != self._options.count:
                self._show(self._ws.recv())
                self._last = time.monotonic()
                came += 1
        except ConnectionClosed:
            pass  # how is told at the end

    def _show(self, message: str | bytes) -> None:
        if isinstance(message, str):
            data = (printable(message) if sys.stdout.isatty() else message).encode() + b"\n"
        elif self._options.binary:
            data = bytes(message)
        else:
            data = message.hex().encode() + b"\n"
        put(sys.stdout.buffer, data)

    def _sum_up(self) -> int:
        """How it ended: as agreed, or why not."""
        code, reason = self._ws.close_code, self._ws.close_reason
        words = f"{code} {reason}".rstrip() if reason else f"{code}"
        if code in _CLEAN:
            if self._interactive or self._options.verbose:
                say(f"* Closed: {printable(words)}")
            return 0
        complain(f"the WebSocket was closed with code {printable(words)}")
        return EXIT_CODES["websocket-failed"]

    # ---------------------------------------------------------------- what is sent

    def _send(self) -> None:
        try:
            for line in _lines():
                self._ws.send(line if self._options.binary else line.decode())
        except QuicException:
            return  # the receiving side tells
        except UnicodeDecodeError:
            self._failure = "stdin is not UTF-8 text (--binary sends anything)"
        except OSError as e:
            self._failure = str(e)
        if not self._failure:
            self._last = time.monotonic()
            while not self._interactive and (quiet := time.monotonic() - self._last) < self._options.wait:
                gevent.sleep(self._options.wait - quiet)
        self._ws.close()


def _lines() -> Iterator[bytes]:
    """Lines of stdin without their ends, each when it is there. Other greenlets go on meanwhile.

    Python's buffers are passed by, and the descriptor is left as it is: other processes share it."""
    descriptor = sys.stdin.fileno()
    mode = os.fstat(descriptor).st_mode
    must_wait = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)  # others never wait
    begun: list[bytes] = []  # pieces of a line
    while True:
        if must_wait:
            wait_read(descriptor)
        piece = os.read(descriptor, _READ_SIZE)
        first, *more = piece.split(b"\n")
        begun.append(first)
        if more:
            *lines, last = [b"".join(begun), *more]
            begun = [last]
            for line in lines:
                yield line.removesuffix(b"\r")
        if not piece:
            break
    if line := b"".join(begun):
        yield line


def printable(text: str) -> str:
    """Without what would make a terminal do something."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
