"""What may be sent as a body, and what arrives of it. What a handler answers with is
test_messages_answers.py's."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import PATIENCE_S, Reader, Seen, connect, counters, new_session, serving, url_of

import quicgreen
from quicgreen import QuicClientException
from quicgreen.bodies import Tally


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def server(seen: Seen) -> Iterator[quicgreen.Server]:
    with serving(seen) as server:
        yield server


@pytest.fixture
def session() -> Iterator[quicgreen.Session]:
    with new_session(timeout=PATIENCE_S) as session:
        yield session


@pytest.fixture
def url(server: quicgreen.Server) -> str:
    return url_of(server)


FORM = "application/x-www-form-urlencoded"


LARGE = bytes(range(256)) * 12_000  # 3 MB


BODIES: dict[str, tuple[Callable[[], Any], bytes, str | None, str | None]] = {
    # what is given, what arrives, content-type, content-length
    "nothing": (lambda: None, b"", None, None),
    "bytes": (lambda: b"body", b"body", None, "4"),
    "no bytes": (lambda: b"", b"", None, "0"),
    "text": (lambda: "bödy", "bödy".encode(), "text/plain; charset=utf-8", "5"),
    "form": (lambda: {"a": "1", "b": ["x y", "ü"]}, b"a=1&b=x+y&b=%C3%BC", FORM, "18"),
    "bytearray": (lambda: bytearray(b"body"), b"body", None, "4"),
    "memoryview": (lambda: memoryview(b"abcdef")[::2], b"ace", None, "3"),
    "file": (lambda: io.BytesIO(b"body"), b"body", None, None),
    "text file": (lambda: io.StringIO("bödy"), "bödy".encode(), None, None),
    "slow file": (lambda: Reader(b"body", 1), b"body", None, None),
    "list": (lambda: [b"bo", "dy", b"", bytearray(b"!")], b"body!", None, None),
    "generator": (lambda: (c for c in ("b", "o", "dy")), b"body", None, None),
    "empty iterable": (lambda: [], b"", None, None),
    "largest inline": (lambda: LARGE[:65536], LARGE[:65536], None, "65536"),
    "one more": (lambda: LARGE[:65537], LARGE[:65537], None, "65537"),
    "large": (lambda: LARGE, LARGE, None, str(len(LARGE))),
    "large file": (lambda: io.BytesIO(LARGE), LARGE, None, None),
    "large pieces": (lambda: [LARGE[:1_000_000], LARGE[1_000_000:]], LARGE, None, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_arrives(
    session: quicgreen.Session, server: quicgreen.Server, seen: Seen, url: str, kind: str
) -> None:
    make, arrives, content_type, length = BODIES[kind]
    with connect(server) as connection:
        for send in (
            lambda: session.post(url, make()),
            lambda: session.request("PUT", url, data=make()),
            lambda: connection.post("/", make()),
        ):
            assert send().status_code == 200
            assert seen.bodies[-1] == arrives
            assert seen.fields("content-type") == ([content_type] if content_type else [])
            assert seen.fields("content-length") == ([length] if length else [])


def test_json_is_sent_as_json(session: quicgreen.Session, seen: Seen, url: str) -> None:
    session.post(url, json={"a": [1, "ü", None]})
    assert seen.bodies[-1] == b'{"a":[1,"\\u00fc",null]}'
    assert seen.fields("content-type") == ["application/json"]
    session.post(url, json=[])
    assert seen.bodies[-1] == b"[]"


@pytest.mark.parametrize("data", [5, 1.5, ..., True], ids=repr)
def test_what_is_no_body_is_refused_and_nothing_is_sent(
    session: quicgreen.Session, server: quicgreen.Server, seen: Seen, url: str, data: Any
) -> None:
    before = counters()["requests_sent"]
    with pytest.raises(QuicClientException, match="cannot be sent as a body"):
        session.post(url, data)
    with pytest.raises(QuicClientException, match="exclude each other"):
        session.post(url, b"x", json=data)
    with pytest.raises(TypeError):
        session.post(url, json=object())
    with connect(server) as connection, pytest.raises(QuicClientException):
        connection.post("/", data)
    assert counters()["requests_sent"] == before


@pytest.mark.parametrize("piece", [5, None, ("a", "b"), 1.5], ids=repr)
def test_a_body_with_a_piece_that_is_none_is_cut_off(
    session: quicgreen.Session, url: str, seen: Seen, piece: Any
) -> None:
    with pytest.raises(QuicClientException, match="a body consists of bytes or text"):
        session.post(url, iter([b"x" * 1000, piece or 5]))
    assert session.get(url).status_code == 200
    assert b"x" * 1000 not in seen.bodies


@pytest.mark.parametrize(
    "make", [lambda: b"12345", lambda: iter([b"123", b"45"]), lambda: io.BytesIO(b"12345")]
)
def test_a_length_that_the_caller_gives_is_sent_once(
    session: quicgreen.Session, seen: Seen, url: str, make: Callable[[], Any]
) -> None:
    for value in ("5", 5, b"5"):
        session.post(url, make(), headers={"Content-Length": value})
        assert (seen.bodies[-1], seen.fields("content-length")) == (b"12345", ["5"])


@pytest.mark.parametrize("length", [0, 4, 6, 1 << 70])
@pytest.mark.parametrize("make", [lambda: b"12345", lambda: iter([b"123", b"45"]), lambda: b"12345" * 20_000])
def test_a_body_of_another_length_than_announced_is_an_error(
    session: quicgreen.Session, seen: Seen, url: str, make: Callable[[], Any], length: int
) -> None:
    with pytest.raises(QuicClientException) as caught:
        session.post(url, make(), headers={"content-length": length})
    assert caught.value.cause == "content-length"
    session.get(url)
    assert set(seen.bodies) <= {b""}


def test_a_length_without_a_body_is_an_error(session: quicgreen.Session, seen: Seen, url: str) -> None:
    with pytest.raises(QuicClientException) as caught:
        session.get(url, headers={"content-length": "5"})
    assert caught.value.cause == "content-length"
    session.get(url, headers={"content-length": "0"})
    assert seen.fields("content-length") == ["0"]
    with pytest.raises(QuicClientException, match="content-length belongs to a request"):
        new_session(headers={"Content-Length": "5"}).get(url)


def test_a_tally_counts_against_what_was_announced() -> None:
    tally = Tally(5)
    tally.add(2)
    with pytest.raises(QuicClientException, match="more than the 5 bytes"):
        tally.add(4)
    with pytest.raises(QuicClientException, match="4 bytes, announced as 5"):
        tally.add(2, last=True)
    tally.add(3, last=True)
    Tally(None).add(1 << 40, last=True)
