"""The contract of quicgreen/tickets/store.py, held against each store in the same words."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.redis_server import RedisServer
from helpers.tickets import START, Place, current_ticket, make_ticket, run_together

from quicgreen.tickets import KEEP, TicketStore, fingerprint

pytestmark = pytest.mark.timeout(300)
"""The first use of Redis on a machine may install it."""

SHARED = ["file", "shared memory", "redis"]


@pytest.fixture(params=["memory", *SHARED])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, segment_path: str
) -> Iterator[Place]:  # fmt: skip
    argument: str | None = None
    if request.param == "file":
        argument = str(tmp_path / "tickets")
    elif request.param == "shared memory":
        argument = segment_path
    elif request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        assert server.ask("FLUSHALL") == b"+OK"
        argument = server.url
    made = Place(request.param, argument)
    yield made
    made.close()


@pytest.fixture
def store(place: Place) -> TicketStore:
    return place.open()


shared_only = pytest.mark.parametrize("place", SHARED, indirect=True)


def test_get_leaves_it_and_pop_takes_it(store: TicketStore) -> None:
    assert store.get("key") is None
    assert store.pop("key") is None
    ticket = make_ticket(data=bytes(range(256)) * 8)
    store.put("key", ticket)
    assert [store.get("key") for _ in range(3)] == [ticket] * 3
    assert store.pop("key") == ticket
    assert store.pop("key") is None
    assert store.get("key") is None


def test_keys_are_kept_apart(store: TicketStore) -> None:
    keys = ["", "a", "A", "a b/../\n\0*?[x]", "\u00fc\udc80", "k" * 5000, "0" * 32, "f" * 31]
    for number, key in enumerate(keys):
        store.put(key, make_ticket(number))
    assert [store.pop(key) for key in keys] == [make_ticket(n) for n in range(len(keys))]


def test_the_newest_comes_first_also_when_the_clock_stands_or_goes_back(
    store: TicketStore, place: Place
) -> None:
    for number, second in enumerate([0, 0, 0.5, 0.25, 0.25]):
        place.clock.now = START + second
        store.put("key", make_ticket(number))
        assert store.get("key") == make_ticket(number)
    assert [store.pop("key") for _ in range(6)] == [*(make_ticket(n) for n in (4, 3, 2, 1, 0)), None]


def test_the_newest_eight_of_a_key_are_kept(store: TicketStore) -> None:
    assert KEEP == 8
    store.put("other", make_ticket(99))
    for number in range(12):
        store.put("key", make_ticket(number))
    got = [store.pop("key") for _ in range(9)]
    assert got == [*(make_ticket(n) for n in range(11, 3, -1)), None]
    assert store.pop("other") == make_ticket(99)


def test_expired_ones_are_skipped(store: TicketStore, place: Place) -> None:
    store.put("key", make_ticket(1, lifetime=100))
    store.put("key", make_ticket(2, lifetime=50))
    place.clock.now = START + 49
    assert store.get("key") == make_ticket(2, lifetime=50)
    place.clock.now = START + 50
    assert store.get("key") == make_ticket(1, lifetime=100)
    assert dict(store.items()) == {fingerprint("key"): make_ticket(1, lifetime=100)}
    place.clock.now = START + 100
    assert store.get("key") is None
    assert store.pop("key") is None
    assert list(store.items()) == []


def test_an_expired_one_is_not_kept(store: TicketStore, place: Place) -> None:
    store.put("key", make_ticket(lifetime=0))
    store.put("key", make_ticket(lifetime=-5))
    place.clock.now = START - 10
    store.put("key", make_ticket(1, issued_at=START - 1000, lifetime=900))
    place.clock.now = START - 500
    assert store.get("key") is None


def test_a_clock_set_forward_ends_tickets_and_one_set_back_hides_them(
    store: TicketStore, place: Place
) -> None:
    store.put("key", make_ticket())
    for now, there in [(-3600, False), (-2, False), (0, True), (86400, False), (1, True)]:
        place.clock.now = START + now
        assert (store.get("key") is not None) is there, now
        if not there:
            assert store.pop("key") is None
    assert store.pop("key") == make_ticket()


def test_delete_drops_one_key_and_clear_all(store: TicketStore) -> None:
    for number in range(3):
        store.put("a", make_ticket(number))
        store.put("b", make_ticket(number))
    store.delete("a")
    store.delete("never there")
    assert store.get("a") is None
    assert store.get("b") == make_ticket(2)
    store.clear()
    assert store.get("b") is None
    assert list(store.items()) == []
    store.put("b", make_ticket(7))
    assert store.get("b") == make_ticket(7)


def test_items_gives_keys_that_can_be_used(store: TicketStore) -> None:
    tickets = {("a", 1), ("a", 2), ("b", 3)}
    for key, number in sorted(tickets):
        store.put(key, make_ticket(number))
    seen = list(store.items())
    assert sorted((k, t.data) for k, t in seen) == sorted(
        (fingerprint(k), make_ticket(n).data) for k, n in tickets
    )
    for key in {key for key, _ in seen}:
        assert store.get(key) is not None
        store.delete(key)
    assert list(store.items()) == []


def test_a_closed_store_may_be_closed_again_and_keeps_its_tickets(place: Place) -> None:
    store = place.open()
    store.put("key", make_ticket())
    store.close()
    store.close()
    if place.kind != "memory":
        assert place.open().get("key") == make_ticket()


def test_threads_may_share_a_store_and_each_ticket_is_popped_once(store: TicketStore) -> None:
    keys = [f"key {n}" for n in range(5)]
    popped: list[bytes] = []
    failures: list[BaseException] = []
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        try:
            barrier.wait()
            for turn in range(20):
                key = keys[(number + turn) % len(keys)]
                if number < 2:
                    store.put(key, make_ticket(number * 1000 + turn))
                elif number == 2:
                    list(store.items())
                    store.get(key)
                else:
                    ticket = store.pop(key)
                    if ticket is not None:
                        popped.append(ticket.data)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    left = [ticket.data for _, ticket in store.items()]
    everything = sorted(popped + left)
    assert everything == sorted({make_ticket(w * 1000 + t).data for w in range(2) for t in range(20)})


@shared_only
def test_two_handles_see_the_same_tickets(place: Place) -> None:
    first, second = place.open(), place.open()
    first.put("key", make_ticket(1))
    assert second.get("key") == make_ticket(1)
    second.put("key", make_ticket(2))
    assert first.pop("key") == make_ticket(2)
    assert second.pop("key") == make_ticket(1)
    assert first.pop("key") is None


@shared_only
def test_a_ticket_of_one_process_is_used_by_another_and_each_by_one_only(place: Place) -> None:
    store = place.open()
    place.clock.now = current_ticket(0).issued_at + 1
    keys = [f"key {n}" for n in range(5)]
    for number in range(40):
        store.put(keys[number % 5], current_ticket(number))
    code = """
for turn in range(20):
    for n in range(5):
        ticket = store.pop(f"key {n}")
        if ticket is not None:
            print(ticket.data.decode().replace(" ", "-"))
"""
    said = run_together(place, code, 3)
    assert sorted(word for words in said for word in words) == sorted(f"ticket-{n}" for n in range(40))
    assert list(store.items()) == []


# Python 3.12 warns of any fork while there are threads; these children do nothing but use the store.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@shared_only
def test_a_process_that_forks_shares_its_store_with_the_child(place: Place) -> None:
    """As a parent does that forks a worker for each request."""
    store = place.open()
    store.put("key", make_ticket(1))
    store.put("key", make_ticket(2))
    child = os.fork()
    if child == 0:
        try:
            ok = store.pop("key") == make_ticket(2)
            store.put("from child", make_ticket(3))
            os._exit(0 if ok else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.pop("key") == make_ticket(1)
    assert store.pop("key") is None
    assert store.pop("from child") == make_ticket(3)


@pytest.mark.parametrize("key", ["", "a", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "\udc80"])
def test_any_key_has_a_fingerprint(key: str) -> None:
    made = fingerprint(key)
    assert made != key
    assert len(made) == 32
    assert fingerprint(made) == made == fingerprint(key)
