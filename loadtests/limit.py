"""The limit as this benchmark uses it: built on demand, run as server, as load, or as the yardstick."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from processes import ANSWER_S, HERE, OTHER, Child, PeerError

_FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"]
_LIBRARIES = ["-lstdc++", "-lpthread", "-ldl", "-lm"]


@functools.cache
def parts() -> dict[str, Any]:
    """Where the static library and its headers are: what `python cext/build.py` reports. It builds them
    when they are not there."""
    # Its tools (cmake) stand beside the interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = HERE.parent / "cext" / "build.py"
    run = subprocess.run(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": path}
    )
    if run.returncode != 0:
        raise PeerError("cext/build.py failed; its messages are above")
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def compiled(sources: list[Path], name: str, flags: list[str] = _FLAGS) -> str:
    """The program's path, in the folder where the library's builds are kept; by contents, so that a changed
    source or library makes another one."""
    library = Path(parts()["library"])
    stamp = hashlib.sha256(f"{flags} {library.stat().st_mtime_ns}".encode())
    for file in sorted([*sources, *HERE.glob("*.h")]):
        stamp.update(file.read_bytes())
    program = library.parent / f"{name}-{stamp.hexdigest()[:12]}"
    if not program.exists():
        partial = program.with_suffix(f".{os.getpid()}")
        headers = [f"-isystem{folder}" for folder in parts()["system_include"]]
        files = [str(s) for s in sources if s.suffix == ".c"]
        subprocess.run(
            ["cc", *flags, "-o", str(partial), *files, *headers, str(library), *_LIBRARIES], check=True
        )
        partial.rename(program)
    return str(program)


@functools.cache
def program() -> str:
    return compiled(sorted(HERE.glob("limit*.c")), "limit")


def server(certificate: tuple[str, str], role: int, *, body: int, browser: bool = False) -> Child:
    """The limit as server; `body`: bytes of each response."""
    cert, key = certificate
    command = [program(), "server", "-C", cert, "-K", key, "-b", str(body)]
    return Child("limit server", command + ["-B"] * browser, role)


def run(
    mode: str,
    port: int,
    *,
    requests: int,
    streams: int = 1,
    connections: int = 1,
    body: int = 0,
    browser: bool = False,
    latencies: bool = False,
    role: int = OTHER,
) -> dict[str, Any]:
    """One run of the limit as client; returns its totals.

    Raises:
        PeerError: something failed: the run is no measurement.
    """
    command = [program(), mode, "-p", str(port), "-n", str(requests), "-s", str(streams)]
    command += ["-c", str(connections), "-b", str(body)] + ["-B"] * browser + ["-l"] * latencies
    with Child(f"limit {mode}", command, role, patience_s=ANSWER_S) as child:
        totals = child.about  # its only line
    if totals["errors"] or totals["requests"] != requests:
        raise PeerError(f"limit {mode}: {totals['requests']} of {requests} answered: {totals}")
    return totals


def idle(port: int, connections: int) -> Child:
    """Connections that are held until the child is closed."""
    command = [program(), "idle", "-p", str(port), "-c", str(connections)]
    return Child("limit idle", command, OTHER)
