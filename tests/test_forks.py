"""Forks while threads are at work: what runs `whole` is over, or waits until the fork is."""

from __future__ import annotations

import textwrap

import pytest
from support import check_python

# A lock that no fork knows, as those in glibc's resolver, held as long as something works.
LOCK = """
import os, sys, time, _thread
import gevent
from quicgreen import forks

lock = _thread.allocate_lock()
patience, forks._PATIENCE_S = forks._PATIENCE_S, 20  # the machine may be busy

def work(seconds):
    with lock:
        time.sleep(seconds)

def fork():
    '''Whether the child can have the lock.'''
    if (pid := os.fork()) == 0:
        os._exit(not lock.acquire(timeout=0))
    return os.waitpid(pid, 0)[1] == 0
"""


def check(code: str, *arguments: str) -> None:
    check_python(LOCK + textwrap.dedent(code), *arguments)


def test_a_fork_waits_for_what_has_begun() -> None:
    check(
        """
        pool = gevent.get_hub().threadpool
        for i in range(5):
            job = pool.spawn(forks.whole, work, (0.2,))
            while not lock.locked():
                time.sleep(0.0001)
            assert fork(), i
            job.get()
        """
    )


def test_without_it_the_child_has_the_lock_of_a_thread_that_is_not_there() -> None:
    """That the test above can fail."""
    check(
        """
        job = gevent.get_hub().threadpool.spawn(work, 1)
        while not lock.locked():
            time.sleep(0.0001)
        assert not fork()
        """
    )


def test_nothing_begins_while_a_fork_waits() -> None:
    """Threads that are never idle do not hold it up: 200 forks with six that go from one to the next."""
    check(
        """
        going, done = [True], []

        def busy():
            while going:
                forks.whole(work, (0.0005,))
                done.append(1)

        pool = gevent.get_hub().threadpool
        for _ in range(6):
            pool.spawn(busy)
        while len(done) < 10:
            time.sleep(0.001)
        # They wait for one another, so that all end within 3 ms, and there is always one with the lock.
        locked = sum(not fork() for _ in range(200))
        going.clear()
        assert locked == 0, locked
        """
    )


def test_a_fork_waits_for_a_moment_only() -> None:
    check(
        """
        forks._PATIENCE_S = patience
        slow = gevent.get_hub().threadpool.spawn(forks.whole, time.sleep, (30,))
        while not forks._inside:
            time.sleep(0.0001)
        began = time.monotonic()
        assert fork()
        assert 0.04 < time.monotonic() - began < 5
        os._exit(0)  # without it
        """
    )


# In C, without Python's lock, for half a second or more; nobody sleeps.
RUNS = """
import hashlib
rounds = 20_000

def run(rounds):
    with lock:
        hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)

began = time.monotonic()
while time.monotonic() < began + 0.5:
    rounds *= 2
    began = time.monotonic()
    run(rounds)

forks._PATIENCE_S = patience
"""


def test_it_waits_longer_for_what_runs() -> None:
    """On a busy machine a thread may be held up in the middle of what it was doing, for longer than it waits
    for a server."""
    check(
        RUNS
        + textwrap.dedent("""
        job = gevent.get_hub().threadpool.spawn(forks.whole, run, (rounds,))
        forks._LONGEST_S = 20
        while not lock.locked():
            time.sleep(0.0001)
        assert fork()
        job.get()
        """)
    )


def test_but_not_for_ever() -> None:
    check(
        RUNS
        + textwrap.dedent("""
        forks._LONGEST_S = 0.1
        gevent.get_hub().threadpool.spawn(forks.whole, run, (rounds * 10,))
        while not lock.locked():
            time.sleep(0.0001)
        began = time.monotonic()
        assert not fork()
        assert 0.1 < time.monotonic() - began < 4
        os._exit(0)  # without it
        """)
    )


def test_it_goes_on_in_parent_and_child() -> None:
    """A child's threads begin anew, and so do its own children's."""
    check(
        """
        forks._PATIENCE_S = patience
        slow = gevent.get_hub().threadpool.spawn(forks.whole, time.sleep, (30,))
        while not forks._inside:
            time.sleep(0.0001)
        assert not forks.forked()
        for depth in range(3):
            if (pid := os.fork()) != 0:
                break
            assert forks.forked() and not forks._inside
            gevent.reinit()
        with gevent.Timeout(20):
            assert gevent.get_hub().threadpool.apply(forks.whole, (sum, ((1, 2),))) == 3
        os._exit(pid != 0 and os.waitpid(pid, 0)[1] != 0)
        """
    )


@pytest.mark.parametrize("other", ["another thread", "a signal's handler"])
def test_two_forks_at_a_time(other: str) -> None:
    check(
        """
        import signal
        forks._PATIENCE_S = patience
        slow = gevent.get_hub().threadpool.spawn(forks.whole, time.sleep, (30,))
        while not forks._inside:
            time.sleep(0.0001)
        found = []
        signal.signal(signal.SIGALRM, lambda *_: found.append(fork()))
        deadline = time.monotonic() + 60
        while len(found) < 5 and time.monotonic() < deadline:
            if sys.argv[1] == "another thread":
                _thread.start_new_thread(lambda: found.append(fork()), ())
            else:
                signal.setitimer(signal.ITIMER_REAL, 0.02)  # this fork waits for longer
            assert fork()
        assert len(found) >= 5 and all(found), found
        os._exit(0)
        """,
        other,
    )


def test_a_fork_that_fails_lets_them_go_on() -> None:
    check(
        """
        import resource
        if os.getuid() == 0:
            os.setresuid(65534, 65534, 65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        try:
            if os.fork() == 0:
                os._exit(0)
        except BlockingIOError:
            print("refused")
        done = []
        forks.whole(done.append, (1,))
        assert done and not forks._gate._is_owned()
        """
    )
