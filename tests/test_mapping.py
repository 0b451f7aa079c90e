"""Every source has its tests, by name, and every module of tests has its source."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"

NAMES = {
    "__init__": "exports",
    "__main__": "cli",
    "cli/__init__": "cli",
    "quicpro/__init__": "exports",
    "locust/__init__": "exports",
    "qlog/__init__": "qlog_reader",
    "tickets/__init__": "tickets_store",
    "supervisor/__init__": "exports",
    "testing/__init__": "exports",
    "websocket/__init__": "exports",
}
"""What is tested under another name."""

WHOLE = {
    "bench", "build", "docs", "examples", "exports", "layering", "mapping", "repeats", "resumed_sessions",
    "surface", "websocket_chat", "workers",
}  # fmt: skip
"""Tests of no one module: `tests/test_NAME.py`."""


def _expected(source: Path) -> str:
    name = source.relative_to(ROOT / "quicgreen").with_suffix("").as_posix()
    return NAMES.get(name, name.replace("/", "_"))


SOURCES = sorted((ROOT / "quicgreen").rglob("*.py"))
C_SOURCES = sorted((ROOT / "cext" / "src").glob("*.c"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_module_has_its_tests(source: Path) -> None:
    tests = TESTS / f"test_{_expected(source)}.py"
    assert tests.is_file()
    assert "def test_" in tests.read_text()


@pytest.mark.parametrize("source", C_SOURCES, ids=lambda p: p.name)
def test_every_c_source_has_its_tests(source: Path) -> None:
    tests = TESTS / "cext" / f"test_{source.name}"
    assert tests.is_file()
    assert "\nTEST(" in tests.read_text()


def test_every_module_of_tests_has_its_source() -> None:
    known = {_expected(s) for s in SOURCES} | WHOLE
    for tests in TESTS.glob("test_*.py"):  # one with many has several: test_NAME_SUBJECT.py
        name = tests.stem.removeprefix("test_")
        assert any(name == k or name.startswith(f"{k}_") for k in known), name
    c_sources = [s.stem for s in C_SOURCES]
    for tests in (TESTS / "cext").glob("test_*.c"):  # one with many has several: test_NAME_SUBJECT.c
        name = tests.stem.removeprefix("test_")
        assert any(name == s or name.startswith(f"{s}_") for s in c_sources), name
