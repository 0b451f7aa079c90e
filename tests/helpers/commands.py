"""The command line, run in this process or in one of its own, and a server that notes what it is asked."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent import GreenletExit
from gevent.event import Event

import quicgreen
from quicgreen import cli
from quicgreen._contexts import self_signed

QUICGREEN = [sys.executable, "-m", "quicgreen"]

START_S = 30.0
"""An interpreter and gevent; two cores, shared."""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "error", **more}


def run_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. In a thread: the server that it talks to lives in this process.
    `env`: more of its environment."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    options |= {"text": True, "timeout": START_S, "env": environment(**options.pop("env", {}))}
    return gevent.get_hub().threadpool.apply(subprocess.run, ([*QUICGREEN, *arguments],), options)


def run(
    *arguments: str, stdin: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The same in this process, which is quicker. Nothing is patched here."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for name in ("stdout", "stderr")}
    if stdin is not None:
        streams["stdin"] = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    kept = {name: getattr(sys, name) for name in streams}
    path, modules, folder = list(sys.path), set(sys.modules), os.getcwd()
    more = ["--no-patch"] if arguments[:1] == ("serve",) and "-h" not in arguments else []
    try:
        for name, stream in streams.items():
            setattr(sys, name, stream)
        if cwd is not None:
            os.chdir(cwd)
        status = cli.main([*arguments, *more])
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)  # as the interpreter does
    finally:
        for name, stream in kept.items():
            setattr(sys, name, stream)
        os.chdir(folder)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if name in ("app", "broken") or name.startswith("package"):
                del sys.modules[name]
    said = []
    for name in ("stdout", "stderr"):
        streams[name].flush()
        said.append(streams[name].buffer.getvalue().decode().replace("\r\n", "\n"))
    return subprocess.CompletedProcess(list(arguments), status, *said)


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that it said."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("quicgreen: ")
    return lines[0].removeprefix("quicgreen: ")


class Site:
    """A server in this process, and what it was asked."""

    def __init__(self) -> None:
        self.seen: list[quicgreen.Request] = []
        self.bodies: list[bytes] = []
        self.go_on = Event()
        self.url = ""

    def __call__(self, request: quicgreen.Request) -> None:
        self.seen.append(request)
        self.bodies.append(request.read())
        if request.path.startswith("/status/"):
            request.respond(int(request.path[8:]), {"x-a": "1"}, b"the body\n")
        elif request.path == "/never":
            self.go_on.wait()
            request.respond(200)
        elif request.path == "/drip":
            stream = request.start_response(200)
            stream.write(b"first\n")
            self.go_on.wait()
            stream.finish(b"last\n")
        elif request.path == "/big":
            request.respond(200, None, bytes(1_000_000))
        elif request.path == "/cut":
            request.start_response(200, {"content-length": "100"}).write(b"begun\n")
            raise GreenletExit
        else:
            request.respond(200, {"x-a": "1"}, b"hello\n")


def write_files(folder: Path) -> None:
    """Certificates for this machine, a form, a large file."""
    cert, key = self_signed("localhost,127.0.0.1")
    (folder / "cert.pem").write_text(cert)
    (folder / "key.pem").write_text(key)
    (folder / "both.pem").write_text(cert + key)
    (folder / "form").write_bytes(b"a=1&\r\nb=2\n\0")
    (folder / "file name").write_bytes(b"line\r\n" * 20_000)


class Command:
    """One that goes on."""

    def __init__(self, *arguments: str, cwd: Path | None = None, stdin: int = subprocess.DEVNULL) -> None:
        self.process = subprocess.Popen(
            [*QUICGREEN, *arguments],
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        self.out = b""

    def wait_for(self, words: str) -> str:
        """Read its output until these words came."""
        deadline = time.monotonic() + START_S
        stdout = self.process.stdout
        assert stdout is not None
        while words.encode() not in self.out:
            if select.select([stdout], [], [], 0)[0]:
                piece = os.read(stdout.fileno(), 65536)
                assert piece, (self.out, self.process.communicate()[1])
                self.out += piece
            else:
                assert time.monotonic() < deadline, self.out
                gevent.sleep(0.01)
        return self.out.decode()

    def url(self) -> str:
        found = re.search(r"https://\S+/", self.wait_for("(UDP)\n"))
        assert found is not None
        return found.group()

    def type(self, text: str) -> None:
        """Write to its stdin, which is a pipe."""
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(text.encode())
        stdin.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """(exit status, all of its output, errors) once it has ended."""
        out, err = gevent.get_hub().threadpool.apply(self.process.communicate, kwds={"timeout": START_S})
        return self.process.returncode, (self.out + out).decode(), err.decode()


@contextlib.contextmanager
def command(*arguments: str, cwd: Path | None = None, stdin: int = subprocess.DEVNULL) -> Iterator[Command]:
    started = Command(*arguments, cwd=cwd, stdin=stdin)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
        for file in (started.process.stdin, started.process.stdout, started.process.stderr):
            if file is not None:
                file.close()
