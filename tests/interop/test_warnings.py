"""What is warned of: once, in the greenlet that asked and at its line, and never raised; each by a real fault
that another process or the system causes."""

from __future__ import annotations

import os
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers.processes import HERE, Peer
from support import check_python_in_thread, wait_until

import quicgreen
from quicgreen import (
    QuicConfiguration,
    QuicWarningConnectionSlow,
    QuicWarningDeprecatedFeature,
    QuicWarningInvalidParameters,
    QuicWarningPartialData,
    _contexts,
    quicpro,
)
from quicgreen.testing import Authority, Link

Counters = Callable[[Peer], dict[str, Any]]


@contextmanager
def noted() -> Iterator[list[Any]]:
    """What is warned of in the block, each time, and from which greenlet."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def texts(found: list[Any], category: type[Warning]) -> list[str]:
    assert all(w.filename == __file__ for w in found), "at the line that asked"
    return [str(w.message) for w in found if w.category is category]


# ---------------------------------------------------------------- slow


def test_d10_a_handshake_that_took_long(ours: Peer, certificates: Authority) -> None:
    """By the link's delay, and not by a busy machine: 300 ms and more, of which 200 are allowed."""
    config = QuicConfiguration(slow_handshake_ms=200)
    with (
        Link(ours.address, delay_ms=150) as link,
        quicgreen.Session(verify=certificates.ca_certs, config=config, timeout=20) as session,
        noted() as found,
    ):
        url = f"https://localhost:{link.port}/version"
        for _ in range(3):
            assert session.get(url).headers["x-peer"] == ours.version
        assert link.counters().to_server.sent > 0
    (text,) = texts(found, QuicWarningConnectionSlow)
    assert text.startswith("Connection handshake took too long: ")
    assert text.endswith("slow_handshake_ms is 200")


@pytest.mark.parametrize("limit", [10_000, 0])
def test_d10_a_handshake_that_may_take_as_long(ours: Peer, certificates: Authority, limit: int) -> None:
    config = QuicConfiguration(slow_handshake_ms=limit)
    with Link(ours.address, delay_ms=50) as link, noted() as found:
        quicgreen.connect(
            "localhost", link.port, verify=certificates.ca_certs, config=config, timeout=20
        ).close()
    assert found == []


def test_d10_each_connection_is_warned_of_by_itself(ours: Peer, certificates: Authority) -> None:
    config = QuicConfiguration(slow_handshake_ms=50)
    with Link(ours.address, delay_ms=50) as link, noted() as found:
        for _ in range(2):
            with quicgreen.connect(
                "localhost", link.port, verify=certificates.ca_certs, config=config, timeout=20
            ) as connection:
                connection.get("/version")
    assert len(texts(found, QuicWarningConnectionSlow)) == 2


def test_d10_of_a_websocket(aioquic_sockets: Peer, certificates: Authority) -> None:
    config = QuicConfiguration(slow_handshake_ms=50)
    with (
        Link(aioquic_sockets.address, delay_ms=50) as link,
        quicgreen.Session(verify=certificates.ca_certs, config=config) as session,
        noted() as found,
        session.websocket(f"wss://localhost:{link.port}/echo") as ws,
    ):
        ws.send("hello")
        assert ws.recv(timeout=20) == "hello"
    assert len(texts(found, QuicWarningConnectionSlow)) == 1


def test_d10_round_trips_that_grew(ours: Peer, certificates: Authority) -> None:
    """To four times the quickest one, and more than a tenth of the default, 100 ms."""
    with (
        Link(ours.address, delay_ms=2) as link,
        quicgreen.connect("localhost", link.port, verify=certificates.ca_certs, timeout=20) as connection,
        noted() as found,
    ):
        connection.get("/version")
        link.update(delay_ms=200)
        deadline = time.monotonic() + 30
        while not found and time.monotonic() < deadline:
            connection.get("/version")
        stats = connection._engine.conn_stats(connection.id)
        assert stats is not None
        assert stats["rtt"] > 4 * stats["min_rtt"]
        seen = link.counters().to_server.seen
        connection.look_at = 0.0
        connection.get("/version")
        assert link.counters().to_server.seen > seen
    (text,) = texts(found, QuicWarningConnectionSlow)
    assert text.startswith("round trips take ")


@pytest.mark.filterwarnings("error")
def test_d10_where_warnings_are_errors_nothing_stays_open(ours: Peer, certificates: Authority) -> None:
    """The greenlet that asked gets it instead of its answer; the next one has its own."""
    config = QuicConfiguration(slow_handshake_ms=1)
    with (
        Link(ours.address, delay_ms=20) as link,
        quicgreen.Session(verify=certificates.ca_certs, config=config, timeout=20) as session,
    ):
        url = f"https://localhost:{link.port}/size/100000"
        with pytest.raises(QuicWarningConnectionSlow):
            session.get(url)
        assert len(session.get(url).content) == 100_000
        (origin,) = session._pool.origins.values()
        assert [c.in_flight for c in origin.connections] == [0]


@pytest.mark.parametrize("wrong", [-1, 1.5, "soon"])
def test_a_limit_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(quicgreen.QuicClientException, match="slow_handshake_ms"):
        _contexts.Configuration(quicgreen.ClientTls(verify=False), QuicConfiguration(slow_handshake_ms=wrong))


# ---------------------------------------------------------------- partial


def test_d12_a_body_that_is_shorter_than_announced(
    aioquic: Peer, session: quicgreen.Session, counters: Counters
) -> None:
    """RFC 9114, section 4.1.2: it is malformed. The reader is told both."""
    before = counters(aioquic)
    with noted() as found, pytest.raises(quicgreen.QuicStreamException) as caught:
        session.get(aioquic.url("/short/50"))
    assert caught.value.cause == "body-too-short"
    assert texts(found, QuicWarningPartialData) == ["the body ended before its content-length"]
    assert counters(aioquic)["requests"] == before["requests"] + 2


def test_d12_a_body_that_is_read_in_pieces(aioquic: Peer, session: quicgreen.Session) -> None:
    got: list[bytes] = []
    with session.stream("GET", aioquic.url("/short/3000000")) as response:
        with noted() as found, pytest.raises(quicgreen.QuicStreamException) as caught:
            got.extend(response.iter_bytes())
        assert len(texts(found, QuicWarningPartialData)) == 1
        assert caught.value.cause == "body-too-short"
    assert 0 < sum(map(len, got)) < 3_000_000
    assert session.get(aioquic.url("/version")).headers["x-peer"] == aioquic.version


def test_d12_a_server_is_sent_less_than_announced(
    ours: Peer, aioquic_client: Callable[..., dict[str, Any]], counters: Counters
) -> None:
    before = counters(ours)["engine"]["messages_malformed"]
    short = {"method": "POST", "path": "/sink", "size": 100, "fields": [["content-length", "101"]]}
    (answer,) = aioquic_client(ours, [short])["answers"]
    assert answer["reset"] == 0x10E
    assert counters(ours)["engine"]["messages_malformed"] == before + 1


CUT = """\
    import pathlib, sys, warnings
    import quicgreen

    port, trust, flag = sys.argv[1:]
    warnings.simplefilter("always")
    with quicgreen.Session(verify=trust, timeout=20) as session:
        url = f"https://localhost:{port}/size/100000"
        print(len(session.get(url).content))
        pathlib.Path(flag).touch()
        with warnings.catch_warnings(record=True) as found:
            for _ in range(2):
                print(len(session.get(url).content))  # what was cut comes again
                for origin in session._pool.origins.values():
                    for connection in origin.connections:
                        connection.look_at = 0.0
            session.get(url)
    print([(w.category.__name__, str(w.message)) for w in found])
    print(quicgreen.hub.current().engine.counters()["datagrams_cut"])
"""


def test_d12_a_datagram_that_is_cut(ours: Peer, certificates: Authority, tmp_path: Path) -> None:
    """By the system, which is given a small buffer once."""
    library, flag = tmp_path / "cut.so", tmp_path / "flag"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "cut_datagrams.c")]
    subprocess.run(command, check=True, timeout=60)
    said = check_python_in_thread(
        CUT,
        str(ours.port),
        certificates.ca_certs,
        str(flag),
        LD_PRELOAD=str(library),
        CUT_DATAGRAMS=str(flag),
    ).splitlines()
    assert said[:3] == ["100000"] * 3
    assert (
        said[3] == "[('QuicWarningPartialData', 'a datagram was cut as it was received: it counts as lost')]"
    )
    assert int(said[4]) >= 1
    assert not os.path.exists(flag)


# ---------------------------------------------------------------- unknown frames


def test_d13_an_unknown_frame_is_warned_of_with_its_number(aioquic: Peer, session: quicgreen.Session) -> None:
    """Of HTTP/3, which skips it (RFC 9114, section 9). Once, and the answer behind it is had."""
    with noted() as found:
        for _ in range(3):
            assert session.get(aioquic.url("/frame/1f")).text == "after it"
            (connection,) = next(iter(session._pool.origins.values())).connections
            connection.look_at = 0.0
    (text,) = texts(found, QuicWarningPartialData)
    assert text.startswith("Received unknown QUIC frame type 0x1f")


@pytest.mark.parametrize("kind", ["21", "40", "5f", "c"])
def test_d13_what_is_reserved_to_be_skipped_is_not(
    aioquic: Peer, session: quicgreen.Session, kind: str
) -> None:
    """RFC 9114, section 7.2.8: peers send these so that they stay skipped; and ORIGIN (RFC 9412)."""
    with noted() as found:
        assert session.get(aioquic.url(f"/frame/{kind}")).text == "after it"
    assert texts(found, QuicWarningPartialData) == []


def test_the_hub_warns_of_nothing(ours: Peer, certificates: Authority) -> None:
    """A connection that is slow while nobody asks anything of it."""
    config = QuicConfiguration(slow_handshake_ms=1)
    shown: list[Any] = []
    with Link(ours.address, delay_ms=20) as link, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *_, **__: shown.append(gevent.getcurrent())
        with quicgreen.Session(verify=certificates.ca_certs, config=config, timeout=20) as session:
            g = gevent.spawn(session.get, f"https://localhost:{link.port}/version")
            assert wait_until(g.ready, 20)
            assert g.get().headers["x-peer"] == ours.version
    assert shown == [g]


# ---------------------------------------------------------------- by the documentation's names


def test_d9_an_option_that_is_not_known() -> None:
    with noted() as found:
        config = quicpro.Config.new({"max_idel_ms": 5000, "max_idle_ms": 6000})
    (text,) = texts(found, QuicWarningInvalidParameters)
    assert text == "'max_idel_ms' is not a setting: did you mean max_idle_ms?"
    assert dict(config) == {"max_idle_ms": 6000}


def test_d11_an_option_by_its_old_name() -> None:
    with noted() as found:
        config = quicpro.Config.new({"idle_timeout_ms": 5000})
    assert texts(found, QuicWarningDeprecatedFeature) == ["idle_timeout_ms is called max_idle_ms now"]
    assert dict(config) == {"max_idle_ms": 5000}
    assert config.transport().max_idle_ms == 5000


def test_d10_of_a_session_of_the_documentation(ours: Peer, certificates: Authority) -> None:
    options = {"ca_file": certificates.ca_certs, "slow_handshake_ms": 50}
    with Link(ours.address, delay_ms=50) as link, noted() as found:
        quicpro.quicpro_close(quicpro.quicpro_connect("localhost", link.port, options))
    (text,) = texts(found, QuicWarningConnectionSlow)
    assert text.startswith("Connection handshake took too long: ")


def test_d12_of_a_session_of_the_documentation(aioquic: Peer, certificates: Authority) -> None:
    """Also where the event comes while nobody waits, in the hub: who asks is told."""
    sess = quicpro.quicpro_connect("localhost", aioquic.port, {"ca_file": certificates.ca_certs})
    request = quicpro.quicpro_send_request(sess, "/short/50")
    with noted() as found:
        assert quicpro.quicpro_receive_response(sess, request) is None
        assert wait_until(lambda: sess._requests[request].failure is not None)
        assert found == []
        with pytest.raises(quicgreen.QuicStreamException) as caught:
            quicpro.quicpro_receive_response(sess, request)
    assert caught.value.cause == "body-too-short"
    assert quicpro.quicpro_get_last_error() == quicgreen.QUIC_ERROR_STREAM_ERROR
    assert len(texts(found, QuicWarningPartialData)) == 1
    quicpro.quicpro_close(sess)
