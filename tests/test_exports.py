"""What `import quicgreen` gives: all of it on purpose, in order, and documented."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import helpers.locusts  # noqa: F401 - locust patches nothing here
import pytest

import quicgreen
import quicgreen.locust
import quicgreen.qlog
import quicgreen.quicpro
import quicgreen.testing
import quicgreen.websocket
from quicgreen import exceptions

PACKAGES = [
    quicgreen,
    quicgreen.locust,
    quicgreen.qlog,
    quicgreen.quicpro,
    quicgreen.testing,
    quicgreen.websocket,
]


def _order(name: str) -> tuple[int, str]:
    """Constants, classes, functions; each by the alphabet."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_all_is_what_is_there_and_in_order(package: types.ModuleType) -> None:
    there = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert there == set(package.__all__)
    assert package.__all__ == sorted(package.__all__, key=_order)


def test_every_error_is_exported() -> None:
    public = {
        name
        for name, value in vars(exceptions).items()
        if name.startswith("QUIC_ERROR_")
        or (isinstance(value, type) and issubclass(value, (exceptions.QuicException, Warning)))
    }
    assert public
    assert public <= set(quicgreen.__all__)


def test_a_star_import_takes_the_names_and_no_more() -> None:
    space: dict[str, Any] = {}
    exec("from quicgreen import *", space)
    assert space.keys() - {"__builtins__"} == set(quicgreen.__all__)


# ---------------------------------------------------------------- documented


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that our own code defines in the class or a base of it."""
    for base in cls.__mro__:
        if base.__module__.startswith("quicgreen"):
            for name, value in vars(base).items():
                value = getattr(value, "__func__", value)  # static and class methods
                if not name.startswith("_") and isinstance(value, (types.FunctionType, property)):
                    yield name, value


def _documented(name: str, value: Any) -> Iterator[tuple[str, str | None]]:
    """(name, docstring) of all that a reader of the reference meets."""
    if isinstance(value, type):
        yield name, vars(value).get("__doc__")
        for member, what in _members(value):
            yield f"{name}.{member}", what.__doc__
    elif callable(value):
        yield name, value.__doc__


ALL = [(f"{p.__name__}.{name}", getattr(p, name)) for p in PACKAGES for name in p.__all__]


@pytest.mark.parametrize(("name", "value"), ALL, ids=[name for name, _ in ALL])
def test_every_public_name_is_documented(name: str, value: Any) -> None:
    if not callable(value):
        assert isinstance(value, int), "constants of errors: docs/ERROR_AND_EXCEPTION_REFERENCE.md is theirs"
        return
    found = dict(_documented(name, value))
    assert found
    # What dataclass writes by itself is the signature.
    assert [n for n, text in found.items() if not text or text.startswith(f"{n.split('.')[-1]}(")] == []
