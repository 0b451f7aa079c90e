"""`quicgreen ping`: a process of its own, against servers in this one."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import gevent
import pytest
from helpers.commands import START_S, Site, command, complaint, run, run_process
from helpers.processes import Peer
from support import serving, wait_until

import quicgreen
from quicgreen._contexts import self_signed
from quicgreen.testing import Certificate, Link

MS = r"\d+\.\d{3}"


def where(server: quicgreen.Server) -> str:
    return f"127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("early", [True, False])
def test_ping(early: bool) -> None:
    site = Site()
    with serving(site, early_data=early) as server:
        result = run_process("ping", "-k", "-c", "3", "-i", "0.01", where(server))
    assert (result.returncode, result.stderr) == (0, "")
    lines = iter(result.stdout.splitlines())
    said = "accepted" if early else "not used"
    for pattern in (
        rf"PING 127\.0\.0\.1 \(127\.0\.0\.1\) port {server.server_port}: HTTP/3 over QUIC version 1",
        rf"full handshake: time={MS} ms, first response after {MS} ms",
        rf"resumed handshake: time={MS} ms, first response after {MS} ms, early data {said}",
        rf"HEAD /: seq=1 status=200 time={MS} ms",
        rf"HEAD /: seq=2 status=200 time={MS} ms",
        rf"HEAD /: seq=3 status=200 time={MS} ms",
        r"--- 127\.0\.0\.1 ping statistics ---",
        r"3 requests sent, 3 answered, 0% loss, time \d+ ms",
        rf"rtt min/avg/max/mdev = {MS}/{MS}/{MS}/{MS} ms",
        r"[1-9]\d* QUIC packets sent, handshakes included; \d+ lost and sent again",
    ):
        assert re.fullmatch(pattern, line := next(lines)), line
    assert next(lines, None) is None
    assert [(r.method, r.path) for r in site.seen] == [("HEAD", "/")] * 5


def test_a_slow_handshake_is_told_of_in_a_line() -> None:
    with serving(Site()) as server, Link(server.address, delay_ms=550) as link:
        result = run_process("ping", "-k", "-c", "1", f"127.0.0.1:{link.port}")
    assert result.returncode == 0
    lines = result.stderr.splitlines()
    assert lines, "for the full handshake, and for the resumed one"
    for line in lines:
        assert line.startswith("quicgreen: warning: Connection handshake took too long: ")


def test_the_summary_is_of_the_round_trips() -> None:
    with serving(Site()) as server:
        out = run("ping", "-k", "-c", "5", "-i", "0", where(server)).stdout
    times = [float(t) for t in re.findall(r"seq=\d+ status=200 time=(\S+) ms", out)]
    found = re.search(r"= (\S+)/(\S+)/(\S+)/(\S+) ms", out)
    assert found is not None
    least, mean, most, mdev = (float(x) for x in found.groups())
    assert len(times) == 5
    assert (least, most) == (min(times), max(times))
    assert mean == pytest.approx(sum(times) / 5, abs=0.002)
    assert mdev == pytest.approx((sum((t - mean) ** 2 for t in times) / 5) ** 0.5, abs=0.01)


def test_trust_is_as_in_fetch(tmp_path: Path) -> None:
    cert, key = self_signed("localhost,127.0.0.1")
    (tmp_path / "both.pem").write_text(cert + key)
    (tmp_path / "cert.pem").write_text(cert)
    with serving(Site(), certfile=str(tmp_path / "both.pem")) as server:
        port = server.server_port
        for name in ("localhost", "127.0.0.1"):
            arguments = ["--cacert", str(tmp_path / "cert.pem"), f"{name}:{port}"]
            assert run("ping", "-c", "1", *arguments).returncode == 0
        result = run("ping", "-c", "1", f"127.0.0.1:{port}")
        assert (result.returncode, result.stderr.count("--cacert")) == (60, 1)
        assert "0 requests sent" not in result.stdout, "an error and no statistics"


def test_ctrl_c_sums_up() -> None:
    site = Site()
    with serving(site) as server, command("ping", "-k", "-i", "600", where(server)) as pinging:
        pinging.wait_for("seq=1 ")
        pinging.signal(signal.SIGINT)
        status, out, err = pinging.end()
    assert (status, err) == (0, "")
    assert "1 requests sent, 1 answered, 0% loss" in out
    assert "rtt min/avg/max/mdev = " in out
    assert len(site.seen) == 3


def test_ctrl_c_while_a_response_is_waited_for() -> None:
    site = Slow(answers=2)
    with serving(site) as server, command("ping", "-k", "-W", "600", where(server)) as pinging:
        pinging.wait_for("resumed handshake")
        assert wait_until(lambda: site.asked == 3, START_S)
        pinging.signal(signal.SIGINT)
        status, out, err = pinging.end()
    assert (status, err) == (1, ""), "nobody answered, as ping has it"
    assert "1 requests sent, 0 answered, 100% loss" in out


class Slow:
    """Answers some requests, and keeps the others waiting."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.asked = 0

    def __call__(self, request: quicgreen.Request) -> None:
        self.asked += 1
        if self.asked > self.answers:
            gevent.sleep(600)
        request.respond(204)


def test_a_response_that_does_not_come_is_a_loss() -> None:
    with serving(Slow(answers=3)) as server:
        result = run("ping", "-k", "-c", "2", "-i", "0", "-W", "0.3", where(server))
    assert result.returncode == 0
    assert "seq=1 status=204" in result.stdout
    assert re.search(r"seq=2 no response: .*0\.3 s", result.stdout)
    assert "2 requests sent, 1 answered, 50% loss" in result.stdout


def test_a_server_that_goes_and_comes_back() -> None:
    """What it had open is lost with it; the next round trip opens anew."""
    with serving(Site()) as server:
        address = server.address
        pinging = gevent.spawn(run, "ping", "-k", "-c", "40", "-i", "0.05", "-W", "5", where(server))
        assert wait_until(lambda: len(server.handle.seen) >= 4, START_S)  # type: ignore[attr-defined]
    again = Site()
    with serving(again, address):
        assert wait_until(lambda: len(again.seen) >= 3, START_S)
        result = pinging.get(timeout=START_S)
    assert result.returncode == 0
    sent = re.search(r"40 requests sent, (\d+) answered", result.stdout)
    assert sent is not None
    assert 0 < int(sent[1]) <= 40
    assert "seq=40 status=200" in result.stdout


def test_nobody_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        result = run("ping", "-k", "--connect-timeout", "0.2", f"127.0.0.1:{port}")
        assert (result.returncode, result.stdout) == (28, "")
        assert "--connect-timeout" in complaint(result)
    result = run("ping", "-k", f"127.0.0.1:{port}")
    assert (result.returncode, result.stdout) == (7, "")
    assert complaint(result)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["127.0.0.1:99999"], 3, "99999"),
        (["-c", "0", "127.0.0.1"], 3, "-c"),
        (["-i", "-1", "127.0.0.1"], 3, "-i"),
        (["-W", "-1", "127.0.0.1"], 3, "-1"),
        (["no-such-host.invalid"], 6, "no-such-host.invalid"),
    ],
)
def test_wrong_arguments(arguments: list[str], status: int, words: str) -> None:
    result = run("ping", *arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert words in complaint(result)


def test_a_server_that_gives_no_tickets(certificate: Certificate) -> None:
    """And is none of ours: aioquic, which gives some only when it is told how."""
    with Peer("aioquic_server.py", certfile=certificate.certfile, keyfile=certificate.keyfile) as peer:
        peer.wait_until_it_answers(certificate.ca_certs)
        result = run("ping", "--cacert", certificate.ca_certs, "-c", "1", f"127.0.0.1:{peer.port}")
        fetched = run("fetch", "-s", "-v", "--cacert", certificate.ca_certs, peer.url("/version"))
    assert result.returncode == 0
    assert "resumed handshake: not tried, the server gives no session tickets\n" in result.stdout
    assert "1 requests sent, 1 answered" in result.stdout
    assert (fetched.returncode, "* TLS full handshake" in fetched.stderr) == (0, True)
