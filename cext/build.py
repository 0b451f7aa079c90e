"""Build quicgreen._core: quiche and BoringSSL through cargo, the engine through cffi (API mode, abi3).

The header is the interface: what stands between its two marker lines is given to cffi as it is.

quiche takes minutes to build, so its target folder lies outside the source tree and is used again:
$QUICGREEN_BUILD_CACHE, or $XDG_CACHE_HOME/quicgreen, or ~/.cache/quicgreen; in it one folder per lock
file. libclang, which bindgen loads, is copied there too: cargo rebuilds BoringSSL when its path changes,
and pip builds in a new folder each time.

What is built is quiche as it was published, with the patches of cext/quiche/patches
(docs/decisions/026-quiche-patches.md); the patched source lies in the cache as well, one folder for each
state of crate and patches.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from cffi import FFI

CEXT = Path(__file__).resolve().parent
CRATE = CEXT / "quiche"
HEADERS = [
    CEXT / "include" / "quicgreen_counters.h",
    CEXT / "include" / "quicgreen.h",
    CEXT / "include" / "quicgreen_sessions.h",
    CEXT / "include" / "quicgreen_group.h",
    CEXT / "include" / "quicgreen_seeing.h",
    CEXT / "include" / "quicgreen_ws.h",
    CEXT / "python" / "arena_cache.h",
    CEXT / "python" / "engine_calls.h",
    CEXT / "python" / "frame_calls.h",
]
BEGIN, END = "/* ---- cdef ---- */", "/* ---- end of cdef ---- */"
MACHINES = {"x86_64", "aarch64"}
PATCHES = sorted((CRATE / "patches").glob("*.patch"))


def need(condition: bool, message: str) -> None:
    """Stop the build with one line that says what is missing and how to get it."""
    if not condition:
        sys.exit(f"quicgreen: {message}")


def check_system() -> None:
    system, machine = platform.system(), platform.machine()
    need(
        system == "Linux" and machine in MACHINES,
        f"builds on Linux x86-64 and arm64 only, this is {system} {machine}",
    )
    need(sys.version_info >= (3, 10), "needs Python 3.10 or later")
    for tool, hint in {
        "cargo": "Rust's cargo (https://rustup.rs)",
        "cc": "a C compiler (Debian: apt-get install gcc)",
        "c++": "a C++ compiler, for BoringSSL (Debian: apt-get install g++)",
        "make": "make (Debian: apt-get install make)",
        "git": "git, with which BoringSSL's build patches itself (Debian: apt-get install git)",
        "cmake": "cmake (pip install cmake)",
    }.items():
        need(shutil.which(tool) is not None, f"the build needs {hint}")


def cache_folder() -> Path:
    override = os.environ.get("QUICGREEN_BUILD_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(override) if override else Path(base) / "quicgreen"
    lock = (CRATE / "Cargo.lock").read_bytes() + (CRATE / "Cargo.toml").read_bytes()
    return folder / f"quiche-{hashlib.sha256(lock).hexdigest()[:12]}"


def stable_libclang(cache: Path) -> Path:
    """The folder of a libclang.so that stays where it is."""
    folder = cache / "libclang"
    if not (folder / "libclang.so").exists():
        try:
            import clang.native  # the PyPI package libclang: one shared library
        except ImportError:
            need(False, "the build needs libclang (pip install libclang)")
        folder.mkdir(parents=True, exist_ok=True)
        source = Path(next(iter(clang.native.__path__))) / "libclang.so"
        partial = folder / f"libclang.so.{os.getpid()}"
        shutil.copy(source, partial)
        partial.rename(folder / "libclang.so")
    return folder


def published(name: str, version: str, checksum: str) -> Path:
    """The crate's archive as cargo keeps it, downloaded when it is not there yet."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    pattern = f"registry/cache/*/{name}-{version}.crate"
    if not any(home.glob(pattern)):
        # No other target's crates: an offline build has only those of this one.
        target = f"{platform.machine()}-unknown-linux-gnu"
        run = subprocess.run(["cargo", "fetch", "--locked", "--target", target], cwd=CRATE)
        need(run.returncode == 0, "cargo could not fetch the crates; its messages are above")
    archives = sorted(home.glob(pattern))
    need(bool(archives), f"cargo keeps no {name}-{version}.crate in {home / 'registry' / 'cache'}")
    for archive in archives:
        if hashlib.sha256(archive.read_bytes()).hexdigest() == checksum:
            return archive
    sys.exit(f"quicgreen: {archives[0]} is not what Cargo.lock names (sha256 {checksum}); remove it")


def patched_crate(cache: Path) -> Path:
    """Our crate, over a patched copy of quiche beside it: a folder that stays where it is, since cargo
    goes by paths."""
    files = [CRATE / "Cargo.toml", CRATE / "Cargo.lock", CRATE / "src" / "lib.rs", *PATCHES]
    state = hashlib.sha256(b"\0".join(f.name.encode() + b"\0" + f.read_bytes() for f in files))
    crate = cache / f"patched-{state.hexdigest()[:12]}"
    if crate.exists():
        return crate
    lock = (CRATE / "Cargo.lock").read_text()
    entry = re.search(r'(name = "quiche"\nversion = "(.+)"\n)source = ".+"\nchecksum = "(.+)"\n', lock)
    assert entry is not None, "Cargo.lock has no quiche of crates.io"
    version, checksum = entry[2], entry[3]
    partial = cache / f"{crate.name}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with tarfile.open(published("quiche", version, checksum)) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(partial)
    source = (partial / f"quiche-{version}").rename(partial / "quiche")
    # git, which BoringSSL's build needs as well: it applies a patch whole or not at all, and guesses
    # nothing. Were the cache in a repository it would take its paths from there.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(partial.resolve())}
    for patch in PATCHES:
        run = subprocess.run(["git", "apply", str(patch)], cwd=source, env=environment)
        need(
            run.returncode == 0,
            f"{patch.name} does not fit quiche {version}: docs/decisions/026-quiche-patches.md says what "
            "to do; git's messages are above",
        )
    # With a path instead of the registry, which a lock file names neither source nor checksum of. The
    # library is named after its state, so that builds of two do not take each other's.
    manifest = (CRATE / "Cargo.toml").read_text()
    manifest = manifest.replace('"quicgreen_quiche"', f'"quicgreen_quiche_{crate.name[-12:]}"')
    (partial / "Cargo.toml").write_text(f'{manifest}\n[patch.crates-io]\nquiche = {{ path = "quiche" }}\n')
    (partial / "Cargo.lock").write_text(lock.replace(entry[0], entry[1]))
    (partial / "src").mkdir()
    shutil.copy(CRATE / "src" / "lib.rs", partial / "src")
    try:
        partial.rename(crate)
    except OSError:  # another build was faster
        shutil.rmtree(partial)
    return crate


def cargo_build(cache: Path) -> tuple[Path, Path, Path]:
    """Returns the static library, quiche's and BoringSSL's include folders."""
    headers = subprocess.run(
        ["cc", "-print-file-name=include"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = os.environ | {
        "LIBCLANG_PATH": str(stable_libclang(cache)),
        # PyPI's libclang comes without the compiler's own headers.
        "BINDGEN_EXTRA_CLANG_ARGS": f"-I{headers}",
        "CARGO_TARGET_DIR": str(cache / "target"),
    }
    command = ["cargo", "build", "--release", "--locked", "--message-format=json-render-diagnostics"]
    crate = patched_crate(cache)
    run = subprocess.run(command, cwd=crate, env=environment, stdout=subprocess.PIPE, text=True)
    need(run.returncode == 0, "cargo could not build quiche; its messages are above")
    library = boring = quiche = None
    for line in run.stdout.splitlines():
        message = json.loads(line)
        package = message.get("package_id", "")
        if message["reason"] == "build-script-executed" and "boring-sys" in package:
            boring = Path(message["out_dir"]) / "boringssl" / "include"
        elif message["reason"] == "compiler-artifact":
            name = message["target"]["name"]
            if name == "quiche":
                quiche = Path(message["manifest_path"]).parent / "include"
            elif name == f"quicgreen_quiche_{crate.name[-12:]}":
                library = Path(next(f for f in message["filenames"] if f.endswith(".a")))
    need(None not in (library, boring, quiche), "cargo built something else than expected")
    return library, quiche, boring  # type: ignore[return-value]


def cdef(header: Path) -> str:
    text = header.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def builder() -> FFI:
    check_system()
    cache = cache_folder()
    library, quiche, boring = cargo_build(cache)
    ffi = FFI()
    for header in HEADERS:
        ffi.cdef(cdef(header))
    sources = sorted([*(CEXT / "src").glob("*.c"), *(CEXT / "python").glob("*.c")])
    root = CEXT.parent
    ffi.set_source(
        "quicgreen._core",
        "".join(f'#include "{header.name}"\n' for header in HEADERS),
        sources=[os.path.relpath(s, root) for s in sources],
        include_dirs=[str(p) for p in (CEXT / "include", CEXT / "python", CEXT / "src", CRATE)],
        extra_compile_args=[
            "-std=gnu11",
            "-D_GNU_SOURCE",
            "-O2",
            "-fvisibility=hidden",
            f"-isystem{quiche}",
            f"-isystem{boring}",
        ],
        extra_objects=[str(library)],
        libraries=["stdc++", "pthread", "dl", "m"],
        # BoringSSL must not meet Python's OpenSSL: none of its symbols leaves the module, and the
        # module's own calls never go elsewhere.
        # BoringSSL brings 25 MB of debug sections; names for profilers stay.
        extra_link_args=[
            "-Wl,--exclude-libs,ALL",
            "-Wl,-Bsymbolic",
            "-Wl,--gc-sections",
            "-Wl,--strip-debug",
        ],
        py_limited_api=True,
    )
    return ffi


if __name__ == "__main__":
    # For the C tests and the benchmark: where the parts are, as JSON.
    check_system()
    archive, quiche_include, boring_include = cargo_build(cache_folder())
    print(
        json.dumps(
            {
                "library": str(archive),
                "include": [str(CEXT / "include"), str(CEXT / "src"), str(CRATE)],
                "system_include": [str(quiche_include), str(boring_include)],
            }
        )
    )
else:
    ffibuilder = builder()
