from __future__ import annotations

import os
import signal
import threading

from quicgreen.supervisor.signals import NUMBERS, Signals


def test_signals_are_noted_in_their_order_and_handlers_come_back() -> None:
    before = {n: signal.getsignal(n) for n in NUMBERS}
    signals = Signals()
    try:
        assert signals.taken() == []
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert signals.taken() == [signal.SIGHUP, signal.SIGTERM, signal.SIGHUP]
        assert signals.taken() == []
    finally:
        signals.close()
    assert {n: signal.getsignal(n) for n in NUMBERS} == before


def test_a_flood_of_signals_blocks_nobody() -> None:
    signals = Signals()
    try:
        for _ in range(70_000):  # more than a pipe holds
            signal.raise_signal(signal.SIGWINCH)
        assert len(signals.taken()) == 4096
    finally:
        signals.close()


def test_a_child_s_signals_are_not_its_parent_s() -> None:
    before = signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a job in the background ignores it
    signals = Signals()
    try:
        signals.hold()
        if (pid := os.fork()) == 0:
            os.kill(os.getpid(), signal.SIGQUIT)  # before it has its own handlers
            signals.close()
            signals.release()
            os._exit(0)
        signals.release()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGQUIT
        assert signal.SIGQUIT not in signals.taken()
        os.kill(os.getpid(), signal.SIGQUIT)  # and its own are seen as before
        assert signals.taken() == [signal.SIGQUIT]
    finally:
        signals.close()
        signal.signal(signal.SIGQUIT, before)


def test_another_thread_cannot() -> None:
    failures: list[Exception] = []
    before = set(os.listdir("/proc/self/fd"))

    def run() -> None:
        try:
            Signals()
        except ValueError as e:
            failures.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(failures) == 1
    assert set(os.listdir("/proc/self/fd")) == before


def test_all_that_gunicorn_takes() -> None:
    assert {signal.Signals(n).name for n in NUMBERS} == {
        f"SIG{name}" for name in ["HUP", "TTIN", "TTOU", "USR1", "TERM", "INT", "QUIT", "WINCH", "CHLD"]
    }
