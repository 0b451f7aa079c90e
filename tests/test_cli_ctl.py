"""`quicgreen ctl`, against a supervisor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import START_S, complaint, run
from helpers.supervised import Supervised, supervised
from support import wait_until


@pytest.fixture
def server(files: Path) -> Iterator[Supervised]:
    with supervised(files, "-w", "2") as started:
        yield started


def ctl(server: Supervised, *arguments: str) -> str:
    result = run("ctl", *arguments, "--pid", str(server.folder / "pid"))
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_status_and_stats(server: Supervised) -> None:
    server.get()
    text = ctl(server, "status")
    assert f"app:handle on 127.0.0.1:{server.port}: supervisor {server.pid}, 2 workers" in text
    assert text.count("serving, generation 0") == 2
    told = json.loads(ctl(server, "stats"))
    assert sum(w["counters"]["requests_received"] for w in told["workers"]) == 1
    assert json.loads(ctl(server, "status", "--json"))["steering"] in ("bpf", "handover")


def test_reload_waits_until_it_is_done(server: Supervised) -> None:
    before = {w["pid"] for w in server.workers()}
    assert ctl(server, "reload") == "generation 1 serves\n"
    assert not before & {w["pid"] for w in server.workers()}
    assert "1 reloads" in ctl(server, "status")


def test_a_reload_that_fails_is_an_error(server: Supervised) -> None:
    (server.folder / "app.py").write_text("1 / 0\n")
    result = run("ctl", "reload", "--pid", str(server.pid))
    assert result.returncode == 95
    assert "not all was reloaded" in complaint(result)
    assert "the last reload: " in ctl(server, "status")


def test_more_and_fewer(server: Supervised) -> None:
    assert ctl(server, "ttin") == "3 workers\n"
    assert wait_until(lambda: len(server.workers()) == 3, START_S)
    assert ctl(server, "ttou") == "2 workers\n"


@pytest.mark.parametrize("pid", ["/no/such/file", "1"])
def test_nobody_there(pid: str) -> None:
    result = run("ctl", "status", "--pid", pid)
    assert result.returncode == 95
    assert "no supervisor answers" in complaint(result)
