"""The engine's own tests: C, without Python in the process, under the address and undefined-behaviour
sanitizers. One program; each file of C tests is one test here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import toolchain

HERE = Path(__file__).resolve().parent
TESTS = sorted(HERE.glob("test_*.c"))
SHARED = [HERE / "check.c", HERE / "harness.c", HERE / "h3_peer.c", HERE / "early.c"]
FLAGS = [
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    *toolchain.WARNINGS,
]
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}

# The first build compiles everything; on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def program() -> Path:
    return toolchain.build("c-tests", [*SHARED, *TESTS], "cc", FLAGS)


@pytest.mark.parametrize("name", [t.stem for t in TESTS])
def test_c(program: Path, name: str) -> None:
    run = subprocess.run(
        [str(program), f"{name}."],
        env=os.environ | SANITIZERS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert run.returncode == 0, f"exit {run.returncode}\n{run.stdout}"
