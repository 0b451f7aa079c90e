"""WebSockets over TLS and TCP: against `websockets`, and against servers that answer as no server should."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import ssl
from gevent.event import Event
from gevent.server import StreamServer
from helpers.processes import Peer
from support import PATIENCE_S, check_python, descriptors, make_server, server_tls, wait_until

import quicgreen
from quicgreen.configuration import ClientTls
from quicgreen.testing import Authority, Certificate
from quicgreen.websocket import (
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidStatus,
    WebSocket,
    connect,
)
from quicgreen.websocket.fallback import TlsStream, accept_key, tls_context, upgrade

CLOSED_BY_PEER = b"\x88\x02\x03\xe8"
"""A frame that closes with 1000, from a server."""


@pytest.fixture(scope="module")
def peer(certificate: Certificate) -> Iterator[Peer]:
    with Peer("websockets_server.py", certfile=certificate.certfile, keyfile=certificate.keyfile) as peer:
        yield peer


def dial(peer: Peer, path: str = "/echo", **options: Any) -> WebSocket:
    """The peer listens on TCP only; over UDP nobody is there, which the system says at once."""
    return connect(f"wss://127.0.0.1:{peer.port}{path}", **{"verify": False, "http3": "auto", **options})


def about(ws: WebSocket) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ws.recv(timeout=PATIENCE_S))
    return found


# ---------------------------------------------------------------- conversations


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_come_back(peer: Peer, compression: str | None) -> None:
    with dial(peer, compression=compression, max_size=None) as ws:
        for message in ("héllo", "", b"", b"\x00\xff", "x" * 70_000, bytes(1_000_000)):
            ws.send(message)
            assert ws.recv(timeout=PATIENCE_S) == message
    assert ws.close_code == 1000


def test_what_is_agreed_on(peer: Peer) -> None:
    options: dict[str, Any] = {
        "subprotocols": ["superchat", "chat"],
        "origin": "https://example.org",
        "additional_headers": {"X-Own": "5"},
    }
    with dial(peer, "/about?a=b%20c", **options) as ws:
        seen = about(ws)
        assert ws.subprotocol == seen["subprotocol"]
        assert seen["extensions"] == ["PerMessageDeflate"]
    assert seen["subprotocol"] in ("chat", "superchat")
    assert seen["path"] == "/about?a=b%20c"
    fields = dict(seen["headers"])
    assert len(fields) == len(seen["headers"]), "none twice"
    assert fields["host"] == f"127.0.0.1:{peer.port}"
    assert (fields["origin"], fields["x-own"]) == ("https://example.org", "5")
    assert fields["user-agent"].startswith("quicgreen/")
    with dial(peer, "/about", compression=None) as ws:
        seen = about(ws)
        assert ws.subprotocol is None
    assert (seen["extensions"], seen["subprotocol"]) == ([], None)


def test_fields_of_the_caller(peer: Peer) -> None:
    """They stand instead of ours; but not for those of the handshake."""
    own = [("User-Agent", "mine"), ("Accept", None), ("Host", "other.example"), ("Connection", "close")]
    with dial(peer, "/about", additional_headers=own) as ws:
        fields = dict(about(ws)["headers"])
    assert (fields["user-agent"], fields["host"], fields["connection"]) == (
        "mine",
        "other.example",
        "Upgrade",
    )
    assert "accept" not in fields
    for name in (":path", "Content-Length"):
        with pytest.raises(quicgreen.QuicClientException):
            dial(peer, additional_headers={name: "1"})


def test_pings(peer: Peer) -> None:
    with dial(peer, ping_interval=None) as ws:
        assert ws.latency == 0
        assert ws.ping().wait(PATIENCE_S)
        assert ws.latency > 0
    with dial(peer, ping_interval=0.02) as ws:
        assert wait_until(lambda: ws.latency > 0), "it pings by itself"


def test_two_keys_are_never_the_same(peer: Peer) -> None:
    keys = set()
    for _ in range(3):
        with dial(peer, "/about") as ws:
            keys.add(dict(about(ws)["headers"])["sec-websocket-key"])
    assert len(keys) == 3


def test_the_server_closes(peer: Peer) -> None:
    with dial(peer, "/close/1000/bye") as ws:
        with pytest.raises(ConnectionClosedOK):
            ws.recv(timeout=PATIENCE_S)
        assert (ws.close_code, ws.close_reason) == (1000, "bye")
    with dial(peer, "/close/1008/not%20you") as ws:
        with pytest.raises(ConnectionClosedError) as caught:
            ws.recv(timeout=PATIENCE_S)
        assert ws.close_code == 1008
        assert "1008" in str(caught.value)


def test_a_connection_that_breaks(peer: Peer) -> None:
    with dial(peer, "/drop") as ws:
        with pytest.raises(ConnectionClosedError):
            ws.recv(timeout=PATIENCE_S)
        assert ws.close_code == 1006


def test_many_at_a_time(peer: Peer) -> None:
    def talk(number: int) -> list[Any]:
        with dial(peer, "/count/50") as ws:
            return [ws.recv(timeout=PATIENCE_S) for _ in range(50)]

    greenlets = [gevent.spawn(talk, n) for n in range(10)]
    gevent.joinall(greenlets, raise_error=True, timeout=30)
    assert [g.value for g in greenlets] == [[str(n) for n in range(50)]] * 10


def test_a_server_that_reads_nothing(certificate: Certificate) -> None:
    """Who sends waits, and is told when it is over."""
    go_on = Event()
    sent = []

    def talk(sock: Any) -> None:
        sock.sendall(switching(request_on(sock)["sec-websocket-key"]))
        go_on.wait()

    def send(ws: WebSocket) -> None:
        for number in range(100):
            ws.send(bytes(1_000_000))
            sent.append(number)

    with tcp_server(certificate, talk) as port:
        url = f"wss://127.0.0.1:{port}/"
        ws = connect(url, verify=False, http3="auto", compression=None, close_timeout=0.2)
        sender = gevent.spawn(send, ws)
        assert wait_until(lambda: sent)
        ws.close()
        with pytest.raises(ConnectionClosedError):
            sender.get(timeout=PATIENCE_S)
        assert len(sent) < 100
        assert ws.close_code == 1006
        go_on.set()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_refused(peer: Peer, status: int) -> None:
    with pytest.raises(InvalidStatus) as caught:
        dial(peer, f"/status/{status}")
    assert str(status) in str(caught.value)
    assert caught.value.response.status_code == status
    assert caught.value.response.headers["content-type"].startswith("text/plain")
    assert caught.value.response.text == "not for you\n"


@contextlib.contextmanager
def tcp_server(certificate: Certificate, talk: Callable[[Any], None]) -> Iterator[int]:
    """One that says what it is told to; its port."""

    def handle(sock: Any, _: Any) -> None:
        with contextlib.suppress(OSError):
            talk(sock)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certfile, certificate.keyfile)
    server = StreamServer(("127.0.0.1", 0), handle, ssl_context=context)
    server.start()
    try:
        yield server.server_port
    finally:
        server.stop(timeout=0)


def request_on(sock: Any) -> dict[str, str]:
    """The request's fields."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece
        data += piece
    lines = data.decode().split("\r\n")
    assert lines[0] == "GET / HTTP/1.1"
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}


def switching(key: str, **changed: str) -> bytes:
    accept = accept_key(key.encode())
    fields = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
    fields |= {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value]
    return ("HTTP/1.1 101 Switching Protocols\r\n" + "".join(lines) + "\r\n").encode()


def answered(certificate: Certificate, answer: Callable[[str], bytes], **options: Any) -> WebSocket:
    """What becomes of a server that answers a request with this key so, and closes."""

    def talk(sock: Any) -> None:
        sock.sendall(answer(request_on(sock)["sec-websocket-key"]))

    with tcp_server(certificate, talk) as port:
        options = {"verify": False, "http3": "auto", **options}
        return connect(f"wss://127.0.0.1:{port}/", **options)


def test_rfc_6455s_example() -> None:
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda key: switching("dGhlIHNhbXBsZSBub25jZQ=="), "sec-websocket-accept"),
        (lambda key: switching(key, Sec_WebSocket_Accept=""), "sec-websocket-accept"),
        (lambda key: switching(key, Upgrade="h2c"), "not a WebSocket"),
        (lambda key: switching(key, Upgrade=""), "not a WebSocket"),
        (lambda key: switching(key, Connection="keep-alive"), "not a WebSocket"),
        (lambda key: b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1"),
        (lambda key: b"", "closed the connection"),
        (lambda key: b"HTTP/1.1 101 Switching", "closed the connection"),
        (lambda key: b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "HTTP/1.1"),
        (lambda key: b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, "interim"),
        (lambda key: switching(key, Sec_WebSocket_Protocol="other"), "other"),
        (lambda key: switching(key, Sec_WebSocket_Extensions="x-other"), "x-other"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none(certificate: Certificate, answer: Any, words: str) -> None:
    with pytest.raises(InvalidHandshake, match=re.escape(words)):
        answered(certificate, answer)


def test_a_server_that_answers_with_a_page(certificate: Certificate) -> None:
    """As one does that knows no WebSockets; and its page is long."""
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 200_000
    with pytest.raises(InvalidStatus) as caught:
        answered(certificate, lambda key: page)
    assert caught.value.response.status_code == 200
    assert set(caught.value.response.content) <= {ord("x")}
    assert len(caught.value.response.content) <= 65536


def test_messages_that_come_with_the_answer(certificate: Certificate) -> None:
    """In one piece with the head, and in upper case, which means the same; and after interim answers."""

    def answer(key: str) -> bytes:
        head = switching(key, Upgrade="WebSocket", Connection="keep-alive, UPGRADE")
        return b"HTTP/1.1 103 Early Hints\r\n\r\n" + head + b"\x81\x02hi" + CLOSED_BY_PEER

    ws = answered(certificate, answer)
    assert ws.recv(timeout=PATIENCE_S) == "hi"
    with pytest.raises(ConnectionClosedOK):
        ws.recv(timeout=PATIENCE_S)
    ws.close()


@pytest.mark.parametrize("fields", [{"X-A": "a\r\nX-B: b"}, {"X A": "b"}, {"X-A": "\u2603"}])
def test_a_field_that_cannot_be_sent(peer: Peer, fields: dict[str, str]) -> None:
    with pytest.raises(quicgreen.QuicClientException):
        dial(peer, additional_headers=fields)


# ---------------------------------------------------------------- no connection


def test_nobody_there() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(quicgreen.QuicSocketException) as caught:
        connect(f"wss://127.0.0.1:{port}/", verify=False, http3="auto")
    assert caught.value.cause == "unreachable"
    assert not caught.value.request_sent


@pytest.mark.parametrize("secure", [False, True])
def test_a_server_that_says_nothing(certificate: Certificate, secure: bool) -> None:
    """Neither in TLS nor in HTTP. What was opened is closed, which the server sees."""
    gone = Event()

    def talk(sock: Any) -> None:
        while sock.recv(65536):
            pass
        gone.set()

    with contextlib.ExitStack() as stack:
        if secure:
            port = stack.enter_context(tcp_server(certificate, talk))
        else:
            silent = StreamServer(("127.0.0.1", 0), lambda sock, _: talk(sock))
            silent.start()
            stack.callback(silent.stop, timeout=0)
            port = silent.server_port
        with pytest.raises(quicgreen.QuicTimeoutException) as caught:
            connect(f"wss://127.0.0.1:{port}/", verify=False, http3="auto", open_timeout=0.4)
        assert caught.value.cause == "handshake-timeout"
        assert gone.wait(PATIENCE_S)


def test_killed_while_it_connects(certificate: Certificate) -> None:
    arrived, gone = Event(), Event()

    def talk(sock: Any) -> None:
        request_on(sock)
        arrived.set()
        with contextlib.suppress(ConnectionResetError):  # it had not read our tickets
            while sock.recv(65536):
                pass
        gone.set()

    with tcp_server(certificate, talk) as port:
        opening = gevent.spawn(connect, f"wss://127.0.0.1:{port}/", verify=False, http3="auto")
        assert arrived.wait(PATIENCE_S)
        opening.kill()
        assert gone.wait(PATIENCE_S)


def test_descriptors_are_closed(peer: Peer) -> None:
    """However a connection ends."""
    with dial(peer):
        pass  # what is opened once
    before = descriptors()
    for path in ("/echo", "/drop", "/close/1000/bye"):
        opened = [dial(peer, path) for _ in range(5)]
        if path == "/echo":
            assert descriptors() >= before + 4, "one of before may be closed meanwhile"
        for ws in opened:
            ws.close()
    for _ in range(5):
        with pytest.raises(InvalidStatus):
            dial(peer, "/status/404")
    assert wait_until(lambda: descriptors() <= before)


# ---------------------------------------------------------------- whom it trusts


def test_trust(
    peer: Peer, certificate: Certificate, certificates: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:

    def attempt(**options: Any) -> None:
        with quicgreen.Session(**options) as session:  # a new one: it reads what is trusted once
            dial(peer, session=session).close()
            dial(peer, session=session).close()

    with pytest.raises(quicgreen.QuicTlsHandshakeException) as caught:
        attempt()
    assert caught.value.cause == "certificate"
    attempt(verify=certificate.ca_certs)
    monkeypatch.setenv("SSL_CERT_FILE", certificate.ca_certs)
    attempt()
    with pytest.raises(quicgreen.QuicTlsHandshakeException) as caught:
        attempt(server_name="elsewhere.example")
    assert caught.value.cause == "certificate"
    assert "elsewhere.example" in str(caught.value)
    attempt(server_name="localhost")
    with pytest.raises(quicgreen.QuicClientException, match="missing"):
        attempt(verify="missing")


def test_a_client_certificate(certificates: Authority, certificate: Certificate) -> None:
    options = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with Peer("websockets_server.py", ca_certs=certificate.ca_certs, **options) as peer:
        with dial(peer, cert=certificates.issue("client").pair) as ws:
            ws.send("x")
            assert ws.recv(timeout=PATIENCE_S) == "x"
        with pytest.raises((quicgreen.QuicException, ConnectionClosedError)):
            dial(peer)


# ---------------------------------------------------------------- when


def echo(request: quicgreen.Request) -> None:
    if request.is_websocket:
        with request.accept_websocket() as ws:
            for message in ws:
                ws.send(f"HTTP/3 {message}")
    else:
        request.respond(404)


def test_http3_is_preferred(certificate: Certificate) -> None:
    """One server, two protocols on one port number: what is asked first is HTTP/3."""
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with make_server(echo, websocket=True, **files) as server:
        port = server.server_port
        with Peer("websockets_server.py", port=port, **files) as peer:
            for http3, expected in (("auto", "HTTP/3 x"), ("only", "HTTP/3 x")):
                with dial(peer, http3=http3) as ws:
                    ws.send("x")
                    assert ws.recv(timeout=PATIENCE_S) == expected
            server.stop(timeout=0)
            with dial(peer) as ws:
                ws.send("x")
                assert ws.recv(timeout=PATIENCE_S) == "x"
            with pytest.raises(quicgreen.QuicSocketException):
                dial(peer, http3="only")


def test_a_server_without_websockets_over_http3(certificate: Certificate) -> None:
    """It has HTTP/3, and its SETTINGS do not allow extended CONNECT (RFC 9220, section 3)."""
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with (
        make_server(echo, **files) as server,
        Peer("websockets_server.py", port=server.server_port, **files) as peer,
    ):
        with dial(peer) as ws:
            ws.send("x")
            assert ws.recv(timeout=PATIENCE_S) == "x"
        with pytest.raises(InvalidHandshake):
            dial(peer, http3="only")


def test_a_refusal_over_http3_is_final(certificate: Certificate) -> None:
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}

    def refuse(request: quicgreen.Request) -> None:
        request.respond(403, None, b"over HTTP/3")

    with (
        make_server(refuse, websocket=True, **files) as server,
        Peer("websockets_server.py", port=server.server_port, **files) as peer,
    ):
        with pytest.raises(InvalidStatus) as caught:
            dial(peer)
        assert caught.value.response.text == "over HTTP/3"


def test_a_wrong_certificate_is_final(certificate: Certificate) -> None:
    """Nobody who is in the way of QUIC may choose what is trusted instead."""
    asked = []
    with make_server(echo, websocket=True, tls=server_tls()) as server:
        listener = StreamServer(("127.0.0.1", server.server_port), lambda sock, _: asked.append(sock))
        listener.start()
        try:
            with pytest.raises(quicgreen.QuicTlsHandshakeException):
                connect(f"wss://127.0.0.1:{server.server_port}/", verify=certificate.ca_certs, http3="auto")
        finally:
            listener.stop(timeout=0)
    assert asked == []


def test_a_value_that_http3_does_not_have() -> None:
    with pytest.raises(quicgreen.QuicClientException, match="http3"):
        connect("wss://127.0.0.1/", http3="perhaps")


def test_ssl_is_imported_when_it_is_needed() -> None:
    check_python(
        """
        import sys
        import quicgreen.websocket, quicgreen.cli
        assert not {"ssl", "_ssl", "h11", "quicgreen.websocket.fallback"} & sys.modules.keys()
        import quicgreen.websocket.fallback
        assert {"ssl", "h11"} <= sys.modules.keys()
        """
    )


# ---------------------------------------------------------------- the stream itself


@contextlib.contextmanager
def stream_to(certificate: Certificate, talk: Callable[[Any], None]) -> Iterator[TlsStream]:
    """What `upgrade` gives, with a server that goes on as it is told."""

    def begin(sock: Any) -> None:
        sock.sendall(switching(request_on(sock)["sec-websocket-key"]) + b"begun")
        talk(sock)

    with tcp_server(certificate, begin) as port:
        context = tls_context(ClientTls(verify=False))
        stream, headers = upgrade("127.0.0.1", port, "localhost", "/", [], context=context)
        assert headers["upgrade"] == "websocket"
        try:
            yield stream
        finally:
            stream.release()


def echo_bytes(sock: Any) -> None:
    while piece := sock.recv(65536):
        sock.sendall(piece)


def read_exactly(stream: TlsStream, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := stream.read(size - len(data))):
        data += piece
    return data


def test_reading_and_writing_at_a_time(certificate: Certificate) -> None:
    """Far more than the buffers in between hold."""
    data = bytes(range(256)) * 40_000
    with stream_to(certificate, echo_bytes) as stream:
        assert stream.read(3) == b"beg", "what came with the head comes first"
        writer = gevent.spawn(stream.write, data)
        assert read_exactly(stream, len(data) + 2) == b"un" + data
        assert writer.get(timeout=PATIENCE_S) == len(data)
        stream.finish(b"end")
        assert read_exactly(stream, 3) == b"end"
        with pytest.raises(quicgreen.QuicStreamException):
            stream.write(b"more")


def test_the_end_of_the_stream(certificate: Certificate) -> None:
    with stream_to(certificate, lambda sock: sock.sendall(b"x")) as stream:
        assert read_exactly(stream, 6) == b"begunx"
        assert (stream.read(10), stream.read_ended, stream.readinto(bytearray(1))) == (b"", True, 0)


def test_deadlines(certificate: Certificate) -> None:
    go_on = Event()
    with stream_to(certificate, lambda sock: go_on.wait()) as stream:
        stream.timeout = 0.05
        assert read_exactly(stream, 5) == b"begun"
        with pytest.raises(quicgreen.QuicTimeoutException) as caught:
            stream.read(1)
        assert caught.value.cause == "deadline"
        with pytest.raises(quicgreen.QuicTimeoutException):
            stream.write(bytes(100_000_000))
        go_on.set()


@pytest.mark.parametrize("end", ["release", "reset", "stop"])
def test_giving_up(certificate: Certificate, end: str) -> None:
    """Who waits is told, and the server sees the end."""
    gone = Event()

    def talk(sock: Any) -> None:
        assert sock.recv(10) == b""
        gone.set()

    with stream_to(certificate, talk) as stream:
        assert stream.remote_address[0] == "127.0.0.1"
        assert read_exactly(stream, 5) == b"begun"
        reader = gevent.spawn(stream.read, 1)
        gevent.sleep(0)
        assert not reader.ready()
        getattr(stream, end)()
        with pytest.raises(quicgreen.QuicConnectionException) as caught:
            reader.get(timeout=PATIENCE_S)
        assert caught.value.cause == "closed-here"
        assert gone.wait(PATIENCE_S)
        stream.release()
        assert (stream.released, stream.read(1), stream.remote_address) == (True, b"", ("", 0))
