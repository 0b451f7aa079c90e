"""quic-go as this benchmark uses it: built on demand from loadtests/quicgo, run as server or as client."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import limit
from processes import HERE, Child, PeerError

SOURCES = HERE / "quicgo"

_BUILD_S = 600
"""The first time it fetches its modules and compiles Go's TLS."""


@functools.cache
def program() -> str:
    """The program's path, in the folder where the library's builds are kept; by contents.

    Raises:
        PeerError: it cannot be built here, and why.
    """
    go = shutil.which("go")
    if go is None:
        raise PeerError("no Go here: these rows compare with quic-go, so install Go (https://go.dev/dl)")
    stamp = hashlib.sha256(subprocess.run([go, "version"], capture_output=True, check=True).stdout)
    for name in ("main.go", "go.mod", "go.sum"):
        stamp.update((SOURCES / name).read_bytes())
    built = Path(limit.parts()["library"]).parent / f"quicgo-{stamp.hexdigest()[:12]}"
    if not built.exists():
        partial = built.with_suffix(f".{os.getpid()}")
        command = [go, "build", "-trimpath", "-o", str(partial), "."]
        try:
            run = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, timeout=_BUILD_S)
        except subprocess.TimeoutExpired:
            raise PeerError(f"go build did not end within {_BUILD_S} s") from None
        if run.returncode != 0:
            raise PeerError(f"go build failed: {run.stderr.strip()[-500:]}")
        partial.rename(built)
    return str(built)


def server(certificate: tuple[str, str], role: int | None) -> Child:
    return Child("quic-go server", [program(), "server", *certificate], role)


def client(port: int, cert: str, role: int, *, connections: int, at_once: int) -> Child:
    command = [program(), "client", str(port), cert, str(connections), str(at_once)]
    return Child("quic-go client", command, role)
