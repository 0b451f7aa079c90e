"""Peers as processes: started, waited for until they really answer, asked, and ended by their pid.

With the plain subprocess module: gevent's reaps every child of the process, also those that other tests
start, whose exit status would then be lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import gevent
from gevent import socket as gevent_socket

import quicgreen

HERE = Path(__file__).parent

_START_S = 20.0
"""Two cores, shared: an interpreter that imports asyncio and aioquic may take seconds."""


class PeerError(AssertionError):
    """A peer did not do what a test needs it for."""


def _start(
    script: str,
    options: dict[str, Any],
    log: IO[bytes],
    prefix: Sequence[str] = (),
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """`prefix`: a command that becomes this one, like `ip netns exec NAME`."""
    return subprocess.Popen(
        [*prefix, sys.executable, str(HERE / script), json.dumps(options)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=log,
    )


def _read(process: subprocess.Popen[bytes], timeout: float, *, line: bool) -> bytes:
    """What it prints, up to the end of a line or of the file. Other greenlets go on meanwhile."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    text = b""
    with gevent.Timeout(timeout, PeerError(f"not done after {timeout} s, having said {text!r}")):
        while not (line and text.endswith(b"\n")):
            gevent_socket.wait_read(descriptor)
            piece = os.read(descriptor, 65536)
            if not piece:
                break
            text += piece
    return text


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-4000:]


class Peer:
    """A server in a process of its own, which prints one line of JSON when it is bound."""

    descriptors = 0
    """How many all peers together hold in this process. A test may start one that others use after it."""

    stdin = subprocess.DEVNULL

    def __init__(self, script: str, *, prefix: Sequence[str] = (), **options: Any) -> None:
        self.name = script
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = _start(script, options, self._log, prefix, self.stdin)
        Peer.descriptors += 2
        try:
            said = json.loads(_read(self._process, _START_S, line=True))
        except (AssertionError, ValueError) as e:
            text = _tail(self._log)
            self.stop()
            raise PeerError(f"{script} did not start: {e}\n{text}") from None
        self.host: str = said["host"]
        self.port: int = said["port"]
        self.version: str = said["version"]

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def pid(self) -> int:
        return self._process.pid

    def url(self, path: str = "/", host: str = "localhost") -> str:
        return f"https://{host}:{self.port}{path}"

    def wait_until_it_answers(self, verify: str) -> Peer:
        """Ask it for its version over the wire, and believe nothing else."""
        deadline = time.monotonic() + _START_S
        ip = "[::1]" if ":" in self.host else "127.0.0.1"
        with quicgreen.Session(verify=verify, timeout=5.0) as session:
            while True:
                try:
                    response = session.get(self.url("/version", ip))
                    break
                except quicgreen.QuicException as e:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise PeerError(f"{self.name} does not answer: {e!r}\n{_tail(self._log)}") from None
                    gevent.sleep(0.05)
        if response.headers.get("x-peer") != self.version:
            raise PeerError(f"somebody else answers for {self.name}: {response.headers!r}")
        return self

    @property
    def said(self) -> str:
        """What it wrote to stderr, the end of it."""
        return _tail(self._log)

    def kill(self) -> None:
        """As in a crash: no packet leaves it any more."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it, and see that it had not ended before. Idempotent."""
        if self._log.closed:
            return
        status = self._process.poll()
        if status is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        text = _tail(self._log)
        self._log.close()
        Peer.descriptors -= 2
        if status not in (None, 0, -9):
            raise PeerError(f"{self.name} ended by itself with status {status}\n{text}")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class Workers(Peer):
    """Workers behind one port (workers.py), and their parent, which does what it is told."""

    stdin = subprocess.PIPE

    def __init__(self, **options: Any) -> None:
        super().__init__("workers.py", **options)

    def do(self, what: str, **arguments: Any) -> Any:
        """A command, and what it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(_read(self._process, _START_S, line=True))

    def stop(self) -> None:
        """End the workers too."""
        stdin = self._process.stdin
        assert stdin is not None
        if not stdin.closed:
            stdin.close()
            self._process.wait(timeout=20)
        super().stop()


def run_client(
    script: str, *, patience: float = 45.0, prefix: Sequence[str] = (), **options: Any
) -> dict[str, Any]:
    """Run a client to its end; returns what it printed. Other greenlets go on meanwhile."""
    with tempfile.TemporaryFile() as log:
        process = _start(script, options, log, prefix)
        try:
            out = _read(process, patience, line=False)
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if status != 0 or not out.strip():
            raise PeerError(f"{script} failed with status {status}\n{_tail(log)}")
    result: dict[str, Any] = json.loads(out)
    if not result.get("version"):
        raise PeerError(f"{script} did not tell its version")
    return result
