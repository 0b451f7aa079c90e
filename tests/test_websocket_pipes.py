"""WebSockets over streams that are read and written by waiting: here, raw ones of QUIC."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent.event import AsyncResult
from support import PATIENCE_S, connect_raw, nothing_left_behind, serving_raw, wait_until

import quicgreen
from quicgreen import hub
from quicgreen.websocket import ConnectionClosedError, ConnectionClosedOK, State, WebSocket
from quicgreen.websocket.pipes import GreenPipe
from quicgreen.websocket.protocol import Protocol


@pytest.fixture
def both() -> Iterator[tuple[WebSocket, WebSocket]]:
    """A client's and a server's."""
    accepted: AsyncResult = AsyncResult()

    def handle(connection: quicgreen.Connection) -> None:
        accepted.set(connection.accept_stream())
        connection._closed_event.wait()

    with nothing_left_behind(), serving_raw(handle) as server, connect_raw(server) as connection:
        stream = connection.open_stream()
        stream.write(b"!")
        theirs = accepted.get(timeout=PATIENCE_S)
        assert theirs.read(1) == b"!"
        runtime = hub.current()
        ends = [
            WebSocket(runtime, GreenPipe(runtime, s), Protocol(is_server=s is theirs, max_size=None))
            for s in (stream, theirs)
        ]
        for end in ends:
            end._start()
        yield ends[0], ends[1]


def test_messages_and_the_close(both: tuple[WebSocket, WebSocket]) -> None:
    ws, theirs = both
    ws.send("hello")
    assert theirs.recv() == "hello"
    data = bytes(range(256)) * 8000
    sender = gevent.spawn(theirs.send, data)
    assert ws.recv() == data
    sender.get(timeout=PATIENCE_S)
    assert ws.ping().wait(PATIENCE_S)
    ws.close(1000, "done")
    with pytest.raises(ConnectionClosedOK) as caught:
        theirs.recv()
    assert caught.value.reason == "done"
    assert wait_until(lambda: (ws.state, theirs.state) == (State.CLOSED, State.CLOSED))


def test_a_reset(both: tuple[WebSocket, WebSocket]) -> None:
    ws, theirs = both
    theirs._give_up()
    with pytest.raises(ConnectionClosedError) as caught:
        ws.recv(timeout=PATIENCE_S)
    assert caught.value.code == 1006
    assert isinstance(caught.value.__cause__, quicgreen.QuicStreamException)


def test_who_is_killed_loses_nothing(both: tuple[WebSocket, WebSocket]) -> None:
    ws, theirs = both
    receiver = gevent.spawn(theirs.recv)
    gevent.sleep(0.01)
    receiver.kill()
    ws.send("kept")
    assert theirs.recv(timeout=PATIENCE_S) == "kept"
    ws.close()
