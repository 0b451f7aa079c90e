"""A server's session: what it says when nothing comes. What it does is shown in tests/interop."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest
from helpers.quicpro import ask, connected, echo, receive, serving
from support import wait_until

from quicgreen.quicpro import (
    QuicClientException,
    QuicConnectionException,
    QuicStreamException,
    feof,
    fgets,
    fwrite,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)
from quicgreen.testing import Certificate


def test_the_client_leaves(certificate: Certificate) -> None:
    ends: list[Any] = []

    def handle(session: Any) -> None:
        for request in session:
            echo(request)
        ends.append("over")
        for call in (session.receiveRequest, lambda: session.upgrade("/")):
            try:
                call()
            except QuicConnectionException as e:
                ends.append(e.cause)
        ends.append(session.isWebSocket("/chat"))
        ends.append(quicpro_poll(session, 20_000))

    with serving(certificate, handle) as server:
        with connected(server, certificate) as sess:
            assert ask(sess, "/")["status"] == 200
        assert wait_until(lambda: len(ends) == 5)
    assert ends == ["over", "closed-by-peer", "closed-by-peer", False, False]


def test_a_client_s_functions_are_not_for_it(certificate: Certificate) -> None:
    found: list[Any] = []
    with (
        serving(certificate, lambda s: (found.append(s), s.connection._closed_event.wait())) as server,
        connected(server, certificate),
    ):
        assert wait_until(lambda: found)
        for call in (
            lambda: quicpro_send_request(found[0], "/"),
            lambda: quicpro_receive_response(found[0], 0),
        ):
            with pytest.raises(QuicClientException, match="quicpro_connect gives"):
                call()
        assert quicpro_poll(found[0], 0)
        assert quicpro_poll(found[0], 5)


def test_one_that_waits_is_told_of_the_close(certificate: Certificate) -> None:
    found: list[Any] = []
    with (
        serving(certificate, lambda s: (found.append(s), s.connection._closed_event.wait())) as server,
        connected(server, certificate),
    ):
        assert wait_until(lambda: found)
        waiting = gevent.spawn(found[0].receiveRequest)
        gevent.sleep(0.01)
        found[0].close()
        with pytest.raises(QuicConnectionException):
            waiting.get(timeout=10)


def test_the_close_waits_for_no_answer_that_will_not_come(certificate: Certificate) -> None:
    """Received, begun, only looked at, and not even that: all are cut off, and a whole answer arrives."""
    took: list[float] = []

    def handle(session: Any) -> None:
        whole, begun, received = [session.receiveRequest() for _ in range(3)]
        session.isWebSocket()
        assert wait_until(lambda: session.connection._opened)
        begun.stream().respond(200)
        begun.stream().sendBody("some")
        echo(whole)
        started = time.monotonic()
        session.close()
        took.append(time.monotonic() - started)
        del received

    with serving(certificate, handle) as server, connected(server, certificate) as sess:
        streams = [quicpro_send_request(sess, f"/{n}", None, b"") for n in range(5)]
        assert receive(sess, streams[0])["headers"]["x-path"] == "/0"
        for stream in streams[1:]:
            with pytest.raises((QuicStreamException, QuicConnectionException, AssertionError)):
                receive(sess, stream)
        assert wait_until(lambda: took, 8)
    assert took[0] < 5


def test_the_close_ends_websockets_in_order(certificate: Certificate) -> None:
    def handle(session: Any) -> None:
        ws = session.upgrade("/")
        fgets(ws)
        session.close()

    with serving(certificate, handle) as server, connected(server, certificate) as sess:
        ws = sess.upgrade("/")
        fwrite(ws, "go\n")
        assert fgets(ws) == ""
        assert feof(ws)
        assert ws.websocket.close_code == 1000
