"""QUICPRO_BUSY_POLL and QUICPRO_XDP: read when something is opened. On a real
interface: netns/test_xdp.py."""

from __future__ import annotations

import logging
from typing import Any

import gevent
import pytest
from support import connect, hello, serving

import quicgreen
from quicgreen import _engine, datapath
from quicgreen.testing import Certificate


class Engine:
    """Says what it was asked for."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.spin = -1
        self.client_endpoint = _engine.ENDPOINT_AUTO
        self.answers = list(answers)
        self.asked: list[bytes] = []

    def set_spin(self, spin_us: int) -> None:
        self.spin = spin_us

    def client_xdp(self, interface: bytes) -> tuple[int, str]:
        self.asked.append(interface)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def endpoint_xdp(self, endpoint: int, interface: bytes) -> tuple[int, str]:
        return self.client_xdp(interface)

    def endpoint_info(self, endpoint: int) -> dict[str, Any]:
        return {"capabilities": {"xdp", "xdp_native"} if endpoint == 7 else {"xdp"}}


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(datapath, "_told", set())
    caplog.set_level(logging.INFO, "quicgreen")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "XDP" in r.getMessage()]


def test_the_program_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    monkeypatch.setenv("QUICPRO_BUSY_POLL", "50")
    datapath.tune(engine)
    assert engine.spin == 50
    datapath.tune(engine, busy_poll=0)
    assert engine.spin == 0
    monkeypatch.setenv("QUICPRO_BUSY_POLL", "fast")
    with pytest.raises(quicgreen.QuicClientException, match="'fast'"):
        datapath.tune(engine)
    monkeypatch.setenv("QUICPRO_BUSY_POLL", "0")
    engine = Engine((7, ""))
    monkeypatch.setenv("QUICPRO_XDP", "ens6")
    datapath.tune_client(engine, xdp="ens7")
    datapath.serve_by_xdp(engine, 1, "ens8")
    datapath.serve_by_xdp(engine, 1, None)
    datapath.serve_by_xdp(engine, 1, "")
    assert engine.asked == [b"ens7", b"ens8", b"ens6"]


def test_no_xdp_gives_its_reason_once_and_udp_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("QUICPRO_XDP", "nowhere0")
    with serving(hello) as server, connect(server) as c:
        assert c.get().text == "hello"
    assert said(caplog) == ["QUICPRO_XDP=nowhere0: there is no such interface; the UDP socket is used"]


def test_nothing_is_said_where_nothing_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine((_engine.INVALID, "no"))
    datapath.tune_client(engine)
    datapath.serve_by_xdp(engine, 1, None)
    assert caplog.records == []
    assert engine.asked == []


def test_loopback_s_reason(certificate: Certificate, caplog: pytest.LogCaptureFixture) -> None:
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with quicgreen.Server(("127.0.0.1", 0), hello, **files, xdp="lo"):
        pass
    assert said(caplog) == [
        "QUICPRO_XDP=lo: a loopback interface has no other side to take frames from; the UDP socket is used"
    ]


def test_a_client_asks_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine((7, ""))
    for _ in range(3):
        datapath.tune_client(engine, xdp="ens6")
        assert engine.client_endpoint == 7
    assert engine.asked == [b"ens6"]
    datapath.tune_client(engine, xdp="")
    assert engine.client_endpoint == _engine.ENDPOINT_AUTO
    engine.answers = [(_engine.STATE, "another one has them")]
    datapath.tune_client(engine, xdp="ens9")
    assert engine.client_endpoint == _engine.ENDPOINT_AUTO
    datapath.tune_client(engine, xdp="ens6")
    assert engine.client_endpoint == 7
    assert said(caplog) == [
        "QUICPRO_XDP=ens6: AF_XDP, in the interface's driver",
        "QUICPRO_XDP=ens9: another one has them; the UDP socket is used",
    ]


def test_a_client_that_was_refused_does_not_ask_again(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine((_engine.SYSTEM, "it is not permitted"))
    for _ in range(3):
        datapath.tune_client(engine, xdp="ens6")
        assert engine.client_endpoint == _engine.ENDPOINT_AUTO
    assert engine.asked == [b"ens6"]
    assert said(caplog) == ["QUICPRO_XDP=ens6: it is not permitted; the UDP socket is used"]


def test_an_interface_that_is_busy_is_tried_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine((_engine.AGAIN, "somebody else has it"), (_engine.AGAIN, "the same"), (0, ""))
    datapath.serve_by_xdp(engine, 3, "ens6")
    assert len(engine.asked) == 3
    monkeypatch.setattr(datapath, "_BUSY_S", 0.3)
    engine = Engine((_engine.AGAIN, "somebody else has it"))
    turns = gevent.spawn(lambda: [gevent.sleep(0.01) for _ in range(3)])
    datapath.serve_by_xdp(engine, 3, "ens6")
    assert turns.ready()  # others went on
    assert said(caplog) == [
        "QUICPRO_XDP=ens6: AF_XDP, behind the driver, which cannot do it itself",
        "QUICPRO_XDP=ens6: somebody else has it; the UDP socket is used",
    ]
