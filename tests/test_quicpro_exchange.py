"""What a response looks like, and who asked for it."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.quicpro import answer_all, ask, connected, echo, receive, serving

from quicgreen.headers import Headers
from quicgreen.quicpro import (
    QuicClientException,
    quiche_h3_finish_body,
    quiche_h3_send_body_chunk,
    quicpro_receive_response,
    quicpro_send_request,
)
from quicgreen.quicpro.asker import Asker
from quicgreen.quicpro.exchange import CompleteResponse, Exchange
from quicgreen.testing import Certificate

HEAD = b"\ncontent-type\0text/plain; charset=latin-1\n"


def test_a_response_is_a_mapping() -> None:
    response = CompleteResponse(200, HEAD, b"caf\xe9")
    assert list(response) == ["status", "headers", "body", "text", "trailers"]
    assert dict(response)["status"] == response.get("status") == 200
    assert (response["body"], response["text"]) == (b"caf\xe9", "café")
    assert response["headers"]["Content-Type"] == "text/plain; charset=latin-1"
    assert response["trailers"] is None
    assert repr(response).startswith("{'status': 200, 'headers': ")
    with pytest.raises(KeyError):
        response["boddy"]
    assert CompleteResponse(200, HEAD, b"", Headers.of({"x": "1"}))["trailers"]["x"] == "1"


def test_one_with_an_error_status_and_no_body_is_true() -> None:
    assert CompleteResponse(500, b"\n", b"")


def test_each_asker_counts_once() -> None:
    exchange: Any = Exchange.__new__(Exchange)
    exchange.asker, exchange.others = None, ()
    first, second = Asker(), Asker()
    for asker in (first, second, first, second):
        exchange.add(asker)
    assert exchange.askers == (first, second)
    assert (first.requests, second.requests) == (1, 1)
    exchange.remove(first)
    assert exchange.askers == (second,)
    exchange.remove(second)
    assert (exchange.askers, first.requests, second.requests) == ((), 0, 0)


def test_a_body_is_held_against_its_content_length(certificate: Certificate) -> None:
    with serving(certificate, answer_all(echo)) as server, connected(server, certificate) as sess:
        stream = quicpro_send_request(sess, "/", {"content-length": 4})
        assert quiche_h3_send_body_chunk(sess, stream, b"ab") == 2
        with pytest.raises(QuicClientException, match="more than the 4 bytes"):
            quiche_h3_send_body_chunk(sess, stream, b"cde")
        quiche_h3_send_body_chunk(sess, stream, b"cd")
        quiche_h3_finish_body(sess, stream)
        short = quicpro_send_request(sess, "/", {"content-length": 4})
        quiche_h3_send_body_chunk(sess, short, b"ab")
        with pytest.raises(QuicClientException, match="2 bytes, announced as 4"):
            quiche_h3_finish_body(sess, short)
        quiche_h3_send_body_chunk(sess, short, b"cd")  # it may still be mended
        quiche_h3_finish_body(sess, short)
        assert [receive(sess, s)["body"] for s in (stream, short)] == [b"abcd"] * 2
        nothing = quicpro_send_request(sess, "/", {"content-length": 4})
        with pytest.raises(QuicClientException, match="no body, announced as 4"):
            quicpro_receive_response(sess, nothing)
        with pytest.raises(QuicClientException, match="3 bytes, announced as 4"):
            quicpro_send_request(sess, "/", {"content-length": 4}, b"abc")
        assert ask(sess, "/", {"content-length": 0})["status"] == 200
