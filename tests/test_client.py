"""What a client sends, what it refuses to send, whom it trusts, and how it fails. The pool is test_pool.py's,
what comes back test_h3.py's."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.event import Event
from support import (
    PATIENCE_S,
    Seen,
    connect,
    counters,
    echo,
    hello,
    new_session,
    nothing_left_behind,
    server_tls,
    serving,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import (
    QuicClientException,
    QuicException,
    QuicSocketException,
    QuicTimeoutException,
    QuicTlsHandshakeException,
    Timeout,
)
from quicgreen.testing import Authority, Certificate, Link, self_signed

METHODS = ["get", "head", "options", "post", "put", "patch", "delete"]


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
        if isinstance(session, quicgreen.Session):
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
        {"x-a": ...},
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


# ---------------------------------------------------------------- trust


@contextlib.contextmanager
def certified(c: Certificate, **options: Any) -> Iterator[quicgreen.Server]:
    with serving(hello, certfile=c.certfile, keyfile=c.keyfile, **options) as server:
        yield server


def hashed_folder(folder: Path, pem: str) -> str:
    """A folder in OpenSSL's form: each file has its subject's hash for a name."""
    from OpenSSL import crypto

    text = Path(pem).read_bytes()
    name = crypto.load_certificate(crypto.FILETYPE_PEM, text).subject_name_hash()
    folder.mkdir()
    (folder / f"{name:08x}.0").write_bytes(text)
    return str(folder)


def get_all_ways(server: quicgreen.Server, host: str = "127.0.0.1", **options: Any) -> None:
    """By a session and by a connection of its own."""
    port = server.address[1]
    with quicgreen.Session(timeout=PATIENCE_S, **options) as session:
        assert session.get(f"https://{host}:{port}/").text == "hello"
    with quicgreen.connect(host, port, timeout=PATIENCE_S, **options) as connection:
        assert connection.get("/").text == "hello"


def refused_all_ways(
    server: quicgreen.Server, host: str = "127.0.0.1", **options: Any
) -> list[QuicException]:
    port = server.address[1]
    failed = []
    with quicgreen.Session(timeout=PATIENCE_S, **options) as session:
        with pytest.raises(QuicTlsHandshakeException) as caught:
            session.get(f"https://{host}:{port}/")
        failed.append(caught.value)
    with pytest.raises(QuicTlsHandshakeException) as caught:
        quicgreen.connect(host, port, timeout=PATIENCE_S, **options)
    failed.append(caught.value)
    assert not any(e.request_sent or e.remote for e in failed)
    return failed


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_a_private_authority_is_trusted_when_told(certificates: Authority, tmp_path: Path, host: str) -> None:
    c = certificates.issue("localhost", "127.0.0.1", "::ffff:127.0.0.1")
    with nothing_left_behind(), certified(c) as server:
        get_all_ways(server, host, verify=c.ca_certs)
        get_all_ways(server, host, verify=Path(c.ca_certs))
        get_all_ways(server, host, verify=hashed_folder(tmp_path / "hashed", c.ca_certs))
        get_all_ways(server, host, verify=False)


def test_who_is_not_trusted_is_refused(certificate: Certificate, tmp_path: Path) -> None:
    stranger = self_signed(tmp_path, "127.0.0.1")
    with nothing_left_behind(), certified(certificate) as server:
        for verify in (True, stranger.certfile):
            for e in refused_all_ways(server, verify=verify):
                assert e.cause == "certificate"
                assert str(e).startswith("TLS handshake failed: invalid certificate")
                assert "verify=" in str(e)
    with nothing_left_behind(), certified(stranger) as server:
        get_all_ways(server, verify=stranger.certfile)
        refused_all_ways(server, verify=certificate.ca_certs)


def test_an_empty_folder_trusts_nobody(certificate: Certificate, tmp_path: Path) -> None:
    with certified(certificate) as server:
        refused_all_ways(server, verify=str(tmp_path))


@pytest.mark.parametrize("names", [("other.test",), ("127.0.0.2",), ("localhost",), ("*.0.0.1",)])
def test_a_certificate_for_somebody_else_is_refused(certificates: Authority, names: tuple[str, ...]) -> None:
    c = certificates.issue(*names)
    with nothing_left_behind(), certified(c) as server:
        for e in refused_all_ways(server, verify=c.ca_certs):
            assert e.cause == "certificate"
        get_all_ways(server, verify=False)


def test_server_name_is_what_the_certificate_must_be_for(certificates: Authority) -> None:
    c = certificates.issue("service.test", "xn--bcher-kva.test")
    asked: list[str] = []

    def handle(session: Any) -> None:
        asked.append(session.info()["server_name"])
        while (request := session.accept_request()) is not None:
            hello(request)

    with serving(handle, sessions=True, certfile=c.certfile, keyfile=c.keyfile) as server:
        get_all_ways(server, verify=c.ca_certs, server_name="service.test")
        get_all_ways(server, verify=c.ca_certs, server_name="Bücher.test")
        refused_all_ways(server, verify=c.ca_certs, server_name="other.test")
        refused_all_ways(server, verify=c.ca_certs)
    assert asked[:4] == ["service.test"] * 2 + ["xn--bcher-kva.test"] * 2


def test_wildcards_are_for_one_label(certificates: Authority) -> None:
    c = certificates.issue("*.wild.test")
    with certified(c) as server:
        get_all_ways(server, verify=c.ca_certs, server_name="a.wild.test")
        refused_all_ways(server, verify=c.ca_certs, server_name="a.b.wild.test")
        refused_all_ways(server, verify=c.ca_certs, server_name="wild.test")


def test_a_certificate_that_has_expired_is_refused(certificates: Authority) -> None:
    c = certificates.issue("127.0.0.1", expired=True)
    with nothing_left_behind(), certified(c) as server:
        for e in refused_all_ways(server, verify=c.ca_certs):
            assert e.cause == "certificate"
            assert "expired" in str(e)


@pytest.mark.parametrize("name", ["", "a b", "x" * 300, "a\0b"], ids=repr)
def test_what_is_no_server_name_is_refused(server: quicgreen.Server, name: str) -> None:
    before = counters()["connections_opened"]
    with pytest.raises(QuicClientException) as caught:
        quicgreen.connect(*server.address, verify=False, server_name=name)
    assert caught.value.cause == "argument"
    with pytest.raises(QuicClientException), new_session(server_name=name) as session:
        session.get(url_of(server))
    assert counters()["connections_opened"] == before


def test_files_that_cannot_be_trusted_are_told(tmp_path: Path, url: str) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    for verify, cause in (
        (str(tmp_path / "none.pem"), "trust-file"),
        (str(garbage), "trust-file"),
        (None, "argument"),
        (5, "argument"),
    ):
        with quicgreen.Session(verify=verify) as session, pytest.raises(QuicClientException) as caught:
            session.get(url)
        assert caught.value.cause == cause
        with pytest.raises(QuicClientException) as caught:
            quicgreen.connect("127.0.0.1", 1, verify=verify)
        assert caught.value.cause == cause
        assert str(verify) in str(caught.value)


def test_the_environment_names_the_trust_store(
    monkeypatch: pytest.MonkeyPatch, certificate: Certificate, tmp_path: Path
) -> None:
    with certified(certificate) as server:
        monkeypatch.setenv("SSL_CERT_FILE", certificate.ca_certs)
        get_all_ways(server)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        with pytest.raises(QuicClientException) as caught:
            quicgreen.connect(*server.address)
        assert caught.value.cause == "trust-file"
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.setenv("SSL_CERT_DIR", hashed_folder(tmp_path / "hashed", certificate.ca_certs))
        get_all_ways(server)
        monkeypatch.delenv("SSL_CERT_DIR")
        refused_all_ways(server)


# ---------------------------------------------------------------- client certificates


def test_a_client_shows_its_certificate(
    certificates: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    mine = certificates.issue("client.test")
    both = tmp_path / "both.pem"
    both.write_text(Path(mine.certfile).read_text() + Path(mine.keyfile).read_text())
    shown: list[bytes] = []

    def handle(session: Any) -> None:
        shown.append(session.peer_cert())
        while (request := session.accept_request()) is not None:
            hello(request)

    options = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with (
        nothing_left_behind(),
        serving(handle, sessions=True, ca_certs=certificates.ca_certs, **options) as server,
    ):
        get_all_ways(server, verify=False, cert=mine.pair)
        get_all_ways(server, verify=False, cert=str(both))
        quicgreen.get(url_of(server), verify=False, cert=mine.pair)
        forget_default_sessions()
    leaf = Path(mine.certfile).read_text().partition(ssl.PEM_FOOTER)[0] + ssl.PEM_FOOTER
    assert shown == [ssl.PEM_cert_to_DER_cert(leaf)] * 5


def test_a_client_without_a_certificate_is_told(
    certificates: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    stranger = self_signed(tmp_path, "client.test")
    with (
        nothing_left_behind(),
        certified(certificate, ca_certs=certificates.ca_certs) as server,
    ):
        for cert in (None, stranger.pair):
            with new_session(cert=cert, timeout=PATIENCE_S) as session:
                with pytest.raises(QuicTlsHandshakeException) as caught:
                    session.get(url_of(server))
                assert caught.value.cause == "alert"
                assert caught.value.remote


@pytest.mark.parametrize("cert", ["/none.pem", ("/none.pem", "/none.key")])
def test_a_client_certificate_that_is_not_there_is_told(url: str, cert: Any) -> None:
    with new_session(cert=cert) as session, pytest.raises(QuicClientException) as caught:
        session.get(url)
    assert caught.value.cause == "client-certificate"
    assert "/none.pem" in str(caught.value)


def test_a_server_without_our_protocol_is_told() -> None:
    with nothing_left_behind(), serving(hello, tls=server_tls(alpn=("other",))) as server:
        with pytest.raises(QuicTlsHandshakeException) as caught:
            connect(server)
        assert caught.value.cause == "alert"
        with new_session() as session, pytest.raises(QuicTlsHandshakeException, match="ALPN"):
            session.get(url_of(server))


# ---------------------------------------------------------------- nobody there


def test_a_closed_port_fails_at_once() -> None:
    with nothing_left_behind():
        port = closed_port()
        for use in (
            lambda: quicgreen.connect("127.0.0.1", port, verify=False, timeout=60),
            lambda: new_session(timeout=60).get(f"https://127.0.0.1:{port}/"),
        ):
            with gevent.Timeout(PATIENCE_S), pytest.raises(QuicSocketException) as caught:
                use()
            assert (caught.value.cause, caught.value.request_sent) == ("unreachable", False)
            assert caught.value.errno == errno.ECONNREFUSED
            assert isinstance(caught.value, ConnectionError)


def test_a_handshake_that_nobody_answers_ends_at_its_deadline() -> None:
    with nothing_left_behind(), black_hole() as port, serving(hello) as server, new_session() as other:
        first = other.get(url_of(server)).connection
        for use in (
            lambda t: quicgreen.connect("127.0.0.1", port, verify=False, timeout=t),
            lambda t: new_session(timeout=t).get(f"https://127.0.0.1:{port}/"),
        ):
            for timeout in (Timeout(connect=0.2), (0.2, 60)):
                started = time.monotonic()
                with gevent.Timeout(PATIENCE_S), pytest.raises(QuicTimeoutException) as caught:
                    use(timeout)
                assert time.monotonic() - started >= 0.19
                assert (caught.value.cause, caught.value.request_sent) == ("handshake-timeout", False)
                assert isinstance(caught.value, TimeoutError)
                assert str(caught.value).startswith("Connection handshake took too long")
        assert other.get(url_of(server)).connection is first


def test_a_line_that_is_cut_during_the_handshake() -> None:
    with nothing_left_behind(), serving(hello) as server, Link(server.address) as link:
        link.blackhole(direction="to_client")
        with pytest.raises(QuicTimeoutException) as caught:
            quicgreen.connect("127.0.0.1", link.port, verify=False, timeout=0.3)
        assert caught.value.cause == "handshake-timeout"
        link.blackhole(False)
        with quicgreen.connect("127.0.0.1", link.port, verify=False) as connection:
            assert connection.get().text == "hello"


def test_a_bad_line_is_no_hindrance(session: quicgreen.Session) -> None:
    with (
        serving(echo) as server,
        Link(server.address, seed=5, loss=0.05, reorder=0.1, duplicate=0.05, corrupt=0.02) as link,
        new_session(timeout=30) as session,
    ):
        url = f"https://127.0.0.1:{link.port}/"
        bodies = [os.urandom(1000 * i) for i in range(1, 21)]
        jobs = [gevent.spawn(session.post, url, body) for body in bodies]
        assert [job.get(timeout=30).content for job in jobs] == bodies
        dropped = link.counters()
        assert dropped.to_server.dropped + dropped.to_client.dropped > 0


# ---------------------------------------------------------------- cut short


def waits(stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, Any]]:
    """Each wait of a client: (what gets into it, when it is there)."""
    held: list[quicgreen.Request] = []
    gone = Event()

    def handle(request: quicgreen.Request) -> None:
        held.append(request)
        try:
            if request.path == "/body":
                stream = request.start_response(200)
                stream.write(b"begin")
            gone.wait()
        finally:
            request._answered = 2

    stack.callback(gone.set)
    server = stack.enter_context(serving(handle))
    url = url_of(server)
    silent = stack.enter_context(black_hole())
    silent_url = f"https://127.0.0.1:{silent}/"

    def lookup(host: str, port: int, **options: Any) -> Any:
        if host == "two.test":
            return [(2, 2, 17, "", (ip, port)) for ip in ("127.0.0.1", "127.0.0.2")]
        Event().wait()

    monkeypatch.setattr(gevent.socket, "getaddrinfo", lookup)
    session = stack.enter_context(new_session(timeout=None))
    full = stack.enter_context(new_session(timeout=None, limits=quicgreen.Limits(1, 1)))

    def busy() -> bool:
        return len(held) > 0

    def connecting() -> bool:
        return counters()["connections"] > 0

    def queueing() -> Any:
        holder = gevent.spawn(full.get, url)
        wait_until(lambda: len(held) == 1)
        stack.callback(holder.kill)
        return full.get(url)

    def body() -> Any:
        with session.stream("GET", url + "body") as response:
            assert response.readinto(bytearray(100)) == 5
            return response.read()

    def dial(host: str) -> Any:
        return quicgreen.connect(host, silent, verify=False, timeout=None)

    return {
        "looking up": (lambda: session.get("https://slow.test/"), lambda: True),
        "connect looking up": (lambda: quicgreen.connect("slow.test", verify=False), lambda: True),
        "connecting": (lambda: dial("127.0.0.1"), connecting),
        "first of two": (lambda: dial("two.test"), connecting),
        "first of two, pooled": (lambda: session.get(f"https://two.test:{silent}/"), connecting),
        "handshake": (lambda: session.get(silent_url), connecting),
        "upload in handshake": (lambda: session.post(silent_url, iter([b"x"])), connecting),
        "queue": (queueing, lambda: bool(full._pool and full._pool._queued)),
        "head": (lambda: session.get(url), busy),
        "head after upload": (lambda: session.post(url, iter([b"x"])), busy),
        "upload": (lambda: session.post(url, bytes(8 << 20)), busy),
        "endless upload": (lambda: session.post(url, iter(lambda: b"x" * 10_000, None)), busy),
        "body": (body, busy),
    }


WAITS = [
    "looking up", "connect looking up", "connecting", "first of two", "first of two, pooled", "handshake",
    "upload in handshake", "queue", "head", "head after upload", "upload", "endless upload", "body",
]  # fmt: skip


@pytest.mark.parametrize("how", ["kill", "timeout"])
@pytest.mark.parametrize("wait", WAITS)
def test_who_is_cut_short_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, wait: str, how: str) -> None:
    with nothing_left_behind(), contextlib.ExitStack() as stack:
        table = waits(stack, monkeypatch)
        assert list(table) == WAITS
        use, there = table[wait]
        ended: list[Any] = []

        def run() -> None:
            try:
                if how == "timeout":
                    with gevent.Timeout(0.15, KeyError("mine")):
                        use()
                else:
                    use()
            except BaseException as e:
                ended.append(type(e))
                if how == "kill":
                    raise

        job = gevent.spawn(run)
        assert wait_until(there)
        gevent.sleep(0.02)
        if how == "kill":
            job.kill()
        job.join(PATIENCE_S)
        assert ended == [gevent.GreenletExit if how == "kill" else KeyError]
        if wait.startswith(("connecting", "first")):
            # Now, and not when the silent port is closed and the system tells of it.
            assert wait_until(lambda: counters()["connections"] == 0, 0.5)
