"""A real Redis on loopback, for as long as a test needs it. Debian's package redis-server has the program."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from functools import cache
from pathlib import Path

_START_S = 20.0
"""It takes milliseconds; a busy machine gets the rest."""


@cache
def program() -> str:
    """Its path. Installed when it is missing and we are root; AssertionError says what to do otherwise."""
    found = shutil.which("redis-server")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "--no-install-recommends", "redis-server"]
        for command in (["apt-get", "update"], install):
            run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
            if run.returncode != 0:
                raise AssertionError(f"{' '.join(command)} failed:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
        found = shutil.which("redis-server")
    if found is None:
        raise AssertionError("this test needs redis-server (Debian: apt-get install redis-server)")
    return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class RedisServer:
    """One server with an empty memory. `stop` and `start` may be repeated; the port stays."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        with open(self._folder / "redis.log", "ab") as log:
            self._process = subprocess.Popen(
                [program(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder),
                 "--save", "", "--appendonly", "no", *self._options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"redis-server: {(self._folder / 'redis.log').read_text()[-2000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        return self.ask("PING") == b"+PONG"

    def ask(self, command: str) -> bytes:
        """The first line of the answer to a command, or nothing when the server is away."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
                s.sendall(command.encode() + b"\r\n")
                return s.makefile("rb").readline().rstrip()
        except OSError:
            return b""

    def stop(self) -> None:
        """As in a crash. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
