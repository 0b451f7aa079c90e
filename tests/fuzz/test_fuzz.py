"""The fuzz targets without a fuzzer: each takes its seeds, and a bounded number of inputs made from them,
under the sanitizers of whatever compiler is here. The real thing is `make fuzz`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cext")]

import seeds  # noqa: E402
import toolchain  # noqa: E402

FLAGS = [
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    f"-I{HERE.parent / 'cext'}",
    *toolchain.WARNINGS,
]
MADE = {"eth": 50_000, "fields": 4_000, "ids": 3_000, "streams": 300, "datagrams": 300, "ws": 20_000}
"""Inputs made of the seeds: some two seconds each on a slow machine."""

SECONDS = 10
"""And no more than this, whatever the machine."""

# The first build compiles everything.
pytestmark = pytest.mark.timeout(300)


def test_every_target_has_seeds() -> None:
    assert (
        {p.stem for p in HERE.glob("fuzz_*.c")}
        == {f"fuzz_{t}" for t in seeds.TARGETS}
        == {f"fuzz_{t}" for t in MADE}
    )


@pytest.mark.parametrize("target", sorted(seeds.TARGETS))
def test_target(target: str, tmp_path: Path) -> None:
    shared = [HERE / "fuzz.c", HERE / "replay.c", HERE.parent / "cext" / "harness.c"]
    program = toolchain.build(f"fuzz-{target}", [HERE / f"fuzz_{target}.c", *shared], "cc", FLAGS)
    files = seeds.write(tmp_path)[target]
    last = tmp_path / "last"
    run = subprocess.run(
        [str(program), str(MADE[target]), str(SECONDS), *map(str, files)],
        env=os.environ | {"FUZZ_LAST": str(last), "UBSAN_OPTIONS": "print_stacktrace=1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert run.returncode == 0, f"with the input {last.read_bytes()!r}\n{run.stdout}"
    assert f"{len(files)} seeds" in run.stdout
