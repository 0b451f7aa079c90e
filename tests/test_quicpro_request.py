"""A request and the stream of its answer: what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers.quicpro import ask, connected, serving

from quicgreen.quicpro import QuicClientException, QuicConnectionException, QuicStreamException
from quicgreen.testing import Certificate


def exchange(certificate: Certificate, answer: Callable[[Any], Any], *arguments: Any, **options: Any) -> Any:
    """What a handler of one request answers; what it raises is raised here."""
    raised: list[BaseException] = []

    def handle(session: Any) -> None:
        for request in session:
            try:
                answer(request)
            except Exception as e:
                raised.append(e)  # which keeps the request
                request.stream().reset()
            del request

    with serving(certificate, handle) as server, connected(server, certificate) as sess:
        try:
            return ask(sess, "/a?b", *arguments, **options)
        finally:
            if raised:
                raise raised[0]


def test_headers_are_a_dict_with_the_pseudo_fields(certificate: Certificate) -> None:
    seen: list[Any] = []

    def answer(request: Any) -> None:
        seen.append(request.headers())
        seen.append((request.method, request.path, request.early_data, repr(request), request.stream().id))
        request.stream().respond(204)
        request.stream().sendBody(fin=True)

    response = exchange(
        certificate, answer, [("X-One", "1"), ("x-one", "2"), ("cookie", "a"), ("cookie", "b")]
    )
    assert (response["status"], response["body"]) == (204, b"")
    assert list(seen[0])[:4] == [":method", ":scheme", ":authority", ":path"]
    assert (seen[0]["x-one"], seen[0]["cookie"], seen[0].get("nothing")) == ("1, 2", "a; b", None)
    assert seen[1] == ("GET", "/a?b", False, "<Request GET /a?b>", 0)


def test_a_body_that_is_read_in_pieces(certificate: Certificate) -> None:
    def answer(request: Any) -> None:
        stream = request.stream()
        pieces = list(iter(lambda: stream.read(1000), b""))
        stream.respond(200)
        stream.send_body(str(sum(map(len, pieces))), fin=True)

    assert exchange(certificate, answer, None, b"x" * 100_000)["text"] == "100000"


def twice(stream: Any) -> None:
    stream.respond(200)
    stream.respond(200)


def body_first(stream: Any) -> None:
    stream.sendBody("x")


def after_the_end(stream: Any) -> None:
    stream.respond(200)
    stream.sendBody("x", fin=True)
    stream.sendBody("y")


def ended_twice(stream: Any) -> None:
    stream.respond(200)
    stream.sendBody(fin=True)
    stream.sendBody(fin=True)


def too_much(stream: Any) -> None:
    stream.respond(200, {"content-length": "3"})
    stream.sendBody("four")


def too_little(stream: Any) -> None:
    stream.respond(200, {"Content-Length": 3})
    stream.sendBody("x")
    stream.sendBody("y", fin=True)


def a_number(stream: Any) -> None:
    stream.respond(200)
    stream.sendBody(5)


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (twice, "answered already"),
        (body_first, "comes before"),
        (after_the_end, "after its end"),
        (ended_twice, "after its end"),
        (too_much, "more than the 3 bytes"),
        (too_little, "2 bytes, announced as 3"),
        (a_number, "bytes or text"),
        (lambda s: s.respond(99), "status"),
        (lambda s: s.respond(103), "not final"),
        (lambda s: s.respond("200"), "status"),
        (lambda s: s.respond(200, {"a b": "c"}), "field"),
        (lambda s: s.respond(200, "a: b"), "a mapping or a list of pairs"),
    ],
)
def test_misuse_is_an_error(certificate: Certificate, misuse: Callable[[Any], None], words: str) -> None:
    with pytest.raises((QuicClientException, QuicStreamException), match=words):
        exchange(certificate, lambda request: misuse(request.stream()))


def test_what_was_begun_and_not_ended_is_cut_off(certificate: Certificate) -> None:
    def begin(request: Any) -> None:
        request.stream().respond(200)
        request.stream().sendBody("some")

    with pytest.raises(QuicStreamException, match="reset"):
        exchange(certificate, begin)


def test_reset(certificate: Certificate) -> None:
    def reset(request: Any) -> None:
        request.stream().respond(200)
        request.stream().reset()
        request.stream().reset()

    with pytest.raises(QuicStreamException, match="H3_INTERNAL_ERROR"):
        exchange(certificate, reset)


def test_a_session_that_is_over(certificate: Certificate) -> None:
    raised: list[type[BaseException]] = []

    def handle(session: Any) -> None:
        request = session.receive_request()
        session.close()
        for call in (lambda: request.stream().respond(200), lambda: request.stream().sendBody("x")):
            try:
                call()
            except Exception as e:
                raised.append(type(e))

    over = pytest.raises((QuicConnectionException, QuicStreamException, AssertionError))
    with serving(certificate, handle) as server, connected(server, certificate) as sess, over:
        ask(sess, "/")
    assert raised == [QuicConnectionException, QuicClientException]
