"""Rows x: AF_XDP beside UDP sockets, on a cable between two network namespaces (a veth pair). Needs root."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from processes import HERE, MEASURED, OTHER, Child, PeerError
from samples import Contestant, Plan, Row, Sample, Series, check, rows

sys.path.append(str(HERE.parent / "tests"))

from helpers import netns

LOAD = "our client, both on the same kind of socket"
SPIN_US = 50
WRONG = ("xdp_dropped", "xdp_invalid", "xdp_bad_frames")


@dataclass
class Both:
    """A server on one host, a client on the other."""

    server: Child
    client: Child
    by_xdp: bool

    def measure(self, how: str, value: str) -> Any:
        def measured(count: int) -> Sample:
            before = self.server.ask()
            answer = self.client.ask(how=how, count=count)
            after = self.server.ask()
            check(f"{self.server.name}, requests", after["requests"] - before["requests"], count)
            self._check_way(before, after)
            rate = count / answer["seconds"]
            more = {"p99_us": answer.get("p99_us", 0.0)}
            return Sample(answer.get(value, rate), rate, count, answer["seconds"], more)

        return measured

    def _check_way(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        came = after["xdp_received"] - before["xdp_received"]
        if (came > 0) != self.by_xdp:
            raise PeerError(f"{came} datagrams came by AF_XDP")
        if lost := {name: after[name] for name in WRONG if after[name]}:
            raise PeerError(f"AF_XDP lost some: {lost}")


@contextmanager
def both(plan: Plan, hosts: netns.Hosts, port: int, *, xdp: bool, spin: bool) -> Iterator[Both]:
    environment = {"QUICPRO_XDP": "wire" if xdp else "", "QUICPRO_BUSY_POLL": str(SPIN_US if spin else 0)}

    def child(host: netns.Host, script: str, *arguments: str, role: int) -> Child:
        command = [*host.prefix, sys.executable, str(HERE / script), *arguments]
        return Child(script.removesuffix(".py"), command, role, environment)

    certificate, key = plan.certificate
    where = ("--host", hosts.server.ip, "--port", str(port))
    with (
        child(hosts.server, "green_server.py", "small", certificate, key, *where, role=MEASURED) as server,
        child(hosts.client, "green_client.py", str(port), certificate, hosts.server.ip, role=OTHER) as client,
    ):
        yield Both(server, client, xdp)


def compare(plan: Plan, how: str, value: str, first: int, *, spin: bool) -> tuple[Series, Series]:
    """(by AF_XDP, by UDP sockets), each pair of processes on a pair of hosts of its own: an interface with a
    program is another one for UDP, too."""
    name = f"AF_XDP, {SPIN_US} µs spin" if spin else "AF_XDP"
    with ExitStack() as stack:
        pairs = []
        for xdp in (True, False):
            hosts = stack.enter_context(netns.Hosts())
            pairs.append(stack.enter_context(both(plan, hosts, 4433, xdp=xdp, spin=spin)))
        by_xdp, by_udp = plan.measure(
            Contestant(name, pairs[0].measure(how, value), first),
            Contestant("UDP sockets", pairs[1].measure(how, value), first),
        )
    return by_xdp, by_udp


def p99(by_xdp: Series, by_udp: Series) -> str:
    return f"p99 {by_xdp.more('p99_us'):.0f} and {by_udp.more('p99_us'):.0f} µs"


@rows("x1", "x2", "x3", "x4")
def xdp(plan: Plan) -> Iterable[Row]:
    unit = "µs round trip, p50"
    try:
        for key, spin in (("x1", False), ("x2", True)):
            ours, theirs = compare(plan, "single", "p50_us", 500, spin=spin)
            title = f"AF_XDP, one request at a time, {SPIN_US if spin else 0} µs spin"
            yield Row(key, title, LOAD, unit, ours, theirs, note=p99(ours, theirs))
        for key, spin in (("x3", False), ("x4", True)):
            ours, theirs = compare(plan, "same", "rate", 2000, spin=spin)
            title = f"AF_XDP, 100 requests at a time, {SPIN_US if spin else 0} µs spin"
            yield Row(key, title, LOAD, "requests per second", ours, theirs)
    except netns.NamespaceError as e:
        raise PeerError(str(e)) from None
