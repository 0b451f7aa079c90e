"""Who may know whom: the drawing and the invariants of ARCHITECTURE.md, held against the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support import check_python

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "quicgreen"
MODULES = {p.stem: p for p in PACKAGE.glob("*.py")}
PACKAGES = {p.parent.name for p in PACKAGE.glob("*/__init__.py")} - {"testing"}
"""Each stands in the drawing as one name."""
C_SOURCES = sorted(p for kind in ("include", "src") for p in (ROOT / "cext" / kind).glob("*.[ch]"))

ENTRIES = {"__init__", "__main__"}
"""They stand above the drawing, and may import all of it."""


# ---------------------------------------------------------------- the drawing


@cache
def levels() -> tuple[dict[str, int], dict[str, int]]:
    """The level of each Python module, and of each C file without its ending; 0 is the top."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    drawing = text.split("```\n")[1]
    python, c, _ = re.split(r"^-+ cext/.* -+$", drawing, flags=re.M)
    return _levels(python), _levels(c)


def _levels(drawing: str) -> dict[str, int]:
    found: dict[str, int] = {}
    level = 0
    for line in drawing.splitlines():
        # Names are in the left part; what a row is about stands behind them, in column 61.
        for group in line[:61].split("→"):
            names = re.findall(r"\w+", group.replace(".h", ""))
            level += bool(names)
            found |= dict.fromkeys(names, level)
    return found


def test_the_drawing_has_every_file() -> None:
    python, c = levels()
    assert set(python) == set(MODULES) - ENTRIES | PACKAGES
    generated = {"qpack_tables"}  # and belongs to the two that include it
    assert set(c) == {p.stem for p in (ROOT / "cext" / "src").glob("*.[ch]")} - generated


# ---------------------------------------------------------------- Python


def _runs(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _runs(child)


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of what a file imports, anywhere in it; our own modules as "quicgreen.name"."""
    found = set()
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in _runs(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            found.add(source)
            found |= {f"{source}.{alias.name}" for alias in node.names}
    return frozenset(found)


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def own_imports(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("quicgreen.")}


@pytest.mark.parametrize("name", sorted(MODULES.keys() - ENTRIES))
def test_modules_import_downward(name: str) -> None:
    python, _ = levels()
    upward = {m for m in own_imports(MODULES[name]) & python.keys() if python[m] < python[name]}
    assert upward == set()


@pytest.mark.parametrize(
    "path", sorted(p for name in PACKAGES for p in (PACKAGE / name).glob("*.py")), ids=lambda p: name(p)
)
def test_packages_import_downward(path: Path) -> None:
    python, _ = levels()
    upward = {m for m in own_imports(path) & python.keys() if python[m] < python[path.parent.name]}
    assert upward == set()


def test_only_the_binding_imports_the_c_module() -> None:
    users = {p.name for p in PACKAGE.rglob("*.py") if "quicgreen._core" in imports(p)}
    assert users == {"_engine.py", "_group.py", "_contexts.py", "_frames.py"}
    knows_cffi = {p.name for p in PACKAGE.rglob("*.py") if any(n.split(".")[0] == "cffi" for n in imports(p))}
    assert knows_cffi <= users


def test_only_hub_knows_the_hub_and_the_loop() -> None:
    inner = re.compile(r"gevent\.(hub|_\w+|libev\w*|libuv\w*|core|get_hub)\b")
    assert {name(p) for p in PACKAGE.rglob("*.py") if any(map(inner.match, imports(p)))} == {
        "hub",
        "cli/output",
    }
    # A command has its own words for Ctrl-C. A request's greenlet asks its parent to run its links, as
    # gevent's do; `quicgreen info` names the loop.
    uses = {
        name(p)
        for p in PACKAGE.rglob("*.py")
        if any(isinstance(n, ast.Attribute) and n.attr == "loop" for n in ast.walk(ast.parse(p.read_text())))
    }
    assert uses == {"hub", "greenlets", "cli/info"}


BLOCKING = re.compile(
    r"(threading|_thread|queue|subprocess|multiprocessing|concurrent|select|selectors|ssl)\b"
)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_core_never_blocks_a_thread(name: str) -> None:
    """It works in a program that is not patched: no lock, no sleep, no file, no socket of the standard
    library."""
    blocking = {i for i in imports(MODULES[name]) if BLOCKING.match(i) or i in ("socket", "time.sleep")}
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("open", "io.open", "os.open", "time.sleep") or called.endswith(
                (".read_bytes", ".read_text", ".write_bytes", ".write_text")
            ):
                blocking.add(called)
    # Once, when a session begins; where a trace was asked for, when an engine starts; when a fork waits.
    assert blocking == {"settings": {"open"}, "trace": {"os.open"}, "forks": {"open"}}.get(name, set())


def test_what_runs_in_the_hub_does_not_log() -> None:
    for name in ("hub", "_engine", "connection", "stream", "messages", "h3", "client"):
        assert not {"logging", "warnings"} & imports(MODULES[name]), name


def test_import_starts_nothing_and_needs_no_ssl() -> None:
    check_python(
        """
        import os, sys, threading, _thread
        before = set(os.listdir("/proc/self/fd"))
        import quicgreen
        unwanted = {"ssl", "_ssl", "asyncio", "logging.config", "locust"}
        assert not unwanted & sys.modules.keys(), sorted(sys.modules)
        assert set(os.listdir("/proc/self/fd")) == before
        assert len(os.listdir("/proc/self/task")) == 1
        from gevent._hub_local import get_hub_if_exists
        from gevent.monkey import is_anything_patched
        assert get_hub_if_exists() is None and not is_anything_patched()
        from quicgreen import _engine
        assert _engine.arena_cache_stats() == (0, 0)
        """
    )


# ---------------------------------------------------------------- C


@cache
def code(path: Path) -> str:
    """Without comments and text."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"(?!\n)', " ", path.read_text(), flags=re.S)


SHARED_UPWARD = {"engine", "conn"}
"""Structs that all parts of the engine proper know."""


@pytest.mark.parametrize("path", C_SOURCES, ids=lambda p: p.name)
def test_c_includes_go_downward(path: Path) -> None:
    _, c = levels()
    included = set(re.findall(r'#include "(\w+)\.h"', path.read_text()))
    outside = included - c.keys()
    assert outside <= {
        "quicgreen",
        "quicgreen_counters",
        "quicgreen_group",
        "quicgreen_seeing",
        "quicgreen_sessions",
        "quicgreen_ws",
        "quiche_more",
        "qpack_tables",
    }
    if path.stem in c:
        allowed = SHARED_UPWARD if c["endpoint"] <= c[path.stem] <= c["raw"] else set()
        assert {i for i in included & c.keys() if c[i] < c[path.stem]} <= allowed
    else:
        assert included <= {
            "quicgreen",
            "quicgreen_counters",
            "quicgreen_sessions",
        }  # the public headers, and the table that was made


@pytest.mark.parametrize("path", C_SOURCES, ids=lambda p: p.name)
def test_the_engine_knows_no_python(path: Path) -> None:
    assert not re.search(r"\bPy_?[A-Z]\w*|Python\.h|_cffi_", path.read_text())


# What the C library makes a system call of, and what hides one.
SYSTEM_CALLS = re.compile(
    r"""(?<![\w.>]) (
        accept4? | bind | connect | listen | socket(pair)? | shutdown | [gs]etsockopt | getsockname
      | send(to|m?msg|file)? | recv(from|m?msg)? | p?poll | p?select | epoll_\w+ | timerfd_\w+
      | eventfd(_\w+)? | signalfd | inotify_\w+ | io_uring_\w+ | ioctl | fcntl | p?readv? | p?writev?
      | open(at)? | creat | close | dup[23]? | pipe2? | [fl]?stat | access | unlink | rename | lseek
      | m(un)?map | mprotect | madvise | getpid | gettid | kill | v?fork | clone | exec\w+ | waitpid
      | nanosleep | u?sleep | sched_\w+ | syscall | if_nametoindex | getaddrinfo | getrandom
      | sigaction | alarm | getppid | prctl
      | gettimeofday | time | clock_\w+ | fopen | fdopen | fread | fwrite | fgets | fputs | fputc
      | fflush | f?printf | puts | perror | getenv
    ) \s* \(""",
    re.X,
)

CALLING = {
    "engine", "udp", "pair", "ticket_segment", "ticket_shm", "shm_file", "group", "group_conns", "steer",
    "handover", "orphan", "xdp", "xsk", "bpf",
}  # fmt: skip
FILES = {"open", "write", "close"}


def system_calls(path: Path) -> set[str]:
    return {m[1] for m in SYSTEM_CALLS.finditer(code(path))}


@pytest.mark.parametrize("path", C_SOURCES, ids=lambda p: p.name)
def test_system_calls_stay_in_their_files(path: Path) -> None:
    found = system_calls(path)
    if path.suffix == ".c" and path.stem in CALLING:
        assert found, "the pattern finds what is there"
        assert not {f for f in found if f.startswith("clock_")}
    else:
        assert found == {
            "tls.c": FILES,
            "qlog.c": FILES,
            "trace.c": {"write"},
            "base.h": {"clock_gettime"},
        }.get(path.name, set())


def test_the_clock_is_read_once_an_entry() -> None:
    """Into engine->now_ns, by the functions that quicgreen.h names; all others look there."""
    reading = {p.name: re.findall(r"[^\n]*\bqg__now_ns\(\)", code(p)) for p in C_SOURCES if p.suffix == ".c"}
    assert {name for name, lines in reading.items() if lines} == {
        "api.c",
        "endpoint.c",
        "engine.c",
        "group.c",
        "group_replay.c",
        "replay.c",
        "xdp.c",
    }
    del reading["group.c"]  # the times of its workers
    del reading["xdp.c"]  # a look at its rings makes no system call, and may be all that an entry does
    for name in ("replay.c", "group_replay.c"):  # they belong to no engine, and are asked from inside quiche
        del reading[name]
    assert {line.strip() for lines in reading.values() for line in lines} == {"e->now_ns = qg__now_ns()"}


def test_nothing_calls_back() -> None:
    """The public headers hand out no function pointer (rule 3 of quicgreen.h)."""
    for header in (ROOT / "cext" / "include").glob("*.h"):
        assert "(*" not in code(header)
