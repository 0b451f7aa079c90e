"""The documentation's server with other clients: rows B1 to B7, as the other side saw them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers import bodies, routes
from helpers.processes import Peer, run_client
from helpers.quicpro import answer_all, ask, connected, echo, one_pem, receive, serving
from support import counters, wait_until

from quicgreen.quicpro import (
    Config,
    Fiber,
    QuicClientException,
    QuicConnectionException,
    QuicServerException,
    QuicStreamException,
    Server,
    Session,
    fclose,
    feof,
    fgets,
    fwrite,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_chunk,
    quicpro_receive_head,
    quicpro_send_request,
)
from quicgreen.testing import Authority, Certificate, Link
from quicgreen.websocket import InvalidHandshake, InvalidStatus

Ask = Callable[..., list[dict[str, Any]]]

VERSION = "quicpro"


@pytest.fixture(params=["aioquic", "curl"])
def client(request: pytest.FixtureRequest, certificates: Authority) -> Ask:
    """Each client in turn: sends requests on one connection, returns their answers."""

    def run(server: Server, *requests: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        ca = certificates.ca_certs
        if request.param == "aioquic":
            given = {"host": "localhost", "ip": "127.0.0.1", "port": server.port, "ca": ca}
            (told,) = run_client("aioquic_client.py", rounds=[list(requests)], **given, **options)["rounds"]
            answers: list[dict[str, Any]] = told["answers"]
            return answers
        urls = [{**r, "url": f"https://127.0.0.1:{server.port}{r['path']}"} for r in requests]
        answers = run_client("curl_client.py", requests=urls, ca=ca)["answers"]
        return answers

    return run


def route(request: Any) -> None:
    """What every server of the tests answers."""
    body = request.body()
    fields = [(n.encode(), v.encode()) for n, v in request.headers().items() if n[0] != ":"]
    status, own, content = routes.answer(request.method, request.path, fields, body, VERSION)
    stream = request.stream()
    stream.respond(status, [(n.decode(), v.decode("latin-1")) for n, v in own])
    for start in range(0, len(content), 10_000):
        stream.sendBody(content[start : start + 10_000])
    stream.sendBody(fin=True)


# ---------------------------------------------------------------- B1: configuration


def test_certificate_and_key_in_one_pem(certificate: Certificate, client: Ask, tmp_path: Path) -> None:
    path = one_pem(tmp_path, certificate)
    for options in ({"cert_file": path}, {"cert_file": path, "key_file": path}):
        server = Server("127.0.0.1", 0, Config.new(options))  # no alpn: h3
        serve = gevent.spawn(lambda s: answer_all(route)(s.accept()), server)
        (answer,) = client(server, {"path": "/version"})
        assert (answer["status"], named(answer, "x-peer")) == (200, [VERSION])
        serve.kill()
        server.close(0)


def test_limits_of_the_configuration_hold(certificate: Certificate, client: Ask) -> None:
    with serving(certificate, answer_all(route), max_body_bytes=1000) as server:
        (answer,) = client(server, {"method": "POST", "path": "/sink", "size": 1000})
        assert json.loads(answer["content"])["length"] == 1000


def named(answer: dict[str, Any], name: str) -> list[str]:
    return [value for n, value in answer["fields"] if n == name]


# ---------------------------------------------------------------- B2: addresses

HOSTS = {
    "127.0.0.1": ["127.0.0.1"],
    "0.0.0.0": ["127.0.0.1"],
    "::1": ["::1"],
    "[::1]": ["::1"],
    "::": ["127.0.0.1", "::1"],
    "[::]": ["127.0.0.1", "::1"],
    "": ["127.0.0.1", "::1"],
    "LOCALHOST": [],
}


@pytest.mark.parametrize("host", HOSTS)
def test_each_form_of_an_address(certificate: Certificate, certificates: Authority, host: str) -> None:
    with serving(certificate, answer_all(echo), host) as server:
        for ip in HOSTS[host] or [server.address[0]]:
            given = {"host": "localhost", "ip": ip, "port": server.port, "ca": certificates.ca_certs}
            told = run_client("aioquic_client.py", rounds=[[{"path": "/"}]], **given)["rounds"][0]
            assert told["answers"][0]["status"] == 200


def test_a_port_that_somebody_holds(certificate: Certificate) -> None:
    files = {"cert_file": certificate.certfile, "key_file": certificate.keyfile}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        with pytest.raises(QuicServerException, match="port"):
            Server("127.0.0.1", holder.getsockname()[1], files)
    with serving(certificate, answer_all(echo)) as server, pytest.raises(QuicServerException):
        Server("127.0.0.1", server.port, files)


# ---------------------------------------------------------------- B3: accept


def test_accept_outlasts_a_quiet_port(certificate: Certificate, client: Ask) -> None:
    """Time and again it has nothing, others run meanwhile, and a session that comes late is accepted."""
    accepted: list[Any] = []
    files = {"cert_file": certificate.certfile, "key_file": certificate.keyfile}
    server = Server("127.0.0.1", 0, files)

    def loop() -> str:
        while session := server.accept(1):
            accepted.append(session)
            Fiber(answer_all(echo)).start(session)
        return "ended"

    looping = gevent.spawn(loop)
    gevent.sleep(1)  # a thousand times nothing
    assert not looping.ready()
    assert accepted == []
    assert client(server, {"path": "/"})[0]["status"] == 200
    assert accepted
    assert all(isinstance(s, Session) for s in accepted)
    assert not looping.ready()
    server.close(0)
    assert looping.get(timeout=10) == "ended"
    assert server.accept(100) is None


def test_accept_0_is_a_turn_at_a_time(certificate: Certificate) -> None:
    files = {"cert_file": certificate.certfile, "key_file": certificate.keyfile}
    with Server("127.0.0.1", 0, files) as server:
        accepting = gevent.spawn(server.accept, 0)
        with connected(server, certificate) as sess:
            assert isinstance(accepting.get(timeout=20), Session)
            sess.close()


# ---------------------------------------------------------------- B4, B5: requests and answers


def test_what_a_request_says(certificate: Certificate, client: Ask) -> None:
    seen: list[dict[str, str]] = []

    def answer(request: Any) -> None:
        seen.append(request.headers())
        echo(request)

    with serving(certificate, answer_all(answer)) as server:
        (answered,) = client(
            server, {"method": "POST", "path": "/a?b=c", "size": 10, "fields": [["x-one", "1"]]}
        )
    assert type(seen[0]) is dict
    assert (seen[0][":method"], seen[0][":path"], seen[0][":scheme"]) == ("POST", "/a?b=c", "https")
    assert seen[0][":authority"].endswith(f":{server.port}")
    assert seen[0]["x-one"] == "1"
    assert (answered["status"], answered["sha256"]) == (200, bodies.digest(10))


@pytest.mark.parametrize("size", [0, 1, 65537, 1_000_000])
def test_bodies_both_ways(certificate: Certificate, client: Ask, size: int) -> None:
    with serving(certificate, answer_all(route)) as server:
        sink, got = client(
            server, {"method": "POST", "path": "/sink", "size": size}, {"path": f"/size/{size}"}
        )
    assert json.loads(sink["content"])["sha256"] == bodies.digest(size)
    assert (got["length"], got["sha256"]) == (size, bodies.digest(size))


def test_an_answer_leaves_piece_by_piece(certificate: Certificate) -> None:
    """The client has the first piece while the server holds the next."""
    go_on = gevent.event.Event()

    def answer(request: Any) -> None:
        stream = request.stream()
        stream.respond(200, {"content-type": "text/plain"})
        stream.sendBody("first ")
        go_on.wait()
        stream.sendBody(b"second", fin=True)

    with serving(certificate, answer_all(answer)) as server, connected(server, certificate) as sess:
        stream = quicpro_send_request(sess, "/")
        assert quicpro_receive_chunk(sess, stream, 20_000) == b"first "
        assert quicpro_receive_chunk(sess, stream, 20) is None
        go_on.set()
        assert quicpro_receive_chunk(sess, stream, 20_000) == b"second"
        assert quicpro_receive_chunk(sess, stream, 20_000) == b""


def test_who_answers_faster_than_the_client_takes_waits(certificate: Certificate) -> None:
    sent = []

    def answer(request: Any) -> None:
        stream = request.stream()
        stream.respond(200)
        for _ in range(400):
            sent.append(stream.sendBody(b"x" * 65536))
        stream.sendBody(fin=True)

    with serving(certificate, answer_all(answer)) as server, connected(server, certificate) as sess:
        stream = quicpro_send_request(sess, "/")
        assert quicpro_receive_head(sess, stream)["status"] == 200
        gevent.sleep(0.3)
        held = sum(sent)
        assert held < 8 << 20  # of 25 MiB: a window's worth
        assert sum(map(len, iter(lambda: quicpro_receive_chunk(sess, stream), b""))) == 400 * 65536


def test_head_and_no_content(certificate: Certificate, client: Ask) -> None:
    with serving(certificate, answer_all(route)) as server:
        head, nothing = client(server, {"method": "HEAD", "path": "/size/9"}, {"path": "/status/204"})
    assert (head["status"], head["length"]) == (200, 0)
    assert (nothing["status"], nothing["length"]) == (204, 0)


def test_a_request_that_nobody_answers_is_reset(certificate: Certificate) -> None:
    """Not left to its client's patience."""

    def handle(session: Any) -> None:
        while session.receiveRequest().headers():
            pass

    with serving(certificate, handle) as server, connected(server, certificate) as sess:
        for _ in range(3):
            with pytest.raises(QuicStreamException):
                ask(sess, "/")


def test_receiving_waits_so_long(certificate: Certificate) -> None:
    got: list[Any] = []

    def handle(session: Any) -> None:
        got.append(session.receiveRequest(20))
        got.append(quicpro_poll(session, 20_000))
        echo(session.receive_request())

    with serving(certificate, handle) as server, connected(server, certificate) as sess:
        assert wait_until(lambda: len(got) == 1)
        assert ask(sess, "/late")["headers"]["x-path"] == "/late"
    assert got == [None, True]


# ---------------------------------------------------------------- B6: WebSockets


def chat(session: Any) -> None:
    """The documentation's server."""
    if not session.isWebSocket("/chat"):
        session.close()
        return
    ws = session.upgrade("/chat")
    while not feof(ws):
        fwrite(ws, fgets(ws).upper())
    fclose(ws)
    session.close()


def test_aioquic_chats(certificate: Certificate, certificates: Authority) -> None:
    with serving(certificate, chat) as server:
        steps = [["text", "hello"], ["text", "a\nb"], ["messages", 3], ["close", 1000, ""], ["over"]]
        told = run_client(
            "aioquic_websocket_client.py",
            host="localhost",
            ip="127.0.0.1",
            port=server.port,
            ca=certificates.ca_certs,
            sockets=[{"path": "/chat", "steps": steps}],
        )
    (told,) = told["sockets"]
    assert [m[-1] for m in told["messages"]] == ["HELLO", "A\n", "B"]


@pytest.mark.parametrize("name", ["aioquic_sockets", "hypercorn", "server"])
def test_our_client_chats(
    request: pytest.FixtureRequest, certificate: Certificate, certificates: Authority, name: str
) -> None:
    """The documentation's client, with others' servers and ours."""

    def talk(sess: Any, path: str, answers: list[str]) -> None:
        ws = sess.upgrade(path)
        assert fwrite(ws, "hello from PHP\n") == 15
        assert fgets(ws) == answers[0]
        ws.write("one\ntwo")
        assert [fgets(ws), fgets(ws)] == answers[1:]
        assert not feof(ws)
        fclose(ws)
        fclose(ws)
        assert fgets(ws) == ""
        assert feof(ws)

    if name == "server":
        with serving(certificate, chat) as server, connected(server, certificate) as sess:
            talk(sess, "/chat", ["HELLO FROM PHP\n", "ONE\n", "TWO"])
        return
    peer: Peer = request.getfixturevalue(name)
    sess = quicpro_connect("localhost", peer.port, {"ca_file": certificates.ca_certs, "session_cache": False})
    talk(sess, "/echo", ["hello from PHP\n", "one\n", "two"])
    sess.connection.close(0x100)  # hypercorn ends no stream, which an orderly end would wait for


def test_the_end_is_read_once_the_close_was(aioquic_sockets: Peer, certificates: Authority) -> None:
    sess = quicpro_connect(
        "localhost", aioquic_sockets.port, {"ca_file": certificates.ca_certs, "session_cache": False}
    )
    ws = sess.upgrade("/close/1000")
    assert not feof(ws)
    assert list(ws) == []
    assert feof(ws)
    sess.close()


def test_a_refusal_is_an_error(aioquic_sockets: Peer, certificates: Authority) -> None:
    sess = quicpro_connect(
        "localhost", aioquic_sockets.port, {"ca_file": certificates.ca_certs, "session_cache": False}
    )
    with pytest.raises(InvalidStatus) as caught:
        sess.upgrade("/refuse/404")
    assert caught.value.response.status_code == 404
    ws = sess.upgrade("/echo")  # another one, on the same session
    fwrite(ws, "still here\n")
    assert fgets(ws) == "still here\n"
    fclose(ws)
    sess.close()


def test_a_server_without_websockets(certificate: Certificate) -> None:
    with (
        serving(certificate, answer_all(echo), extended_connect=False) as server,
        connected(server, certificate) as sess,
        pytest.raises(InvalidHandshake),
    ):
        sess.upgrade("/chat")


def test_looking_does_not_consume(certificate: Certificate) -> None:
    def handle(session: Any) -> None:
        looks = [session.isWebSocket("/chat"), session.is_websocket(), session.isWebSocket("/", 10)]
        with pytest.raises(QuicClientException, match="no WebSocket"):
            session.upgrade("/chat")
        request = session.receiveRequest()
        stream = request.stream()
        stream.respond(200)
        stream.sendBody(f"{looks} {request.path}", fin=True)

    with serving(certificate, handle) as server, connected(server, certificate) as sess:
        assert ask(sess, "/plain")["text"] == "[False, False, False] /plain"


def test_a_second_upgrade(certificate: Certificate) -> None:
    """Of the one request: there is no second one, and the first goes on."""
    caught: list[BaseException] = []

    def handle(session: Any) -> None:
        ws = session.upgrade("/chat")
        try:
            with gevent.Timeout(0.1, TimeoutError):
                session.upgrade("/chat")
        except Exception as e:
            caught.append(e)
        fwrite(ws, fgets(ws))
        fclose(ws)

    with serving(certificate, handle) as server, connected(server, certificate) as sess:
        ws = sess.upgrade("/chat")
        fwrite(ws, "first")
        assert fgets(ws) == "first"
        fclose(ws)
    assert [type(e) for e in caught] == [TimeoutError]


def test_nobody_asks(certificate: Certificate) -> None:
    looks: list[bool] = []

    def handle(session: Any) -> None:
        looks.append(session.isWebSocket("/chat", 20))
        looks.append(session.isWebSocket("/chat"))

    with serving(certificate, handle) as server:
        with connected(server, certificate):
            assert wait_until(lambda: looks == [False])
        assert wait_until(lambda: looks == [False, False])


# ---------------------------------------------------------------- B7: close


@pytest.mark.parametrize("size", [10, 300_000])
def test_an_answer_arrives_though_the_session_is_closed(
    certificate: Certificate, client: Ask, size: int
) -> None:
    """The documentation's handler: the answer, and at once the end."""

    def handle(session: Any) -> None:
        request = session.receiveRequest()
        stream = request.stream()
        stream.respond(200, {"content-type": "text/plain"})
        stream.sendBody(bodies.body(size), fin=True)
        session.close()
        session.close()
        with pytest.raises(QuicConnectionException):
            session.receiveRequest()

    with serving(certificate, handle) as server:
        (answer,) = client(server, {"path": "/"})
        assert (answer["status"], answer["length"], answer["sha256"]) == (200, size, bodies.digest(size))
        assert wait_until(lambda: counters()["connections"] == 0)


def test_an_answer_that_is_lost_on_its_way_is_sent_again(
    certificate: Certificate, certificates: Authority
) -> None:
    """After the close, and for longer than a client's would wait: its packets are all lost at first."""
    asked, go_on = gevent.event.Event(), gevent.event.Event()

    def handle(session: Any) -> None:
        stream = session.receiveRequest().stream()
        asked.set()
        go_on.wait()
        stream.respond(200)
        stream.sendBody("late", fin=True)
        session.close()

    with serving(certificate, handle) as server, Link(server.address) as link:
        given = {"ca_file": certificates.ca_certs, "session_cache": False, "slow_handshake_ms": 0}
        sess = quicpro_connect(*link.address, given)
        stream = quicpro_send_request(sess, "/")
        quicpro_poll(sess, 0)
        asked.wait()
        link.update(loss=1.0)
        go_on.set()
        gevent.sleep(1.6)
        link.update(loss=0.0)
        assert receive(sess, stream)["text"] == "late"
        sess.close()


def test_a_session_closed_without_an_answer(certificate: Certificate) -> None:
    with serving(certificate, lambda s: (s.receiveRequest(), s.close())) as server:
        started = time.monotonic()
        over = pytest.raises((QuicConnectionException, QuicStreamException, AssertionError))
        with connected(server, certificate) as sess, over:
            ask(sess, "/")
        assert time.monotonic() - started < 10
