"""The built module and how it is built: its symbols beside Python's OpenSSL, what a missing tool says, and an
installation from a clean clone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest
from support import check_python

from quicgreen import _core  # type: ignore[attr-defined]

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "cext" / "build.py"
CRATE = ROOT / "cext" / "quiche"
TOOLS = Path(sys.executable).parent
"""cmake, and what else the build got from the package index."""


# ---------------------------------------------------------------- symbols


def _nm(*options: str) -> set[str]:
    run = subprocess.run(
        ["nm", "-D", *options, _core.__file__], capture_output=True, text=True, check=True, timeout=30
    )
    return {line.split()[-1].partition("@")[0] for line in run.stdout.splitlines()}


def test_the_module_exports_its_entry_and_nothing_else() -> None:
    assert _nm("--defined-only") == {"PyInit__core"}


FOREIGN = re.compile(r"(SSL|EVP|X509|BIO|RSA|EC|CRYPTO|OPENSSL|quiche|qg)_")


def test_nothing_of_quiche_and_boringssl_is_looked_for_elsewhere() -> None:
    wanted = _nm("--undefined-only")
    assert {"epoll_wait", "recvmmsg"} <= wanted, "these come from the C library"
    # Weak: how a program gives BoringSSL another allocator (openssl/mem.h).
    hooks = {f"OPENSSL_memory_{name}" for name in ("alloc", "free", "get_size")}
    assert {name for name in wanted if FOREIGN.match(name)} - hooks == set()


def test_only_the_limited_api_is_used_of_python() -> None:
    assert _core.__file__.endswith(".abi3.so")
    # Two that are not in it may be missing: see arena_cache.c.
    weak = {name for name in _nm("--undefined-only") if "ArenaAllocator" in name}
    assert weak == {"PyObject_GetArenaAllocator", "PyObject_SetArenaAllocator"}
    run = subprocess.run(["nm", "-D", _core.__file__], capture_output=True, text=True, check=True, timeout=30)
    for name in weak:
        assert re.search(rf"\bw {name}$", run.stdout, re.M)


BOTH = """
import sys, trustme

def with_ssl():
    '''A handshake of Python's OpenSSL with itself.'''
    import ssl
    authority = trustme.CA()
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    for_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("a.test").configure_cert(for_server)
    for_client = ssl.create_default_context()
    authority.configure_trust(for_client)
    client = for_client.wrap_bio(ours, theirs, server_hostname="a.test")
    server = for_server.wrap_bio(theirs, ours, server_side=True)
    done = set()
    for _ in range(10):
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    assert done == {client, server}
    client.write(b"over OpenSSL")
    assert server.read() == b"over OpenSSL"
    assert client.version() == "TLSv1.3"

def with_quicgreen():
    from support import serving, hello, new_session, url_of
    with serving(hello) as server, new_session() as session:
        assert session.get(url_of(server)).text == "hello"

for name in sys.argv[1:]:
    globals()[name]()
"""


@pytest.mark.parametrize("first", ["with_ssl", "with_quicgreen"])
def test_openssl_and_boringssl_in_one_process(first: str) -> None:
    """Each does TLS after the other has, whichever was loaded first."""
    second = {"with_ssl": "with_quicgreen", "with_quicgreen": "with_ssl"}[first]
    check_python(BOTH, first, second, first, second)


# ---------------------------------------------------------------- what is missing


NEEDED = ["cargo", "cc", "c++", "make", "git", "cmake"]


def _build(code: str = "", build: Path = BUILD, **environment: str) -> str:
    """What `python cext/build.py` says when it must not work; `code` runs before it."""
    program = f"{code}\nimport runpy; runpy.run_path({str(build)!r}, run_name='__main__')"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert run.returncode == 1
    assert run.stdout == ""
    return run.stderr


@pytest.mark.parametrize("missing", NEEDED)
def test_a_missing_tool_is_named_with_the_way_to_get_it(missing: str, tmp_path: Path) -> None:
    for tool in NEEDED:
        found = shutil.which(tool, path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
        assert found
        if tool != missing:
            (tmp_path / tool).symlink_to(found)
    said = _build(PATH=str(tmp_path))
    ways = {"cargo": "https://rustup.rs", "cmake": "pip install cmake"}
    package = {"cc": "gcc", "c++": "g++"}.get(missing, missing)
    assert said.startswith("quicgreen: the build needs ")
    assert said.count("\n") == 1
    assert missing in said or missing in ("cc", "c++")
    assert ways.get(missing, f"apt-get install {package}") in said


def test_missing_libclang_is_named(tmp_path: Path) -> None:
    said = _build(
        "import sys; sys.modules['clang'] = None",
        PATH=f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
        QUICGREEN_BUILD_CACHE=str(tmp_path),
    )
    assert said == "quicgreen: the build needs libclang (pip install libclang)\n"


@pytest.mark.parametrize(
    ("system", "machine"), [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "i686")]
)
def test_another_platform_is_told_so(system: str, machine: str) -> None:
    said = _build(
        f"import platform; platform.system = lambda: {system!r}; platform.machine = lambda: {machine!r}"
    )
    assert said == f"quicgreen: builds on Linux x86-64 and arm64 only, this is {system} {machine}\n"


def test_an_old_python_is_told_so() -> None:
    said = _build("import sys; sys.version_info = (3, 9, 18)")
    assert said == "quicgreen: needs Python 3.10 or later\n"


# ---------------------------------------------------------------- quiche's patches


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, str]:
    """An environment in which cargo does nothing: what comes before it is looked at."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cargo").symlink_to("/bin/false")
    return {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{TOOLS}{os.pathsep}{os.environ['PATH']}",
        "QUICGREEN_BUILD_CACHE": str(tmp_path / "cache"),
    }


def test_quiche_is_patched_beside_our_crate(tmp_path: Path, tools: dict[str, str]) -> None:
    """Also where the cache lies in a repository, whose paths git would go by."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for _ in range(2):
        assert _build(**tools) == "quicgreen: cargo could not build quiche; its messages are above\n"
    (crate,) = (tmp_path / "cache").glob("*/patched-*")
    assert "fn abandon_in_flight" in (crate / "quiche" / "src" / "path.rs").read_text()
    lock, published = ((folder / "Cargo.lock").read_text() for folder in (crate, CRATE))
    assert lock.count("checksum") == published.count("checksum") - 1


def test_a_patch_that_does_not_fit_is_named(tmp_path: Path, tools: dict[str, str]) -> None:
    shutil.copytree(ROOT / "cext", tmp_path / "cext")
    lines = (
        "--- a/src/path.rs",
        "+++ b/src/path.rs",
        "@@ -1,2 +1,2 @@",
        " no such line",
        "-nor this",
        "+but this",
        "",
    )
    patch = tmp_path / "cext" / "quiche" / "patches" / "9999-of-another-version.patch"
    patch.write_text("\n".join(lines))
    said = _build(build=tmp_path / "cext" / "build.py", **tools).splitlines()
    assert "error: src/path.rs: patch does not apply" in said
    assert said[-1].startswith("quicgreen: 9999-of-another-version.patch does not fit quiche 0.")
    assert "docs/decisions/026-quiche-patches.md" in said[-1]


def test_a_source_that_is_not_the_published_one_is_refused(tmp_path: Path, tools: dict[str, str]) -> None:
    kept = tmp_path / "registry" / "cache" / "index.crates.io"
    kept.mkdir(parents=True)
    version = re.search(r'name = "quiche"\nversion = "(.+)"', (CRATE / "Cargo.lock").read_text())
    assert version
    (kept / f"quiche-{version[1]}.crate").write_bytes(b"something else")
    said = _build(CARGO_HOME=str(tmp_path), **tools)
    assert said.startswith(f"quicgreen: {kept / f'quiche-{version[1]}.crate'} is not what Cargo.lock names")


# ---------------------------------------------------------------- installing


def _run(*command: object, cwd: Path, **environment: str) -> str:
    run = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source distribution of what is committed, and the wheel that is made from it alone. As `pip install`
    does, but with the build's tools that are here, not with newly fetched ones."""
    folder = tmp_path_factory.mktemp("install")
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    _run("git", "clone", "--quiet", "--no-hardlinks", ROOT, folder / "clone", cwd=folder)
    code = "from setuptools import build_meta; build_meta.build_sdist('..')"
    _run(sys.executable, "-c", code, cwd=folder / "clone", PATH=path)
    (source,) = folder.glob("quicgreen-*.tar.gz")
    _run(
        sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index",
        "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source,
        cwd=folder, PATH=path,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return source, wheel


# Compiles the engine once; quiche is in the build cache.
INSTALLS = pytest.mark.timeout(300)


@INSTALLS
def test_the_wheel_is_for_every_python(distributions: tuple[Path, Path]) -> None:
    _, wheel = distributions
    assert re.fullmatch(r"quicgreen-[\d.]+-cp310-abi3-linux_(x86_64|aarch64)\.whl", wheel.name)


@INSTALLS
def test_the_source_distribution_is_complete(distributions: tuple[Path, Path]) -> None:
    source, _ = distributions
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = set(_run("git", "ls-files", "cext", "quicgreen", cwd=ROOT).split())
    assert tracked - names == set()
    assert {name for name in names if name.endswith((".so", ".pyc", "_core.c"))} == set()


@INSTALLS
def test_an_installed_wheel_works_elsewhere(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    _, wheel = distributions
    fresh = tmp_path / "venv"
    venv.create(fresh, symlinks=True)
    _run(
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", fresh, "install", "--quiet",
        "--no-index", "--no-deps", wheel,
        cwd=tmp_path,
    )  # fmt: skip
    # What it depends on is taken from here: behind the new one's own packages, and ours is no package there.
    (packages,) = fresh.glob("lib/python3*/site-packages")
    for name in ("gevent", "greenlet", "cffi", "zope", "certifi", "idna", "_cffi_backend"):
        for found in (TOOLS.parent / "lib").glob(f"python3*/site-packages/{name}*"):
            (packages / found.name).symlink_to(found)
    where = _run(fresh / "bin" / "python", "-c", "import quicgreen; print(quicgreen.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(packages)
    said = _run(fresh / "bin" / "quicgreen", "info", cwd=tmp_path)
    assert re.search(r"^quicgreen\.engine\W+quiche 0\.\d+", said, re.M)
    assert "udp.receive_buffer" in said, "an engine ran"
    fetched = _run(fresh / "bin" / "python", "-c", ROUND_TRIP, cwd=tmp_path)
    assert fetched == "hello from the wheel\n"


ROUND_TRIP = """
import quicgreen
from quicgreen import testing
c = testing.self_signed(".", "localhost")
handle = lambda request: request.respond(200, {}, "hello from the wheel")
server = quicgreen.Server("127.0.0.1:0", handle, certfile=c.certfile, keyfile=c.keyfile)
server.start()
with quicgreen.Session(verify=c.ca_certs) as session:
    print(session.get(f"https://localhost:{server.address[1]}/").text)
server.stop()
"""
