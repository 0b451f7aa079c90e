"""What all commands share: what they say, and with which exit status they end."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from ..exceptions import CAUSES, QuicException, QuicWarning

# curl's exit codes, which scripts test for.
EXIT_CODES = {
    "ticket-folder": 2,
    "ticket-disk": 2,
    "ticket-segment": 2,
    "ticket-redis": 2,
    "ticket-too-large": 2,
    "argument": 3,
    "name": 6,
    "unreachable": 7,
    "version": 7,
    "body-too-short": 18,
    "http-status": 22,
    "websocket-status": 22,
    "qlog-file": 23,
    "ticket": 26,
    "qlog-format": 26,
    "deadline": 28,
    "handshake-timeout": 28,
    "idle-timeout": 28,
    "pool-timeout": 28,
    "alert": 35,
    "closed-by-peer": 56,
    "lost": 56,
    "websocket-failed": 56,
    "client-certificate": 58,
    "certificate": 60,
    "trust-file": 77,
    "reset": 92,
    "malformed": 92,
}
EXIT_OTHER = 95
"""curl's CURLE_HTTP3: an error in the HTTP/3 layer."""

EXIT_NOTHING = 1
"""Nothing was found, or nobody answered: as grep and ping have it."""

EXIT_WRITE = 23
EXIT_READ = 26

_ADVICE = {
    "argument": "see quicgreen COMMAND --help",
    "certificate": "--cacert FILE trusts a private authority, -k everybody",
    "client-certificate": "see -E and --key: both are PEM files, and the key is the certificate's",
    "trust-file": "--cacert must name a PEM file",
    "deadline": "-m gives it more time",
    "handshake-timeout": "check that UDP reaches the server's port; --connect-timeout gives it more time",
    "http-status": "without -f its body is shown",
    "bind": "see --bind",
    "websocket-handshake": "--http3 auto also tries HTTP/1.1, over TCP",
    "ticket": "it is torn, another version of quicgreen made it, or it is something else",
    "qlog-file": "--qlog names a file, --qlog-dir a folder that is there",
    "ticket-folder": "it must be yours, and writable for you and not for others",
    "ticket-redis": "see that the server runs and takes writes; --store names another place",
    "certificate-file": "see --certfile and --keyfile: both are PEM files, and the key is the certificate's",
}
"""What to do next, where it is something else than for a program."""


class OutputError(Exception):
    """Standard output or a file does not take what is written."""

    def __init__(self, reason: OSError, file: Any = None) -> None:
        self.reason = reason
        self.file = file


def flush(file: Any) -> None:
    try:
        file.flush()
    except OSError as e:
        raise OutputError(e, file) from None


def put(file: Any, data: bytes) -> None:
    try:
        file.write(data)
    except OSError as e:
        raise OutputError(e, file) from None
    flush(file)  # events and tokens are to be seen as they come


def tell(text: str) -> None:
    """A line of a command's result."""
    put(sys.stdout.buffer, f"{text}\n".encode("utf-8", "backslashreplace"))


def say(text: str) -> None:
    """A line about how it goes."""
    print(text, file=sys.stderr)


def complain(text: str) -> None:
    print(f"quicgreen: {text}", file=sys.stderr)


def words(e: QuicException) -> str:
    """What happened, and what to do next with this command."""
    text = str(e)
    advice = _ADVICE.get(e.cause)
    return text.replace(f"({CAUSES[e.cause].advice})", f"({advice})") if advice else text


def exit_code(e: QuicException) -> int:
    return EXIT_CODES.get(e.cause, EXIT_OTHER)


@contextlib.contextmanager
def warnings_to(show: Callable[[Warning], None]) -> Iterator[None]:
    """Our own warnings are for `show`, each text once: who runs a command has no use for the line of code
    that gave one."""
    seen: set[str] = set()

    def show_warning(message: Any, category: type[Warning], *more: Any, **options: Any) -> None:
        if not issubclass(category, QuicWarning):
            shown(message, category, *more, **options)
        elif str(message) not in seen:
            seen.add(str(message))
            show(message)

    with warnings.catch_warnings():
        shown = warnings.showwarning
        warnings.simplefilter("always", QuicWarning)
        warnings.showwarning = show_warning
        yield


def warn(warning: Warning) -> None:
    complain(f"warning: {warning}")


def quiet_interrupts() -> None:
    """Ctrl-C ends the command; gevent need not print a traceback of its hub for it."""
    from gevent import get_hub

    hub = get_hub()
    if KeyboardInterrupt not in hub.NOT_ERROR:
        hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
