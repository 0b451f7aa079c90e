from __future__ import annotations

import inspect
import pickle

import pytest

from quicgreen.exceptions import CAUSES, QuicException, error
from quicgreen.websocket import exceptions
from quicgreen.websocket.exceptions import closed, describe

CLASSES = [
    c
    for c in vars(exceptions).values()
    if inspect.isclass(c) and issubclass(c, exceptions.WebSocketException)
]


def test_the_drawing_in_the_docstring_shows_every_class_under_its_base() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        name = line.strip(" │├└─").split("(")[0].split(" ")[0]
        if name in vars(exceptions) and line.startswith("    "):
            depth = (len(line) - len(line.lstrip(" │├└─")) - 4) // 4
            path[depth:] = [name]
            drawn[name] = path[depth - 1] if depth else "QuicException"
    assert drawn == {c.__name__: c.__base__.__name__ for c in CLASSES}


def test_all_are_exceptions_of_ours_with_a_row() -> None:
    assert all(issubclass(c, QuicException) for c in CLASSES)
    rows = {row.exception for row in CAUSES.values()}
    bases = {exceptions.WebSocketException, exceptions.ConnectionClosed}
    assert set(CLASSES) - bases <= rows


@pytest.mark.parametrize(
    ("received", "sent", "failure", "kind", "code"),
    [
        ((1000, ""), (1000, ""), None, "websocket-closed", 1000),
        ((1001, "bye"), (1000, ""), None, "websocket-closed", 1001),
        ((1005, ""), (1005, ""), None, "websocket-closed", 1005),
        ((1000, ""), None, None, "websocket-failed", 1000),
        ((1011, ""), (1000, ""), None, "websocket-failed", 1011),
        (None, (1000, ""), None, "websocket-failed", 1006),
        (None, None, None, "websocket-failed", 1006),
        (None, (1002, "why"), 1002, "websocket-failed", 1002),
    ],
)
def test_how_it_ended(received: object, sent: object, failure: int | None, kind: str, code: int) -> None:
    e = closed(received, sent, failure=failure)  # type: ignore[arg-type]
    assert (e.cause, e.code, e.received, e.sent) == (kind, code, received, sent)


def test_the_reason_belongs_to_the_code() -> None:
    assert closed((4000, "theirs"), (1000, "ours")).reason == "theirs"
    assert closed(None, (1002, "ours"), failure=1002).reason == "ours"
    assert closed(None, (1000, "ours")).reason == ""


def test_codes_in_words() -> None:
    assert describe((1000, "")) == "1000 (OK)"
    assert describe((3000, "x")) == "3000 (registered) x"
    assert describe((4000, "")) == "4000 (private use)"
    assert describe((1100, "")) == "1100 (unknown)"


def test_they_survive_pickling() -> None:
    e = closed((4000, "theirs"), None)
    copy = pickle.loads(pickle.dumps(e))
    assert (type(copy), copy.code, copy.reason, copy.received) == (type(e), 4000, "theirs", (4000, "theirs"))


def test_a_refusal_has_its_answer() -> None:
    assert error("websocket-status").response is None  # type: ignore[attr-defined]
