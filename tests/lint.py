"""Everything that can be said about the code without running it; `make lint`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
C_FILES = sorted(
    str(p) for d in ("src", "include", "python", "quiche") for p in ROOT.glob(f"cext/{d}/*.[ch]")
)
C_FILES += sorted(str(p) for p in ROOT.glob("tests/**/*.[ch]")) + sorted(
    str(p) for p in ROOT.glob("loadtests/*.[ch]")
)
PYTHON = ["quicgreen", "cext", "tests", "examples", "loadtests", "setup.py"]


def steps() -> list[tuple[str, list[str], dict[str, str]]]:
    sys.path.insert(0, str(ROOT / "cext"))
    import build

    cache = build.cache_folder()
    cargo = {"LIBCLANG_PATH": str(build.stable_libclang(cache)), "CARGO_TARGET_DIR": str(cache / "target")}
    headers = subprocess.run(["cc", "-print-file-name=include"], capture_output=True, text=True, check=True)
    cargo["BINDGEN_EXTRA_CLANG_ARGS"] = f"-I{headers.stdout.strip()}"
    manifest = f"--manifest-path={ROOT / 'cext' / 'quiche' / 'Cargo.toml'}"
    reader = f"--manifest-path={ROOT / 'tests' / 'qlog_reader' / 'Cargo.toml'}"
    return [
        ("ruff", [str(BIN / "ruff"), "check", *PYTHON], {}),
        ("ruff format", [str(BIN / "ruff"), "format", "--check", *PYTHON], {}),
        ("mypy", [str(BIN / "mypy")], {}),
        ("clang-format", [str(BIN / "clang-format"), "--dry-run", "-Werror", *C_FILES], {}),
        ("generated tables", [sys.executable, "cext/tables.py", "--check"], {}),
        ("cargo fmt", ["cargo", "fmt", "--check", manifest], {}),
        ("cargo fmt of the tests", ["cargo", "fmt", "--check", reader], {}),
        # In the release profile, whose BoringSSL is already built.
        (
            "clippy",
            ["cargo", "clippy", "--release", "--locked", "-q", manifest, "--", "-D", "warnings"],
            cargo,
        ),
        ("clippy of the tests", ["cargo", "clippy", "--locked", "-q", reader, "--", "-D", "warnings"], cargo),
    ]


def main() -> int:
    failed = []
    for name, command, environment in steps():
        if shutil.which(command[0]) is None:
            print(f"lint: {name} needs {command[0]}, which is not installed", file=sys.stderr)
            failed.append(name)
            continue
        run = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
        if run.returncode != 0:
            failed.append(name)
            print(f"--- {name}\n{run.stdout}{run.stderr}", file=sys.stderr)
    print(f"lint: {'failed: ' + ', '.join(failed) if failed else 'clean'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
