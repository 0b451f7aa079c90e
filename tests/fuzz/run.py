"""Fuzz the engine: `python tests/fuzz/run.py [--seconds N] [TARGET ...]`; `make fuzz`.

libFuzzer, with the address and undefined-behaviour sanitizers, N seconds for each target, one after the
other. What was learned is kept beside the build cache, and the next run goes on from there. An input that
shows a bug is written to a file, and its name said.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cext")]

import seeds  # noqa: E402
import toolchain  # noqa: E402

PACKAGES = ["clang", "libclang-rt-dev"]
"""Debian's names: the compiler, and the runtimes of fuzzer and sanitizers."""

FLAGS = [
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=fuzzer-no-link,address,undefined",
    "-fno-sanitize-recover=undefined",
    f"-I{HERE.parent / 'cext'}",
    *toolchain.WARNINGS,
]

INPUT_MAX = {"eth": 2048, "fields": 3000, "ids": 600, "streams": 2000, "datagrams": 2000, "ws": 2000}


def usable() -> bool:
    """Is there a clang that links a fuzz target?"""
    if shutil.which("clang") is None:
        return False
    program = (
        "#include <stddef.h>\n#include <stdint.h>\nint LLVMFuzzerTestOneInput(const uint8_t *d, size_t n) {\n"
    )
    command = ["clang", "-fsanitize=fuzzer,address,undefined", "-x", "c", "-", "-o", "/dev/null"]
    run = subprocess.run(command, input=program + "return d == 0 && n > 0; }", capture_output=True, text=True)
    return run.returncode == 0


def get_clang() -> None:
    if usable():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-q"], **quiet)  # type: ignore[call-overload]
        subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", *PACKAGES], **quiet)  # type: ignore[call-overload]
    if not usable():
        sys.exit(f"fuzz: needs clang and its runtimes (Debian: apt-get install {' '.join(PACKAGES)})")


def build(target: str) -> Path:
    sources = [HERE / f"fuzz_{target}.c", HERE / "fuzz.c", HERE.parent / "cext" / "harness.c"]
    return toolchain.build(f"libfuzzer-{target}", sources, "clang", FLAGS, ["-fsanitize=fuzzer"])


def fuzz(target: str, seconds: int, folder: Path) -> bool:
    program = build(target)
    corpus = folder / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    seeds.write(folder / "seeds")
    print(f"fuzz: {target}, {seconds} s", flush=True)
    command = [
        str(program),
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_MAX[target]}",
        "-timeout=20",
        "-print_final_stats=1",
        "-verbosity=0",
        f"-artifact_prefix={folder}/{target}-",
        str(corpus),
        str(folder / "seeds" / target),
    ]
    options = {"UBSAN_OPTIONS": "print_stacktrace=1"}
    return subprocess.run(command, env=os.environ | options).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the engine.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (%(default)s)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(seeds.TARGETS)}; all")
    options = parser.parse_args()
    unknown = set(options.targets) - seeds.TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    get_clang()
    folder = toolchain.folder() / "fuzz"
    folder.mkdir(exist_ok=True)
    failed = [t for t in options.targets or seeds.TARGETS if not fuzz(t, options.seconds, folder)]
    print(f"fuzz: {'found something with ' + ', '.join(failed) if failed else 'found nothing'}; see {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
