"""Compile and link the engine without Python: for the C tests and the fuzz targets.

Objects and programs are kept beside quiche's build, named after the content they were made from, so a
second run compiles only what changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "cext" / "src").glob("*.c"))
HEADERS = sorted(h for d in ("cext", "tests/cext") for h in (ROOT / d).rglob("*.h"))
LIBRARIES = ["-lstdc++", "-lpthread", "-ldl", "-lm"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]
KEEP_S = 86400
"""What no run has used for a day goes."""


@cache
def parts() -> dict[str, list[str] | str]:
    """Where the static library and the headers are; builds them first when needed."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(ROOT / "cext" / "build.py")]
    run = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True)
    return json.loads(run.stdout)


def folder() -> Path:
    """Beside the build cache, which lies outside the repository."""
    target = Path(str(parts()["library"])).parents[2]
    place = target / "c-tests"
    place.mkdir(exist_ok=True)
    return place


def _digest(*pieces: bytes | str) -> str:
    state = hashlib.sha256()
    for piece in pieces:
        state.update(piece if isinstance(piece, bytes) else piece.encode())
        state.update(b"\0")
    return state.hexdigest()[:20]


@cache
def _headers() -> bytes:
    return b"\0".join(h.read_bytes() for h in HEADERS)


@cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, check=True, text=True).stdout


def _make(target: Path, command: list[str]) -> None:
    """Run `command` with an output file that appears whole or not at all."""
    if target.exists():
        os.utime(target)
        return
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    run = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{run.stdout}{run.stderr}")
    partial.rename(target)


def _compile(compiler: str, flags: list[str], source: Path) -> Path:
    includes = [f"-I{i}" for i in parts()["include"]] + [f"-isystem{i}" for i in parts()["system_include"]]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-g", *flags, *includes]
    name = _digest(_version(compiler), *flags, _headers(), str(source), source.read_bytes())
    target = folder() / f"{source.stem}-{name}.o"
    _make(target, [compiler, *flags, "-c", str(source)])
    return target


def build(
    name: str, sources: list[Path], compiler: str, flags: list[str], link_flags: Sequence[str] = ()
) -> Path:
    """The program `name` of these sources and the engine's."""
    parts(), _headers(), _version(compiler)  # once, not in every thread
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda s: _compile(compiler, flags, s), [*SOURCES, *sources]))
    library = Path(str(parts()["library"]))
    inputs = [*map(str, objects), str(library), *LIBRARIES, *link_flags]
    program = folder() / f"{name}-{_digest(*flags, *inputs, str(library.stat().st_mtime_ns))}"
    _make(program, [compiler, *flags, *inputs])
    forget_old()
    return program


def forget_old() -> None:
    limit = time.time() - KEEP_S
    for file in folder().iterdir():
        if file.is_file() and file.stat().st_mtime < limit:
            file.unlink(missing_ok=True)
