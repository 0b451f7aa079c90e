"""The documentation's functions: what they refuse. What they do is shown in tests/interop."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from helpers.quicpro import answer_all, ask, connected, echo, receive, serving
from support import hello
from support import serving as serving_core

from quicgreen.quicpro import (
    QUIC_ERROR_CONNECTION_LOST,
    QUIC_ERROR_INVALID_STATE,
    QuicClientException,
    QuicConnectionException,
    QuicStreamException,
    QuicWarningInvalidParameters,
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
from quicgreen.testing import Certificate


@pytest.fixture
def sess(certificate: Certificate) -> Any:
    with serving(certificate, answer_all(echo)) as server, connected(server, certificate) as sess:
        yield sess


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize("host", [None, 7, b"localhost", "", "a b", "x\0y", "bad..host"])
def test_what_is_no_host(host: Any) -> None:
    with pytest.raises((QuicClientException, QuicConnectionException)):
        quicpro_connect(host, 443, {"connect_timeout_ms": 1000})
    assert quicpro_get_last_error() in (QUIC_ERROR_INVALID_STATE, QUIC_ERROR_CONNECTION_LOST)


@pytest.mark.parametrize("port", [0, -1, 65536, "443", True, None, 443.0])
def test_what_is_no_port(port: Any) -> None:
    with pytest.raises(QuicClientException, match="is not a port"):
        quicpro_connect("localhost", port)
    assert quicpro_get_last_error() == QUIC_ERROR_INVALID_STATE


def test_a_host_in_other_letters(certificate: Certificate) -> None:
    """It is looked up and asked for in the form that DNS and TLS know."""
    with pytest.raises(QuicConnectionException, match=r"xn--bcher-kva\.invalid"):
        quicpro_connect("bücher.invalid", 443)
    with serving_core(hello) as server:
        sess = quicpro_connect(
            "[127.0.0.1]", server.server_port, {"verify_peer": False, "server_name": "bücher.example"}
        )
        assert sess.connection.info()["server_name"] == "xn--bcher-kva.example"
        quicpro_close(sess)


@pytest.mark.parametrize("options", ["alpn", 5, [("alpn", "h3")]])
def test_options_of_a_wrong_type(options: Any) -> None:
    with pytest.raises(QuicClientException, match="a mapping or a Config"):
        quicpro_connect("localhost", 443, options)


def test_an_unknown_option_is_warned_of(certificate: Certificate) -> None:
    with (
        serving(certificate, answer_all(echo)) as server,
        pytest.warns(QuicWarningInvalidParameters) as caught,
    ):
        quicpro_close(quicpro_connect("127.0.0.1", server.port, {"verify_peer": False, "verify_pear": 1}))
    assert [w.filename for w in caught] == [__file__]


@pytest.mark.parametrize("path", ["chat", "", None, 7, "https://host/"])
def test_what_is_no_path(sess: Any, path: Any) -> None:
    with pytest.raises(QuicClientException, match="is not a path"):
        quicpro_send_request(sess, path)


def test_a_path_is_quoted(sess: Any) -> None:
    for path, arrives in {
        "/käse": "/k%C3%A4se",
        "/a b?c=d e": "/a%20b?c=d%20e",
        "/a%20b": "/a%20b",
        "/日本?x=é#part": "/%E6%97%A5%E6%9C%AC?x=%C3%A9",
    }.items():
        assert ask(sess, path)["headers"]["x-path"] == arrives


@pytest.mark.parametrize("headers", ["x: 1", 5, [1], [("a", "b", "c")]])
def test_what_are_no_headers(sess: Any, headers: Any) -> None:
    with pytest.raises(QuicClientException):
        quicpro_send_request(sess, "/", headers)


@pytest.mark.parametrize("headers", [{"a b": "1"}, {"x": "a\nb"}, {":path": "/"}, {"content-length": "x"}])
def test_fields_that_are_not_allowed(sess: Any, headers: Any) -> None:
    with pytest.raises(QuicClientException):
        quicpro_send_request(sess, "/", headers, b"body")


@pytest.mark.parametrize("method", ["", "GE T", 5])
def test_what_is_no_method(sess: Any, method: Any) -> None:
    with pytest.raises(QuicClientException, match="is not a method"):
        quicpro_send_request(sess, "/", method=method)


def test_what_is_no_body(sess: Any) -> None:
    with pytest.raises(QuicClientException, match="cannot be sent as a body"):
        quicpro_send_request(sess, "/", None, 5)
    stream = quicpro_send_request(sess, "/")
    with pytest.raises(QuicClientException, match="bytes or text"):
        quiche_h3_send_body_chunk(sess, stream, 5)  # type: ignore[arg-type]
    quiche_h3_finish_body(sess, stream)
    assert receive(sess, stream)["body"] == b""


@pytest.mark.parametrize("ms", [-1, "5", None, True, float("nan"), float("inf")])
def test_what_is_no_time(sess: Any, ms: Any) -> None:
    with pytest.raises(QuicClientException, match="milliseconds"):
        quicpro_poll(sess, ms)
    if ms is not None:
        stream = quicpro_send_request(sess, "/")
        with pytest.raises(QuicClientException, match="milliseconds"):
            quicpro_receive_chunk(sess, stream, ms)


CALLS: dict[str, Any] = {
    "send_request": lambda s: quicpro_send_request(s, "/"),
    "receive_response": lambda s: quicpro_receive_response(s, 0),
    "receive_head": lambda s: quicpro_receive_head(s, 0),
    "receive_chunk": lambda s: quicpro_receive_chunk(s, 0),
    "send_body_chunk": lambda s: quiche_h3_send_body_chunk(s, 0, b"x"),
    "finish_body": lambda s: quiche_h3_finish_body(s, 0),
    "get_stats": quicpro_get_stats,
    "set_qlog_path": lambda s: quicpro_set_qlog_path(s, "x.sqlog"),
    "export_ticket": quicpro_export_ticket,
    "upgrade": lambda s: s.upgrade("/chat"),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("thing", [None, 5, "session"])
def test_what_is_no_session(name: str, thing: Any) -> None:
    if name != "upgrade":
        with pytest.raises(QuicClientException, match="a session is what"):
            CALLS[name](thing)
        assert quicpro_get_last_error() == QUIC_ERROR_INVALID_STATE


@pytest.mark.parametrize("thing", [None, 5])
def test_poll_and_close_of_no_session(thing: Any) -> None:
    with pytest.raises(QuicClientException, match="a session is what"):
        quicpro_poll(thing, 0)
    with pytest.raises(QuicClientException, match="a session is what"):
        quicpro_close(thing)


# ---------------------------------------------------------------- a session that is over, an id that is none


@pytest.mark.parametrize("name", [n for n in CALLS if n != "export_ticket"])
def test_a_closed_session(sess: Any, name: str) -> None:
    quicpro_send_request(sess, "/")
    quicpro_close(sess)
    with gevent.Timeout(10), pytest.raises(QuicConnectionException, match="closed"):
        CALLS[name](sess)
    assert quicpro_get_last_error() == QUIC_ERROR_CONNECTION_LOST
    assert not quicpro_poll(sess, 10_000)
    assert quicpro_get_last_error() == QUIC_ERROR_CONNECTION_LOST


@pytest.mark.parametrize("number", [4, 1, -4, 1 << 70, "0", None, 0.0, [], True])
def test_an_unknown_stream(sess: Any, number: Any) -> None:
    stream = quicpro_send_request(sess, "/")
    calls = [
        lambda: quicpro_receive_response(sess, number),
        lambda: quicpro_receive_head(sess, number),
        lambda: quicpro_receive_chunk(sess, number),
        lambda: quiche_h3_send_body_chunk(sess, number, b"x"),
        lambda: quiche_h3_finish_body(sess, number),
    ]
    for call in calls:
        with gevent.Timeout(10), pytest.raises((QuicStreamException, QuicClientException)):
            call()
        assert quicpro_get_last_error() == QUIC_ERROR_INVALID_STATE
    assert receive(sess, stream)["status"] == 200


def test_writing_after_the_end(sess: Any) -> None:
    stream = quicpro_send_request(sess, "/")
    quiche_h3_send_body_chunk(sess, stream, b"x")
    quiche_h3_finish_body(sess, stream)
    for call in (
        lambda: quiche_h3_send_body_chunk(sess, stream, b"y"),
        lambda: quiche_h3_finish_body(sess, stream),
    ):
        with pytest.raises(QuicStreamException, match="has ended"):
            call()
    whole = quicpro_send_request(sess, "/", None, b"whole")
    with pytest.raises(QuicStreamException, match="has ended"):
        quiche_h3_send_body_chunk(sess, whole, b"y")
    assert [receive(sess, s)["body"] for s in (stream, whole)] == [b"x", b"whole"]


# ---------------------------------------------------------------- tickets


@pytest.mark.parametrize("origin", [None, "localhost", ("localhost",), ("localhost", 0), (5, 443)])
def test_where_a_ticket_is_for(origin: Any) -> None:
    with pytest.raises(QuicClientException):
        quicpro_import_ticket(origin, b"x")


@pytest.mark.parametrize("ticket", [b"", b"QGT", b"QGT\x01" + bytes(100), b"QGT\x09xxxx", "text", None])
def test_what_is_no_ticket(ticket: Any) -> None:
    with pytest.raises(QuicClientException):
        quicpro_import_ticket(("localhost", 443), ticket)
    assert quicpro_get_last_error() == QUIC_ERROR_INVALID_STATE


def test_a_ticket_got_without_verification_does_not_stand_in_for_it(certificate: Certificate) -> None:
    with serving(certificate, answer_all(echo)) as server:
        with connected(server, certificate, verify_peer=False) as sess:
            ask(sess, "/")
            ticket = quicpro_export_ticket(sess, 5000)
        assert ticket is not None
        quicpro_import_ticket(("127.0.0.1", server.port), ticket)
        with connected(server, certificate) as sess:
            assert not sess.is_resumed
