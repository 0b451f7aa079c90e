"""What a worker's process is like."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import gevent
import pytest
from helpers.commands import START_S
from helpers.supervised import alive, connection_to, own_descriptors, supervised
from support import wait_until

import quicgreen

APP = """
import os, json, sys
from gevent import monkey

def handle(request):
    request.respond(200, None, json.dumps({
        "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(),
        "cpus": sorted(os.sched_getaffinity(0)), "patched": monkey.is_module_patched("socket"),
        "worker": os.environ["QUICGREEN_WORKER"], "notify": os.environ.get("NOTIFY_SOCKET"),
        "folder": os.getcwd(), "title": open("/proc/self/cmdline").read(),
    }))
"""


def test_a_worker_is_patched_and_has_only_its_own_socket(files: Path) -> None:
    with supervised(files, "-w", "3", app=APP, NOTIFY_SOCKET="/no/such/socket") as server:
        told = server.get().json()
        assert told["patched"] is True
        assert told["notify"] is None
        mine = {w["pid"]: own_descriptors(w["pid"]) for w in server.workers()}
        sockets = [{d for d in found if d.startswith("socket:")} for found in mine.values()]
        supervisors = {d for d in own_descriptors(server.pid) if d.startswith("socket:")}
        for found in sockets:
            assert len(found & supervisors) == 1, (found, supervisors)  # of the port
        assert not sockets[0] & sockets[1] & sockets[2] & supervisors
        assert server.end() == 0


def test_options_of_a_worker(files: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    with supervised(files, "-w", "2", "--no-patch", "--affinity", str(cpu), app=APP) as server:
        told = server.get().json()
        assert (told["patched"], told["cpus"]) == (False, [cpu])


def test_workers_drop_their_privileges(files: Path) -> None:
    """Keys that only root reads are read by the supervisor, and workers cannot."""
    if os.geteuid() != 0:
        with supervised(files, "-w", "1", "-u", "root", app=APP, wait=False) as server:
            assert server.wait() == 3
            assert "takes root" in server.log
        return
    os.chmod(files / "both.pem", 0o600)
    os.chmod(files, 0o755)
    for folder in files.parents:
        if str(folder).startswith("/tmp/"):
            os.chmod(folder, 0o755)
    with supervised(
        files, "-w", "1", "-u", "nobody", "-g", "nogroup", "--certfile", "both.pem", app=APP
    ) as server:
        told = server.get().json()
        nobody = os.stat("/dev/null") and 65534
        assert told["uid"] == [nobody] * 3
        assert told["gid"] == [nobody] * 3
        assert 0 not in told["groups"]
        worker = server.workers()[0]["pid"]
        os.kill(server.pid, signal.SIGKILL)  # it dies with its supervisor also as somebody else
        assert wait_until(lambda: not alive(worker), START_S)


@pytest.mark.parametrize(("option", "words"), [("-u", "no-such-user"), ("-g", "no-such-group")])
def test_a_user_that_is_not_there(files: Path, option: str, words: str) -> None:
    with supervised(files, "-w", "1", option, words, app=APP, wait=False) as server:
        assert server.wait() == 3
        assert words in server.log


def test_a_worker_without_a_supervisor_ends(files: Path) -> None:
    with supervised(files, "-w", "3") as server:
        pids = server.pids()
        slow = server.get("/slow/0")
        assert slow.status_code == 200
        server.process.kill()
        server.process.wait()
        assert wait_until(lambda: not any(map(alive, pids)), START_S)


def test_also_those_that_are_busy(files: Path) -> None:
    """In a handler that waits, in Python that never does, and in C, where no Python runs."""
    with supervised(files, "-w", "3", "--timeout", "0") as server:
        pids = server.pids()
        with_connection = [connection_to(server, pid) for pid in pids]
        waiting = [
            gevent.spawn(connection.get, path, timeout=START_S)
            for connection, path in zip(with_connection, ("/slow/600", "/hang", "/stuck"), strict=True)
        ]
        gevent.sleep(0.5)
        server.process.kill()
        server.process.wait()
        killed = time.monotonic()
        assert wait_until(lambda: not any(map(alive, pids)), START_S)
        assert time.monotonic() - killed < 5  # one second's alarm, and a busy machine
        waiting[0].join(START_S / 2)  # to whom it said goodbye
        assert isinstance(waiting[0].exception, quicgreen.QuicException)
        gevent.killall(waiting)


def test_also_when_the_application_has_the_alarm_and_the_hangup_for_itself(files: Path) -> None:
    app = """
import signal, threading
def nothing(number, frame): pass
signal.signal(signal.SIGALRM, nothing)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def handle(request):
    while True: pass
"""
    with supervised(files, "-w", "1", "--timeout", "0", app=app) as server:
        pids = server.pids()
        waiting = gevent.spawn(server.get)
        gevent.sleep(0.5)
        server.process.kill()
        server.process.wait()
        assert wait_until(lambda: not any(map(alive, pids)), START_S)
        waiting.kill()


def test_a_hangup_of_the_terminal_is_the_supervisor_s(files: Path) -> None:
    """All processes of a terminal get it; it does not mean that the supervisor died."""
    with supervised(files, "-w", "2") as server:
        pids = server.pids()
        for pid in pids:
            os.kill(pid, signal.SIGHUP)
        gevent.sleep(0.3)
        assert server.pids() == pids
        assert server.get().status_code == 200
