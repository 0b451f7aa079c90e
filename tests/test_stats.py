from __future__ import annotations

from support import connect, hello, serving, wait_until

from quicgreen import _engine
from quicgreen.stats import COUNTERS, GAUGES, ConnectionStats


def test_it_has_the_fields_of_the_engines_record() -> None:
    names = [name for name, _ in _engine.ffi.typeof("qg_conn_stats").fields]
    assert list(ConnectionStats.__annotations__) == names


def test_the_numbers_of_a_connection_that_was_used() -> None:
    with serving(hello) as server, connect(server) as connection:
        before = connection.stats()
        for _ in range(10):
            assert connection.get("/").text == "hello"
        after = connection.stats()
        assert after["sent"] > before["sent"] >= 2
        assert after["recv"] > before["recv"] >= 2
        assert after["sent_bytes"] > before["sent_bytes"] >= 1200
        assert 0 < after["min_rtt"] <= after["rtt"] < 5_000_000_000
        assert 1200 <= after["pmtu"] <= 1500
        assert after["cwnd"] >= 10_000
        assert after["paths_count"] >= 1
        assert (after["reset_stream_count_local"], after["reset_stream_count_remote"]) == (0, 0)


def test_there_are_none_of_a_connection_that_is_gone() -> None:
    with serving(hello) as server:
        connection = connect(server)
        connection.close(0)
        assert wait_until(lambda: connection.stats() is None)


def test_every_counter_of_the_engine_is_described() -> None:
    assert list(COUNTERS) == [name for name, _ in _engine.ffi.typeof("qg_counters").fields]
    assert set(GAUGES) < COUNTERS.keys()
