"""The bad network: each fault does what it says, to real datagrams, and no process stays behind."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE_S, check_python, new_session, run_python, serving, wait_until

import quicgreen
from quicgreen.testing import Link

CHUNK = 50
"""Datagrams sent before they are looked for: a socket's buffer holds more."""


def _socket(ip: str = "127.0.0.1") -> socket.socket:
    s = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((ip, 0))
    s.settimeout(PATIENCE_S)
    return s


class Line:
    """A client, a link and a server that only listens."""

    def __init__(self, ip: str = "127.0.0.1", **options: Any) -> None:
        self.server = _socket(ip)
        self.link = Link(self.server.getsockname()[:2], **options)
        self.client = _socket(ip)
        self.client.connect(self.link.address)
        self.sent: dict[str, int] = {"to_server": 0, "to_client": 0}

    def send(self, *packets: bytes) -> None:
        """From the client; returns when the link has seen them."""
        for at in range(0, len(packets), CHUNK):
            for packet in packets[at : at + CHUNK]:
                self.client.send(packet)
            self.seen("to_server", len(packets[at : at + CHUNK]))

    def reply(self, to: Any, *packets: bytes) -> None:
        for packet in packets:
            self.server.sendto(packet, to)
        self.seen("to_client", len(packets))

    def seen(self, direction: str, more: int) -> None:
        self.sent[direction] += more
        assert wait_until(lambda: getattr(self.link.counters(), direction).seen == self.sent[direction])

    def arrived(self) -> list[bytes]:
        """What is at the server now."""
        return [data for data, _ in self._all(self.server)]

    def exchange(self, packets: list[bytes]) -> list[bytes]:
        """Send and collect, in chunks."""
        got = []
        for at in range(0, len(packets), CHUNK):
            self.send(*packets[at : at + CHUNK])
            got += self.arrived()
        return got

    @staticmethod
    def _all(s: socket.socket) -> list[tuple[bytes, Any]]:
        found = []
        s.setblocking(False)
        try:
            while True:
                found.append(s.recvfrom(65535))
        except BlockingIOError:
            return found
        finally:
            s.settimeout(PATIENCE_S)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.link.close()
        self.client.close()
        self.server.close()


def numbered(count: int, size: int = 40) -> list[bytes]:
    return [b"%04d" % n + bytes(size) for n in range(count)]


# ---------------------------------------------------------------- no fault


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_a_good_network_passes_all_both_ways(ip: str) -> None:
    packets = numbered(120)
    with Line(ip) as line:
        assert line.link.address[0] == ip
        assert line.exchange(packets) == packets
        line.send(b"who?")
        _, client = line.server.recvfrom(100)
        line.reply(client, b"you", b"and you")
        assert [line.client.recv(100), line.client.recv(100)] == [b"you", b"and you"]
        counters = line.link.counters()
        to_server, to_client = counters.to_server, counters.to_client
        assert (to_server.seen, to_server.sent, to_server.bytes) == (121, 121, 120 * 44 + 4)
        assert (to_client.seen, to_client.sent, to_client.bytes) == (2, 2, 10)
        for side in (to_server, to_client):
            assert (side.dropped, side.duplicated, side.reordered, side.corrupted) == (0, 0, 0, 0)


def test_each_client_has_a_port_of_its_own_and_gets_its_own_answers() -> None:
    with Line() as line, _socket() as other:
        line.send(b"one")
        _, first = line.server.recvfrom(100)
        other.sendto(b"two", line.link.address)
        _, second = line.server.recvfrom(100)
        assert first != second
        line.server.sendto(b"to the second", second)
        line.server.sendto(b"to the first", first)
        assert line.client.recv(100) == b"to the first"
        assert other.recv(100) == b"to the second"


# ---------------------------------------------------------------- faults


def test_loss() -> None:
    packets = numbered(400)
    with Line(loss=0.3, seed=1) as line:
        got = line.exchange(packets)
        counted = line.link.counters().to_server
    assert got == [p for p in packets if p in set(got)], "what arrives is whole and in order"
    assert counted.dropped == 400 - len(got) == 400 - counted.sent
    assert 80 < counted.dropped < 160


def test_nothing_passes_when_all_is_lost() -> None:
    with Line(loss=1.0) as line:
        assert line.exchange(numbered(100)) == []


def test_losses_in_bursts() -> None:
    packets = numbered(600)
    with Line(loss=0.25, burst=4, seed=5) as line:
        got = set(line.exchange(packets))
    lost = "".join("." if p in got else "x" for p in packets)
    runs = {len(run) for run in lost.split(".") if run}
    assert runs == {1, 2, 3, 4}
    assert 100 < lost.count("x") < 200


def test_duplicates() -> None:
    with Line(duplicate=1.0) as line:
        assert line.exchange([b"a", b"b"]) == [b"a", b"a", b"b", b"b"]
        assert line.link.counters().to_server.duplicated == 2
    with Line(duplicate=0.2, seed=2) as line:
        got = line.exchange(numbered(200))
        assert set(got) == set(numbered(200))
        assert len(got) == 200 + line.link.counters().to_server.duplicated
        assert 20 < len(got) - 200 < 60


def test_reordering() -> None:
    packets = numbered(300)
    with Line(reorder=0.2, seed=3) as line:
        line.send(*packets[:CHUNK])
        got = line.arrived() + line.exchange(packets[CHUNK:])
        while len(got) < 300:  # the last may be held for a moment, with nothing to overtake them
            got.append(line.server.recv(100))
        counted = line.link.counters().to_server
    assert sorted(got) == packets
    assert got != packets
    assert counted.reordered > 30
    assert counted.dropped == 0


def test_a_packet_that_is_late_is_overtaken_by_at_most_five() -> None:
    packets = numbered(CHUNK)
    with Line(reorder=0.2, seed=3, record=CHUNK) as line:
        for packet in packets:  # at once, so that none comes by time alone
            line.client.send(packet)
        got = [line.server.recv(100) for _ in packets]
        late = {p.data for p in line.link.packets() if p.fate == "reordered"}
    assert late
    for packet in late:
        before = got[: got.index(packet)]
        assert sum(1 for p in before if p > packet) <= 5 + len(late)
    prompt = [p for p in got if p not in late]
    assert prompt == sorted(prompt)


def test_corruption_changes_one_byte() -> None:
    packets = [os.urandom(300) for _ in range(60)]
    with Line(corrupt=1.0, seed=4) as line:
        got = line.exchange(packets)
        assert line.link.counters().to_server.corrupted == 60
    assert [len(p) for p in got] == [300] * 60
    changed = [[i for i in range(300) if a[i] != b[i]] for a, b in zip(packets, got, strict=True)]
    assert all(len(places) == 1 for places in changed)
    assert len({places[0] for places in changed}) > 30, "at many places"


def test_delay_in_both_directions() -> None:
    with Line(delay_ms=60) as line:
        start = time.monotonic()
        line.client.send(b"there")
        _, client = line.server.recvfrom(100)
        assert time.monotonic() - start >= 0.06
        line.server.sendto(b"and back", client)
        assert line.client.recv(100) == b"and back"
        assert time.monotonic() - start >= 0.12


def test_rates_may_change() -> None:
    with Line(loss=1.0) as line:
        assert line.exchange([b"lost"]) == []
        line.link.update(loss=0, duplicate=1)
        assert line.exchange([b"twice"]) == [b"twice"] * 2


@pytest.mark.parametrize(("rates", "kind"), [({"loss": 1.1}, ValueError), ({"burst": -1}, ValueError)])
def test_rates_out_of_range(rates: dict[str, float], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Link(("127.0.0.1", 9), **rates)  # type: ignore[arg-type]
    with Line() as line:
        with pytest.raises(kind):
            line.link.update(**rates)
        with pytest.raises(TypeError, match="jitter"):
            line.link.update(jitter=1)
        assert line.exchange([b"still there"]) == [b"still there"]


# ---------------------------------------------------------------- the line, the address


def test_blackhole() -> None:
    with Line() as line:
        assert line.exchange([b"1"]) == [b"1"]
        line.link.blackhole()
        assert line.exchange([b"2"]) == []
        line.link.blackhole(False)
        assert line.exchange([b"3"]) == [b"3"]
        assert line.link.counters().to_server.dropped == 1


def test_blackhole_in_one_direction() -> None:
    with Line() as line:
        line.send(b"who?")
        _, client = line.server.recvfrom(100)
        line.link.blackhole(direction="to_client")
        line.reply(client, b"lost")
        assert line.exchange([b"passes"]) == [b"passes"]
        line.link.blackhole(direction="to_server")
        assert line.exchange([b"lost too"]) == []
        line.reply(client, b"passes back")
        assert line.client.recv(100) == b"passes back"
        assert line.link.counters().to_client.dropped == 1
        with pytest.raises(ValueError, match="sideways"):
            line.link.blackhole(direction="sideways")  # type: ignore[arg-type]


def test_rebind_changes_the_address_that_the_server_sees() -> None:
    with Line() as line:
        line.send(b"before")
        _, old = line.server.recvfrom(100)
        (port,) = line.link.rebind()
        line.server.sendto(b"to the old address", old)
        line.send(b"after")
        _, new = line.server.recvfrom(100)
        assert new == ("127.0.0.1", port) != old
        line.reply(new, b"to the new one")
        assert line.client.recv(100) == b"to the new one"
        assert line.link.counters().to_client.seen == 1


def test_a_server_that_is_gone_is_silence() -> None:
    with Line() as line:
        line.server.close()
        line.send(b"a")
        line.send(b"b")
        line.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            line.client.recv(100)


# ---------------------------------------------------------------- fate


def fates(count: int = 300, **options: Any) -> list[tuple[str, bytes]]:
    with Line(record=count, **options) as line:
        line.exchange(numbered(count))
        return [(p.fate, p.data) for p in line.link.packets()]


RATES = {"loss": 0.1, "duplicate": 0.1, "reorder": 0.1, "corrupt": 0.1, "burst": 3}


def test_the_same_seed_brings_the_same_fate() -> None:
    first = fates(seed=7, **RATES)
    assert {fate for fate, _ in first} == {"passed", "dropped", "duplicated", "reordered", "corrupted"}
    assert fates(seed=7, **RATES) == first
    assert fates(seed=8, **RATES) != first


def test_a_changed_rate_changes_no_other_packets_fate() -> None:
    few = [fate for fate, _ in fates(seed=9, loss=0.1, corrupt=0.1)]
    more = [fate for fate, _ in fates(seed=9, loss=0.3, corrupt=0.1)]
    assert few.count("dropped") < more.count("dropped")
    assert all(b in (a, "dropped") for a, b in zip(few, more, strict=True))


def test_the_first_packets_are_recorded() -> None:
    before = time.monotonic()
    with Line(record=3) as line:
        line.send(b"1", b"2")
        _, client = line.server.recvfrom(100)
        line.reply(client, b"3", b"4")
        packets = line.link.packets()
    assert [(p.direction, p.fate, p.data) for p in packets] == [
        ("to_server", "passed", b"1"),
        ("to_server", "passed", b"2"),
        ("to_client", "passed", b"3"),
    ]
    assert before <= packets[0].time <= packets[1].time <= packets[2].time <= time.monotonic()


# ---------------------------------------------------------------- the process


def left_behind(pid: int) -> bool:
    """It runs, or ended and nobody looked."""
    return Path(f"/proc/{pid}").exists()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def descriptors() -> Iterator[None]:
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


def test_close_ends_the_process(descriptors: None) -> None:
    link = Link(("127.0.0.1", 9))
    assert runs(link._pid)
    link.close()
    assert not left_behind(link._pid)
    link.close()
    with pytest.raises(ValueError, match="closed"):
        link.counters()


def test_a_forgotten_link_ends_too(descriptors: None) -> None:
    link = Link(("127.0.0.1", 9))
    pid = link._pid
    del link
    gc.collect()
    assert not left_behind(pid)


def test_a_target_that_is_none_leaves_no_process(descriptors: None) -> None:
    with pytest.raises(RuntimeError, match="ended"):
        Link(("not an address", 9))


def test_a_relay_that_died_is_told() -> None:
    with Line() as line:
        os.kill(line.link._pid, signal.SIGKILL)
        with pytest.raises((RuntimeError, BrokenPipeError)):
            line.link.counters()


@pytest.mark.parametrize("end", ["pass", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_the_relay_ends_with_its_program(end: str) -> None:
    code = f"""
    import os, sys
    from quicgreen.testing import Link
    link = Link(("127.0.0.1", 9))
    print(link._pid, flush=True)
    {end}
    """
    pid = int(run_python(code).stdout)
    assert wait_until(lambda: not runs(pid))


def test_a_forked_child_leaves_the_relay_alone() -> None:
    check_python(
        """
        import os
        from quicgreen.testing import Link
        link = Link(("127.0.0.1", 9))
        child = os.fork()
        if child == 0:
            link.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert link.counters().to_server.seen == 0
        link.close()
        """
    )


def test_a_patched_program_may_use_it() -> None:
    check_python(
        """
        from gevent import monkey
        monkey.patch_all()
        import gevent, socket
        from quicgreen.testing import Link
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        with Link(server.getsockname()) as link:
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            waiter = gevent.spawn(server.recv, 100)
            client.sendto(b"hello", link.address)
            assert waiter.get(timeout=5) == b"hello"
            assert link.counters().to_server.sent == 1
        """
    )


# ---------------------------------------------------------------- with QUIC


def test_a_response_arrives_whole_over_a_very_bad_line() -> None:
    body = os.urandom(200_000)

    def handle(request: quicgreen.Request) -> None:
        request.respond(200, {}, body)

    with (
        serving(handle) as server,
        Link(server.address, seed=1, loss=0.03, duplicate=0.03, reorder=0.05, corrupt=0.03, burst=2) as link,
        new_session() as session,
    ):
        response = session.get(f"https://127.0.0.1:{link.port}/")
        assert response.content == body
        link.rebind()
        assert session.get(f"https://127.0.0.1:{link.port}/").content == body
        assert link.counters().to_client.dropped > 0
        assert link.counters().to_client.corrupted > 0
