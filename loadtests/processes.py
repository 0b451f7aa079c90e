"""The processes of the benchmark: each is pinned to a core, speaks JSON lines, and ends when its stdin does.

A child's first line says that it is ready. After that it answers each line of its stdin with one line. So
nothing outlives the benchmark, however that ends, and nothing is killed but what was started here.
"""

from __future__ import annotations

import functools
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

MEASURED, OTHER = 0, 1
"""The cores: one for the process that is measured, one for its peer, so that neither takes the other's."""

_READY_S = 60
"""A server's imports take 1 s; beyond this it will not come."""

ANSWER_S = 120
"""The longest measurement lasts a few seconds, on a busy machine ten times as many."""


class PeerError(Exception):
    """A process did not start, ended early, or counted something else than its peer."""


@functools.cache
def cores() -> list[int]:
    """The two cores used, by the roles above."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise PeerError("the benchmark needs two cores: one for each side")
    return usable[:2]


def free_port() -> int:
    """For a server that does not take 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_taken(port: int) -> bool:
    """For a server that does not say when it listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


class Child:
    """A process on a core of its own.

    Attributes:
        name: for messages.
        about: its first line: `port` of a server, `version`.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        role: int | None,
        environment: dict[str, str] | None = None,
        patience_s: float = _READY_S,
    ) -> None:
        """Start it, and wait for its first line. Without a role it has both cores."""
        its_cores = set(cores()) if role is None else {cores()[role]}
        self.name = name
        self._buffer = b""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, its_cores),
        )
        self.pid = self._process.pid
        # The kernel's clock of that process: user and system time of all its threads, those that ended too
        # (clock_getcpuclockid). Nanoseconds, where /proc/PID/stat has hundredths of a second.
        self._cpu_clock = ~self.pid << 3 | 2
        try:
            self.about = self._read(patience_s)
        except BaseException:
            self.close()
            raise

    @classmethod
    def python(cls, script: str, *arguments: object, role: int | None, **environment: str) -> Child:
        """One of the scripts beside this one."""
        command = [sys.executable, str(HERE / script), *map(str, arguments)]
        return cls(script.removesuffix(".py"), command, role, environment)

    @property
    def port(self) -> int:
        return int(self.about["port"])

    def ask(self, **command: object) -> dict[str, Any]:
        """Send a command, wait for its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerError(f"{self.name} has ended") from None
        return self._read(ANSWER_S)

    def _read(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise PeerError(f"{self.name} said nothing for {timeout} s")
            piece = os.read(fd, 65536)
            if not piece:
                code = self._process.wait()
                raise PeerError(f"{self.name} ended with status {code}")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    # ---------------------------------------------------------------- what it uses

    def cpu_ns(self) -> int:
        """User and system time until now."""
        return time.clock_gettime_ns(self._cpu_clock)

    def main_thread_cpu_ns(self) -> int:
        """The same of its main thread alone."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/schedstat").read_text().split()[0])

    def rss_kb(self) -> int:
        """Resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise PeerError(f"{self.name}: its memory is not to be had")

    # ---------------------------------------------------------------- the end

    def close(self) -> None:
        """Let it end; make it, if it does not."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
