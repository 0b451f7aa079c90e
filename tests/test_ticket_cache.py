"""A store of tickets as greenlets use it: it may be slow or broken or hang, and only tickets are lost."""

from __future__ import annotations

import gc
import os
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers.tickets import current_ticket
from support import (
    PATIENCE_S,
    check_python_in_thread,
    hello,
    new_session,
    nothing_left_behind,
    serving,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import QuicWarningTicketStore, hub, ticket_cache
from quicgreen.ticket_cache import TicketCache
from quicgreen.tickets import FileTicketStore, MemoryTicketStore, Ticket


class Store:
    """One that may block. It does "well", or is "slow", or does "raise", or "hang" until it is freed."""

    def __init__(self, way: str = "well") -> None:
        self.way = way
        self.free = threading.Event()
        self.tickets: list[Ticket] = []
        self.calls: list[tuple[str, int]] = []
        self.under_way = 0

    def _do(self, what: str) -> None:
        self.calls.append((what, threading.get_ident()))
        self.under_way += 1
        try:
            if self.way == "raise":
                raise OSError("on purpose")
            if self.way == "hang":
                self.free.wait(60)
            if self.way == "slow":
                time.sleep(0.1)
        finally:
            self.under_way -= 1

    def put(self, key: str, ticket: Ticket) -> None:
        self._do("put")
        self.tickets.append(ticket)

    def pop(self, key: str) -> Ticket | None:
        self._do("pop")
        return self.tickets.pop() if self.tickets else None

    def count(self, what: str) -> int:
        return sum(call == what for call, _ in self.calls)


@pytest.fixture
def make() -> Iterator[Any]:
    """Stores that are freed at the end."""
    made: list[Store] = []

    def new(way: str = "well") -> Store:
        made.append(Store(way))
        return made[-1]

    yield new
    for store in made:
        store.free.set()
    assert wait_until(lambda: not any(store.under_way for store in made))


def cache_of(store: Any) -> TicketCache:
    return TicketCache(hub.current(), store)


@pytest.fixture
def server() -> Iterator[quicgreen.Server]:
    with serving(hello) as server:
        yield server


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No need to wait for a whole second."""
    monkeypatch.setattr(ticket_cache, "_PATIENCE_S", 0.2)


# ---------------------------------------------------------------- the queue


def test_what_is_put_is_there_once_it_was_flushed(make: Any) -> None:
    for store in (MemoryTicketStore(), make()):
        cache = cache_of(store)
        tickets = [current_ticket(n) for n in range(3)]
        for ticket in tickets:
            cache.put("key", ticket)
        cache.flush()
        assert [cache.pop("key") for _ in range(4)] == [*reversed(tickets), None]


def test_put_may_be_called_in_the_hub_and_the_store_is_not(make: Any) -> None:
    store = make()
    cache = cache_of(store)
    gevent.get_hub().loop.run_callback(cache.put, "key", current_ticket(1))
    assert wait_until(lambda: store.tickets)
    assert cache.pop("key") == current_ticket_like(store, 1)
    assert threading.get_ident() not in {thread for _, thread in store.calls}

    class InPlace(Store):
        blocks = False

    store = InPlace()
    cache = cache_of(store)
    callers = []
    store._do = lambda what: callers.append(gevent.getcurrent())  # type: ignore[method-assign]
    gevent.get_hub().loop.run_callback(cache.put, "key", current_ticket(1))
    assert wait_until(lambda: store.tickets)
    assert gevent.get_hub() not in callers


def current_ticket_like(store: Store, number: int) -> Any:
    class Like:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Ticket) and other.data == b"ticket %d" % number

    return Like()


def test_the_queue_is_bounded_and_the_oldest_leave(make: Any) -> None:
    store = make()
    cache = cache_of(store)
    for n in range(500):
        cache.put("key", current_ticket(n))
    assert len(cache._queue) == 64
    cache.flush()
    assert [t.data for t in store.tickets] == [b"ticket %d" % n for n in range(436, 500)]


def test_a_janitor_that_is_killed_is_replaced(make: Any) -> None:
    store = make()
    cache = cache_of(store)
    cache.put("key", current_ticket(1))
    cache._janitor.kill()  # before it began
    cache.flush()
    assert len(store.tickets) == 1
    store.way = "slow"
    cache.put("key", current_ticket(2))
    assert wait_until(lambda: store.under_way)
    cache._janitor.kill()  # at work
    cache.put("key", current_ticket(3))
    cache.flush()
    assert b"ticket 3" in {t.data for t in store.tickets}


def test_who_is_killed_while_it_waits_for_a_ticket_leaves_nothing(
    server: quicgreen.Server, make: Any
) -> None:
    store = make("slow")
    with nothing_left_behind(), new_session(tickets=store) as session:
        job = gevent.spawn(session.get, url_of(server))
        assert wait_until(lambda: store.under_way)
        job.kill()
        assert session.get(url_of(server)).text == "hello"
        with gevent.Timeout(0.01, False):
            session.get(url_of(server))
        store.way = "well"


# ---------------------------------------------------------------- stores that fail


def test_a_slow_store_holds_up_nobody_else(server: quicgreen.Server, make: Any) -> None:
    store = make("slow")
    ticks: list[float] = []

    def tick() -> None:
        while True:
            gevent.sleep(0.005)
            ticks.append(store.under_way)

    ticking = gevent.spawn(tick)
    try:
        for resumed in (False, True):
            with new_session(tickets=store) as session:
                assert session.get(url_of(server)).connection.is_resumed is resumed
    finally:
        ticking.kill()
    assert sum(map(bool, ticks)) > 3  # the hub went on while the store was asleep


@pytest.mark.parametrize("way", ["raise", "hang"])
@pytest.mark.usefixtures("short")
def test_a_store_that_fails_costs_one_warning_and_a_ticket(
    server: quicgreen.Server, make: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(way)
    words = "on purpose" if way == "raise" else "no answer in 0.2 s"
    with nothing_left_behind(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with new_session(tickets=store) as session:
            assert session.get(url_of(server)).text == "hello"
            session.get(url_of(server)).connection.close()
            connection = session.get(url_of(server)).connection  # it is left alone for a while
            assert not connection.is_resumed
        assert store.calls[0][0] == "pop"
        assert len(store.calls) == 1
    assert [(w.category, str(w.message)) for w in caught] == [
        (QuicWarningTicketStore, f"session tickets: {words}")
    ]
    # It is asked again after the pause, and is as good as any.
    store.way = "well"
    store.free.set()
    monkeypatch.setattr(ticket_cache, "_PAUSE_S", 0.0)
    for _ in range(2):
        with new_session(tickets=store) as session:
            connection = session.get(url_of(server)).connection
    assert connection.is_resumed


@pytest.mark.usefixtures("short")
def test_a_put_that_hangs_is_noticed(make: Any) -> None:
    store = make("hang")
    cache = cache_of(store)
    cache.put("key", current_ticket(1))
    with pytest.warns(QuicWarningTicketStore, match="no answer"):
        cache.flush(PATIENCE_S)
    assert not cache._janitor


@pytest.mark.usefixtures("short")
def test_fifty_who_wait_for_a_store_that_hangs_warn_once(make: Any) -> None:
    cache = cache_of(make("hang"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jobs = [gevent.spawn(cache.pop, "key") for _ in range(50)]
        assert [job.get(timeout=PATIENCE_S) for job in jobs] == [None] * 50
    assert [w.category for w in caught] == [QuicWarningTicketStore]


@pytest.mark.usefixtures("short")
def test_stores_that_hang_for_good_leave_the_resolver_its_threads(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticket_cache, "_PAUSE_S", 0.0)
    monkeypatch.setattr(ticket_cache, "_PATIENCE_S", 0.02)
    pool = gevent.get_hub().threadpool
    store = make("hang")
    cache = cache_of(store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2 * pool.maxsize):
            assert cache.pop("key") is None
    with gevent.Timeout(PATIENCE_S):
        assert pool.apply(int) == 0
    assert store.under_way <= 4


def test_a_caller_in_haste_is_not_the_stores_fault(make: Any) -> None:
    store = make("slow")
    cache = cache_of(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.pop("key", 0.01) is None
        assert cache.pop("key", 0.0) is None
    assert wait_until(lambda: store.count("pop") == 2 and not store.under_way)
    store.way = "well"
    store.tickets.append(current_ticket(1))
    assert cache.pop("key") is not None


# ---------------------------------------------------------------- the end


GET = "import sys, quicgreen; print(quicgreen.get(sys.argv[1], verify=False).text)"

RESUMED = """
import sys, quicgreen
print(quicgreen.get(sys.argv[1], verify=False).connection.is_resumed)
"""

PATCHED = "from gevent import monkey; monkey.patch_all()\n"

THREAD = f"""
import threading
thread = threading.Thread(target=lambda: exec({GET!r}))
thread.start()
thread.join()
"""

ENDS = {
    "at once": GET,
    "patched": PATCHED + GET,
    "by an exception": GET + "\nraise SystemExit(0)",
    "in a thread": THREAD,
    "in a patched thread": PATCHED + THREAD,
    "in a greenlet": f"import gevent; gevent.spawn(lambda: exec({GET!r})).get()",
    "session left open": """
import sys, quicgreen
session = quicgreen.Session(verify=False)
print(session.get(sys.argv[1]).text)
""",
    "connection": """
import os, sys, quicgreen
port = int(sys.argv[1].split(":")[2].strip("/"))
print(quicgreen.connect("127.0.0.1", port, verify=False, session_mode="ticket").get().text)
""",
}


@pytest.mark.parametrize("loop", ["libev-cext", "libuv-cffi"])
@pytest.mark.parametrize("end", ENDS)
def test_a_program_that_ends_right_after_its_request_leaves_its_ticket(
    server: quicgreen.Server, tmp_path: Path, end: str, loop: str
) -> None:
    environ = {
        "QUICPRO_SESSION_MODE": "ticket",
        "QUICPRO_TICKET_STORE": str(tmp_path / "tickets"),
        "GEVENT_LOOP": loop,
    }
    assert check_python_in_thread(ENDS[end], url_of(server), **environ).strip() == "hello"
    kept = sorted(os.listdir(tmp_path / "tickets"))
    assert 1 <= len(kept) <= 2, "of the server's two those that had come"
    data = {(tmp_path / "tickets" / name).read_bytes() for name in kept}
    assert len(data) == len(kept), "each once"
    if end == "at once":
        assert check_python_in_thread(RESUMED, url_of(server), **environ).strip() == "True"


def test_a_program_ends_though_its_store_hangs(server: quicgreen.Server) -> None:
    out = check_python_in_thread(
        """
        import sys, time, quicgreen
        class Hanging:
            def put(self, key, ticket): time.sleep(1000)
            def pop(self, key): time.sleep(1000)
        session = quicgreen.Session(verify=False, tickets=Hanging())
        print(session.get(sys.argv[1]).text)
        """,
        url_of(server),
        PYTHONWARNINGS="ignore",
    )
    assert out == "hello\n"


def test_what_waits_at_a_fork_is_the_parents(server: quicgreen.Server, tmp_path: Path) -> None:
    check_python_in_thread(
        """
        import os, sys, time, gevent, quicgreen
        from quicgreen.tickets import FileTicketStore
        class Slow(FileTicketStore):
            def put(self, key, ticket):
                time.sleep(0.2)
                super().put(key, ticket)
        session = quicgreen.Session(verify=False, tickets=Slow(sys.argv[2]))
        session.get(sys.argv[1])
        cache = session._pool.sessions.cache
        while not cache._queue:  # the first one is with the janitor, the second waits for it
            gevent.sleep(0.001)
        if (child := os.fork()) == 0:
            raise SystemExit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        url_of(server),
        str(tmp_path / "tickets"),
    )
    data = [path.read_bytes() for path in (tmp_path / "tickets").iterdir()]
    assert len(data) == len(set(data)) == 2


def test_threads_share_what_is_in_memory(server: quicgreen.Server) -> None:
    out = check_python_in_thread(
        """
        import sys, threading, quicgreen
        def visit():
            with quicgreen.Session(verify=False, session_mode="live") as session:
                print(session.get(sys.argv[1]).connection.is_resumed)
        for _ in range(3):
            thread = threading.Thread(target=visit)
            thread.start()
            thread.join()
        """,
        url_of(server),
    )
    assert out.split() == ["False", "True", "True"]


def test_a_session_that_is_closed_and_forgotten_leaves_no_cache(
    server: quicgreen.Server, tmp_path: Path
) -> None:
    gc.collect()
    before = len(ticket_cache._caches)
    for n in range(5):
        with new_session(tickets=FileTicketStore(tmp_path / str(n))) as session:
            session.get(url_of(server))
        assert len(os.listdir(tmp_path / str(n))) == 2
    del session
    gc.collect()
    assert len(ticket_cache._caches) <= before
