"""The other side of an example, where none is named on the command line.

A server of its own, in a child process, with a certificate that was made for this run and that only this run
trusts (by `SSL_CERT_FILE`). It ends with this process, however that ends.
"""

from __future__ import annotations

import atexit
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import gevent
from gevent.socket import wait_read

import quicgreen
from quicgreen.testing import self_signed

HERE = Path(__file__).resolve().parent


def peer(script: str) -> tuple[str, int]:
    """HOST and PORT of the command line, or of `script`, started for this run."""
    if len(sys.argv) == 1:
        return start(script)
    return sys.argv[1], _port(sys.argv[2] if len(sys.argv) > 2 else "443", "[HOST [PORT]]")


def where_to_serve() -> tuple[str, int, str, str]:
    """HOST, PORT, CERT and KEY of a server's command line."""
    usage = "HOST PORT CERT KEY"
    if len(sys.argv) != 5:
        _exit(usage)
    host, port, certfile, keyfile = sys.argv[1:]
    return host, _port(port, usage), certfile, keyfile


def _port(text: str, usage: str) -> int:
    if not text.isdecimal():
        _exit(usage)
    return int(text)


def _exit(usage: str) -> NoReturn:
    sys.exit(f"usage: {sys.argv[0]} {usage}")


def start(script: str) -> tuple[str, int]:
    """Run `script HOST PORT CERT KEY`, which says where it serves in its first line."""
    folder = tempfile.mkdtemp(prefix="quicgreen-example-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    certificate = self_signed(folder, "localhost", "127.0.0.1")
    os.environ["SSL_CERT_FILE"] = certificate.ca_certs
    command = [sys.executable, __file__, str(HERE / script), "127.0.0.1", "0"]
    child = subprocess.Popen(
        [*command, certificate.certfile, certificate.keyfile],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(_stop, child)
    assert child.stdout is not None
    said = child.stdout.readline().strip()
    if not said:
        sys.exit(f"{script} did not start")
    return "127.0.0.1", int(said.rpartition(":")[2])


def _stop(child: subprocess.Popen[str]) -> None:
    with child:  # waits, and closes the pipes
        child.terminate()


def say_where(host: str, port: int) -> None:
    """A server's first line."""
    print(f"serving on {host}:{port}", flush=True)


def serve(handle: Callable[[quicgreen.Request], Any], **options: Any) -> None:
    """The whole of a script that serves: `script HOST PORT CERT KEY`."""
    host, port, certfile, keyfile = where_to_serve()
    server = quicgreen.Server((host, port), handle, certfile=certfile, keyfile=keyfile, **options)
    server.start()
    say_where(server.server_host, server.server_port)
    server.serve_forever()


def _end_with_parent(folder: Path) -> None:
    wait_read(0)  # nothing is ever written: it is ready when the parent has gone
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    del sys.argv[0]
    gevent.spawn(_end_with_parent, Path(sys.argv[-1]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
