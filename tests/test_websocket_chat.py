"""A chat of a thousand over our server, on a few connections: what one says reaches all, in one order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import gevent
import gevent.pool
import pytest
from gevent.queue import Full, Queue
from support import make_server, new_session, url_of, wait_until

import quicgreen
from quicgreen.websocket import ConnectionClosed, ConnectionClosedError, WebSocket

CLIENTS = 1000
CONNECTIONS = 8
SPEAKERS = 50

QUEUED = 128
"""Messages that wait for a client before it is said to be too slow."""

TRY_AGAIN_LATER = 1013

PATIENCE_S = 40.0


class Room:
    """Each client has a queue and a greenlet that sends from it, so that none waits for another."""

    def __init__(self) -> None:
        self.queues: dict[WebSocket, Queue] = {}
        self.said = 0
        self.too_slow: list[WebSocket] = []

    def __call__(self, request: quicgreen.Request) -> None:
        ws = request.accept_websocket(compression=None, ping_interval=None)
        queue = self.queues[ws] = Queue(QUEUED)
        sending = gevent.spawn(self._send, ws, queue)
        try:
            for message in ws:
                self.tell_all(message)
        except ConnectionClosedError:
            pass
        finally:
            self.queues.pop(ws, None)
            sending.kill()

    def tell_all(self, message: str | bytes) -> None:
        text = f"{self.said} {message}" if isinstance(message, str) else message
        self.said += 1
        for ws, queue in list(self.queues.items()):
            try:
                queue.put_nowait(text)
            except Full:
                del self.queues[ws]
                gevent.spawn(self._part_with, ws)

    def _part_with(self, ws: WebSocket) -> None:
        self.too_slow.append(ws)
        ws.close(TRY_AGAIN_LATER, "too slow")

    def _send(self, ws: WebSocket, queue: Queue) -> None:
        try:
            while True:
                ws.send(queue.get())
        except ConnectionClosed:
            pass


@pytest.fixture
def room() -> Iterator[tuple[Room, str]]:
    room = Room()
    config = quicgreen.QuicConfiguration(initial_max_streams_bidi=CLIENTS)
    server = make_server(room, websocket=True, config=config)
    server.start()
    yield room, url_of(server, "/").replace("https", "wss")
    server.stop(timeout=0)


def test_each_message_reaches_all_in_one_order(room: tuple[Room, str]) -> None:
    hall, url = room
    sessions = [new_session() for _ in range(CONNECTIONS)]
    clients: list[WebSocket] = []
    heard: dict[int, list[str]] = defaultdict(list)

    def open_one(i: int) -> None:
        session = sessions[i % CONNECTIONS]
        clients.append(session.websocket(url, compression=None, ping_interval=None, open_timeout=PATIENCE_S))

    def listen(i: int, ws: WebSocket) -> None:
        while len(heard[i]) < 2 * SPEAKERS:
            heard[i].append(str(ws.recv(timeout=PATIENCE_S)))

    def speak(i: int) -> None:
        for number in range(2):
            clients[i].send(f"{i} says {number}")

    pool = gevent.pool.Pool(100)
    pool.map(open_one, range(CLIENTS))
    assert wait_until(lambda: len(hall.queues) == CLIENTS, PATIENCE_S)
    listening = [gevent.spawn(listen, i, ws) for i, ws in enumerate(clients)]
    speaking = [gevent.spawn(speak, i) for i in range(0, CLIENTS, CLIENTS // SPEAKERS)]
    gevent.joinall([*speaking, *listening], raise_error=True)

    assert hall.too_slow == []
    first = heard[0]
    assert [int(text.split()[0]) for text in first] == list(range(2 * SPEAKERS))
    assert all(heard[i] == first for i in range(CLIENTS))
    for i in range(0, CLIENTS, CLIENTS // SPEAKERS):  # each speaker's own order
        mine = [text.split(" ", 1)[1] for text in first]
        assert [t for t in mine if t.startswith(f"{i} says")] == [f"{i} says 0", f"{i} says 1"]
    for session in sessions:
        session.close(timeout=0.1)
    assert wait_until(lambda: not hall.queues, PATIENCE_S)


def test_one_slow_client_hurts_nobody(room: tuple[Room, str]) -> None:
    hall, url = room
    with new_session() as session, new_session() as other:
        slow = session.websocket(url, compression=None, ping_interval=None, max_queue=1)
        # On its connection, and on one of their own.
        others = [s.websocket(url, compression=None, ping_interval=None) for s in [session] * 5 + [other] * 5]
        assert wait_until(lambda: len(hall.queues) == 11)
        block = "x" * 20_000
        for number in range(300):
            others[number % 10].send(f"{number} {block}")
            for ws in others:
                assert str(ws.recv(timeout=PATIENCE_S)).split()[:2] == [str(number), str(number)]
        assert wait_until(lambda: len(hall.queues) == 10, PATIENCE_S)
        # What it got is the beginning, without a gap; then it is told.
        numbers: list[int] = []
        with pytest.raises(ConnectionClosedError) as caught:
            numbers.extend(int(str(message).split()[0]) for message in slow)
        assert numbers == list(range(len(numbers)))
        assert 0 < len(numbers) < 300
        assert (caught.value.code, caught.value.reason) == (TRY_AGAIN_LATER, "too slow")
