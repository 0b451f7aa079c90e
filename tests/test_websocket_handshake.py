"""The opening handshake: what is asked, what is answered, and what becomes of it when it fails."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event
from helpers.rooms import Room
from support import (
    PATIENCE_S,
    connect,
    counters,
    new_session,
    nothing_left_behind,
    serving,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import _engine, fields, hub
from quicgreen.headers import Headers
from quicgreen.websocket import ConnectionClosedError, InvalidHandshake, InvalidStatus
from quicgreen.websocket.handshake import Offer, listed


def serve(handle: Any) -> Any:
    return serving(handle, websocket=True)


# ---------------------------------------------------------------- what is asked


def test_the_request_says_what_it_wants(room: Room) -> None:
    ws = room.session.websocket(
        url_of(room.server, "/chat?a=b").replace("https", "wss"),
        subprotocols=["one", "two"],
        origin="https://example.org",
        additional_headers={"x-more": "1", "user-agent": "me"},
    )
    assert wait_until(lambda: room.sockets)
    request = room.sockets[0].request
    assert request.is_websocket
    assert (request.method, request.path, request.scheme) == ("CONNECT", "/chat?a=b", "https")
    assert request.authority == url_of(room.server, "")[8:]
    asked = request.headers
    assert asked[":protocol"] == "websocket"
    assert asked["sec-websocket-version"] == "13"
    assert asked["sec-websocket-protocol"] == "one, two"
    assert asked["sec-websocket-extensions"] == "permessage-deflate; client_max_window_bits"
    assert (asked["origin"], asked["x-more"], asked["user-agent"]) == ("https://example.org", "1", "me")
    assert "sec-websocket-key" not in asked
    assert "upgrade" not in asked
    assert ws.request_headers["origin"] == room.sockets[0].request_headers["origin"]
    ws.close()


def test_other_requests_ask_for_no_websocket(room: Room) -> None:
    seen = []

    def handle(request: quicgreen.Request) -> None:
        seen.append(request.is_websocket)
        with pytest.raises(quicgreen.QuicClientException, match="no WebSocket was asked for"):
            request.accept_websocket()
        request.respond(200)

    with serve(handle) as server:
        room.session.get(url_of(server))
    assert seen == [False]


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        (["b", "a"], ["a", "b"], "b"),
        (["a"], ["x", "a"], "a"),
        (["c"], ["a"], None),
        (None, ["a"], None),
        (["a"], None, None),
    ],
)
def test_the_server_chooses_a_subprotocol(room: Room, ours: Any, theirs: Any, chosen: str | None) -> None:
    room.options = {"subprotocols": ours}
    ws, other = room.pair(subprotocols=theirs)
    assert ws.subprotocol == other.subprotocol == chosen
    assert ws.response_headers.get("sec-websocket-protocol") == chosen
    ws.close()


@pytest.mark.parametrize("client", ["deflate", None])
@pytest.mark.parametrize("server", ["deflate", None])
def test_both_must_want_compression(room: Room, client: str | None, server: str | None) -> None:
    room.options = {"compression": server}
    ws, other = room.pair(compression=client)
    wanted = client is not None and server is not None
    assert ("sec-websocket-extensions" in ws.response_headers) == wanted
    assert ws._protocol.compresses == other._protocol.compresses == wanted
    ws.close()


def test_the_answer_may_have_more_fields(room: Room) -> None:
    room.options = {"headers": {"x-room": "7", "set-cookie": "a=b"}}
    with room.open() as ws:
        assert (ws.response_headers["x-room"], ws.response_headers["set-cookie"]) == ("7", "a=b")
        assert "date" in ws.response_headers
        assert "content-length" not in ws.response_headers
        assert room.sockets[0].response_headers["x-room"] == "7"


def test_a_session_s_handler_accepts_too(room: Room) -> None:
    def handle(session: Any) -> None:
        ws = session.accept_request().accept_websocket()
        ws.send(ws.recv())
        ws.close()

    with serving(handle, sessions=True, websocket=True) as server:
        ws = room.session.websocket(url_of(server))
        ws.send("a")
        assert list(ws) == ["a"]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("status", [403, 404, 500, 302])
def test_a_refusal_is_an_answer_of_http(room: Room, status: int) -> None:
    with serve(lambda request: request.respond(status, {"x-why": "no"}, "not here")) as server:
        with pytest.raises(InvalidStatus, match=str(status)) as caught:
            room.session.websocket(url_of(server))
        response = caught.value.response
        assert (response.status_code, response.text) == (status, "not here")
        assert response.headers["x-why"] == "no"
        assert wait_until(lambda: counters()["streams"] == 4)
        assert room.session.get(url_of(server)).status_code == status


def test_a_large_refusal_is_read_by_who_wants_it(room: Room) -> None:
    with serve(lambda request: request.respond(403, None, b"x" * 200_000)) as server:
        with pytest.raises(InvalidStatus) as caught:
            room.session.websocket(url_of(server))
        assert len(caught.value.response.content) == 200_000


def test_a_handler_that_fails_before_it_answers_is_a_500(room: Room) -> None:
    def handle(request: quicgreen.Request) -> None:
        gevent.getcurrent().throw(gevent.GreenletExit) if request.path == "/kill" else None
        request.accept_websocket(subprotocols="not a list")

    from support import reported

    with serve(handle) as server, reported() as found:
        with pytest.raises(InvalidStatus) as caught:
            room.session.websocket(url_of(server))
        assert caught.value.response.status_code == 500
        assert len(found) == 1


def test_a_server_that_takes_none_is_not_asked(room: Room) -> None:
    asked = []
    with serving(lambda request: (asked.append(1), request.respond(200))) as server:
        with pytest.raises(InvalidHandshake, match="does not announce it") as caught:
            room.session.websocket(url_of(server))
        assert caught.value.request_sent is False
        assert room.session.get(url_of(server)).ok
    assert asked == [1]


def ask(connection: quicgreen.Connection, items: list[tuple[str, str]]) -> tuple[int, Headers]:
    """Status and fields of what a CONNECT of ours, as written, is answered."""
    engine, runtime = hub.current().engine, hub.current()
    head = b"".join(
        fields.pseudo_line(n, v) if n[0] == ":" else fields.line(n, v)
        for n, v in [(":method", "CONNECT"), (":scheme", "https"), (":authority", "a.test"), *items]
    )
    while True:
        rc, stream = engine.open_request(
            connection.id, head, _engine.EXTENDED, token := runtime.new_token(), 0
        )
        if rc == 0:
            break
        connection.await_opening(rc, token)
    engine.await_response(connection.id, stream, token := runtime.new_token(), 5_000_000)
    record = runtime.wait(token)
    headers = Headers(engine.take(record)[: record[_engine.HEAD_LEN]])
    engine.release(connection.id, stream)
    return (record[_engine.STATUS] if record[_engine.TYPE] == _engine.RESPONSE else 0), headers


@pytest.mark.parametrize(
    ("items", "status"),
    [
        ([("sec-websocket-version", "13")], 200),
        ([("sec-websocket-version", "12")], 400),
        ([], 400),
        ([("sec-websocket-version", "13"), ("sec-websocket-extensions", "permessage-deflate;;")], 400),
        ([("sec-websocket-version", "13"), ("sec-websocket-extensions", "x-unknown")], 200),
    ],
)
def test_what_a_server_does_not_accept_is_answered(items: Any, status: int) -> None:
    raised = []

    def handle(request: quicgreen.Request) -> None:
        try:
            request.accept_websocket()
        except InvalidHandshake as e:
            raised.append(e)

    with nothing_left_behind(), serve(handle) as server, connect(server) as connection:
        got, headers = ask(connection, [(":protocol", "websocket"), (":path", "/"), *items])
        assert got == status
        assert len(raised) == (status == 400)
        if status == 400 and len(items) < 2:
            assert headers["sec-websocket-version"] == "13"


def test_another_protocol_is_no_websocket() -> None:
    def handle(request: quicgreen.Request) -> None:
        request.respond(200 if request.is_websocket else 501)

    with nothing_left_behind(), serve(handle) as server, connect(server) as connection:
        assert ask(connection, [(":protocol", "connect-udp"), (":path", "/")])[0] == 501


@pytest.mark.parametrize(
    "answer",
    [
        {"sec-websocket-protocol": "other"},
        {"sec-websocket-extensions": "x-unknown"},
        {"sec-websocket-extensions": "permessage-deflate; server_max_window_bits=99"},
    ],
)
def test_an_answer_that_was_not_asked_for(room: Room, answer: dict[str, str]) -> None:
    ended = []

    def handle(request: quicgreen.Request) -> None:
        stream = request.start_response(200, answer)
        try:
            stream.read(1)
        except quicgreen.QuicStreamException as e:
            ended.append(e.wire_code)

    with serve(handle) as server:
        with pytest.raises(InvalidHandshake):
            room.session.websocket(url_of(server), subprotocols=["mine"])
        assert wait_until(lambda: ended == [0x10C])


def test_an_offer_without_compression_gets_none() -> None:
    with pytest.raises(InvalidHandshake, match="extension"):
        Offer(None, None, None).agreed(Headers.of({"sec-websocket-extensions": "permessage-deflate"}))


def test_an_answer_that_ends_at_once_is_no_close(room: Room) -> None:
    with serve(lambda request: request.start_response(200).finish()) as server:
        ws = room.session.websocket(url_of(server))
        with pytest.raises(ConnectionClosedError) as caught:
            ws.recv(timeout=PATIENCE_S)
        assert caught.value.code == 1006


# ---------------------------------------------------------------- in time, or not


def test_a_server_that_does_not_answer(room: Room) -> None:
    ended = Event()

    def handle(request: quicgreen.Request) -> None:
        try:
            request.read()
        except quicgreen.QuicStreamException:
            ended.set()

    with serve(handle) as server:
        with pytest.raises(quicgreen.QuicTimeoutException):
            room.session.websocket(url_of(server), open_timeout=0.2)
        assert ended.wait(PATIENCE_S), "it is told"


def test_who_is_killed_while_it_opens_leaves_nothing(room: Room) -> None:
    asked, ended = Event(), Event()

    def handle(request: quicgreen.Request) -> None:
        asked.set()
        try:
            request.read()
        except quicgreen.QuicStreamException:
            ended.set()

    with serve(handle) as server:
        opener = gevent.spawn(room.session.websocket, url_of(server))
        assert asked.wait(PATIENCE_S)
        opener.kill()
        assert ended.wait(PATIENCE_S)
        assert room.session._pool.origins[url_of(server, "")[8:]].connections[0].in_flight == 0


def test_the_stream_s_place_is_free_again(room: Room) -> None:
    ws = room.open()
    connection = ws._pipe._owner
    assert connection.in_flight == 1
    ws.close()
    assert wait_until(lambda: connection.in_flight == 0)


def test_a_connection_that_takes_no_more_is_passed_over(room: Room) -> None:
    room.open().close()
    connection = next(iter(room.session._pool.origins.values())).connections[0]
    assert wait_until(lambda: connection.in_flight == 0)
    connection.draining = True
    with room.open() as ws:
        assert ws._pipe._owner is not connection


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ws://127.0.0.1/", {}),
        ("http://127.0.0.1/", {}),
        ("127.0.0.1", {}),
        (None, {}),
        ("wss://127.0.0.1/", {"compression": "gzip"}),
        ("wss://127.0.0.1/", {"subprotocols": "chat"}),
        ("wss://127.0.0.1/", {"subprotocols": ["a b"]}),
        ("wss://127.0.0.1/", {"additional_headers": {"content-length": "3"}}),
        ("wss://127.0.0.1/", {"http3": "perhaps"}),
    ],
)
def test_arguments_that_cannot_be(url: Any, options: dict[str, Any]) -> None:
    with new_session() as session, pytest.raises(quicgreen.QuicClientException):
        session.websocket(url, **options)


def test_connect_uses_the_thread_s_session_for_its_trust(room: Room) -> None:
    url = url_of(room.server).replace("https", "wss")
    with quicgreen.websocket.connect(url, verify=False) as ws:
        ws.send("a")
        assert ws.recv() == "a"
    with pytest.raises(quicgreen.QuicTlsHandshakeException):
        quicgreen.websocket.connect(url, verify=True)
    with quicgreen.websocket.connect(url, session=room.session) as ws:
        assert ws._pipe._owner is next(iter(room.session._pool.origins.values())).connections[0]
    for attached in hub.current().attachments.values():
        if isinstance(attached, quicgreen.Session):
            attached.close()
    hub.current().attachments.clear()


def test_lists_of_tokens() -> None:
    assert listed(None) == listed("") == []
    assert listed("a, b ,,c") == ["a", "b", "c"]


# ---------------------------------------------------------------- on one connection


def test_a_websocket_on_one_connection(room: Room) -> None:
    with connect(room.server) as connection:
        ws = connection.websocket("/echo", subprotocols=["a"], additional_headers={"x-name": "one"})
        ws.send("hello")
        assert ws.recv() == "hello"
        ws.close()
        for wrong in ({"additional_headers": {"content-length": "3"}}, {"compression": "gzip"}):
            with pytest.raises(quicgreen.QuicClientException):
                connection.websocket("/echo", **wrong)
        assert connection.get("/").status_code < 600  # the connection goes on


def test_one_that_is_refused_spares_the_connection() -> None:
    def handle(request: quicgreen.Request) -> None:
        if request.path != "/echo":
            request.respond(404, None, "not here")
            return
        with request.accept_websocket() as ws:
            ws.send(ws.recv())

    with serving(handle, websocket=True) as server, connect(server) as connection:
        with pytest.raises(InvalidStatus) as caught:
            connection.websocket("/refuse")
        assert caught.value.response.text == "not here"
        ws = connection.websocket("/echo")
        ws.send("still here")
        assert ws.recv() == "still here"
        ws.close()
