"""The hosts themselves: apart from each other and from this one, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from helpers import netns


@pytest.fixture
def hosts() -> Iterator[netns.Hosts]:
    try:
        hosts = netns.Hosts()
    except netns.NamespaceError as e:
        pytest.fail(str(e), pytrace=False)
    with hosts:
        yield hosts


def on(host: netns.Host, *command: str) -> str:
    run = subprocess.run([*host.prefix, *command], capture_output=True, text=True, timeout=20, check=True)
    return run.stdout


def test_they_have_their_own_addresses(hosts: netns.Hosts) -> None:
    for host in (hosts.client, hosts.server):
        told = on(host, "ip", "-brief", "address")
        assert host.ip in told
        assert sorted(line.split()[0].split("@")[0] for line in told.splitlines()) == ["lo", "wire"]


def test_they_reach_each_other_only(hosts: netns.Hosts) -> None:
    assert "wire" in on(hosts.client, "ip", "route", "get", hosts.server.ip)
    with pytest.raises(subprocess.CalledProcessError):
        on(hosts.client, "ip", "route", "get", "192.0.2.1")


def test_they_are_gone_also_after_an_error() -> None:
    def fail() -> None:
        with netns.Hosts() as one, netns.Hosts() as two:
            assert len({one.client, one.server, two.client, two.server}) == 4
            assert len(netns.left_behind()) == 4
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert netns.left_behind() == []


def test_those_of_a_killed_run_are_removed() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait(timeout=20)
    forgotten = f"qg-{ended.pid}-0-c"
    subprocess.run(["ip", "netns", "add", forgotten], check=True, timeout=20)
    netns.Hosts().close()
    assert forgotten not in netns.names()


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(netns.NamespaceError, match="run these tests as root"):
        netns.Hosts()


def test_those_of_a_lan_reach_each_other() -> None:
    with netns.Lan(3) as lan:
        for host, next_one in zip(lan.hosts, lan.hosts[1:], strict=False):
            told = on(host, "ip", "-brief", "address")
            assert sorted(line.split()[0].split("@")[0] for line in told.splitlines()) == ["lo", "wire"]
            on(next_one, sys.executable, "-c", SAY, next_one.ip, host.ip)
        assert len(netns.left_behind()) == 4
    assert netns.left_behind() == []


SAY = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind((sys.argv[1], 9000))
    s.connect((sys.argv[2], 9001))
    s.send(b"x")
    s.settimeout(10)
    try:
        s.recv(1)  # nobody listens there, and that host says so
    except ConnectionRefusedError:
        sys.exit(0)
sys.exit(1)
"""
