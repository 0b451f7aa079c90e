"""The documentation's functions with other servers: rows A1 to A12, as the other side saw them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers import bodies
from helpers.processes import Peer
from helpers.quicpro import ask, receive
from support import counters, turn_loop, wait_until

from quicgreen.quicpro import (
    QUIC_ERROR_CONNECTION_LOST,
    QUIC_ERROR_HANDSHAKE_FAILED,
    QUIC_ERROR_INVALID_STATE,
    QUIC_ERROR_OK,
    QUIC_ERROR_STREAM_ERROR,
    QUIC_ERROR_TIMEOUT,
    Config,
    Fiber,
    QuicClientException,
    QuicConnectionException,
    QuicSocketException,
    QuicStreamException,
    QuicTimeoutException,
    QuicTlsHandshakeException,
    Session,
    quiche_h3_finish_body,
    quiche_h3_send_body_chunk,
    quicpro_close,
    quicpro_connect,
    quicpro_export_ticket,
    quicpro_get_last_error,
    quicpro_get_stats,
    quicpro_import_ticket,
    quicpro_poll,
    quicpro_receive_chunk,
    quicpro_receive_head,
    quicpro_receive_response,
    quicpro_send_request,
    quicpro_set_qlog_path,
)
from quicgreen.testing import Authority

Connect = Callable[..., Any]


@pytest.fixture
def connect(certificates: Authority) -> Iterator[Connect]:
    """Sessions with a peer; all are closed at the end."""
    opened: list[Session] = []

    def open_one(peer: Peer, **options: Any) -> Session:
        given = {"ca_file": certificates.ca_certs, "session_cache": False, **options}
        opened.append(quicpro_connect("localhost", peer.port, given))
        return opened[-1]

    yield open_one
    for sess in opened:
        quicpro_close(sess)


def sink(sess: Session, *arguments: Any, **options: Any) -> Any:
    """What the server says that it was sent."""
    return json.loads(ask(sess, "/sink", *arguments, **options)["body"])


# ---------------------------------------------------------------- A1: connect


def test_the_handshake_is_done_on_return(server: Peer, connect: Connect) -> None:
    sess = connect(server)
    assert isinstance(sess, Session)
    assert sess.alpn == "h3"
    assert sess.connection.info()["is_established"]
    assert ask(sess, "/version")["headers"]["x-peer"] == server.version


def test_options_are_a_mapping_or_a_config(aioquic: Peer, certificates: Authority) -> None:
    for options in ({"verify_peer": False}, Config.new({"ca_file": certificates.ca_certs})):
        sess = quicpro_connect("localhost", aioquic.port, options)
        assert ask(sess, "/version")["status"] == 200
        quicpro_close(sess)


def test_each_failure_to_connect_has_its_exception(aioquic: Peer) -> None:
    def fails(kind: type[Exception], code: int, host: str, port: int, **options: Any) -> None:
        with pytest.raises(kind):
            quicpro_connect(host, port, options)
        assert quicpro_get_last_error() == code

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        fails(QuicTimeoutException, QUIC_ERROR_TIMEOUT, "127.0.0.1", port, connect_timeout_ms=50)
    fails(QuicSocketException, QUIC_ERROR_CONNECTION_LOST, "127.0.0.1", port)
    fails(QuicSocketException, QUIC_ERROR_CONNECTION_LOST, "no-such-host.invalid", 443)
    fails(QuicTlsHandshakeException, QUIC_ERROR_HANDSHAKE_FAILED, "localhost", aioquic.port)


# ---------------------------------------------------------------- A2: requests


def test_without_a_body_it_is_a_get_and_with_one_a_post(server: Peer, connect: Connect) -> None:
    sess = connect(server)
    assert sink(sess)["method"] == "GET"
    told = sink(sess, {"content-type": "text/x-test"}, b"hello")
    assert (told["method"], told["length"]) == ("POST", 5)
    assert ["content-type", "text/x-test"] in told["fields"]
    assert sink(sess, None, b"", method="PUT")["method"] == "PUT"
    assert sink(sess, method="DELETE")["method"] == "DELETE"
    assert ask(sess, "/size/9", method="HEAD")["body"] == b""


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 1_000_000])
def test_a_body_arrives_whole(server: Peer, connect: Connect, size: int) -> None:
    told = sink(connect(server), None, bodies.body(size))
    assert (told["method"], told["length"], told["sha256"]) == ("POST", size, bodies.digest(size))


def test_text_mappings_and_iterables_are_bodies(server: Peer, connect: Connect) -> None:
    sess = connect(server)
    assert sink(sess, None, "κόσμε")["length"] == len("κόσμε".encode())
    told = sink(sess, None, {"a": "1 2"})
    assert ["content-type", "application/x-www-form-urlencoded"] in told["fields"]
    assert sink(sess, None, bodies.blocks(200_000))["sha256"] == bodies.digest(200_000)


def test_ids_are_those_of_the_quic_streams(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)
    assert [quicpro_send_request(sess, "/version") for _ in range(3)] == [0, 4, 8]
    assert [receive(sess, i)["status"] for i in (8, 0, 4)] == [200, 200, 200]


def test_without_a_body_it_leaves_with_the_next_call(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)
    before = counters()["requests_sent"]
    stream = quicpro_send_request(sess, "/sink")
    gevent.sleep(0.05)
    assert counters()["requests_sent"] == before
    assert quicpro_poll(sess, 0)
    assert counters()["requests_sent"] == before + 1
    assert json.loads(receive(sess, stream)["body"])["method"] == "GET"


def test_when_the_next_call_is_a_piece_of_a_body_it_is_a_post(server: Peer, connect: Connect) -> None:
    sess = connect(server)
    stream = quicpro_send_request(sess, "/sink", headers={"content-type": "text/x-test"})
    assert quiche_h3_send_body_chunk(sess, stream, "in ") == 3
    quiche_h3_send_body_chunk(sess, stream, b"pieces")
    quiche_h3_finish_body(sess, stream)
    told = json.loads(receive(sess, stream)["body"])
    assert (told["method"], told["length"]) == ("POST", 9)
    assert ["content-type", "text/x-test"] in told["fields"]


def test_a_method_that_was_given_stays(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)
    stream = quicpro_send_request(sess, "/sink", method="PUT")
    quiche_h3_finish_body(sess, stream)
    told = json.loads(receive(sess, stream)["body"])
    assert (told["method"], told["length"]) == ("PUT", 0)


# ---------------------------------------------------------------- A3: responses


def test_a_response_is_none_until_it_is_complete(hypercorn: Peer, connect: Connect) -> None:
    sess = connect(hypercorn)
    stream = quicpro_send_request(sess, "/drip/5/20")
    nothing = 0
    while not (response := quicpro_receive_response(sess, stream)):
        nothing += 1
        quicpro_poll(sess, 1000)
    assert nothing >= 3
    assert response["status"] == 200
    assert response["body"] == b"0\n1\n2\n3\n4\n"
    assert response["text"] == "0\n1\n2\n3\n4\n"
    assert response["headers"]["x-peer"] == hypercorn.version
    assert list(response) == ["status", "headers", "body", "text", "trailers"]


def test_trailers(aioquic: Peer, connect: Connect) -> None:
    response = ask(connect(aioquic), "/trailers")
    assert (response["body"], response["trailers"]["x-checksum"]) == (b"body", "abc")


def test_a_body_that_is_kept_whole_is_bounded(server: Peer, connect: Connect) -> None:
    sess = connect(server, max_body_bytes=1000)
    for path in ("/size/1001", "/size/500000"):
        with pytest.raises(QuicStreamException, match="quicpro_receive_chunk"):
            ask(sess, path)
    assert quicpro_get_last_error() == QUIC_ERROR_STREAM_ERROR
    assert len(ask(sess, "/size/1000")["body"]) == 1000
    stream = quicpro_send_request(sess, "/size/500000")
    assert sum(map(len, iter(lambda: quicpro_receive_chunk(sess, stream), b""))) == 500_000


def test_a_reset_is_an_error_of_its_stream(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)
    with pytest.raises(QuicStreamException):
        ask(sess, "/reset/268")
    assert quicpro_get_last_error() == QUIC_ERROR_STREAM_ERROR
    assert ask(sess, "/version")["status"] == 200
    assert quicpro_get_last_error() == QUIC_ERROR_OK


def test_a_response_that_does_not_come(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic, read_timeout_ms=60)
    stream = quicpro_send_request(sess, "/silence")
    with pytest.raises(QuicTimeoutException):
        receive(sess, stream)
    with pytest.raises(QuicStreamException, match="no request under way"):
        quicpro_receive_response(sess, stream)
    assert quicpro_get_last_error() == QUIC_ERROR_INVALID_STATE
    assert ask(sess, "/version")["status"] == 200


# ---------------------------------------------------------------- A4: poll


def test_poll_returns_when_something_comes_or_its_time_is_over(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)
    stream = quicpro_send_request(sess, "/slow/300")
    assert quicpro_receive_response(sess, stream) is None
    started = time.monotonic()
    assert quicpro_poll(sess, 20)
    assert 0.018 < time.monotonic() - started < 0.28
    assert quicpro_receive_response(sess, stream) is None
    assert quicpro_poll(sess, 20_000)
    assert time.monotonic() - started < 15
    assert quicpro_receive_response(sess, stream)["body"] == b"at last"


def test_poll_is_for_what_this_greenlet_asked_for(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)
    slow, silent = quicpro_send_request(sess, "/slow/100"), quicpro_send_request(sess, "/silence")
    assert quicpro_receive_response(sess, slow) is None
    waiting = gevent.spawn(lambda: (quicpro_receive_response(sess, silent), quicpro_poll(sess, 400)))
    started = time.monotonic()
    quicpro_poll(sess, 10_000)
    assert quicpro_receive_response(sess, slow) is not None
    assert waiting.get() == (None, True)
    assert time.monotonic() - started >= 0.35  # the other one's answer did not wake it


def test_poll_without_having_asked_is_for_anything(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)
    stream = quicpro_send_request(sess, "/slow/50")
    started = time.monotonic()
    assert quicpro_poll(sess, 10_000)
    assert time.monotonic() - started < 5
    assert quicpro_receive_response(sess, stream)["body"] == b"at last"


def test_poll_of_a_session_that_is_over_is_false(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)
    stream = quicpro_send_request(sess, "/goaway")
    with pytest.raises((QuicConnectionException, AssertionError)):  # which poll's False becomes
        receive(sess, stream)
    assert quicpro_get_last_error() == QUIC_ERROR_CONNECTION_LOST
    assert not quicpro_poll(sess, 10)
    assert quicpro_get_last_error() == QUIC_ERROR_CONNECTION_LOST


# ---------------------------------------------------------------- A5: close


def test_close_is_told_to_the_server_and_to_who_waits(aioquic: Peer, connect: Connect) -> None:
    sess, other = connect(aioquic), connect(aioquic)

    def told() -> int:
        count: int = json.loads(ask(other, "/counters")["body"])["terminated"]
        return count

    before = told()
    silent = quicpro_send_request(sess, "/silence")

    def wait() -> int:
        try:
            receive(sess, silent)
        except (QuicConnectionException, AssertionError):
            pass
        return quicpro_get_last_error()

    waiting = [gevent.spawn(wait), gevent.spawn(lambda: quicpro_receive_chunk(sess, silent))]
    turn_loop()
    quicpro_close(sess)
    quicpro_close(sess)
    assert sess.closed
    assert waiting[0].get(timeout=10) == QUIC_ERROR_CONNECTION_LOST
    with pytest.raises(QuicConnectionException):
        waiting[1].get(timeout=10)
    assert wait_until(lambda: told() > before)


# ---------------------------------------------------------------- A6: uploads


def test_an_upload_in_chunks(server: Peer, connect: Connect) -> None:
    """The documentation's loop, under back-pressure: the engine's part of it is bounded, whatever the
    server's pace."""
    sess = connect(server)
    size = 5_000_000
    data = memoryview(bodies.body(size))
    stream = quicpro_send_request(sess, "/sink", headers={"content-type": "application/octet-stream"})
    for start in range(0, size, 16 * 1024):
        quiche_h3_send_body_chunk(sess, stream, data[start : start + 16 * 1024])
        assert quicpro_poll(sess, 0)
    quiche_h3_finish_body(sess, stream)
    told = json.loads(receive(sess, stream, 10)["body"])
    assert (told["method"], told["length"], told["sha256"]) == ("POST", size, bodies.digest(size))


def test_a_server_that_has_enough(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)
    stream = quicpro_send_request(sess, "/early")

    def send() -> None:
        with gevent.Timeout(20):
            while True:
                quiche_h3_send_body_chunk(sess, stream, b"x" * 16384)
                quicpro_poll(sess, 1)

    with pytest.raises(QuicStreamException, match="stopped reading"):
        send()
    response = receive(sess, stream)
    assert (response["status"], response["body"]) == (413, b"enough")
    assert ask(sess, "/version")["status"] == 200


# ---------------------------------------------------------------- A7: traces


def test_a_trace_begins_at_the_call(server: Peer, connect: Connect, tmp_path: Path) -> None:
    """Live: it is there while the session goes on, and has what came after the call."""
    sess = connect(server)
    ask(sess, "/version")
    path = tmp_path / "example.qlog"
    assert quicpro_set_qlog_path(sess, path)
    ask(sess, "/size/20000")
    assert wait_until(lambda: path.exists() and b"packet_received" in path.read_bytes())
    records = [json.loads(line) for line in path.read_bytes().split(b"\x1e")[1:]]
    assert len(records) > 3
    before = path.stat().st_size
    ask(sess, "/size/20000")
    assert wait_until(lambda: path.stat().st_size > before)


@pytest.mark.parametrize("where", ["none/x.qlog", "file/x.qlog"])
def test_a_path_that_cannot_be_written(aioquic: Peer, connect: Connect, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    sess = connect(aioquic)
    with pytest.raises(QuicClientException, match=where):
        quicpro_set_qlog_path(sess, tmp_path / where)
    assert quicpro_get_last_error() != QUIC_ERROR_OK
    assert ask(sess, "/version")["status"] == 200


# ---------------------------------------------------------------- A8, A9


def test_stats_are_quiche_s_and_in_nanoseconds(server: Peer, connect: Connect) -> None:
    sess = connect(server)
    ask(sess, "/size/100000")
    stats = quicpro_get_stats(sess)
    assert 1_000 < stats["rtt"] < 5_000_000_000  # between a microsecond and 5 s
    assert stats["recv_bytes"] > 100_000
    assert {"recv", "sent", "lost", "retrans", "cwnd", "min_rtt", "rttvar", "delivery_rate"} <= stats.keys()


def test_the_last_error_is_the_greenlet_s_own(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)

    def fail() -> int:
        with pytest.raises(QuicStreamException):
            quicpro_receive_response(sess, 400)
        gevent.sleep(0.01)
        return quicpro_get_last_error()

    failing = gevent.spawn(fail)
    assert ask(sess, "/version")["status"] == 200
    assert failing.get() == QUIC_ERROR_INVALID_STATE
    assert quicpro_get_last_error() == QUIC_ERROR_OK


# ---------------------------------------------------------------- A10: tickets


@pytest.mark.parametrize("name", ["aioquic_early", "ours_early"])
def test_a_ticket_is_taken_up_once(request: pytest.FixtureRequest, connect: Connect, name: str) -> None:
    peer: Peer = request.getfixturevalue(name)
    first = connect(peer)
    assert not first.is_resumed
    assert ask(first, "/version")["status"] == 200
    ticket = quicpro_export_ticket(first, 5000)
    assert isinstance(ticket, bytes)
    assert quicpro_import_ticket(("localhost", peer.port), ticket)
    second = connect(peer)
    assert second.in_early_data
    assert ask(second, "/version")["status"] == 200
    assert second.is_resumed
    assert second.early_data
    assert not connect(peer).is_resumed


def test_a_session_cache_resumes_by_itself(ours_early: Peer, connect: Connect) -> None:
    ask(connect(ours_early, session_cache=True), "/version")
    assert wait_until(lambda: connect(ours_early, session_cache=True, early_data=False).is_resumed)
    assert not connect(ours_early).is_resumed


def test_no_ticket(aioquic: Peer, connect: Connect) -> None:
    assert quicpro_export_ticket(connect(aioquic)) is None


# ---------------------------------------------------------------- A11: fibers


def test_fetching_in_fibers(server: Peer, certificates: Authority) -> None:
    def fetch(path: str) -> bytes:
        s = quicpro_connect("localhost", server.port, {"ca_file": certificates.ca_certs})
        id = quicpro_send_request(s, path)
        while not (r := quicpro_receive_response(s, id)):
            quicpro_poll(s, 5)
        quicpro_close(s)
        body: bytes = r["body"]
        return body

    sizes = [1, 1000, 100_000]
    fibers = [Fiber(fetch) for _ in sizes]
    for fiber, size in zip(fibers, sizes, strict=True):
        fiber.start(f"/size/{size}")
    assert not any(f.isTerminated() for f in fibers)
    for fiber, size in zip(fibers, sizes, strict=True):
        assert bodies.digest_of(fiber.getReturn()) == bodies.digest(size)
    assert all(f.isTerminated() for f in fibers)


# ---------------------------------------------------------------- A12: chunks


def test_chunks_come_as_they_are_sent(hypercorn: Peer, connect: Connect) -> None:
    sess = connect(hypercorn)
    stream = quicpro_send_request(sess, "/drip/5/60")
    assert quicpro_receive_head(sess, stream)["status"] == 200
    pieces, times = [], []
    while (piece := quicpro_receive_chunk(sess, stream)) != b"":
        pieces.append(piece)
        times.append(time.monotonic())
    assert b"".join(pieces) == b"0\n1\n2\n3\n4\n"
    assert times[-1] - times[0] > 0.1  # not all at the end
    with pytest.raises(QuicStreamException, match="no request under way"):
        quicpro_receive_chunk(sess, stream)


def test_a_chunk_that_is_not_there_in_time(hypercorn: Peer, connect: Connect) -> None:
    sess = connect(hypercorn)
    slow = quicpro_send_request(sess, "/slow/500")
    assert quicpro_receive_head(sess, slow, 1) is None
    stream = quicpro_send_request(sess, "/drip/1/500")
    assert quicpro_receive_chunk(sess, stream, 0) is None
    assert quicpro_receive_chunk(sess, stream, 10) is None
    assert quicpro_get_last_error() == QUIC_ERROR_OK
    assert quicpro_receive_chunk(sess, stream, 10_000) == b"0\n"
    assert quicpro_receive_chunk(sess, stream) == b""


def test_a_body_that_is_cut(aioquic: Peer, connect: Connect) -> None:
    sess = connect(aioquic)
    stream = quicpro_send_request(sess, "/reset/258")
    assert quicpro_receive_chunk(sess, stream) == b"ten bytes."
    with pytest.raises(QuicStreamException):
        quicpro_receive_chunk(sess, stream)
    assert quicpro_get_last_error() == QUIC_ERROR_STREAM_ERROR
