"""A client's session: several greenlets, those that are killed, and what nobody receives."""

from __future__ import annotations

import gc
import time
from typing import Any

import gevent
import pytest
from gevent.event import Event
from helpers.quicpro import answer_all, ask, connected, echo, receive, serving
from support import counters, nothing_left_behind, turn_loop, wait_until
from support import serving as serving_core

from quicgreen.quicpro import (
    QuicClientException,
    QuicConnectionException,
    QuicStreamException,
    quiche_h3_finish_body,
    quiche_h3_send_body_chunk,
    quicpro_close,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_chunk,
    quicpro_receive_response,
    quicpro_send_request,
)
from quicgreen.quicpro import client_session as module
from quicgreen.testing import Certificate


class Slow:
    """A handler of requests that answers /slow... when it is let, and all others at once."""

    def __init__(self) -> None:
        self.go = Event()
        self.paths: list[str] = []
        self.ended: list[str] = []

    def __call__(self, request: Any) -> None:
        self.paths.append(request.path)
        try:
            if request.path.startswith("/slow"):
                self.go.wait()
            request.respond(200, {"x-method": request.method}, request.path.encode() + request.read())
        finally:
            self.ended.append(request.path)


@pytest.fixture
def slow() -> Any:
    return Slow()


@pytest.fixture
def sess(slow: Slow) -> Any:
    """With a server that handles each request by itself; nothing is left of it."""
    with nothing_left_behind():
        with serving_core(slow) as server:
            sess = quicpro_connect("127.0.0.1", server.server_port, {"verify_peer": False})
            yield sess
            quicpro_close(sess)
            slow.go.set()
        del sess


# ---------------------------------------------------------------- several greenlets


def test_a_session_is_shared_by_greenlets(sess: Any) -> None:
    def fetch(n: int) -> None:
        for i in range(5):
            assert ask(sess, f"/{n}/{i}")["text"] == f"/{n}/{i}"

    gevent.joinall([gevent.spawn(fetch, n) for n in range(100)], raise_error=True)
    assert sess._requests == {}


def test_one_greenlet_has_many_requests(sess: Any) -> None:
    streams = {quicpro_send_request(sess, f"/{n}"): f"/{n}" for n in range(300)}
    got = {}
    with gevent.Timeout(20):
        while len(got) < len(streams):
            for stream in [s for s in streams if s not in got]:
                if response := quicpro_receive_response(sess, stream):
                    got[stream] = response["text"]
            assert quicpro_poll(sess, 5)
    assert got == streams


def test_what_one_greenlet_sent_another_receives(sess: Any) -> None:
    stream = quicpro_send_request(sess, "/")
    assert gevent.spawn(receive, sess, stream).get(timeout=20)["text"] == "/"


def test_two_ask_for_the_same(sess: Any, slow: Slow) -> None:
    """The first to look gets it, and the other one is told that it is gone."""
    stream = quicpro_send_request(sess, "/slow")
    both = [gevent.spawn(receive, sess, stream, 10_000) for _ in range(2)]
    assert wait_until(lambda: slow.paths)
    turn_loop()
    slow.go.set()
    gevent.joinall(both, timeout=20)
    assert sorted(g.successful() for g in both) == [False, True]
    assert [type(g.exception) for g in both if g.exception] == [QuicStreamException]


def test_a_call_of_another_greenlet_does_not_send_what_waits_for_its_body(sess: Any, slow: Slow) -> None:
    stream = quicpro_send_request(sess, "/upload")
    gevent.spawn(lambda: (ask(sess, "/other"), quicpro_poll(sess, 1))).join()
    assert slow.paths == ["/other"]
    quiche_h3_send_body_chunk(sess, stream, b" body")
    quiche_h3_finish_body(sess, stream)
    response = receive(sess, stream)
    assert (response["headers"]["x-method"], response["body"]) == ("POST", b"/upload body")


def test_a_greenlet_that_is_gone_has_its_request_sent_by_who_names_it(sess: Any) -> None:
    stream = gevent.spawn(quicpro_send_request, sess, "/left").get()
    gc.collect()
    assert receive(sess, stream)["text"] == "/left"
    assert sess._held == 0


def test_two_send_at_a_time(sess: Any) -> None:
    def send(n: int) -> Any:
        stream = quicpro_send_request(sess, f"/{n}")
        gevent.sleep(0)
        for _ in range(20):
            quiche_h3_send_body_chunk(sess, stream, b"x" * 1000)
            quicpro_poll(sess, 0)
        quiche_h3_finish_body(sess, stream)
        return receive(sess, stream)

    for n, g in enumerate([gevent.spawn(send, n) for n in range(10)]):
        assert g.get(timeout=20)["body"] == f"/{n}".encode() + b"x" * 20_000


# ---------------------------------------------------------------- killed, timed out, closed


@pytest.mark.parametrize("how", ["poll", "chunk"])
def test_a_greenlet_that_is_killed_gives_up_its_request(sess: Any, slow: Slow, how: str) -> None:
    stream = quicpro_send_request(sess, "/slow")
    wait = receive if how == "poll" else quicpro_receive_chunk
    waiting = gevent.spawn(wait, sess, stream, 20_000)
    assert wait_until(lambda: slow.paths)
    turn_loop()
    streams = counters()["streams"]
    waiting.kill()
    assert sess._requests == {}
    assert wait_until(lambda: counters()["streams"] < streams)
    assert ask(sess, "/next")["text"] == "/next"


def test_one_that_another_asked_for_too_goes_on(sess: Any, slow: Slow) -> None:
    stream = quicpro_send_request(sess, "/slow")
    waiting = [gevent.spawn(receive, sess, stream, 20_000) for _ in range(2)]
    assert wait_until(lambda: slow.paths)
    turn_loop()
    waiting[0].kill()
    slow.go.set()
    assert waiting[1].get(timeout=20)["text"] == "/slow"


def test_a_timeout_leaves_the_request_to_be_asked_for_again(sess: Any, slow: Slow) -> None:
    stream = quicpro_send_request(sess, "/slow")
    for ask_for in (receive, quicpro_receive_chunk):
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            ask_for(sess, stream, 20_000)
    slow.go.set()
    assert receive(sess, stream)["text"] == "/slow"


def test_killed_while_it_sends(sess: Any) -> None:
    def send() -> None:
        stream = quicpro_send_request(sess, "/upload")
        while True:
            quiche_h3_send_body_chunk(sess, stream, b"x" * 16384)
            quicpro_poll(sess, 0)

    sending = gevent.spawn(send)
    gevent.sleep(0.05)
    sending.kill()
    assert ask(sess, "/next")["text"] == "/next"


def test_close_while_others_wait(sess: Any, slow: Slow) -> None:
    streams = [quicpro_send_request(sess, f"/slow/{n}", None, b"x") for n in range(3)]
    waiting = [
        gevent.spawn(receive, sess, streams[0], 20_000),
        gevent.spawn(quicpro_receive_chunk, sess, streams[1]),
        gevent.spawn(quicpro_receive_response, sess, streams[2]),
        gevent.spawn(quicpro_poll, sess, 20_000),
    ]
    assert wait_until(lambda: len(slow.paths) == 3)
    turn_loop()
    started = time.monotonic()
    quicpro_close(sess)
    gevent.joinall(waiting, timeout=10)
    assert time.monotonic() - started < 5
    assert isinstance(waiting[0].exception, (QuicConnectionException, AssertionError))
    assert isinstance(waiting[1].exception, QuicConnectionException)
    assert (waiting[2].value, waiting[3].value) == (None, False)


def test_what_was_sent_before_the_close_arrives(slow: Slow) -> None:
    with serving_core(slow) as server:
        sess = quicpro_connect("127.0.0.1", server.server_port, {"verify_peer": False})
        quicpro_send_request(sess, "/body", None, b"x" * 100)
        quicpro_send_request(sess, "/none")
        quicpro_close(sess)
        assert wait_until(lambda: sorted(slow.paths) == ["/body", "/none"])


def test_the_server_goes_away_while_greenlets_poll(certificate: Certificate) -> None:
    with (
        serving(certificate, lambda s: s.connection._closed_event.wait()) as server,
        connected(server, certificate) as sess,
    ):
        stream = quicpro_send_request(sess, "/")
        waiting = gevent.spawn(receive, sess, stream, 20_000)
        turn_loop(5)
        server.close(0)
        waiting.join(10)
        assert isinstance(waiting.exception, (QuicConnectionException, QuicStreamException, AssertionError))
        assert not quicpro_poll(sess, 20_000)


# ---------------------------------------------------------------- what nobody receives


def test_responses_that_nobody_receives_are_bounded(sess: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REQUESTS_MAX", 10)
    streams = [quicpro_send_request(sess, f"/{n}", None, b"x") for n in range(10)]
    with pytest.raises(QuicClientException, match="that nobody received"):
        quicpro_send_request(sess, "/more")
    assert receive(sess, streams[0])["status"] == 200
    quicpro_send_request(sess, "/more")


def test_those_of_greenlets_that_are_gone_make_room(sess: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REQUESTS_MAX", 10)

    def ask_once(n: int) -> None:
        quicpro_receive_response(sess, quicpro_send_request(sess, f"/slow/{n}", None, b"x"))

    def run() -> None:
        gevent.joinall([gevent.spawn(ask_once, n) for n in range(10)])

    run()
    gc.collect()
    assert len(sess._requests) == 10
    assert ask(sess, "/next")["text"] == "/next"


def test_news_of_what_was_not_looked_at_wakes_the_next_poll(sess: Any) -> None:
    stream = quicpro_send_request(sess, "/")
    assert quicpro_receive_response(sess, stream) is None
    gevent.sleep(0.1)  # it came meanwhile
    started = time.monotonic()
    assert quicpro_poll(sess, 10_000)
    assert time.monotonic() - started < 5
    assert quicpro_receive_response(sess, stream) is not None


def test_pieces_of_a_body_leave_together_and_none_waits_for_long(sess: Any) -> None:
    """A piece that stays alone leaves with the next turn of the loop."""
    stream = quicpro_send_request(sess, "/upload")
    quiche_h3_send_body_chunk(sess, stream, b"x" * 100)
    for _ in range(3):
        quicpro_poll(sess, 0)
    sent = counters()["datagrams_sent"]
    quiche_h3_send_body_chunk(sess, stream, b"y" * 100)
    quicpro_poll(sess, 0)
    assert wait_until(lambda: counters()["datagrams_sent"] > sent, 2)
    quiche_h3_finish_body(sess, stream)
    assert len(receive(sess, stream)["body"]) == len("/upload") + 200


def test_another_protocol_than_http_3(certificate: Certificate) -> None:
    with (
        serving(certificate, lambda s: s.connection._closed_event.wait(), alpn=["raw"]) as server,
        connected(server, certificate, alpn=["raw"]) as sess,
    ):
        assert sess.alpn == "raw"
        for call in (
            lambda: quicpro_send_request(sess, "/"),
            lambda: quicpro_send_request(sess, "/", None, b"x"),
            lambda: sess.upgrade("/"),
        ):
            with pytest.raises(QuicClientException, match="speaks raw"):
                call()


def test_echoes(certificate: Certificate) -> None:
    with serving(certificate, answer_all(echo)) as server, connected(server, certificate) as sess:
        assert ask(sess, "/", None, b"x" * 100_000)["body"] == b"x" * 100_000
