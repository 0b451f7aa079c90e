"""The command line: `quicgreen serve` and its kin.

A module each. Options bear the names that curl, ping and gunicorn gave them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..exceptions import QuicException
from . import ctl, explain, fetch, info, ping, qlog, serve, tickets, top, ws
from .output import EXIT_WRITE, OutputError, complain, exit_code, flush, warn, warnings_to, words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        with warnings_to(warn):
            status = command(options)
        flush(sys.stdout)
        return status
    except QuicException as e:
        complain(words(e))
        return exit_code(e)
    except OutputError as e:
        if e.file in (sys.stdout, sys.stdout.buffer):
            # What is still buffered for it must not fail once more when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(e.reason, BrokenPipeError) and not getattr(options, "silent", False):
            complain(f"cannot write: {e.reason}")
        return EXIT_WRITE
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quicgreen", description="HTTP/3 in greenlets")
    parser.add_argument("--version", action="version", version=f"quicgreen {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve.add(commands.add_parser("serve", help="serve a handler over HTTP/3, with one process or several"))
    ctl.add(commands.add_parser("ctl", help="ask or tell a supervisor of `quicgreen serve -w N`"))
    top.add(commands.add_parser("top", help="what its workers do, live"))
    fetch.add(commands.add_parser("fetch", help="fetch a URL over HTTP/3"))
    ws.add(commands.add_parser("ws", help="talk to a WebSocket over HTTP/3"))
    ping.add(commands.add_parser("ping", help="time handshakes and round trips to a server"))
    tickets.add(commands.add_parser("tickets", help="look after the session tickets that are kept"))
    qlog.add(commands.add_parser("qlog", help="read what connections wrote of themselves"))
    info.add(commands.add_parser("info", help="versions, settings, what the system offers, and defaults"))
    explain.add(commands.add_parser("explain", help="what a code or the name of an error means"))
    return parser
