"""The table of settings, and the page that lists it."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicgreen.quicpro.options import ALIASES, OPTIONS, UNAVAILABLE

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "quicpro.md").read_text()


@pytest.mark.parametrize("name", [*OPTIONS, *UNAVAILABLE, *ALIASES])
def test_every_name_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", [n for n, o in OPTIONS.items() if o.default is not None])
def test_a_default_is_a_value_of_its_kind(name: str) -> None:
    option = OPTIONS[name]
    assert option.check(option.default) == option.default


def test_sides_and_names_are_plain() -> None:
    assert {o.side for o in OPTIONS.values()} == {"both", "client", "server"}
    assert set(ALIASES.values()) <= OPTIONS.keys()
    assert not (OPTIONS.keys() & (UNAVAILABLE.keys() | ALIASES.keys()))
