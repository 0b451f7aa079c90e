"""Agents on two machines, a third that leads them, and a fourth that they load: locust's own distributed
mode, by its own command."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import netns
from helpers.processes import Peer
from support import ROOT, wait_until

from quicgreen.testing import Certificate

pytestmark = pytest.mark.timeout(150)

USERS = 20

LOCUSTFILE = f"""
import sys
sys.path.insert(0, {str(ROOT / "examples")!r})
import locustfile_agents  # which has a listener too

class Agent(locustfile_agents.Agent):
    network_timeout = connection_timeout = 3
"""


@pytest.fixture(scope="module")
def lan() -> Iterator[netns.Lan]:
    try:
        lan = netns.Lan(4)
    except netns.NamespaceError as e:
        pytest.fail(str(e), pytrace=False)
    with lan:
        yield lan
    assert netns.left_behind() == []


@pytest.fixture
def site(lan: netns.Lan, certificate: Certificate, tmp_path: Path) -> Iterator[Peer]:
    host = lan.hosts[0]
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    counts = str(tmp_path / "counts")
    with Peer("agent_site.py", prefix=host.prefix, host=host.ip, counts=counts, **files) as site:
        yield site


class Locust:
    """A process of locust on a host; `said` has all it prints."""

    def __init__(self, host: netns.Host, folder: Path, *arguments: str) -> None:
        self._file = folder / host.name
        with open(self._file, "wb") as file:
            self.process = subprocess.Popen(
                [*host.prefix, sys.executable, "-m", "locust", "-f", "locustfile.py", *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONWARNINGS": "error,ignore::UserWarning"},
            )

    @property
    def said(self) -> str:
        return self._file.read_text()

    def status(self, seconds: float = 90) -> int | None:
        assert wait_until(lambda: self.process.poll() is not None, seconds), self.said
        return self.process.returncode

    def __enter__(self) -> Locust:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Run:
    """A master and two workers, against `site`."""

    def __init__(self, lan: netns.Lan, site: Peer, folder: Path, seconds: int) -> None:
        (folder / "locustfile.py").write_text(LOCUSTFILE)
        _, master, *workers = lan.hosts
        self.workers = [host.ip for host in workers]
        users = ("-u", str(USERS), "-r", str(USERS), "-t", f"{seconds}s", "--stop-timeout", "10")
        leading = ("--master", "--expect-workers", "2", "--headless", "--only-summary", *users)
        out = ("--json-file", "stats", "--csv", "run", "--host", f"https://{site.host}:{site.port}")
        self._folder = folder
        self._stack = ExitStack()
        self.master = self._stack.enter_context(Locust(master, folder, *leading, *out))
        self.processes = [
            self._stack.enter_context(Locust(host, folder, "--worker", "--master-host", master.ip))
            for host in workers
        ]

    @property
    def stats(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The master's, by type and name."""
        entries = json.loads((self._folder / "stats.json").read_text())
        return {(entry["method"], entry["name"]): entry for entry in entries}

    def seen(self) -> dict[str, Any]:
        """What the server saw."""
        try:
            found: dict[str, Any] = json.loads((self._folder / "counts").read_text())
        except FileNotFoundError:
            found = {"requests": {}, "connections": {}}
        return found

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


def by_path(seen: dict[str, Any]) -> Counter[str]:
    total: Counter[str] = Counter()
    for who, count in seen["requests"].items():
        total[who.split()[1]] += count
    return total


def test_agents_of_two_machines_are_led_by_a_third(lan: netns.Lan, site: Peer, tmp_path: Path) -> None:
    with Run(lan, site, tmp_path, 5) as run:
        assert run.master.status() == 0, run.master.said
        assert [process.status() for process in run.processes] == [0, 0], run.processes[0].said
        stats, seen = run.stats, run.seen()
    # What the master counted is what the server saw, and nothing failed.
    paths = by_path(seen)
    chat, tool = stats["POST", "chat"], stats["POST", "calculator"]
    assert chat["num_requests"] == paths["/v1/chat/completions"] >= USERS
    assert tool["num_requests"] == paths["/mcp/v1/call_tool"] >= USERS
    assert {entry["num_failures"] for entry in stats.values()} == {0}
    assert paths.keys() == {"/v1/chat/completions", "/mcp/v1/call_tool"}
    # Each answer came token by token.
    assert (
        stats["TTFT", "chat"]["num_requests"] == stats["TPOT", "chat"]["num_requests"] == chat["num_requests"]
    )
    assert stats["TTFT", "chat"]["total_response_time"] < chat["total_response_time"] / 3
    # Half of the agents on each machine, each with one connection.
    assert seen["connections"] == dict.fromkeys(run.workers, USERS // 2)


def test_a_server_that_dies_is_a_failure(lan: netns.Lan, site: Peer, tmp_path: Path) -> None:
    with Run(lan, site, tmp_path, 9) as run:
        assert wait_until(lambda: by_path(run.seen())["/mcp/v1/call_tool"] >= USERS, 60), run.master.said
        site.kill()
        dead = by_path(run.seen())
        assert run.master.status() == 1, run.master.said
        stats = run.stats
    for name, path in (("chat", "/v1/chat/completions"), ("calculator", "/mcp/v1/call_tool")):
        answered = stats["POST", name]["num_requests"] - stats["POST", name]["num_failures"]
        assert dead[path] - USERS <= answered <= dead[path]
    assert stats["POST", "chat"]["num_failures"] >= USERS  # each found out at least once
    # And says why.
    with open(tmp_path / "run_failures.csv") as file:
        why = {row["Error"] for row in csv.DictReader(file) if row["Name"] == "chat"}
    assert why
    assert all(text.startswith(("QuicSocketException", "QuicTimeoutException")) for text in why), why
