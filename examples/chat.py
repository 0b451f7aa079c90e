"""A chat over HTTP/3: everybody hears what anybody says.

    quicgreen serve --chdir examples --websocket chat:handle
    quicgreen ws -k "wss://localhost:4433/?ada"         # and in another terminal: ?grace

Each member has a greenlet that reads and one that writes, and what waits to be written waits in a queue of
his own: who reads slowly keeps nobody waiting, and who is too far behind is shown the door.
"""

from __future__ import annotations

import gevent
from gevent.queue import Full, Queue

import quicgreen
from quicgreen.websocket import ConnectionClosed, WebSocket

BEHIND = 100
"""Messages that a member may be behind; with lines of text some kilobytes for each."""

TRY_AGAIN_LATER = 1013


class Room:
    def __init__(self) -> None:
        self.outboxes: dict[WebSocket, Queue] = {}

    def enter(self, ws: WebSocket, name: str) -> None:
        """Stay until the member leaves."""
        self.outboxes[ws] = outbox = Queue(BEHIND)
        writer = gevent.spawn(write, ws, outbox)
        self.say(f"* {name} is here, which makes {len(self.outboxes)}")
        try:
            for text in ws:
                self.say(f"{name}: {text}")
        except ConnectionClosed:
            pass  # he went without a word
        finally:
            self.outboxes.pop(ws, None)
            writer.kill()
            self.say(f"* {name} is gone")

    def say(self, text: str) -> None:
        """To everybody; it waits for nobody."""
        for ws, outbox in list(self.outboxes.items()):
            try:
                outbox.put_nowait(text)
            except Full:
                del self.outboxes[ws]
                gevent.spawn(ws.close, TRY_AGAIN_LATER, "you are too far behind")


def write(ws: WebSocket, outbox: Queue) -> None:
    try:
        for text in outbox:
            ws.send(text)
    except ConnectionClosed:
        pass


room = Room()


def handle(request: quicgreen.Request) -> None:
    """Called in a greenlet for each request."""
    if not request.is_websocket:
        request.respond(404, {"content-type": "text/plain"}, "This is a chat: quicgreen ws -k wss://...\n")
        return
    name = request.path.partition("?")[2] or "somebody"
    with request.accept_websocket() as ws:
        room.enter(ws, name)
