"""The limit beside another program of its kind, whose command line is

    PROGRAM server PORT CERT KEY BODYBYTES
    PROGRAM client HOST PORT PATH REQUESTS STREAMS CONNECTIONS
    PROGRAM handshake HOST PORT PATH CONNECTIONS AT_ONCE
    PROGRAM upload HOST PORT PATH REQUESTS BYTES

and whose clients print done=, errs= and secs=: so that it can be seen whether this limit is one.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import limit
from green_server import LARGE, SMALL
from processes import MEASURED, OTHER, PeerError, cores, free_port, is_taken
from samples import Contestant, Plan, Row, Sample, Series


@dataclass(frozen=True)
class Server:
    """A server of either kind, and how to load it."""

    name: str
    pid: int
    command: Callable[[str, int, int, int], list[str]]
    """A client's command line, from mode, count, streams and connections."""

    def run(self, mode: str, count: int, streams: int, connections: int) -> tuple[float, float, float]:
        """Server CPU, client CPU and seconds of one run."""
        clock = ~self.pid << 3 | 2  # as in processes.py
        cpu = time.clock_gettime(clock)
        started = time.perf_counter()
        client = subprocess.Popen(
            self.command(mode, count, streams, connections),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {cores()[OTHER]}),
        )
        assert client.stdout is not None
        with client.stdout:
            output = client.stdout.read()
        _, status, usage = os.wait4(client.pid, 0)
        client.returncode = status
        seconds = time.perf_counter() - started
        done = re.search(r'(?:done=|"requests": )(\d+)', output)
        if status != 0 or done is None or int(done[1]) != count:
            raise PeerError(f"{self.name} {mode}: {output or status}")
        return time.clock_gettime(clock) - cpu, usage.ru_utime + usage.ru_stime, seconds


@contextmanager
def _other(program: str, plan: Plan, body: int) -> Iterator[Server]:
    port = free_port()
    process = subprocess.Popen(
        [program, "server", str(port), *plan.certificate, str(body)],
        preexec_fn=lambda: os.sched_setaffinity(0, {cores()[MEASURED]}),
    )

    def command(mode: str, count: int, streams: int, connections: int) -> list[str]:
        arguments = {
            "get": ["client", "127.0.0.1", str(port), "/small", str(count), str(streams), str(connections)],
            "handshake": ["handshake", "127.0.0.1", str(port), "/small", str(count), str(streams)],
            "post": ["upload", "127.0.0.1", str(port), "/small", str(count), str(LARGE)],
        }
        return [program, *arguments[mode]]

    try:
        deadline = time.monotonic() + 10
        while not is_taken(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise PeerError(f"{program} does not serve")
            time.sleep(0.05)
        yield Server(Path(program).name, process.pid, command)
    finally:
        process.kill()
        process.wait()


@contextmanager
def _limit(plan: Plan, body: int) -> Iterator[Server]:
    with limit.server(plan.certificate, MEASURED, body=body) as child:

        def command(mode: str, count: int, streams: int, connections: int) -> list[str]:
            line = [limit.program(), mode, "-p", str(child.port), "-n", str(count), "-s", str(streams)]
            return [*line, "-c", str(connections), "-b", str(LARGE if mode == "post" else 0)]

        yield Server("limit.c", child.pid, command)


@dataclass(frozen=True)
class Case:
    title: str
    mode: str
    streams: int
    connections: int
    body: int
    first: int


_CASES = [
    Case("small GET, 1 x 100", "get", 100, 1, len(SMALL), 10000),
    Case("small GET, 10 x 10", "get", 10, 10, len(SMALL), 10000),
    Case("one request at a time", "get", 1, 1, len(SMALL), 2000),
    Case("handshake with one GET", "handshake", 10, 1, len(SMALL), 200),
    Case("download of 100 MB", "get", 1, 1, LARGE, 2),
    Case("upload of 100 MB", "post", 1, 1, len(SMALL), 2),
]


def compare(plan: Plan, path: str) -> Iterator[Row]:
    """`path`: the program, or its C source, which is then built like the limit."""
    program = (
        limit.compiled([Path(path).resolve()], "reference", ["-O2", "-w"]) if path.endswith(".c") else path
    )
    for case in _CASES:
        with _limit(plan, case.body) as ours, _other(program, plan, case.body) as theirs:

            def measure(server: Server, case: Case = case) -> Callable[[int], Sample]:
                def once(count: int) -> Sample:
                    count -= count % case.connections  # each connection sends as many
                    cpu, client, seconds = server.run(case.mode, count, case.streams, case.connections)
                    more = {"client": client / count * 1e6}
                    return Sample(cpu / count * 1e6, count / seconds, count, seconds, more)

                return once

            a, b = plan.measure(
                Contestant("limit.c", measure(ours), case.first),
                Contestant(Path(path).name, measure(theirs), case.first),
            )
        yield Row("limit", f"{case.title}, server", "each other's client", "µs CPU", a, b)
        yield Row("limit", f"{case.title}, client", "each other's server", "µs CPU", _client(a), _client(b))


def _client(series: Series) -> Series:
    samples = [Sample(s.more["client"], s.rate, s.count, s.seconds) for s in series.samples]
    return Series(series.name, samples)
