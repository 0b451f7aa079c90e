"""QUICPRO_BUSY_POLL and QUICPRO_XDP: read when something is opened."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support import connect, hello, serving

import quicgreen
from quicgreen import datapath


class Engine:
    spin = -1

    def set_spin(self, spin_us: int) -> None:
        self.spin = spin_us


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


def test_no_xdp_gives_its_reason_once_and_udp_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("QUICPRO_XDP", "ens6")
    monkeypatch.setattr(datapath, "_told", set())
    with caplog.at_level(logging.WARNING, "quicgreen"), serving(hello) as server, connect(server) as c:
        assert c.get().text == "hello"
    said = [r.getMessage() for r in caplog.records if "XDP" in r.getMessage()]
    assert said == ["QUICPRO_XDP=ens6: this version has no AF_XDP datapath; the UDP socket is used"]


def test_nothing_is_said_where_nothing_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    engine: Any = Engine()
    with caplog.at_level(logging.WARNING, "quicgreen"):
        datapath.tune(engine)
    assert caplog.records == []
