"""URLs, in the form in which they are sent, and what is no URL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from support import PATIENCE_S, Seen, counters, new_session, serving, url_of

import quicgreen
from quicgreen import QuicClientException, urls


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


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        ("", "/"),
        ("/", "/"),
        ("?a=1", "/?a=1"),
        ("/a/b?x=1&y=%20#there", "/a/b?x=1&y=%20"),
        ("/a b", "/a%20b"),
        ("/%41%zz", "/%41%zz"),
        ("/ü?ö=é", "/%C3%BC?%C3%B6=%C3%A9"),
        ('/a"<>b', "/a%22%3C%3Eb"),
        ("/a[1]{2}?a[1]{2}", "/a%5B1%5D%7B2%7D?a[1]{2}"),
        ("/;p=1/@:!$&'()*+,~._-", "/;p=1/@:!$&'()*+,~._-"),
        ("//double//", "//double//"),
        ("/?", "/?"),
        ("/a\nb", "/ab"),
    ],
)
def test_a_url_is_sent_as_a_path(
    session: quicgreen.Session, seen: Seen, url: str, rest: str, path: str
) -> None:
    base = url.removesuffix("/")
    for _ in range(2):  # the second time its origin is known, and the third time all of it
        session.get(base + rest)
        session.get(base + rest)
        assert [r.path for r in seen.requests] == [path] * len(seen.requests) or rest == "/?"
    assert seen.last.path.rstrip("?") == path.rstrip("?")


@pytest.mark.parametrize(
    ("rest", "params", "path"),
    [
        ("/", {"a": 1, "b": "x y"}, "/?a=1&b=x+y"),
        ("/?z=0", {"a": "ü"}, "/?z=0&a=%C3%BC"),
        ("/#f", {"a": "1"}, "/?a=1"),
        ("/", {"a": ["1", "2"]}, "/?a=1&a=2"),
        ("/", [("a", "1"), ("a", "2")], "/?a=1&a=2"),
        ("/", {}, "/"),
        ("/", None, "/"),
    ],
)
def test_params_join_the_query(
    session: quicgreen.Session, seen: Seen, url: str, rest: str, params: Any, path: str
) -> None:
    session.get(url.removesuffix("/") + rest, params=params)
    assert seen.last.path == path


BAD_URLS = [
    "",
    "/path",
    "example.org",
    "http://127.0.0.1/",
    "ftp://127.0.0.1/",
    "https:///path",
    "https://",
    "https://[::1/",
    "https://host:port/",
    "https://127.0.0.1:0/",
    "https://127.0.0.1:65536/",
    "https://127.0.0.1:-1/",
    "https://user:secret@127.0.0.1/",
    "https://" + "ü" * 70 + "/",
    "https://a b/",
    "https://a\0b/",
    None,
    b"https://127.0.0.1/",
    5,
]


@pytest.mark.parametrize("bad", BAD_URLS, ids=repr)
def test_what_is_no_url_is_refused(session: quicgreen.Session, bad: Any) -> None:
    before = counters()
    with pytest.raises(QuicClientException) as caught:
        session.get(bad)
    assert caught.value.cause == "argument"
    assert "secret" not in str(caught.value)
    gevent.sleep(0.01)
    assert counters()["connections_opened"] == before["connections_opened"]


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        ("a", "a", 443),
        ("a:", "a", 443),
        ("a:1", "a", 1),
        ("a:65535", "a", 65535),
        ("127.0.0.1:4433", "127.0.0.1", 4433),
        ("[::1]", "::1", 443),
        ("[::1]:4433", "::1", 4433),
    ],
)
def test_an_authority_is_a_host_and_a_port(authority: str, host: str, port: int) -> None:
    assert urls.split_authority(authority) == (host, port)


@pytest.mark.parametrize("authority", ["", ":443", "a:0", "a:65536", "a:x", "a:-1", "[]:1", "a:\u0661"])
def test_what_is_no_authority_is_refused(authority: str) -> None:
    with pytest.raises(QuicClientException):
        urls.split_authority(authority)


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("EXAMPLE.org.", "example.org"),
        ("b\u00fccher.test", "xn--bcher-kva.test"),
        ("a_b.test", "a_b.test"),
        ("::1", "::1"),
    ],
)
def test_a_host_as_dns_wants_it(host: str, ascii_host: str) -> None:
    assert urls.ascii_host(host) == ascii_host


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a\0b", "a\nb", "\u00fc" * 70, "\u2024"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(QuicClientException, match="is not a host name"):
        urls.ascii_host(host)
