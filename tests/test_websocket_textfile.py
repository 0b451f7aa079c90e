"""A WebSocket as a text file, ours with ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import new_session, serving, url_of

from quicgreen.websocket import ConnectionClosedError, ConnectionClosedOK, WebSocket


@pytest.fixture
def talk() -> Iterator[Callable[..., WebSocket]]:
    """Open a WebSocket to a server that does with its own what it is told."""
    steps: list[Any] = []

    def handle(request: Any) -> None:
        steps[-1](request.accept_websocket())

    with serving(handle, websocket=True) as server, new_session() as session:

        def open_one(step: Any) -> WebSocket:
            steps.append(step)
            return session.websocket(url_of(server))

        yield open_one


def test_lines_end_where_a_newline_or_a_message_ends(talk: Any) -> None:
    def say(ws: WebSocket) -> None:
        for text in ("one\ntwo", "", "three\n", "\n", "vier ä\n\nfünf"):
            ws.send(text)

    with talk(say).makefile() as file:
        assert [file.readline() for _ in range(3)] == ["one\n", "two", "\n"]
        assert not file.eof
        assert list(file) == ["three\n", "\n", "vier ä\n", "\n", "fünf"]
        assert file.eof
        assert file.closed
        assert file.readline() == ""


def test_binary_messages_are_read_as_text(talk: Any) -> None:
    file = talk(lambda ws: ws.send("ä\n".encode())).makefile()
    assert list(file) == ["ä\n"]


def test_each_write_is_a_text_message(talk: Any) -> None:
    got: list[Any] = []
    file = talk(lambda ws: got.extend(ws)).makefile()
    assert file.write("eins ä\n") == 7
    print("zwei", end="", file=file, flush=True)
    file.close()
    assert got == ["eins ä\n", "zwei"]
    with pytest.raises(ConnectionClosedOK):
        file.write("more")


def test_an_end_that_is_none_is_told(talk: Any) -> None:
    file = talk(lambda ws: ws.close(1011, "oh")).makefile()
    with pytest.raises(ConnectionClosedError):
        file.readline()
    assert file.eof
    assert file.readline() == ""
