from __future__ import annotations

import dataclasses

import pytest
from support import connect, hello, serving, wait_until

from quicgreen import _engine
from quicgreen.stats import ConnectionStats


def test_it_has_the_fields_of_the_engines_record() -> None:
    names = [name for name, _ in _engine.ffi.typeof("qg_conn_stats").fields]
    assert [f.name for f in dataclasses.fields(ConnectionStats)] == names


def test_a_snapshot_does_not_change() -> None:
    names = [f.name for f in dataclasses.fields(ConnectionStats)]
    stats = ConnectionStats(**dict.fromkeys(names, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.rtt = 2
    assert stats == ConnectionStats(**dict.fromkeys(names, 1))


def test_the_numbers_of_a_connection_that_was_used() -> None:
    with serving(hello) as server, connect(server) as connection:
        before = connection.stats()
        for _ in range(10):
            assert connection.get("/").text == "hello"
        after = connection.stats()
        assert after.sent > before.sent >= 2
        assert after.recv > before.recv >= 2
        assert after.sent_bytes > before.sent_bytes >= 1200
        assert 0 < after.min_rtt <= after.rtt < 5_000_000_000
        assert 1200 <= after.pmtu <= 1500
        assert after.cwnd >= 10_000
        assert after.paths_count >= 1
        assert (after.reset_stream_count_local, after.reset_stream_count_remote) == (0, 0)


def test_there_are_none_of_a_connection_that_is_gone() -> None:
    with serving(hello) as server:
        connection = connect(server)
        connection.close(0)
        assert wait_until(lambda: connection.stats() is None)
