"""What the examples with several workers have in common: their command line, and waiting for all of them."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import tempfile
from dataclasses import dataclass

import gevent

from quicgreen.testing import self_signed


@dataclass
class Options:
    workers: int
    host: str
    port: int
    files: dict[str, str]
    """cert_file and key_file."""


def options(workers: int) -> Options:
    """[WORKERS] [--port P --cert C --key K]. Without a certificate one is made, for this machine only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workers", nargs="?", type=int, default=workers)
    parser.add_argument("--port", type=int, default=4433)
    parser.add_argument("--cert", metavar="PEM", help="without one only this machine is served")
    parser.add_argument("--key", metavar="PEM", help="may stand in the certificate's file")
    told = parser.parse_args()
    files = {"cert_file": told.cert, "key_file": told.key or told.cert}
    if told.cert is None:
        made = self_signed(tempfile.mkdtemp(prefix="quicgreen-example-"), "localhost", "127.0.0.1")
        files = {"cert_file": made.certfile, "key_file": made.keyfile}
    return Options(told.workers, "127.0.0.1" if told.cert is None else "0.0.0.0", told.port, files)


def end_with_parent() -> None:
    """In a worker: it does not outlive its parent, however that ends."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            gevent.sleep(0.5)
        os._exit(1)

    gevent.spawn(watch)


def wait(pids: list[int]) -> None:
    """In the parent: until the children have ended. TERM and Ctrl-C end them."""

    def end(number: int, frame: object) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    for pid in pids:
        os.waitpid(pid, 0)
