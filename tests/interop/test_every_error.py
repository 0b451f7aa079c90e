"""Every exception, message and code, each by a real fault between processes, with what the other one saw of
it. More faults are in test_faults.py; what warns is in test_warnings.py."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from helpers.processes import Peer
from support import check_python_in_thread, hello, make_server, wait_until

import quicgreen
from quicgreen import exceptions
from quicgreen.testing import Authority, self_signed

Counters = Callable[[Peer], dict[str, Any]]

HANDSHAKE_S = 0.5
"""For peers that never complete one."""


@pytest.fixture
def silent() -> Iterator[Peer]:
    with Peer("datagram_peer.py") as peer:
        yield peer


@pytest.fixture
def other_versions() -> Iterator[Peer]:
    with Peer("datagram_peer.py", says="versions") as peer:
        yield peer


def datagrams(peer: Peer) -> int:
    """How many came to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.sendto(b"count?", peer.address)
        return int(s.recv(100))


@contextmanager
def raising(kind: type[quicgreen.QuicException], cause: str, code: int) -> Iterator[Any]:
    """Exactly this class, cause and code, with the words of its row: what, and what to do next."""
    with pytest.raises(kind) as caught:
        yield caught
    e = caught.value
    row = exceptions.CAUSES[cause]
    assert type(e) is kind
    assert (e.cause, e.code) == (cause, code)
    assert str(e).startswith(row.message)
    assert str(e).endswith(f"({row.advice})")


def closed_with(counters: Counters, peer: Peer, code: int) -> bool:
    """The peer was told that a connection is over, with this code of the wire."""
    return wait_until(lambda: code in counters(peer)["codes"])


# ---------------------------------------------------------------- exceptions


def test_d1_connection(aioquic: Peer, session: quicgreen.Session, counters: Counters) -> None:
    before = counters(aioquic)["requests"]
    with raising(quicgreen.QuicConnectionException, "closed-by-peer", 3) as caught:
        session.post(aioquic.url("/goaway"))
    assert isinstance(caught.value, ConnectionError)
    assert (caught.value.wire_code, caught.value.remote) == (0x100, True)
    assert "maintenance" in str(caught.value)
    assert counters(aioquic)["requests"] == before + 2  # with the one that asks


def test_d2_stream(aioquic: Peer, session: quicgreen.Session, counters: Counters) -> None:
    before = counters(aioquic)["requests"]
    with raising(quicgreen.QuicStreamException, "reset", 5) as caught:
        session.get(aioquic.url("/reset/258"))
    assert (caught.value.wire_code, caught.value.remote) == (258, True)
    assert "H3_INTERNAL_ERROR" in str(caught.value)
    assert counters(aioquic)["requests"] == before + 2


def test_d3_tls_handshake(aioquic: Peer, counters: Counters, tmp_path: Any) -> None:
    stranger = self_signed(tmp_path, "localhost")
    with (
        quicgreen.Session(verify=stranger.ca_certs) as session,
        raising(quicgreen.QuicTlsHandshakeException, "certificate", 4) as caught,
    ):
        session.get(aioquic.url("/version"))
    assert str(caught.value).startswith("TLS handshake failed: invalid certificate: localhost, ")
    assert f" port {aioquic.port}: " in str(caught.value)
    assert caught.value.request_sent is False
    # RFC 9001, section 4.8: 0x100 and the alert.
    assert closed_with(counters, aioquic, caught.value.wire_code)


def test_d4_timeout_of_a_handshake(silent: Peer) -> None:
    with raising(quicgreen.QuicTimeoutException, "handshake-timeout", 1) as caught:
        quicgreen.connect(*silent.address, timeout=HANDSHAKE_S)
    assert isinstance(caught.value, TimeoutError)
    assert str(caught.value).startswith(f"Connection handshake took too long: 127.0.0.1 port {silent.port} ")
    assert datagrams(silent) >= 1


def test_d4_timeout_of_an_answer(aioquic: Peer, session: quicgreen.Session, counters: Counters) -> None:
    before = counters(aioquic)["stops"]
    with raising(quicgreen.QuicTimeoutException, "deadline", 1):
        session.get(aioquic.url("/silence"), timeout=0.3)
    assert wait_until(lambda: counters(aioquic)["stops"] == before + 1)
    assert session.get(aioquic.url("/version")).headers["x-peer"] == aioquic.version


def test_d5_transport(aioquic: Peer, session: quicgreen.Session, counters: Counters) -> None:
    with raising(quicgreen.QuicTransportException, "violation-by-peer", 6) as caught:
        session.get(aioquic.url("/breach"))
    assert (caught.value.wire_code, caught.value.remote) == (0x105, False)
    assert closed_with(counters, aioquic, 0x105)


def test_d5_an_unknown_quic_frame(aioquic: Peer, session: quicgreen.Session, counters: Counters) -> None:
    with raising(quicgreen.QuicErrorUnknownFrame, "unknown-frame", 6) as caught:
        session.post(aioquic.url("/quic-frame/1f"))
    assert isinstance(caught.value, quicgreen.QuicTransportException)
    assert str(caught.value).startswith("Received unknown QUIC frame type")
    assert (caught.value.wire_code, caught.value.remote) == (0x7, False)
    assert closed_with(counters, aioquic, 0x7)


def test_d5_we_are_told_of_an_unknown_frame(aioquic: Peer, session: quicgreen.Session) -> None:
    with raising(quicgreen.QuicErrorUnknownFrame, "unknown-frame", 6) as caught:
        session.post(aioquic.url("/blames/1f"))
    assert (caught.value.wire_code, caught.value.remote) == (0x7, True)
    assert "never heard of it" in str(caught.value)


@pytest.mark.parametrize("kind", ["2", "6", "8", "9"])
def test_d5_a_frame_of_http2(
    aioquic: Peer, session: quicgreen.Session, counters: Counters, kind: str
) -> None:
    """RFC 9114, section 7.2.8. Of HTTP/3's frames the number is known."""
    with raising(quicgreen.QuicErrorUnknownFrame, "unknown-frame", 6) as caught:
        session.post(aioquic.url(f"/frame/{kind}"))
    assert re.match(rf"Received unknown QUIC frame type 0x{kind} ", str(caught.value))
    assert (caught.value.wire_code, caught.value.remote) == (0x105, False)
    assert closed_with(counters, aioquic, 0x105)


def test_d6_server(silent: Peer) -> None:
    """Its port is another process's."""
    with raising(quicgreen.QuicServerException, "bind", 7) as caught:
        make_server(hello, silent.address).start()
    assert caught.value.errno == 98
    assert datagrams(silent) == 0


def test_d7_client(silent: Peer) -> None:
    with raising(quicgreen.QuicClientException, "argument", 2):
        quicgreen.get(f"http://127.0.0.1:{silent.port}/")
    assert datagrams(silent) == 0


def test_d8_socket(silent: Peer) -> None:
    silent.kill()
    with raising(quicgreen.QuicSocketException, "unreachable", 3) as caught:
        quicgreen.connect(*silent.address, timeout=5)
    # Who asks for a connection and gets none may catch it as that, as in the documentation's example.
    assert isinstance(caught.value, quicgreen.QuicConnectionException)
    assert caught.value.errno == 111
    assert f"127.0.0.1 port {silent.port}: Connection refused" in str(caught.value)
    assert caught.value.request_sent is False


# ---------------------------------------------------------------- codes


def test_d14_invalid_state(aioquic: Peer, certificates: Authority, counters: Counters) -> None:
    """Nothing is sent for what cannot be."""
    with quicgreen.connect(*aioquic.address, verify=certificates.ca_certs) as connection:
        before = counters(aioquic)["requests"]
        with raising(quicgreen.QuicClientException, "content-length", 2):
            connection.post("/version", b"four", headers={"content-length": "5"})
        assert counters(aioquic)["requests"] == before + 1
        assert connection.get("/version").headers["x-peer"] == aioquic.version


def test_d14_connection_lost(start_ours: Callable[..., Peer], certificates: Authority) -> None:
    """The server comes back and knows nothing of it: a stateless reset (RFC 9000, section 10.3)."""
    peer = start_ours()
    with quicgreen.connect("127.0.0.1", peer.port, verify=certificates.ca_certs) as connection:
        assert connection.get("/version").headers["x-peer"] == peer.version
        peer.kill()
        again = start_ours(port=peer.port)
        with raising(quicgreen.QuicConnectionException, "lost", 3):
            connection.post("/echo", b"x")
        with quicgreen.connect("127.0.0.1", again.port, verify=certificates.ca_certs) as asking:
            assert asking.get("/counters").json()["engine"]["resets_sent"] >= 1


def test_d14_unsupported_version(other_versions: Peer) -> None:
    with raising(quicgreen.QuicTransportException, "version", 8) as caught:
        quicgreen.connect(*other_versions.address, timeout=10)
    assert caught.value.request_sent is False
    assert datagrams(other_versions) >= 1


def test_d14_ok_is_what_is_no_failure_of_ours(aioquic: Peer, session: quicgreen.Session) -> None:
    response = session.get(aioquic.url("/status/404"))
    with pytest.raises(quicgreen.QuicClientException) as caught:
        response.raise_for_status()
    assert (caught.value.code, caught.value.cause) == (exceptions.QUIC_ERROR_OK, "http-status")


REFUSED = """\
    import resource, sys
    import gevent
    import quicgreen
    from quicgreen import QUIC_ERROR_INTERNAL, QuicException

    gevent.sleep(0)  # the hub opens what it needs
    name, limit = sys.argv[1:3]
    try:
        if name == "descriptors":
            import os
            limit = len(os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        else:
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), -1))
        quicgreen.connect("127.0.0.1", 4433)
    except QuicException as e:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        print(type(e).__name__, e.cause, e.code == QUIC_ERROR_INTERNAL, e.errno)
        print(e)
"""


@pytest.mark.parametrize(("what", "errno"), [("descriptors", "24"), ("memory", "None")])
def test_d14_internal(what: str, errno: str) -> None:
    """At the start of an engine a descriptor, or memory, is refused."""
    said = check_python_in_thread(REFUSED, what, "0").splitlines()
    assert said[0] == f"QuicException engine True {errno}"
    assert said[1].startswith("Unable to initialize QUIC context: ")


def test_a_greenlet_that_is_killed_gets_what_it_was_killed_with(
    aioquic: Peer, session: quicgreen.Session, counters: Counters
) -> None:
    """And nothing of ours; the peer is told that the request is not wanted any more."""
    before = counters(aioquic)["stops"]
    g = gevent.spawn(session.get, aioquic.url("/silence"))
    assert wait_until(lambda: session._pool is not None and counters(aioquic)["requests"] > 0)
    gevent.sleep(0.1)
    g.kill(KeyError("on purpose"))
    assert isinstance(g.exception, KeyError)
    assert wait_until(lambda: counters(aioquic)["stops"] == before + 1)
