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
from typing import Any

import gevent
from gevent.socket import wait_read

import quicgreen
from quicgreen.testing import self_signed

HERE = Path(__file__).resolve().parent


def peer(script: str) -> tuple[str, int]:
    """HOST and PORT of the command line, or of `script`, started for this run."""
    if len(sys.argv) > 1:
        return sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 443
    return start(script)


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
    host, port, certfile, keyfile = sys.argv[1:]
    server = quicgreen.Server((host, int(port)), handle, certfile=certfile, keyfile=keyfile, **options)
    server.start()
    say_where(server.server_host, server.server_port)
    server.serve_forever()


def _end_with_parent() -> None:
    wait_read(0)  # nothing is ever written: it is ready when the parent has gone
    os._exit(0)


if __name__ == "__main__":
    del sys.argv[0]
    gevent.spawn(_end_with_parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
