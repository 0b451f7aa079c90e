"""A supervisor in a process of its own, its workers, and clients that ask them.

The application answers with who served it: `worker` and `pid`, and does what the path says.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
from support import wait_until

import quicgreen
from helpers.commands import QUICGREEN, START_S, environment
from quicgreen.supervisor import control

APP = """
import os, sys, time
import gevent

count = 0

def handle(request):
    global count
    count += 1
    what, _, rest = request.path.strip("/").partition("/")
    headers = {"x-worker": os.environ["QUICGREEN_WORKER"], "x-pid": str(os.getpid()),
               "x-early": str(request.early_data)}
    if what == "slow":
        gevent.sleep(float(rest))
    elif what == "hang":
        while True:
            pass
    elif what == "stuck":
        import ctypes
        lock = ctypes.create_string_buffer(64)
        for _ in range(2):
            ctypes.PyDLL(None).pthread_mutex_lock(lock)  # with the GIL, and no signal ends it
    elif what == "crash":
        os.kill(os.getpid(), 9)
    elif what == "orphan":
        os.kill(os.getppid(), 9)
        gevent.sleep(600)
    elif what == "drip":
        stream = request.start_response(200, headers)
        for i in range(int(rest)):
            stream.write(b"%d\\n" % i)
            gevent.sleep(0.02)
        stream.finish()
        return
    body = request.read()
    if what in ("note", "count"):
        with open(rest if what == "note" else what, "ab", buffering=0) as file:
            file.write(body or rest.encode() + b",")
    request.respond(200, headers, body or b"from %d\\n" % os.getpid())
"""


class Supervised:
    """`quicgreen serve app:handle ARGUMENTS` in `folder`, which has the certificates. `under`: a command that
    runs it."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        app: str = APP,
        wait: bool = True,
        under: Sequence[str | Path] = (),
        **env: str,
    ) -> None:
        self.folder = folder
        (folder / "app.py").write_text(app)
        self._out, self._err = folder / "stdout", folder / "stderr"
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                [*under, *QUICGREEN, "serve", "app:handle", "-b", "127.0.0.1:0", "--pid", "pid", *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(**env),
                start_new_session=True,  # no terminal
            )
        self.pid = self.process.pid
        if wait:
            try:
                self.wait_for("supervisor's pid", self._out)
            except BaseException:
                self.kill()
                raise
            found = re.search(r"https://(\S+):(\d+)/", self.out)
            assert found
            self.port = int(found[2])

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()  # its workers end with it
            self.process.wait()

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def log(self) -> str:
        return self._err.read_text()

    def wait_for(self, words: str, file: Path | None = None, count: int = 1) -> None:
        """Until these words stand in the log (so often), or in another file."""
        file = file or self._err
        deadline = time.monotonic() + START_S
        while file.read_text().count(words) < count:
            assert self.process.poll() is None, (self.out, self.log)
            assert time.monotonic() < deadline, (words, self.out, self.log)
            gevent.sleep(0.01)

    def url(self, path: str = "/") -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def get(self, path: str = "/", **options: Any) -> quicgreen.Response:
        """On a connection of its own."""
        options = {"timeout": START_S, **options}
        with quicgreen.Session(verify=False) as session:
            return session.get(self.url(path), **options)

    def ask(self, question: str = "status") -> dict[str, Any]:
        return control.ask(self.pid, question, START_S)

    def workers(self, state: str = "serving") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [w for w in self.ask("stats")["workers"] if w["state"] == state]
        return found

    def pids(self) -> set[int]:
        return {w["pid"] for w in self.ask()["workers"]}

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def reload(self) -> None:
        """And wait until it is done, whatever comes of it."""
        told = self.ask("reload")
        assert told["reloads"] >= 0
        assert wait_until(lambda: not self.ask()["reloading"], START_S), self.log

    def end(self, number: int = 15) -> int:
        """Its exit status."""
        self.signal(number)
        return self.wait()

    def wait(self) -> int:
        deadline = time.monotonic() + START_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.log
            gevent.sleep(0.01)
        return self.process.returncode


@contextlib.contextmanager
def supervised(folder: Path, *arguments: str, **options: Any) -> Iterator[Supervised]:
    started = Supervised(folder, *arguments, **options)
    try:
        yield started
    finally:
        started.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)  # unless a test has failed


def alive(pid: int) -> bool:
    """And not a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def connection_to(server: Supervised, worker_pid: int) -> quicgreen.Connection:
    """A connection that this worker serves; others that are opened on the way are closed."""
    for _ in range(200):
        connection = quicgreen.connect("127.0.0.1", server.port, verify=False, timeout=START_S)
        if connection.get("/").headers["x-pid"] == str(worker_pid):
            return connection
        connection.close()
    raise AssertionError(f"no connection came to worker {worker_pid}")


def own_descriptors(pid: int | str) -> set[str]:
    """What a process has open."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that was used for the list
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found
