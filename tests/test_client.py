"""What a client sends, what it refuses to send, whom it trusts, and how it fails. The pool is test_pool.py's,
what comes back test_h3.py's."""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.event import Event
from support import (
    PATIENCE_S,
    connect,
    counters,
    hello,
    new_session,
    serving,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import (
    QuicClientException,
    QuicStreamException,
    QuicTlsHandshakeException,
)
from quicgreen.testing import Authority, Certificate

METHODS = ["get", "head", "options", "post", "put", "patch", "delete"]


class Seen:
    """A handler that keeps what it was sent, and answers with nothing."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: quicgreen.Request) -> None:
        self.requests.append(request)
        self.bodies.append(request.read())
        request.respond(200)

    @property
    def last(self) -> Any:
        return self.requests[-1]

    def fields(self, name: str) -> list[str]:
        found: list[str] = self.last.headers.get_list(name)
        return found


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


@contextlib.contextmanager
def black_hole(ip: str = "127.0.0.1") -> Iterator[int]:
    """A port that takes everything and never answers."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.bind((ip, 0))
        yield s.getsockname()[1]


def closed_port() -> int:
    with black_hole() as port:
        return port


def forget_default_sessions() -> None:
    """Close what the module's functions keep for this thread."""
    attachments = quicgreen.hub.current().attachments
    for session in attachments.values():
        session.close()
    attachments.clear()


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize("name", METHODS)
def test_each_method_of_a_session_is_sent(
    session: quicgreen.Session, seen: Seen, url: str, name: str
) -> None:
    assert getattr(session, name)(url).status_code == 200
    assert seen.last.method == name.upper()


@pytest.mark.parametrize("name", METHODS)
def test_each_function_of_the_module_sends_its_method(seen: Seen, url: str, name: str) -> None:
    assert getattr(quicgreen, name)(url, verify=False).status_code == 200
    assert seen.last.method == name.upper()
    forget_default_sessions()


@pytest.mark.parametrize("method", ["get", "Get", "GET", "PROPFIND", "propfind", "X-A!"])
def test_methods_are_sent_in_capitals(
    session: quicgreen.Session, server: quicgreen.Server, seen: Seen, url: str, method: str
) -> None:
    response = session.request(method, url)
    assert (seen.last.method, response.request_method) == (method.upper(), method.upper())
    with connect(server) as connection:
        connection.request(method, "/")
        assert seen.last.method == method.upper()


def test_functions_of_the_module_share_a_session_for_each_trust(
    certificates: Authority, certificate: Certificate
) -> None:
    with serving(hello, certfile=certificate.certfile, keyfile=certificate.keyfile) as server:
        url = url_of(server)
        first = quicgreen.get(url, verify=False)
        assert quicgreen.get(url, verify=False).connection is first.connection
        other = quicgreen.get(url, verify=certificates.ca_certs)
        assert other.connection is not first.connection
        assert quicgreen.get(url, verify=certificates.ca_certs).connection is other.connection
        with pytest.raises(QuicTlsHandshakeException):
            quicgreen.get(url)
        forget_default_sessions()


# ---------------------------------------------------------------- URLs


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
    "https://xn--/é".replace("xn--", "ü" * 70),
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


@pytest.mark.parametrize("method", ["", "A B", "GET\n", "GÉT", "A/B", None, 5, b"GET"], ids=repr)
def test_what_is_no_method_is_refused(session: quicgreen.Session, url: str, seen: Seen, method: Any) -> None:
    with pytest.raises(QuicClientException) as caught:
        session.request(method, url)
    assert caught.value.cause == "argument"
    session.get(url)
    assert len(seen.requests) == 1


@pytest.mark.parametrize("port", [0, -1, 65536, "443", None, 1.5])
def test_connect_refuses_what_is_no_port(port: Any) -> None:
    with pytest.raises(QuicClientException, match="is not a port"):
        quicgreen.connect("127.0.0.1", port, verify=False)


def test_connect_refuses_an_empty_host() -> None:
    with pytest.raises(QuicClientException, match="host"):
        quicgreen.connect("", 443, verify=False)


def resolving(monkeypatch: pytest.MonkeyPatch, *ips: str) -> list[str]:
    """Every name has these addresses. Returns the names that are asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM, 17, "", (ip, port))
            for ip in ips
        ]

    monkeypatch.setattr(gevent.socket, "getaddrinfo", getaddrinfo)
    return asked


def sni_of(server: quicgreen.Server) -> list[str]:
    engine = quicgreen.hub.current().engine
    return [engine.conn_info(s)["server_name"] for s in server.sessions]


@pytest.mark.parametrize("host", ["bücher.test", "BÜCHER.test", "xn--bcher-kva.test", "XN--BCHER-KVA.test."])
def test_a_name_is_looked_up_and_sent_in_the_form_of_dns(
    monkeypatch: pytest.MonkeyPatch, certificates: Authority, seen: Seen, host: str
) -> None:
    asked = resolving(monkeypatch, "127.0.0.1")
    c = certificates.issue("xn--bcher-kva.test")
    with (
        serving(seen, certfile=c.certfile, keyfile=c.keyfile) as server,
        quicgreen.Session(verify=c.ca_certs, timeout=PATIENCE_S) as session,
    ):
        port = server.address[1]
        session.get(f"https://{host}:{port}/")
        assert seen.last.authority == f"xn--bcher-kva.test:{port}"
        with quicgreen.connect(host, port, verify=c.ca_certs, timeout=PATIENCE_S) as connection:
            assert connection.get("/").status_code == 200
            assert seen.last.authority == f"xn--bcher-kva.test:{port}"
    assert set(asked) == {"xn--bcher-kva.test"}


def test_the_default_port_is_not_said(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    asked = resolving(monkeypatch, "127.0.0.1")
    original = quicgreen._engine.parse_address
    with serving(seen) as server, new_session(timeout=PATIENCE_S) as session:
        port = server.address[1]
        monkeypatch.setattr(
            quicgreen._engine, "parse_address", lambda ip, p: original(ip, port if p == 443 else p)
        )
        first = session.get("https://a.test/")
        assert seen.last.authority == "a.test"
        assert session.get("https://a.test:443/").connection is first.connection
        assert seen.last.authority == "a.test"
        assert session.get("https://A.test:443/").connection is first.connection
    assert asked == ["a.test"]


@pytest.mark.parametrize(
    ("listener", "host"),
    [
        ("::1", "[::1]"),
        ("::1", "[0:0:0:0:0:0:0:1]"),
        ("::", "[::1]"),
        ("::", "127.0.0.1"),
        ("127.0.0.1", "[::ffff:127.0.0.1]"),
        ("::", "[::FFFF:127.0.0.1]"),
    ],
)
def test_addresses_of_either_family(seen: Seen, session: quicgreen.Session, listener: str, host: str) -> None:
    with serving(seen, (listener, 0)) as server:
        port = server.address[1]
        assert session.get(f"https://{host}:{port}/").status_code == 200
        assert seen.last.authority == f"{host.lower()}:{port}"
        with quicgreen.connect(host, port, verify=False) as connection:
            assert connection.get("/").status_code == 200


# ---------------------------------------------------------------- fields


def test_the_default_fields(session: quicgreen.Session, seen: Seen, url: str) -> None:
    session.get(url)
    assert seen.fields("user-agent") == [f"quicgreen/{quicgreen.__version__.rpartition('.')[0]}"]
    assert seen.fields("accept") == ["*/*"]


def test_a_sessions_fields_and_a_requests(seen: Seen, url: str) -> None:
    with new_session(headers={"X-Mine": "session", "Accept": "text/html"}) as session:
        session.get(url)
        assert (seen.fields("x-mine"), seen.fields("accept")) == (["session"], ["text/html"])
        session.get(url, headers={"x-MINE": "request", "x-more": 5})
        assert (seen.fields("x-mine"), seen.fields("x-more")) == (["request"], ["5"])
        assert seen.fields("accept") == ["text/html"]
        session.get(url, headers=[("x-twice", "1"), ("x-twice", "2"), ("Accept", b"image/png")])
        assert (seen.fields("x-twice"), seen.fields("accept")) == (["1", "2"], ["image/png"])
        session.get(url)
        assert seen.fields("x-mine") == ["session"]
        session.post(url, json={}, headers={"Content-Type": "application/vnd.api+json"})
        assert seen.fields("content-type") == ["application/vnd.api+json"]


def test_none_leaves_a_field_out(session: quicgreen.Session, seen: Seen, url: str) -> None:
    session.get(url, headers={"Accept": None, "x-unknown": None, "x-a": "1"})
    assert (seen.fields("accept"), seen.fields("x-unknown"), seen.fields("x-a")) == ([], [], ["1"])
    assert seen.fields("user-agent") != []
    session.post(url, json={}, headers={"content-type": None})
    assert seen.fields("content-type") == []
    session.get(url)
    assert seen.fields("accept") == ["*/*"]


def test_a_sessions_fields_may_be_changed(session: quicgreen.Session, seen: Seen, url: str) -> None:
    session.get(url)
    session.headers["Authorization"] = "Bearer 1"
    session.get(url)
    assert seen.fields("authorization") == ["Bearer 1"]
    session.get(url, headers={"AUTHORIZATION": "Bearer 2"})
    assert seen.fields("authorization") == ["Bearer 2"]
    session.headers.update({"Authorization": "Bearer 3", "User-Agent": "mine"})
    session.get(url)
    assert (seen.fields("authorization"), seen.fields("user-agent")) == (["Bearer 3"], ["mine"])
    del session.headers["Authorization"]
    session.get(url)
    assert seen.fields("authorization") == []
    session.headers = {"x-only": "1"}
    session.get(url)
    assert (seen.fields("x-only"), seen.fields("accept")) == (["1"], [])


def test_a_host_field_is_the_authority(
    session: quicgreen.Session, server: quicgreen.Server, seen: Seen, url: str
) -> None:
    session.get(url, headers={"Host": "virtual.test"})
    assert (seen.last.authority, seen.fields("host")) == ("virtual.test", ["virtual.test"])
    session.get(url)
    assert seen.last.authority == url[8:-1]
    with connect(server) as connection:
        connection.get("/", headers={"host": b"virtual.test:1"})
        assert seen.last.authority == "virtual.test:1"


@pytest.mark.parametrize(
    "bad",
    [
        {"x-a": "a\r\nx-b: 1"},
        {"x-a": "a\0"},
        {"x a": "1"},
        {"": "1"},
        {":path": "/other"},
        {"x-ü": "1"},
        {"x-a": "€"},
        {"x-a": 1.5},
        {"x-a": object()},
        {"host": "a\nb"},
        {"content-length": "five"},
        {"content-length": "-1"},
        [("x-a", "1"), ("x\n", "2")],
    ],
    ids=repr,
)
def test_fields_that_cannot_be_are_refused_and_nothing_is_sent(
    session: quicgreen.Session, server: quicgreen.Server, seen: Seen, url: str, bad: Any
) -> None:
    before = counters()["requests_sent"]
    for data in (None, b"12345"):
        with pytest.raises(QuicClientException) as caught:
            session.request("POST", url, headers=bad, data=data)
        assert caught.value.cause == "argument"
    with connect(server) as connection, pytest.raises(QuicClientException):
        connection.request("POST", "/", headers=bad, data=b"12345")
    session.headers = dict(bad)
    with pytest.raises(QuicClientException):
        session.get(url)
    assert counters()["requests_sent"] == before
    assert seen.requests == []


@pytest.mark.parametrize("name", ["connection", "transfer-encoding", "keep-alive", "upgrade"])
def test_fields_of_a_tcp_connection_are_not_sent(
    session: quicgreen.Session, seen: Seen, url: str, name: str
) -> None:
    session.post(url, b"x", headers={name: "chunked", "x-a": "1"})
    assert (seen.fields(name), seen.fields("x-a"), seen.bodies[-1]) == ([], ["1"], b"x")


# ---------------------------------------------------------------- bodies


class Reader:
    """A file that does not know its length, and counts how often it is read."""

    def __init__(self, data: Any, piece: int = 1 << 30) -> None:
        self.data, self.piece, self.reads = data, piece, 0

    def read(self, size: int) -> Any:
        self.reads += 1
        n = min(size, self.piece)
        piece, self.data = self.data[:n], self.data[n:]
        return piece


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


@pytest.mark.parametrize("data", [5, 1.5, object(), True], ids=repr)
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


def test_an_error_in_a_body_reaches_the_caller_and_resets_the_request(session: quicgreen.Session) -> None:
    failed: list[Any] = []
    reading = Event()

    def handle(request: quicgreen.Request) -> None:
        if request.method == "GET":
            return hello(request)
        try:
            reading.set()
            request.read()
        except QuicStreamException as e:
            failed.append((e.cause, e.wire_code))
            raise gevent.GreenletExit from None

    def body() -> Iterator[bytes]:
        yield b"x" * 10
        reading.wait(PATIENCE_S)
        raise ZeroDivisionError("mine")

    with serving(handle) as server:
        with pytest.raises(ZeroDivisionError, match="mine"):
            session.post(url_of(server), body())
        assert wait_until(lambda: failed)
        assert failed == [("reset", 0x10C)]
        assert session.get(url_of(server)).text == "hello"


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


def test_a_body_is_read_as_it_is_sent(session: quicgreen.Session) -> None:
    """Not all at once: a file of a gigabyte must not be in memory."""
    go_on = Event()

    def handle(request: quicgreen.Request) -> None:
        go_on.wait()
        request.respond(200, None, str(sum(map(len, request.iter_bytes()))))

    source = Reader(bytes(8 << 20))
    with serving(handle) as server:
        job = gevent.spawn(session.post, url_of(server), source)
        assert wait_until(lambda: source.reads > 3)
        wait_until(lambda: source.reads > 60, 0.2)
        assert len(source.data) > 4 << 20
        go_on.set()
        assert job.get(timeout=20).text == str(8 << 20)
