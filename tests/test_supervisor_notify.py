"""Against a socket as systemd's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from quicgreen.supervisor.notify import Notifier


@pytest.fixture(params=["file", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        if request.param == "file":
            path = str(tmp_path / "notify")
            s.bind(path)
        else:
            path = f"@quicgreen-test-{os.getpid()}"
            s.bind("\0" + path[1:])
        yield s, path


def test_what_systemd_hears(listener: tuple[socket.socket, str]) -> None:
    s, path = listener
    environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(environ)
    assert environ == {}
    assert notifier.interval_s == 1.0
    notifier.ready("4 workers")
    assert s.recv(1000) == b"READY=1\nSTATUS=4 workers"
    notifier.reloading()
    said = s.recv(1000)
    assert said.startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    assert said.rpartition(b"=")[2].isdigit()
    notifier.status("draining")
    assert s.recv(1000) == b"STATUS=draining"
    notifier.stopping()
    assert s.recv(1000) == b"STOPPING=1"
    for _ in range(3):
        notifier.alive()
    assert s.recv(1000) == b"WATCHDOG=1"
    s.setblocking(False)
    with pytest.raises(BlockingIOError):
        s.recv(1000)


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    assert Notifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).interval_s is None


def test_without_systemd_nothing_is_said() -> None:
    notifier = Notifier({})
    notifier.ready("")
    notifier.alive()


def test_a_socket_that_is_gone_harms_nobody() -> None:
    Notifier({"NOTIFY_SOCKET": "/no/such/socket"}).ready("")
