"""Who asks: an entry for each greenlet, which goes with it."""

from __future__ import annotations

import gc

import gevent
from greenlet import getcurrent
from support import wait_until

from quicgreen.quicpro.asker import Asker, Askers


def test_an_entry_goes_with_its_greenlet() -> None:
    askers = Askers()
    found: list[Asker] = []

    def ask() -> None:
        found.append(askers.new())
        assert askers[id(getcurrent())] is found[0]
        assert not found[0].dead
        gevent.sleep(0)

    def run() -> None:
        gevent.spawn(ask).join()

    run()
    gc.collect()
    assert wait_until(lambda: not askers)
    assert found[0].dead


def test_one_of_nobody_is_dead() -> None:
    assert Asker().dead
