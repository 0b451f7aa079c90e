from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from helpers.redis_server import RedisServer, free_port
from helpers.tickets import START, Clock, make_ticket
from support import check_python

from quicgreen import QuicException, QuicSocketException
from quicgreen.tickets import KEEP, RedisTicketStore, fingerprint

pytestmark = pytest.mark.timeout(300)
"""The first use of Redis on a machine may install it."""


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    assert redis_server.ask("FLUSHALL") == b"+OK"
    return redis_server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as made:
        yield made


def new_store(target: Any, **options: Any) -> RedisTicketStore:
    return RedisTicketStore(target, **{"clock": Clock(), "timeout": 20.0, **options})


def check_away(call: Any, *arguments: Any) -> QuicException:
    with pytest.raises(QuicSocketException) as caught:
        call(*arguments)
    assert caught.value.cause == "ticket-redis"
    assert isinstance(caught.value, ConnectionError)
    return caught.value


def check_all_away(store: RedisTicketStore) -> None:
    check_away(store.get, "key")
    check_away(store.pop, "key")
    check_away(store.put, "key", make_ticket())
    check_away(store.delete, "key")
    check_away(store.clear)
    check_away(list, store.items())


def test_redis_lets_them_go_by_itself(server: RedisServer, client: redis.Redis) -> None:
    store = new_store(server.url)
    name = "quicgreen:ticket:" + fingerprint("key")
    store.put("key", make_ticket(1, lifetime=100))
    assert 90_000 < client.pttl(name) <= 100_000
    store.put("key", make_ticket(2, lifetime=1e9))
    assert 604_000_000 < client.pttl(name) <= 604_800_000
    client.pexpire(name, 1)
    while client.exists(name):
        pass
    assert store.get("key") is None


def test_the_list_is_bounded(server: RedisServer, client: redis.Redis) -> None:
    store = new_store(server.url)
    for n in range(20):
        store.put("key", make_ticket(n))
    assert client.llen("quicgreen:ticket:" + fingerprint("key")) == KEEP


def test_the_same_ticket_again_is_not_another_one(server: RedisServer) -> None:
    """A client of the user's may send a put twice, when the connection broke before the answer came."""
    store = new_store(server.url)
    store.put("key", make_ticket(1))
    store.put("key", make_ticket(1))
    assert store.pop("key") == make_ticket(1)
    assert store.pop("key") is None


def test_prefixes_keep_stores_apart(server: RedisServer, client: redis.Redis) -> None:
    """Also those that would be patterns."""
    stores = [new_store(server.url, prefix=p) for p in ("a:", "a*", "*", "[a-z]:", "\\?", "")]
    client.set("a:" + "x" * 31, "not ours")
    for number, store in enumerate(stores):
        store.put("key", make_ticket(number))
    for number, store in enumerate(stores):
        assert list(store.items()) == [(fingerprint("key"), make_ticket(number))]
    stores[1].clear()
    stores[2].clear()
    stores[3].clear()
    assert [s.get("key") is not None for s in stores] == [True, False, False, False, True, True]
    assert client.get("a:" + "x" * 31) == b"not ours"


def test_away_at_the_start_and_there_later(tmp_path: Path) -> None:
    store = new_store(f"redis://user:secret@127.0.0.1:{free_port()}/0")
    check_all_away(store)
    assert "secret" not in str(check_away(store.get, "key"))
    store.close()
    server = RedisServer(tmp_path)
    server.stop()
    store = new_store(server.url)
    check_away(store.get, "key")
    server.start()
    try:
        store.put("key", make_ticket())
        assert store.pop("key") == make_ticket()
    finally:
        server.stop()
        store.close()


def test_away_later_and_back_again(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    store = new_store(server.url)
    try:
        store.put("key", make_ticket(1))
        server.stop()
        check_all_away(store)
        server.start()
        assert store.get("key") is None
        store.put("key", make_ticket(2))
        assert store.pop("key") == make_ticket(2)
        server.stop()  # and a restart between two calls is not even noticed
        server.start()
        store.put("key", make_ticket(3))
        assert store.pop("key") == make_ticket(3)
    finally:
        server.stop()
        store.close()


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    store = new_store(server.url, timeout=0.2)
    try:
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGSTOP)
        assert "imeout" in str(check_away(store.get, "key"))
        check_away(store.put, "key", make_ticket())
    finally:
        server.stop()
        store.close()


def test_a_full_server_says_so(server: RedisServer, client: redis.Redis) -> None:
    store = new_store(server.url)
    client.config_set("maxmemory", 1)
    try:
        assert "maxmemory" in str(check_away(store.put, "key", make_ticket()))
    finally:
        client.config_set("maxmemory", 0)
    store.put("key", make_ticket())
    assert store.get("key") == make_ticket()


def test_what_is_not_ours_is_skipped(server: RedisServer, client: redis.Redis) -> None:
    store = new_store(server.url)
    name = "quicgreen:ticket:" + fingerprint("key")
    store.put("key", make_ticket(1))
    client.lpush(name, b"of a newer version", make_ticket(2).to_bytes()[:-1])
    assert store.get("key") == make_ticket(1)
    assert store.pop("key") == make_ticket(1)
    assert store.pop("key") is None
    client.set("quicgreen:ticket:" + fingerprint("other"), "no list")
    check_away(store.get, "other")


def test_a_client_of_the_users_is_used_and_left_open(client: redis.Redis) -> None:
    store = new_store(client)
    store.put("key", make_ticket())
    store.close()
    assert client.ping()
    assert new_store(client).get("key") == make_ticket()


def test_a_client_that_would_spoil_them_is_refused(server: RedisServer) -> None:
    with (
        redis.Redis.from_url(server.url, decode_responses=True) as text_client,
        pytest.raises(QuicException, match="decode_responses") as caught,
    ):
        new_store(text_client)
    assert caught.value.cause == "argument"


@pytest.mark.parametrize("url", ["", "127.0.0.1:6379", "http://127.0.0.1/", "redis://127.0.0.1:port/"])
def test_what_is_no_url_of_redis_is_refused(url: str) -> None:
    with pytest.raises(QuicException) as caught:
        new_store(url)
    assert caught.value.cause == "argument"


def test_the_clock_of_redis_need_not_be_ours(server: RedisServer, client: redis.Redis) -> None:
    clock = Clock()
    clock.now = START - 10 * 365 * 86400
    store = new_store(server.url, clock=clock)
    store.put("key", make_ticket(issued_at=clock.now, lifetime=100))
    assert 90_000 < client.pttl("quicgreen:ticket:" + fingerprint("key")) <= 100_000
    assert store.pop("key") is not None


def test_without_redis_py_the_package_works_and_the_store_says_what_is_missing() -> None:
    check_python("""
        import sys
        sys.modules["redis"] = None  # as if it were not installed
        from quicgreen import QuicClientException
        from quicgreen.tickets import RedisTicketStore
        assert not {"ssl", "asyncio"} & set(sys.modules)
        try:
            RedisTicketStore("redis://127.0.0.1/")
        except QuicClientException as e:
            assert "quicgreen[redis]" in str(e), e
        else:
            raise AssertionError
    """)
