"""A server that stops while handlers run whose clients have gone."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from support import (
    PATIENCE_S,
    Gate,
    connect,
    counters,
    make_server,
    nothing_left_behind,
    outcome,
    spawn_gets,
    turn_loop,
    wait_until,
)


@pytest.mark.parametrize("spawn", ["default", "raw", 10])
def test_stop_kills_handlers_whose_clients_have_gone(spawn: Any) -> None:
    gate = Gate()
    with nothing_left_behind():
        server = make_server(gate, spawn=spawn)
        server.start()
        connection = connect(server)
        [get] = spawn_gets(connection, 1)
        assert wait_until(lambda: gate.running)
        connection.close()
        assert wait_until(lambda: counters()["connections"] == 0)
        assert outcome(get) == "closed-here"
        assert gate.running == 1  # it may have more to do than to answer
        server.stop(timeout=0.05)
        assert server.closed
    assert gate.ended == [("/0", "GreenletExit")]


def test_stop_waits_for_handlers_whose_clients_have_gone() -> None:
    gate = Gate()
    with nothing_left_behind():
        server = make_server(gate)
        server.start()
        connection = connect(server)
        [get] = spawn_gets(connection, 1)
        assert wait_until(lambda: gate.running)
        connection.close()
        assert outcome(get) == "closed-here"
        stopping = gevent.spawn(server.stop, timeout=PATIENCE_S)
        assert wait_until(lambda: counters()["connections"] == 0)
        turn_loop(5)
        assert not stopping.ready()
        gate.event.set()
        stopping.get(timeout=PATIENCE_S)
    assert gate.ended == [("/0", "finished")]
