"""Examples as their readers run them: child processes, whose output is read as it comes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent import socket as gevent_socket
from support import serving

from quicgreen.testing import Certificate

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"

PATIENCE_S = 40.0
"""Two interpreters, and two cores that others use too."""


class Example:
    """One that runs. What it writes to stderr fails the test, unless `stderr` is asked for.

    Attributes:
        status: its exit status, after `finish`.
        complaint: what it wrote to stderr, likewise.
    """

    status: int
    complaint: str

    def __init__(self, name: str, *arguments: object, env: dict[str, str] | None = None) -> None:
        self.text = ""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish()
        environment = {**os.environ, "PYTHONWARNINGS": "error", **(env or {})}
        environment.pop("PYTHONUNBUFFERED", None)  # what is to be seen at once it has to flush
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )

    def read_until(self, text: str) -> str:
        """All it has printed, once `text` is in it."""
        with gevent.Timeout(PATIENCE_S, AssertionError(f"no {text!r} in {self.text!r}")):
            while text not in self.text:
                if not self._read():
                    raise AssertionError(f"no {text!r} in {self.text!r}\n{self.stderr}")
        return self.text

    def finish(self, status: int | None = 0) -> str:
        """All it prints, to its end, which is with this status."""
        try:
            with gevent.Timeout(PATIENCE_S, AssertionError(f"still running, after {self.text!r}")):
                while self._read():
                    pass
                while (ended := os.wait4(self.process.pid, os.WNOHANG))[0] == 0:
                    gevent.sleep(0.005)
            self.process.returncode = self.status = os.waitstatus_to_exitcode(ended[1])
            self.complaint = self.stderr
            assert status is None or (self.status, self.stderr) == (status, ""), (self.text, self.stderr)
        finally:
            self.close()
        return self.text

    @property
    def peak_kb(self) -> int:
        """The most memory it had so far; asked while it runs. (`ru_maxrss` counts what forked it, too.)"""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])

    @property
    def stderr(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.finish(None)

    def close(self) -> None:
        """Idempotent."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()

    def __enter__(self) -> Example:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _read(self) -> bool:
        """More of its output; False at the end."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        gevent_socket.wait_read(descriptor)
        piece = os.read(descriptor, 65536)
        self.text += piece.decode()
        return bool(piece)


def run(name: str, *arguments: object, status: int = 0, env: dict[str, str] | None = None) -> str:
    """What it prints, run to its end."""
    with Example(name, *arguments, env=env) as example:
        return example.finish(status)


@contextlib.contextmanager
def answering(handle: Any, certificate: Certificate, port: int = 0, **options: Any) -> Iterator[int]:
    """A server of this process for an example to ask; gives its port."""
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with serving(handle, ("127.0.0.1", port), **files, **options) as server:
        yield server.server_port


class Served:
    """An example that is a server, with a certificate of ours."""

    def __init__(self, name: str, certificate: Certificate, host: str = "127.0.0.1") -> None:
        self.example = Example(name, host, 0, certificate.certfile, certificate.keyfile)
        try:
            said = self.example.read_until("\n").splitlines()[0]
        except BaseException:
            self.example.close()
            raise
        self.port = int(said.rpartition(":")[2])

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """It is ended as by a supervisor; that it had not ended before is part of the test."""
        try:
            assert self.example.process.poll() is None, self.example.stderr
            self.example.process.terminate()
            self.example.finish(None)
        finally:
            self.example.close()
