"""What locust is told of a request, and what a locustfile may say of it."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from helpers.locusts import Reports, make_user
from locust.exception import LocustError, ResponseError
from locust.stats import StatsError
from support import PATIENCE_S, nothing_left_behind, serving, url_of

import quicgreen
from quicgreen.locust import QuicUser


def answer(request: quicgreen.Request) -> None:
    what = request.path.partition("?")[0].split("/")[1]
    if what == "status":
        request.respond(int(request.path.split("/")[2]), None, "sorry")
    elif what == "json":
        request.respond(200, {"content-type": "application/json"}, '{"answer": 42}')
    else:
        request.respond(200, {"x-a": "1"}, "hello")


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def user(reports: Reports) -> Iterator[QuicUser]:
    with nothing_left_behind(), serving(answer) as server:
        user = make_user(reports, server)
        yield user
        user.client.session.close()


def test_a_success(user: QuicUser, reports: Reports) -> None:
    response = user.client.get("/a/1?x=1")
    assert (response.status_code, response.ok, response.error) == (200, True, None)
    assert (response.content, response.text, response.headers["x-a"]) == (b"hello", "hello", "1")
    response.raise_for_status()
    [report] = reports.all
    assert report["response"] is response
    assert 0 < report.pop("response_time") < PATIENCE_S * 1000
    assert report.pop("start_time") > 1.6e9
    del report["response"]
    assert report == {
        "request_type": "GET",
        "name": "/a/1?x=1",
        "url": f"{user.host}/a/1?x=1",
        "response_length": 5,
        "exception": None,
        "context": {},
    }


def test_a_status_of_400_or_more_is_a_failure(user: QuicUser, reports: Reports) -> None:
    """Which has the same text for all URLs: locust keeps each text that it is told."""
    responses = [user.client.get(f"/status/404/{i}", name="/status") for i in range(2)]
    assert [(r.status_code, r.ok, r.text) for r in responses] == [(404, False, "sorry")] * 2
    assert reports.lines == [("GET", "/status", "QuicClientException")] * 2
    keys = {StatsError.create_key("GET", "/status", r["exception"]) for r in reports.all}
    assert len(keys) == 1
    assert "404 Not Found" in repr(reports.last["exception"])
    with pytest.raises(quicgreen.QuicClientException, match="404 Not Found"):
        responses[0].raise_for_status()


def test_a_redirect_is_none(user: QuicUser, reports: Reports) -> None:
    assert user.client.get("/status/302").ok
    assert reports.last["exception"] is None


def test_without_a_response(reports: Reports) -> None:
    """Reported and not raised: the user goes on."""
    with serving(answer) as server:
        gone = url_of(server, "")
    user = make_user(reports, gone)
    response = user.client.get("/")
    assert (response.status_code, response.ok, response.content, response.text) == (0, False, None, None)
    assert isinstance(response.error, quicgreen.QuicSocketException)
    assert reports.lines == [("GET", "/", "QuicSocketException")]
    with pytest.raises(quicgreen.QuicSocketException):
        response.raise_for_status()
    with pytest.raises(AttributeError, match="there is no response"):
        _ = response.headers
    user.client.session.close()


def test_a_block_decides(user: QuicUser, reports: Reports) -> None:
    with user.client.get("/", catch_response=True) as response:
        assert reports.all == []  # not before its end
        response.failure("not what I wanted")
    with user.client.get("/status/404", catch_response=True) as response:
        response.success()
    with user.client.get("/status/500", catch_response=True):
        pass
    with user.client.get("/", catch_response=True):
        raise ResponseError("wrong")
    assert reports.lines == [
        ("GET", "/", "CatchResponseError"),
        ("GET", "/status/404", None),
        ("GET", "/status/500", "QuicClientException"),
        ("GET", "/", "ResponseError"),
    ]
    assert str(reports.all[0]["exception"]) == "not what I wanted"


def test_an_error_of_the_task_is_its_own(user: QuicUser, reports: Reports) -> None:
    """As in locust's own clients: it is no matter of the request, which is not reported then."""
    with pytest.raises(ZeroDivisionError), user.client.get("/", catch_response=True):
        raise ZeroDivisionError
    assert reports.all == []


def test_a_block_that_cannot_decide(user: QuicUser, reports: Reports) -> None:
    with pytest.raises(LocustError, match="catch_response=True"), user.client.get("/"):
        pass
    for say in ("success", "failure"):
        with pytest.raises(LocustError, match="catch_response=True"):
            getattr(user.client.get("/"), say)(*["no"] * (say == "failure"))
    assert [r["exception"] for r in reports.all] == [None] * 3


def test_rest(user: QuicUser, reports: Reports) -> None:
    """FastHttpUser's way with JSON."""
    with user.rest("GET", "/json") as response:
        assert response.js == {"answer": 42}
    with user.rest("GET", "/plain") as response:
        assert response.js is None
    with user.rest("GET", "/json") as response:
        assert response.js["answer"] == 43, "wrong answer"
    with user.rest_("GET", "/json"):
        pass
    assert reports.lines == [
        ("GET", "/json", None),
        ("GET", "/plain", "CatchResponseError"),
        ("GET", "/json", "CatchResponseError"),
        ("GET", "/json?_=...", None),
    ]
    assert str(reports.all[2]["exception"]).startswith("wrong answer")


# ---------------------------------------------------------------- events


class Model:
    """Says each token when it is told to."""

    def __init__(self) -> None:
        self.go = gevent.event.Event()
        self.count = 3
        self.cut = False
        self.kind = "text/event-stream; charset=utf-8"

    def __call__(self, request: quicgreen.Request) -> None:
        if request.path == "/busy":
            request.respond(503)
            return
        stream = request.start_response(200, {"content-type": self.kind})
        for number in range(self.count):
            self.go.wait()
            self.go.clear()
            stream.write(b"data: %d\n\n" % number)
        if self.cut:
            self.go.wait()
            raise gevent.GreenletExit
        stream.finish(b"data: [DONE]\n\n")


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def asking(model: Model, reports: Reports) -> Iterator[QuicUser]:
    with nothing_left_behind(), serving(model) as server:
        user = make_user(reports, server)
        yield user
        user.client.session.close()


def test_events_come_as_they_are_made(asking: QuicUser, model: Model, reports: Reports) -> None:
    """The next one is made when this one was seen. Three rows: the whole, to the first, from one to the
    next."""
    model.go.set()
    with asking.client.sse("/chat", json={"q": 1}, name="chat") as events:
        got = []
        for event in events:
            got.append((event.data, events.count))
            if event.data == "[DONE]":
                break  # which is no token
            gevent.sleep(0.01)
            model.go.set()
        assert reports.all == []
    assert got == [("0", 1), ("1", 2), ("2", 3), ("[DONE]", 3)]
    assert reports.lines == [("POST", "chat", None), ("TTFT", "chat", None), ("TPOT", "chat", None)]
    whole, first, each = (r["response_time"] for r in reports.all)
    assert 0 < first == events.first_ms < events.last_ms <= whole
    assert each == (events.last_ms - events.first_ms) / 2 >= 10  # what was slept between two of them
    assert reports.all[0]["response_length"] == len("data: 0\n\n") * 3 + len("data: [DONE]\n\n")
    assert reports.all[0]["response"] is events
    assert events.status_code == 200


def test_a_stream_that_is_cut_off_is_a_failure(asking: QuicUser, model: Model, reports: Reports) -> None:
    model.go.set()
    model.count, model.cut = 1, True
    with asking.client.sse("/chat") as events:
        got = []
        for event in events:
            got.append(event.data)
            model.go.set()
    assert got == ["0"]
    assert reports.lines == [("POST", "/chat", "QuicStreamException")]
    assert events.error is reports.last["exception"]


@pytest.mark.parametrize(
    ("path", "kind", "exception"),
    [("/busy", "text/event-stream", "QuicClientException"), ("/chat", "text/html", "CatchResponseError")],
)
def test_what_is_no_stream_of_events_is_a_failure(
    asking: QuicUser, model: Model, reports: Reports, path: str, kind: str, exception: str
) -> None:
    model.kind = kind
    with asking.client.sse(path) as events:
        assert list(events) == []
    assert reports.lines == [("POST", path, exception)]
    model.go.set()


def test_events_of_nobody(reports: Reports) -> None:
    with serving(answer) as server:
        gone = url_of(server, "")
    user = make_user(reports, gone)
    with user.client.sse("/chat") as events:
        assert (list(events), events.status_code) == ([], 0)
    assert reports.lines == [("POST", "/chat", "QuicSocketException")]
    user.client.session.close()


def test_what_a_block_says_of_events(asking: QuicUser, model: Model, reports: Reports) -> None:
    model.count = 0
    with asking.client.sse("/chat") as events:
        events.failure("too short")
    with asking.client.sse("/busy") as events:
        events.success()
    with pytest.raises(ZeroDivisionError), asking.client.sse("/chat"):
        raise ZeroDivisionError
    assert reports.lines == [
        ("POST", "/chat", "CatchResponseError"),
        ("POST", "/busy", None),
        ("POST", "/chat", "ZeroDivisionError"),
    ]


def test_a_user_that_is_stopped_while_it_listens(asking: QuicUser, model: Model, reports: Reports) -> None:
    """Reports nothing, and leaves nothing."""
    begun = gevent.event.Event()

    def listen() -> None:
        with asking.client.sse("/chat") as events:
            for _ in events:
                begun.set()

    model.go.set()
    listening = gevent.spawn(listen)
    assert begun.wait(PATIENCE_S)
    listening.kill()
    assert reports.all == []
