"""Hosts as network namespaces: each has its own interfaces, addresses and ports, and a cable to the other.

    with Hosts() as hosts:
        Peer("our_server.py", prefix=hosts.server.prefix, host=hosts.server.ip, ...)
        run_client("first_byte.py", prefix=hosts.client.prefix, ...)

Needs root. The kernel removes a namespace's interfaces with it, so that nothing else has to be put in order.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TypeVar

_FOLDER = "/run/netns"

_serial = itertools.count()

_Self = TypeVar("_Self")


class NamespaceError(Exception):
    """They cannot be had; says why in one line."""


@dataclass(frozen=True)
class Host:
    name: str
    """Of its namespace."""
    ip: str

    @property
    def ip6(self) -> str:
        return f"fd98::{self.ip.rpartition('.')[2]}"

    @property
    def prefix(self) -> list[str]:
        """Runs the command behind it on this host. The command takes the place of ip's process."""
        return ["ip", "netns", "exec", self.name]


class _Network:
    """Hosts, until `close`."""

    namespaces: list[str]

    def close(self) -> None:
        """Remove them. Idempotent. Processes that still run in one keep it until they end."""
        for name in self.namespaces:
            if os.path.exists(f"{_FOLDER}/{name}"):
                _ip("netns", "delete", name)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Hosts(_Network):
    """Two hosts, a client and a server, connected by a veth pair."""

    def __init__(self, queues: int = 1) -> None:
        """`queues`: of each one's interface, for receiving and for sending."""
        stem = _stem()
        self.client = Host(f"{stem}-c", "10.98.0.1")
        self.server = Host(f"{stem}-s", "10.98.0.2")
        self.namespaces = [self.client.name, self.server.name]
        try:
            for name in self.namespaces:
                _ip("netns", "add", name)
            several = ("numrxqueues", str(queues), "numtxqueues", str(queues))
            _ip(
                *("link", "add", "wire", "netns", self.client.name, *several, "type", "veth"),
                *("peer", "name", "wire", "netns", self.server.name, *several),
            )
            for host in (self.client, self.server):
                _set_up(host)
        except BaseException:
            self.close()
            raise

    def link(self, host: Host, *what: str) -> str:
        """`ip link set wire WHAT` on that host; with nothing to set, what the interface is."""
        return _ip("-n", host.name, "link", *(("set", "wire", *what) if what else ("show", "wire")))


class Lan(_Network):
    """So many hosts on one switch, which is a namespace too."""

    def __init__(self, count: int) -> None:
        stem = _stem()
        switch = f"{stem}-x"
        self.hosts = [Host(f"{stem}-{i}", f"10.98.0.{i}") for i in range(1, count + 1)]
        self.namespaces = [switch, *(host.name for host in self.hosts)]
        try:
            for name in self.namespaces:
                _ip("netns", "add", name)
            _ip("-n", switch, "link", "add", "name", "switch", "type", "bridge")
            _ip("-n", switch, "link", "set", "switch", "up")
            for number, host in enumerate(self.hosts):
                port = f"port{number}"
                _ip(
                    *("link", "add", "wire", "netns", host.name, "type", "veth"),
                    *("peer", "name", port, "netns", switch),
                )
                _ip("-n", switch, "link", "set", port, "master", "switch", "up")
                _set_up(host)
        except BaseException:
            self.close()
            raise


def _stem() -> str:
    """What the names of a network's namespaces begin with."""
    if os.geteuid() != 0:
        raise NamespaceError("network namespaces need root: run these tests as root")
    if shutil.which("ip") is None:
        raise NamespaceError("network namespaces need the command ip, of iproute2")
    _remove_forgotten()
    return f"qg-{os.getpid()}-{next(_serial)}"


def _set_up(host: Host) -> None:
    _ip("-n", host.name, "link", "set", "lo", "up")
    _ip("-n", host.name, "address", "add", f"{host.ip}/24", "dev", "wire")
    _ip("-n", host.name, "address", "add", f"{host.ip6}/64", "dev", "wire", "nodad")
    _ip("-n", host.name, "link", "set", "wire", "up")


def names() -> list[str]:
    """Of all namespaces of ours, those of other runs too."""
    found = os.listdir(_FOLDER) if os.path.isdir(_FOLDER) else []
    return [name for name in found if name.startswith("qg-")]


def left_behind() -> list[str]:
    """Namespaces of this process that are still there."""
    return [name for name in names() if name.startswith(f"qg-{os.getpid()}-")]


def _remove_forgotten() -> None:
    """A run that was killed could not do so itself."""
    for name in names():
        if not os.path.exists(f"/proc/{name.split('-')[1]}"):
            _ip("netns", "delete", name)


def _ip(*arguments: str) -> str:
    run = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20)
    if run.returncode != 0:
        raise NamespaceError(f"ip {' '.join(arguments)}: {run.stderr.strip()}")
    return run.stdout
