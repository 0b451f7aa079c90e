"""Thousands of sessions of one process, and workers on all cores that serve them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers.commands import START_S
from helpers.processes import run_client
from helpers.supervised import Supervised, supervised
from support import wait_until

SESSIONS = 2000
ROUNDS = 4
CORES = min(4, len(os.sched_getaffinity(0)))
"""Of a large machine four are enough to see it."""

APP = """
import os
import gevent
from gevent.event import Event

HELD = os.environ["HELD"]
go = Event()

def watch():
    while not os.path.exists(HELD + ".go"):
        gevent.sleep(0.01)
    go.set()

watcher = None

def handle(request):
    global watcher
    if request.path.startswith("/held/"):
        if watcher is None:
            watcher = gevent.spawn(watch)
        go.wait()
    pid = str(os.getpid())
    request.respond(200, {"x-pid": pid}, f"{request.path} by {pid}")
"""


def look(server: Supervised, held: Path) -> list[dict[str, Any]]:
    """What the workers say while every session waits for an answer; then they get them."""

    def received() -> int:
        return sum(w["counters"]["requests_received"] for w in server.workers())

    try:
        assert wait_until(held.exists, 2 * START_S), "the sessions never waited together"
        expected = SESSIONS * (ROUNDS + 1)
        assert wait_until(lambda: received() >= expected, START_S), received()
        return server.workers()
    finally:
        Path(f"{held}.go").touch()


@pytest.mark.timeout(240)
def test_one_process_holds_thousands_of_sessions_on_workers_of_all_cores(files: Path) -> None:
    held = files / "held"
    arguments = ("-w", str(CORES), "--affinity", "auto")
    with supervised(files, *arguments, app=APP, HELD=str(held)) as server:
        looking = gevent.spawn(look, server, held)
        url = server.url("").rstrip("/")
        said = run_client(
            "many_sessions.py", patience=180, url=url, count=SESSIONS, rounds=ROUNDS, held=str(held)
        )
        workers = looking.get()
        pinned = {w["pid"]: os.sched_getaffinity(w["pid"]) for w in workers}

    # Every session had its own connection, and only right answers.
    assert said["wrong"] == []
    assert said["moved"] == 0
    assert (said["distinct"], said["handshakes"]) == (SESSIONS, SESSIONS)
    assert said["answered"] == SESSIONS * (ROUNDS + 1)
    # All were open at once, each with a request under way, as both sides say, and took no descriptor each.
    assert said["at_once"]["waiting"] == said["at_once"]["connections"] == SESSIONS
    assert sum(w["counters"]["connections"] for w in workers) == SESSIONS
    assert sum(w["counters"]["requests_received"] for w in workers) == SESSIONS * (ROUNDS + 1)
    assert sum(w["counters"]["handshakes_completed"] for w in workers) == SESSIONS
    assert said["at_once"]["descriptors"] < 40
    # Workers of all cores served them, each on its own: as many as chance gives, within six deviations.
    assert {str(w["pid"]): w["counters"]["connections"] for w in workers} == said["workers"]
    assert sorted(cpu for cpus in pinned.values() for cpu in cpus) == sorted(os.sched_getaffinity(0))[:CORES]
    assert len(pinned) == CORES
    share = SESSIONS / CORES
    assert all(abs(w["counters"]["connections"] - share) < 6 * share**0.5 for w in workers), said["workers"]
