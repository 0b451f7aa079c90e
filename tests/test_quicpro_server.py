"""The server of sessions: its arguments and its end. What it does is shown in tests/interop."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers.quicpro import answer_all, ask, connected, echo, serving
from support import counters, nothing_left_behind, wait_until

from quicgreen import datapath, hub
from quicgreen.quicpro import (
    QUIC_ERROR_INTERNAL,
    QuicClientException,
    QuicServerException,
    QuicTlsHandshakeException,
    QuicWarningInvalidParameters,
    Server,
    quicpro_export_ticket,
    quicpro_get_last_error,
    quicpro_import_ticket,
)
from quicgreen.quicpro import server as module
from quicgreen.testing import Authority, Certificate


def files_of(certificate: Certificate) -> dict[str, Any]:
    return {"cert_file": certificate.certfile, "key_file": certificate.keyfile}


@pytest.mark.parametrize(
    ("host", "port"),
    [(None, 0), (b"::", 0), ("::", -1), ("::", 65536), ("::", "4433"), ("::", True), ("a b", 0), ("x\0", 0)],
)
def test_what_is_no_address(certificate: Certificate, host: Any, port: Any) -> None:
    with pytest.raises(QuicClientException):
        Server(host, port, files_of(certificate))


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours(certificate: Certificate, host: str) -> None:
    with pytest.raises(QuicServerException):
        Server(host, 0, files_of(certificate))
    assert quicpro_get_last_error() == QUIC_ERROR_INTERNAL


def test_certificates(certificate: Certificate, tmp_path: Path) -> None:
    for options in ({}, {"key_file": certificate.keyfile}):
        with pytest.raises(QuicClientException, match="needs cert_file"):
            Server("127.0.0.1", 0, options)
    (tmp_path / "bad.pem").write_text("nothing")
    for path in (tmp_path / "bad.pem", tmp_path / "none.pem"):
        with pytest.raises(QuicServerException, match="certificate"):
            Server("127.0.0.1", 0, {"cert_file": path})


def test_its_life(certificate: Certificate) -> None:
    with nothing_left_behind():
        with Server("127.0.0.1", 0, files_of(certificate)) as server:
            assert server.address == ("127.0.0.1", server.port)
            assert not server.closed
            assert f":{server.port}" in repr(server)
            waiting = [gevent.spawn(server.accept, ms) for ms in (None, 5, 0)]
            gevent.sleep(0.02)
        assert [g.get(timeout=10) for g in waiting] == [None] * 3
        assert server.closed
        server.close()
        assert list(server) == []


def test_it_is_iterated_over(certificate: Certificate) -> None:
    with Server("127.0.0.1", 0, files_of(certificate)) as server:
        accepting = gevent.spawn(lambda: next(iter(server)))
        with connected(server, certificate):
            assert accepting.get(timeout=20).alpn == "h3"


def test_sessions_that_nobody_accepts_are_bounded(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ACCEPT_BACKLOG", 1)
    with (
        Server("127.0.0.1", 0, files_of(certificate)) as server,
        connected(server, certificate) as first,
        connected(server, certificate) as second,
    ):
        assert wait_until(lambda: second.connection.closed)
        assert not first.connection.closed


def test_one_that_left_before_it_was_accepted_is_passed_over(certificate: Certificate) -> None:
    with Server("127.0.0.1", 0, files_of(certificate)) as server:
        with connected(server, certificate):
            assert wait_until(lambda: server._waiting)
        assert wait_until(lambda: server._waiting[0].closed)
        accepting = gevent.spawn(server.accept, 5)
        gevent.sleep(0.02)
        assert not accepting.ready()
        server.close(0)
        assert accepting.get(timeout=10) is None


# ---------------------------------------------------------------- settings


def test_settings_for_clients_are_warned_of(certificate: Certificate) -> None:
    with pytest.warns(QuicWarningInvalidParameters, match="connect_timeout_ms does nothing here"):
        Server("127.0.0.1", 0, {**files_of(certificate), "connect_timeout_ms": 5}).close(0)


def test_clients_must_show_a_certificate(certificate: Certificate, certificates: Authority) -> None:
    mine = certificates.issue("client")
    demands = {"ca_file": certificates.ca_certs, "verify_peer": True}
    with serving(certificate, answer_all(echo), **demands) as server:
        shown = {"cert_file": mine.certfile, "key_file": mine.keyfile}
        with connected(server, certificate, **shown) as sess:
            assert ask(sess, "/")["status"] == 200
        # The server's word comes when the client's side of the handshake is done (RFC 8446, section 4.4.2.4).
        refused = pytest.raises((QuicTlsHandshakeException, AssertionError))
        with refused, connected(server, certificate) as sess:
            ask(sess, "/")


def test_retry(certificate: Certificate) -> None:
    before = counters()["retries_sent"]
    with (
        serving(certificate, answer_all(echo), retry_token=True) as server,
        connected(server, certificate) as sess,
    ):
        assert ask(sess, "/")["status"] == 200
    assert counters()["retries_sent"] > before


def ticket_of(server: Server, certificate: Certificate, ms: int = 3000) -> bytes | None:
    with connected(server, certificate) as sess:
        ask(sess, "/")
        return quicpro_export_ticket(sess, ms)


def taken_up(server: Server, certificate: Certificate, ticket: bytes) -> tuple[bool, bool | None]:
    """(resumed, early data taken)"""
    quicpro_import_ticket(("127.0.0.1", server.port), ticket)
    with connected(server, certificate) as sess:
        ask(sess, "/")
        return sess.is_resumed, sess.early_data


def test_session_cache(certificate: Certificate) -> None:
    """Said, it takes early data too; without it there are no tickets at all."""
    for options, early in (({}, None), ({"session_cache": True}, True), ({"early_data": True}, True)):
        with serving(certificate, answer_all(echo), **options) as server:
            ticket = ticket_of(server, certificate)
            assert ticket is not None
            assert taken_up(server, certificate, ticket) == (True, early)
    with serving(certificate, answer_all(echo), session_cache=False) as server:
        assert ticket_of(server, certificate, 300) is None
    with pytest.raises(QuicClientException, match="needs session tickets"):
        Server("127.0.0.1", 0, {**files_of(certificate), "session_cache": False, "early_data": True})


def test_a_file_of_keys_outlives_a_server(certificate: Certificate, tmp_path: Path) -> None:
    path = tmp_path / "ticket.key"
    path.write_bytes(bytes(range(32)))
    with serving(certificate, answer_all(echo), ticket_key_file=path, ticket_key_rotate_s=60) as server:
        ticket = ticket_of(server, certificate)
    assert ticket is not None
    with serving(certificate, answer_all(echo), ticket_key_file=path, ticket_key_rotate_s=60) as server:
        assert taken_up(server, certificate, ticket)[0]
    with serving(certificate, answer_all(echo), ticket_key_rotate_s=60) as server:
        assert not taken_up(server, certificate, ticket)[0]


def test_a_file_of_keys_that_is_none(certificate: Certificate, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"x" * 31)
    for path, words in ((short, "32 bytes"), (tmp_path / "none", "No such file")):
        with pytest.raises(QuicClientException, match=words):
            Server("127.0.0.1", 0, {**files_of(certificate), "ticket_key_file": path})


def test_busy_poll_and_xdp(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On both sides: it spins; and says why there is no AF_XDP, and works without."""
    monkeypatch.setattr(datapath, "_told", set())
    before = counters()["spins"]
    with (
        caplog.at_level(logging.WARNING, "quicgreen"),
        serving(certificate, answer_all(echo), busy_poll=200, xdp="eth7") as server,
        connected(server, certificate, busy_poll=200, xdp="eth7") as sess,
    ):
        assert ask(sess, "/")["status"] == 200
    assert counters()["spins"] > before
    assert [m for m in caplog.messages if "eth7" in m] == [
        "QUICPRO_XDP=eth7: there is no such interface; the UDP socket is used"
    ]
    datapath.tune(hub.current().engine)
