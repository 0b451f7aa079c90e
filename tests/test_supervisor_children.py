"""Forked workers, with something simple in the place of a server."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from support import wait_until

from quicgreen.configuration import ServerTls
from quicgreen.supervisor import children
from quicgreen.supervisor.children import DRAINING, ENDING, READY, WORN, Child, Generation
from quicgreen.supervisor.config import Settings
from quicgreen.supervisor.unpatched import signal as set_handler


def new_child() -> Child:
    return Child(0, 0, Generation(0, Settings(), ServerTls()))


def status(child: Child) -> int:
    found: list[int] = []

    def ended() -> bool:
        if (code := child.reap()) is not None:
            found.append(code)
        return bool(found)

    assert wait_until(ended)
    return found[0]


def sleeping(child: Child, channel: int) -> int:
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGABRT):
        set_handler(number, lambda *_: None)
    os.write(channel, READY)
    while True:
        time.sleep(60)


def forked(main: Any = sleeping) -> Child:
    child = new_child()
    child.fork(main)
    return child


def test_what_a_worker_says_is_heard_until_it_ends() -> None:
    def main(child: Child, channel: int) -> int:
        os.write(channel, READY)
        os.write(channel, WORN)
        return 4

    child = forked(main)
    said = b""

    def all_said() -> bool:
        nonlocal said
        if child.channel >= 0:
            said += child.heard()
        return child.channel < 0

    assert wait_until(all_said)
    assert said == READY + WORN
    assert status(child) == 4


def test_silence_is_not_the_end() -> None:
    child = forked()
    assert wait_until(lambda: child.heard() == READY)
    assert child.heard() == b""
    assert child.channel >= 0
    child.kill(signal.SIGKILL)
    assert status(child) == -signal.SIGKILL
    assert child.channel == -1
    child.kill(signal.SIGTERM)  # nobody there


def test_an_exception_ends_the_worker_with_its_traceback(capfd: Any) -> None:
    def main(child: Child, channel: int) -> int:
        raise ZeroDivisionError("on purpose")

    assert status(forked(main)) == 3
    assert "ZeroDivisionError: on purpose" in capfd.readouterr().err


def test_no_process_can_be_made(monkeypatch: Any) -> None:
    before = len(os.listdir("/proc/self/fd"))

    def refuse() -> int:
        raise BlockingIOError(11, "no")

    monkeypatch.setattr(children, "fork", refuse)
    with pytest.raises(BlockingIOError):
        new_child().fork(sleeping)
    assert len(os.listdir("/proc/self/fd")) == before


def test_patience_ends_with_kill() -> None:
    child = forked()
    assert wait_until(lambda: child.heard() == READY)
    child.drain(0.5)
    assert child.state == DRAINING
    assert child.kill_at is not None
    assert child.kill_at > time.monotonic() + 0.5
    child.end()
    assert child.state == ENDING
    assert child.reap() is None
    assert child.lose_patience()
    assert status(child) == -signal.SIGKILL


def test_who_hangs_shows_where_before_it_is_killed() -> None:
    child = forked()
    assert wait_until(lambda: child.heard() == READY)
    child.abort()  # it does not abort
    assert child.reap() is None
    assert not child.lose_patience()
    assert status(child) == -signal.SIGUSR1  # no handler here
