from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from quicgreen import QuicServerException
from quicgreen.supervisor import application


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_an_attribute_of_a_module_here(folder: Path) -> None:
    (folder / "app_one.py").write_text("class Group:\n    handle = staticmethod(lambda request: 5)\n")
    assert application.load("app_one:Group.handle")(None) == 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("app_two", "MODULE:HANDLER"),
        (":x", "MODULE:HANDLER"),
        ("no_such_module:x", "no module named 'no_such_module'"),
        ("app_two:missing", "no callable 'missing'"),
        ("app_two:number", "no callable 'number'"),
    ],
)
def test_what_is_not_there(folder: Path, name: str, words: str) -> None:
    (folder / "app_two.py").write_text("number = 5\n")
    with pytest.raises(QuicServerException, match=words) as caught:
        application.load(name)
    assert caught.value.cause == "application"


def test_what_a_module_raises_is_its_author_s(folder: Path) -> None:
    (folder / "app_three.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(ModuleNotFoundError):
        application.load("app_three:handle")
