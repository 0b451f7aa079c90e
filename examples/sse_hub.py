"""An SSE hub: one publisher, many subscribers, and nobody misses what was said while he was away.

Why: push news from a server to browsers and agents, which until now took a program of its own (Mercure).

    python examples/sse_hub.py                                  # a hub, three subscribers and a publisher
    python examples/sse_hub.py 0.0.0.0 4433 cert.pem key.pem    # a hub that stays

    GET /events      events as they come; with Last-Event-ID, first those that came after it
    POST /publish    the body is the next event's data; the answer is its id
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Iterator

import gevent
from _local import serve, start
from gevent.queue import Empty, Queue

import quicgreen
from quicgreen import sse

REMEMBERED = 1000
"""Events that a subscriber may be away for."""

BEHIND = 100
"""Events that a subscriber may be behind; then his stream ends, and he comes back for the rest."""

HEARTBEAT_S = 15.0
"""A comment so often keeps the way open, and finds out who has left."""


class Hub:
    """All that is said goes to all who listen, by a queue for each: who is slow keeps nobody waiting."""

    def __init__(self) -> None:
        self.newest = 0
        self.remembered: deque[tuple[int, bytes]] = deque(maxlen=REMEMBERED)
        self.queues: set[Queue] = set()

    def publish(self, data: str) -> int:
        """It waits for nobody."""
        self.newest += 1
        event = sse.encode(data, id=str(self.newest))
        self.remembered.append((self.newest, event))
        for queue in list(self.queues):
            if queue.full():
                self.queues.discard(queue)  # his stream ends when he has read what is in it
            else:
                queue.put_nowait(event)
        return self.newest

    def subscribe(self, last_id: int) -> Iterator[bytes]:
        """What came after `last_id`, then what comes, for as long as it is read."""
        if last_id > self.newest:
            last_id = 0  # of an earlier hub: he knows nothing of this one's
        queue: Queue = Queue(BEHIND)
        missed = [event for number, event in self.remembered if number > last_id]
        self.queues.add(queue)
        try:
            yield b": welcome\n\n"
            yield from missed
            while queue in self.queues or not queue.empty():
                try:
                    yield queue.get(timeout=HEARTBEAT_S)
                except Empty:
                    yield b": still here\n\n"
        finally:
            self.queues.discard(queue)


hub = Hub()


def handle(request: quicgreen.Request) -> None:
    """Called in a greenlet for each request; a subscriber's stays until he leaves."""
    route = request.method, request.path
    if route == ("GET", "/events"):
        # Without the field: only what comes from now on.
        last_id = request.headers.get("last-event-id", str(hub.newest))
        if not (last_id.isascii() and last_id.isdecimal()):
            request.respond(400, {"content-type": "text/plain"}, "Last-Event-ID is a number\n")
            return
        head = {"content-type": "text/event-stream", "cache-control": "no-store"}
        try:
            request.respond(200, head, hub.subscribe(int(last_id)))
        except (quicgreen.QuicStreamException, quicgreen.QuicConnectionException):
            pass  # that he leaves is how it ends
    elif route == ("POST", "/publish"):
        number = hub.publish(request.read().decode("utf-8", "replace"))
        request.respond(202, {"content-type": "text/plain"}, f"{number}\n")
    else:
        request.respond(404)


# ---------------------------------------------------------------- who listens, and who speaks


def listen(session: quicgreen.Session, url: str, last_id: str | None = None) -> Iterator[sse.Event]:
    """Events, each as it comes."""
    headers = {"last-event-id": last_id} if last_id is not None else {}
    # Between two heartbeats nothing may come.
    with session.stream("GET", f"{url}/events", headers=headers, timeout=3 * HEARTBEAT_S) as response:
        response.raise_for_status()
        yield from sse.decode(response.iter_lines())


def subscriber(session: quicgreen.Session, url: str, name: str, count: int) -> None:
    for event in itertools.islice(listen(session, url, "0"), count):
        print(f"{name} heard {event.id}: {event.data}", flush=True)


def forgetful(session: quicgreen.Session, url: str, name: str, count: int) -> None:
    """Leaves after two events, and asks for the rest when all is over."""
    for event in itertools.islice(listen(session, url, "0"), 2):
        print(f"{name} heard {event.id}: {event.data}", flush=True)
    gevent.sleep(0.5)
    print(f"{name} is back, and asks for what came after {event.id}", flush=True)
    for missed in itertools.islice(listen(session, url, event.id), count - 2):
        print(f"{name} heard {missed.id}: {missed.data}", flush=True)


def main() -> None:
    host, port = start("sse_hub.py")
    url = f"https://{host}:{port}"
    news = ["one", "two", "three", "four", "five"]
    with quicgreen.Session() as session:
        listeners = [
            gevent.spawn(subscriber, session, url, "ada", len(news)),
            gevent.spawn(subscriber, session, url, "grace", len(news)),
            gevent.spawn(forgetful, session, url, "alan", len(news)),
        ]
        for data in news:
            gevent.sleep(0.05)
            session.post(f"{url}/publish", data).raise_for_status()
        gevent.joinall(listeners, raise_error=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(handle)
    else:
        main()
