from __future__ import annotations

import dataclasses
import threading

import pytest
from helpers.tickets import START, Clock, make_ticket
from support import check_python

from quicgreen import QuicClientException
from quicgreen.tickets import MemoryTicketStore, Ticket


def keys_of(store: MemoryTicketStore, count: int) -> list[int]:
    """Which of the keys "0", "1" ... have a ticket; looks without using them."""
    there = {ticket.data for _, ticket in store.items()}
    return [n for n in range(count) if make_ticket(n).data in there]


def test_the_least_recently_used_leaves_first() -> None:
    store = MemoryTicketStore(max_tickets=4, clock=Clock())
    for n in range(4):
        store.put(str(n), make_ticket(n))
    store.get("0")
    store.get("2")
    store.put("4", make_ticket(4))
    assert keys_of(store, 5) == [0, 2, 3, 4]
    store.put("5", make_ticket(5))
    store.put("6", make_ticket(6))
    assert keys_of(store, 7) == [2, 4, 5, 6]


def test_expired_ones_leave_before_all_others() -> None:
    clock = Clock()
    store = MemoryTicketStore(max_tickets=3, clock=clock)
    store.put("0", make_ticket(0))
    store.put("1", make_ticket(1, lifetime=10))
    store.put("2", make_ticket(2))
    store.get("1")
    clock.now = START + 10
    store.put("3", make_ticket(3))
    assert keys_of(store, 4) == [0, 2, 3]


def test_a_thousand_are_kept_when_nothing_is_said() -> None:
    store = MemoryTicketStore(clock=Clock())
    for n in range(1030):
        store.put(str(n), make_ticket(n))
    assert keys_of(store, 1030) == list(range(6, 1030))


def test_no_room_at_all_is_refused() -> None:
    with pytest.raises(QuicClientException, match="at least 1"):
        MemoryTicketStore(max_tickets=0)


def test_a_child_that_was_forked_while_threads_used_the_store_is_not_stuck() -> None:
    check_python("""
        import os, threading, warnings
        from helpers.tickets import Clock, make_ticket
        from quicgreen.tickets import MemoryTicketStore

        warnings.simplefilter("ignore")  # Python 3.12 warns of any fork with threads
        store, done = MemoryTicketStore(max_tickets=50, clock=Clock()), False

        def work():
            n = 0
            while not done:
                store.put(str(n % 70), make_ticket(n))
                store.pop(str(n % 30))
                n += 1

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for n in range(50):
                child = os.fork()
                if child == 0:
                    store.put("child", make_ticket(12345))
                    os._exit(0 if store.pop("child") == make_ticket(12345) else 1)
                assert os.waitpid(child, 0)[1] == 0, n
        finally:
            done = True
    """)


def test_of_threads_that_pop_at_the_same_moment_one_gets_it() -> None:
    """One is stopped between its look at a ticket and the pop, and the other one overtakes it there."""
    store = MemoryTicketStore(clock=Clock())
    popped: list[Ticket | None] = []
    overtaking = [threading.Thread(target=lambda: popped.append(store.pop("key")))]

    class LookedAt(Ticket):
        __slots__ = ()

        def expired(self, now: float) -> bool:
            if overtaking:
                other = overtaking.pop()
                other.start()
                other.join()
            return super().expired(now)

    older, newer = make_ticket(1), make_ticket(2)
    store.put("key", older)
    overtaking, later = [], overtaking
    store.put("key", LookedAt(**{f.name: getattr(newer, f.name) for f in dataclasses.fields(newer)}))
    overtaking = later
    assert store.pop("key") == older
    assert [ticket.data for ticket in popped if ticket] == [newer.data]
    assert store.pop("key") is None
