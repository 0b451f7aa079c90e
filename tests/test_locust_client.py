"""Requests and WebSockets of a user, and under which names they count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from helpers.locusts import Reports, make_user
from locust.exception import RescheduleTask
from support import PATIENCE_S, Seen, nothing_left_behind, serving

import quicgreen
from quicgreen.locust import QuicUser
from quicgreen.websocket import ConnectionClosedOK


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def user(reports: Reports, seen: Seen) -> Iterator[QuicUser]:
    with nothing_left_behind(), serving(seen) as server:
        user = make_user(reports, server)
        yield user
        user.client.session.close()


@pytest.mark.parametrize("method", ["get", "head", "options", "post", "put", "patch", "delete"])
def test_each_method(user: QuicUser, seen: Seen, reports: Reports, method: str) -> None:
    getattr(user.client, method)("/x")
    assert (seen.last.method, seen.last.path) == (method.upper(), "/x")
    assert reports.lines == [(method.upper(), "/x", None)]


def test_what_is_sent(user: QuicUser, seen: Seen) -> None:
    user.client.post("/form", {"a": "1"}, params={"q": "2"}, headers={"x-b": "3"}, auth=("me", "secret"))
    assert (seen.last.path, seen.bodies[-1]) == ("/form?q=2", b"a=1")
    assert (seen.last.headers["x-b"], seen.last.headers["authorization"]) == ("3", "Basic bWU6c2VjcmV0")
    user.client.put("/json", json={"a": 1})
    assert seen.bodies[-1] in (b'{"a":1}', b'{"a": 1}')


def test_names(user: QuicUser, reports: Reports) -> None:
    user.client.get("/item/1", name="/item/[id]")
    with user.client.rename_request("/item"):
        user.client.get("/item/2")
        user.client.get("/item/3", name="its own")
    user.client.get("/item/4")
    user.client.get(f"{user.host}/item/5")
    assert [name for _, name, _ in reports.lines] == [
        "/item/[id]",
        "/item",
        "its own",
        "/item/4",
        f"{user.host}/item/5",
    ]


def test_context(user: QuicUser, reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user, "context", lambda: {"user": 1, "step": "none"}, raising=False)
    user.client.get("/", context={"step": "first"})
    assert reports.last["context"] == {"user": 1, "step": "first"}


def test_wrong_arguments_are_raised(user: QuicUser, reports: Reports) -> None:
    """They are the locustfile's fault, and no server's."""
    for wrong in ("no-slash", "http://plain.example/"):
        with pytest.raises(quicgreen.QuicClientException):
            user.client.get(wrong)
    with pytest.raises(TypeError, match="allow_redirects"):
        user.client.get("/", allow_redirects=True)
    assert reports.all == []


def test_a_body_that_is_left_to_be_read(reports: Reports) -> None:
    """What counts is the time to the head; the body comes when it is asked for."""
    go = gevent.event.Event()

    def handle(request: quicgreen.Request) -> None:
        stream = request.start_response(200, {"content-length": "6"})
        stream.write(b"abc")
        go.wait()
        stream.finish(b"def")

    with nothing_left_behind(), serving(handle) as server:
        user = make_user(reports, server)
        with user.client.get("/", stream=True, catch_response=True) as response:
            pieces = response.iter_bytes()
            assert next(pieces) == b"abc"
            gevent.sleep(0.05)
            go.set()
            assert b"".join(pieces) == b"def"
        assert reports.last["response_time"] < response.elapsed * 1000 + 40
        assert reports.last["response_length"] == 6
        assert user.client.get("/", stream=True).content == b"abcdef"
        assert len(reports.all) == 2
        user.client.session.close()


def test_a_timeout_of_a_request(reports: Reports) -> None:
    def handle(request: quicgreen.Request) -> None:
        gevent.sleep(PATIENCE_S)

    with nothing_left_behind(), serving(handle) as server:
        user = make_user(reports, server)
        assert isinstance(user.client.get("/", timeout=0.05).error, quicgreen.QuicTimeoutException)
        assert reports.lines == [("GET", "/", "QuicTimeoutException")]
        user.client.session.close()


# ---------------------------------------------------------------- websockets


class Room:
    """Says back what it hears; "bye" ends it in order, "fall" with an error."""

    def __call__(self, request: quicgreen.Request) -> None:
        if request.path == "/no":
            request.respond(403)
            return
        with request.accept_websocket() as ws:
            for message in ws:
                if message == "bye":
                    ws.close(1000)
                elif message == "fall":
                    ws.close(1011, "fallen")
                elif message != "quiet":
                    ws.send(message)


@pytest.fixture
def chatting(reports: Reports) -> Iterator[QuicUser]:
    with nothing_left_behind(), serving(Room(), websocket=True) as server:
        user = make_user(reports, server)
        yield user
        user.client.session.close()


def test_messages_of_a_websocket(chatting: QuicUser, reports: Reports) -> None:
    with chatting.client.websocket("/chat", name="chat") as ws:
        ws.send("hello")
        assert ws.recv() == "hello"
        assert ws.call(b"four", name="question") == b"four"
    assert reports.lines == [
        ("WS", "chat", None),
        ("WSS", "chat", None),
        ("WSR", "chat", None),
        ("WSC", "question", None),
    ]
    assert [r["response_length"] for r in reports.all] == [0, 5, 5, 4]
    assert all(r["response_time"] > 0 for r in reports.all)
    assert reports.all[0]["url"] == f"{chatting.host}/chat"


def test_a_websocket_that_is_refused(chatting: QuicUser, reports: Reports) -> None:
    with pytest.raises(RescheduleTask) as caught:
        chatting.client.websocket("/no")
    assert reports.lines == [("WS", "/no", "InvalidStatus")]
    assert caught.value.__cause__ is reports.last["exception"]


def test_an_end_in_order_is_no_failure(chatting: QuicUser, reports: Reports) -> None:
    with chatting.client.websocket("/chat") as ws:
        ws.send("bye")
        with pytest.raises(ConnectionClosedOK):
            ws.recv()
    assert reports.lines == [("WS", "/chat", None), ("WSS", "/chat", None)]


@pytest.mark.parametrize("how", ["fall", "quiet"])
def test_what_fails_is_reported_and_ends_the_task(chatting: QuicUser, reports: Reports, how: str) -> None:
    with chatting.client.websocket("/chat") as ws, pytest.raises(RescheduleTask):
        ws.call(how, timeout=0.2 if how == "quiet" else PATIENCE_S)
    exception: Any = reports.last["exception"]
    assert reports.lines[-1][0] == "WSC"
    assert isinstance(exception, TimeoutError) == (how == "quiet")
