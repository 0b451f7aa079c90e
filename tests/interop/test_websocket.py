"""WebSockets over HTTP/3: our client with hypercorn, aioquic and ourselves, and aioquic's client with our server.

What crossed the wire is told by the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from helpers import bodies, frames
from helpers.frames import BINARY, CASES, CLOSE, CONT, PING, TEXT, Case, Frame
from helpers.processes import Peer, run_client
from support import counters, wait_until

import quicgreen
from quicgreen.testing import Authority, Certificate
from quicgreen.websocket import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidStatus,
    PayloadTooBig,
    WebSocket,
)

H3_REQUEST_CANCELLED = 0x10C
H3_MESSAGE_ERROR = 0x10E

ENABLE_CONNECT_PROTOCOL = "8"

LIMIT = 1000
"""Bytes of a message at our server's /limited."""

DEFLATES = [
    "",
    "client_max_window_bits",
    "server_no_context_takeover; client_no_context_takeover",
    "server_max_window_bits=9; client_max_window_bits=9",
]

TEXTS = ["", "a", "κόσμε", *frames.VALID_UTF8, "x" * 125, "y" * 126, "z" * 70_000]
SIZES = [0, 1, 125, 126, 65535, 65536, 300_000]


# ---------------------------------------------------------------- servers and clients


class Site:
    """Our server's handler, and what it saw."""

    def __init__(self) -> None:
        self.address: tuple[str, int] = ("", 0)
        self.ended: dict[str, ConnectionClosed] = {}
        self.sockets: dict[str, WebSocket] = {}
        self.clients: set[tuple[str, int]] = set()
        self.sent = 0
        self.go_on = Event()

    def __call__(self, request: quicgreen.Request) -> None:
        what, *arguments = request.path.strip("/").split("/")
        if not request.is_websocket or what == "refuse":
            request.respond(int(arguments[0]) if arguments else 200, None, "refused")
            return
        self.clients.add(request.remote_address)
        limit = LIMIT if what == "limited" else None
        ws = request.accept_websocket(subprotocols=["second", "first"], max_size=limit, ping_interval=None)
        name = request.headers.get("x-name") or request.path
        self.sockets[name] = ws
        try:
            getattr(self, f"do_{what}")(ws, *arguments)
        except ConnectionClosed as e:
            self.ended[name] = e

    def url(self, path: str = "/echo") -> str:
        return f"https://localhost:{self.address[1]}{path}"

    def do_echo(self, ws: WebSocket) -> None:
        while True:
            ws.send(ws.recv())

    do_limited = do_echo

    def do_send(self, ws: WebSocket, size: str) -> None:
        ws.send(bodies.body(int(size)))
        ws.recv()

    def do_close(self, ws: WebSocket, code: str) -> None:
        ws.close(int(code), "on purpose")
        ws.recv()

    def do_flood(self, ws: WebSocket, count: str) -> None:
        for i in range(int(count)):
            ws.ping(b"%d" % i)
        ws.send("done")
        ws.recv()

    def do_wait(self, ws: WebSocket) -> None:
        self.go_on.wait()
        ws.recv()

    def do_endless(self, ws: WebSocket) -> None:
        block = bytes(10_000)
        while True:
            ws.send(self.sent.to_bytes(4, "big") + block)
            self.sent += 1


@pytest.fixture(scope="module")
def aioquic_sockets(certificate: Certificate) -> Iterator[Peer]:
    with Peer(
        "aioquic_websocket_server.py", certfile=certificate.certfile, keyfile=certificate.keyfile
    ) as peer:
        yield peer.wait_until_it_answers(certificate.ca_certs)


def our_server(certificate: Certificate, site: Site, **options: Any) -> quicgreen.Server:
    return quicgreen.Server(
        ("127.0.0.1", 0),
        site,
        certfile=certificate.certfile,
        keyfile=certificate.keyfile,
        **{"websocket": True, "config": quicgreen.QuicConfiguration(initial_max_streams_bidi=1000), **options},
    )


@pytest.fixture
def ours(certificate: Certificate) -> Iterator[Site]:
    """Our server, in this process."""
    site = Site()
    server = our_server(certificate, site)
    server.start()
    site.address = server.address
    yield site
    site.go_on.set()
    server.stop(timeout=0)


@pytest.fixture(params=["hypercorn", "aioquic_sockets", "ours"])
def server(request: pytest.FixtureRequest) -> Any:
    """Each server in turn; what they have in common is `url`."""
    return request.getfixturevalue(request.param)


Open = Callable[..., WebSocket]


@pytest.fixture
def session(certificates: Authority) -> Iterator[quicgreen.Session]:
    with quicgreen.Session(verify=certificates.ca_certs, timeout=20.0) as session:
        yield session


@pytest.fixture
def open_ws(session: quicgreen.Session) -> Iterator[Open]:
    """Open a WebSocket on the session; all are closed at the end."""
    opened: list[WebSocket] = []

    def open_one(url: str, **options: Any) -> WebSocket:
        # No wait in a test shall end by these.
        defaults = {"max_size": None, "ping_interval": None, "open_timeout": 20, "close_timeout": 50}
        opened.append(session.websocket(url.replace("https:", "wss:"), **{**defaults, **options}))
        return opened[-1]

    with gevent.Timeout(50):
        yield open_one
        for ws in opened:
            ws.close()


def ask_aioquic(site: Site, certificates: Authority, *sockets: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Run sockets of aioquic's client on one connection."""
    host, port = site.address
    given = {"host": "localhost", "ip": host, "port": port, "ca": certificates.ca_certs}
    return run_client("aioquic_websocket_client.py", sockets=list(sockets), **{**given, **options})


Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ask(ours: Site, certificates: Authority) -> Ask:
    """Run sockets of aioquic's client with our server; what each of them got."""

    def run(*sockets: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        told = ask_aioquic(ours, certificates, *sockets, **options)
        assert told["version"].startswith("aioquic/")
        found: list[dict[str, Any]] = told["sockets"]
        assert [s["step"] for s in found if s.get("step")] == []  # one that was waited for in vain
        return found

    return run


def closing(ws: WebSocket) -> ConnectionClosed:
    """How it ends, when nothing more comes."""
    with pytest.raises(ConnectionClosed) as caught:
        ws.recv(timeout=20)
    return caught.value


# ---------------------------------------------------------------- our client with each server


def test_messages_come_back(server: Any, open_ws: Open) -> None:
    ws = open_ws(server.url("/echo"))
    for text in TEXTS:
        ws.send(text)
        assert ws.recv() == text
    for size in SIZES:
        ws.send(bodies.body(size))
        assert ws.recv() == bodies.body(size)
    ws.close()
    assert (ws.close_code, ws.close_reason) == (1000, "")


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_compression_is_what_was_agreed(server: Any, open_ws: Open, compression: str | None) -> None:
    ws = open_ws(server.url("/echo"), compression=compression)
    field = ws.response.headers.get("sec-websocket-extensions")
    assert (field is not None) == (compression is not None)
    for text in [*TEXTS, "a" * 100_000, "", *TEXTS]:
        ws.send(text)
        assert ws.recv() == text
    ws.send(bodies.body(200_000))
    assert ws.recv() == bodies.body(200_000)


def test_a_message_in_fragments(server: Any, open_ws: Open) -> None:
    ws = open_ws(server.url("/echo"))
    ws.send(["one ", "", "κόσμε", " three"])
    assert ws.recv() == "one κόσμε three"
    ws.send([b"\x00", b"\xff" * 70_000, b""])
    assert ws.recv() == b"\x00" + b"\xff" * 70_000


def test_many_messages_in_order(server: Any, open_ws: Open) -> None:
    ws = open_ws(server.url("/echo"))
    sending = gevent.spawn(lambda: [ws.send(f"message {i}") for i in range(500)])
    assert [ws.recv() for _ in range(500)] == [f"message {i}" for i in range(500)]
    sending.get()


def test_a_subprotocol(server: Any, open_ws: Open) -> None:
    assert open_ws(server.url("/echo"), subprotocols=["first", "third"]).subprotocol == "first"
    assert open_ws(server.url("/echo")).subprotocol is None


def test_a_refusal_is_an_answer(server: Any, open_ws: Open, session: quicgreen.Session) -> None:
    with pytest.raises(InvalidStatus) as caught:
        open_ws(server.url("/refuse/404"))
    assert caught.value.response.status_code == 404
    ws = open_ws(server.url("/echo"))  # the connection goes on
    ws.send("still here")
    assert ws.recv() == "still here"


@pytest.mark.parametrize(("code", "kind"), [(1000, ConnectionClosedOK), (4321, ConnectionClosedError)])
def test_the_server_closes(server: Any, open_ws: Open, code: int, kind: type[ConnectionClosed]) -> None:
    ws = open_ws(server.url(f"/close/{code}"))
    closed = closing(ws)
    assert type(closed) is kind
    assert (closed.code, closed.reason) == (ws.close_code, ws.close_reason) == (code, "on purpose")
    with pytest.raises(kind):
        ws.send("too late")
    ws.close()


def test_pings_are_answered(server: Any, open_ws: Open) -> None:
    ws = open_ws(server.url("/echo"))
    pongs = [ws.ping(), ws.ping(b"payload"), ws.ping("text")]
    receiving = gevent.spawn(ws.recv)
    assert all(pong.wait(20) for pong in pongs)
    assert ws.latency > 0
    ws.send("end")
    assert receiving.get() == "end"


@pytest.mark.parametrize("size", [2_000_000])
def test_a_large_message(server: Any, open_ws: Open, size: int) -> None:
    ws = open_ws(server.url("/echo"), compression=None)
    sending = gevent.spawn(ws.send, bodies.body(size))
    assert bodies.digest_of(ws.recv()) == bodies.digest(size)
    sending.get()


def test_many_sockets_on_one_connection(server: Any, open_ws: Open) -> None:
    before = counters()["connections"]
    sockets = [open_ws(server.url("/echo")) for _ in range(50)]
    # Ours counts both ends, which are in this process.
    assert counters()["connections"] - before == (2 if isinstance(server, Site) else 1)
    for i, ws in enumerate(sockets):
        ws.send(f"socket {i}")
    assert [ws.recv() for ws in sockets] == [f"socket {i}" for i in range(50)]
    for ws in sockets[::2]:
        ws.close()
    for i, ws in enumerate(sockets[1::2]):
        ws.send(f"left {i}")
        assert ws.recv() == f"left {i}"


# ---------------------------------------------------------------- our client and what servers may do


def told(session: quicgreen.Session, peer: Peer, name: str) -> dict[str, Any]:
    """What aioquic's server says that its socket got."""
    found: dict[str, Any] = session.get(peer.url(f"/told/{name}")).json()
    return found


def test_the_end_of_a_stream_without_a_close(aioquic_sockets: Peer, open_ws: Open) -> None:
    for path in ("/fin", f"/reset/{H3_REQUEST_CANCELLED}"):
        ws = open_ws(aioquic_sockets.url(path))
        closed = closing(ws)
        assert isinstance(closed, ConnectionClosedError)
        assert (closed.code, ws.close_code) == (1006, 1006)
        assert (closed.received, closed.sent) == (None, None)


def test_a_server_that_stops_reading(aioquic_sockets: Peer, open_ws: Open) -> None:
    ws = open_ws(aioquic_sockets.url(f"/stop/{H3_REQUEST_CANCELLED}"))

    def write() -> None:
        while True:
            ws.send(b"x" * 1000)
            gevent.sleep(0.01)

    writing = gevent.spawn(write)
    writing.join(20)
    assert isinstance(writing.exception, ConnectionClosedError)
    assert writing.exception.code == 1006


def test_a_flood_of_pings_from_the_server(
    aioquic_sockets: Peer, open_ws: Open, session: quicgreen.Session
) -> None:
    ws = open_ws(aioquic_sockets.url("/flood/5000"), additional_headers={"x-name": "flood"})
    assert ws.recv(timeout=30) == "done"
    assert wait_until(lambda: told(session, aioquic_sockets, "flood")["pongs"][-1:] == ["4999"], 20)
    pongs = [int(p) for p in told(session, aioquic_sockets, "flood")["pongs"]]
    assert pongs == sorted(set(pongs))  # RFC 6455, section 5.5.3: the last one may answer all


def test_a_message_that_is_too_large_for_us(
    aioquic_sockets: Peer, open_ws: Open, session: quicgreen.Session
) -> None:
    for compression in (None, "deflate"):
        name = f"large-{compression}"
        ws = open_ws(
            aioquic_sockets.url("/send/1001"),
            max_size=1000,
            compression=compression,
            additional_headers={"x-name": name},
        )
        closed = closing(ws)
        assert closed.code == 1009
        assert isinstance(closed.__cause__, PayloadTooBig)
        assert wait_until(lambda name=name: told(session, aioquic_sockets, name)["close"] is not None, 20)
        assert told(session, aioquic_sockets, name)["close"][0] == 1009
    ws = open_ws(aioquic_sockets.url("/send/1000"), max_size=1000)
    assert ws.recv() == bodies.body(1000)


def test_a_server_that_never_closes(aioquic_sockets: Peer, open_ws: Open) -> None:
    ws = open_ws(aioquic_sockets.url("/slow-close"), close_timeout=0.3)
    ws.send("now be silent")
    ws.close()
    assert ws.close_code == 1006


def test_a_server_that_takes_no_websockets(certificate: Certificate, certificates: Authority) -> None:
    with Peer(
        "aioquic_websocket_server.py",
        certfile=certificate.certfile,
        keyfile=certificate.keyfile,
        connect=False,
    ) as peer:
        peer.wait_until_it_answers(certificate.ca_certs)
        with quicgreen.Session(verify=certificates.ca_certs, timeout=20.0) as session:
            with pytest.raises(InvalidHandshake, match="RFC 9220"):
                session.websocket(peer.url("/echo").replace("https", "wss"))
            assert session.get(peer.url("/version")).status_code == 200


# What stands in a field must be of a field's size.
AS_CLIENT = [c for c in CASES if len(c.wire(masked=False)) < 7000]


@pytest.fixture(scope="module")
def received(
    aioquic_sockets: Peer, certificates: Authority
) -> dict[str, tuple[list[str | bytes], ConnectionClosed, dict[str, Any]]]:
    """What our client got of each case's frames, how that ended, and what the server got of it."""
    found = {}

    def run(session: quicgreen.Session, number: int, case: Case) -> None:
        name = f"case-{number}"
        fields = {"x-wire": case.wire(masked=False).hex(), "x-name": name, "x-chop": str(case.chop)}
        url = aioquic_sockets.url("/wire").replace("https", "wss")
        ws = session.websocket(
            url, additional_headers=fields, compression=None, ping_interval=None, close_timeout=20
        )
        got: list[str | bytes] = []
        if not case.closes:
            got += [ws.recv(timeout=20) for _ in case.messages]
            server_saw = lambda: told(session, aioquic_sockets, name)  # noqa: E731
            wait_until(lambda: len(server_saw()["pongs"]) >= len(case.pongs), 20)
            ws.close()
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                got.append(ws.recv(timeout=20))
        wait_until(lambda: told(session, aioquic_sockets, name)["close"] is not None, 20)
        found[case.name] = (got, caught.value, told(session, aioquic_sockets, name))

    with quicgreen.Session(verify=certificates.ca_certs, timeout=20.0) as session:
        pool = gevent.pool.Pool(20)
        for number, case in enumerate(AS_CLIENT):
            pool.spawn(run, session, number, case)
        pool.join()
    return found


@pytest.mark.parametrize("case", AS_CLIENT, ids=lambda c: c.name)
def test_our_client_does_what_autobahn_asks(received: dict[str, Any], case: Case) -> None:
    messages, closed, server = received[case.name]
    assert messages == case.messages
    assert [p.encode("latin-1") for p in server["pongs"]] == case.pongs
    assert server["close"][0] == case.code
    assert closed.code == case.code
    well = case.code in (1000, 1001, 1005)
    assert isinstance(closed, ConnectionClosedOK if well else ConnectionClosedError)


# ---------------------------------------------------------------- aioquic's client with our server


def test_aioquic_s_messages(ask: Ask, ours: Site) -> None:
    texts = [["text", t] for t in TEXTS]
    binaries = [["binary", n] for n in SIZES]
    fragments = [
        ["fragments", "text", ["one ", "", "κόσμε", " three"]],
        ["fragments", "binary", ["\x00", "\xff" * 70_000, ""]],
    ]
    steps = [*texts, *binaries, *fragments]
    plain = {"steps": [*steps, ["messages", len(steps)], ["close", 1000], ["over"]]}
    compressed = [{**plain, "deflate": d, "fields": {"x-name": d}} for d in DEFLATES]
    sockets = ask(plain, *compressed)
    digests = [bodies.digest_of(t.encode()) for t in TEXTS] + [bodies.digest(n) for n in SIZES]
    for socket in sockets:
        assert socket["status"] == 200
        assert [m[2] for m in socket["messages"][: len(digests)]] == digests
        assert [m[0] for m in socket["messages"]] == ["text"] * len(TEXTS) + ["binary"] * len(SIZES) + [
            "text",
            "binary",
        ]
        assert socket["messages"][-2][3] == "one κόσμε three"
        assert socket["messages"][-1][2] == bodies.digest_of(b"\x00" + b"\xff" * 70_000)
        assert (socket["close"][0], socket["ended"], socket["reset"]) == (1000, True, None)
    assert [s["deflated"] for s in sockets] == [False, True, True, True, True]
    # What repeats became less on the way.
    assert max(s["bytes"] for s in sockets[1:]) < sockets[0]["bytes"] - 60_000
    assert len(ours.clients) == 1
    assert wait_until(lambda: len(ours.ended) == len(sockets))
    assert {type(e) for e in ours.ended.values()} == {ConnectionClosedOK}


def test_many_sockets_of_aioquic(ask: Ask, ours: Site) -> None:
    wanted = [
        {"steps": [["text", f"from {i}"], ["ping", f"{i}"], ["messages", 1], ["pongs", 1], ["close", 1000], ["over"]]}
        for i in range(100)
    ]
    sockets = ask(*wanted)
    assert [s["messages"][0][3] for s in sockets] == [f"from {i}" for i in range(100)]
    assert [s["pongs"] for s in sockets] == [[f"{i}"] for i in range(100)]
    assert len(ours.clients) == 1


def test_what_the_opening_says(ask: Ask) -> None:
    chosen, none, wrong, old, missing, refused, post = ask(
        {"subprotocols": ["third", "first", "second"], "steps": [["close", 1000], ["over"]]},
        {"subprotocols": ["third"], "steps": [["close", 1000], ["over"]]},
        {"fields": {"sec-websocket-version": "12"}},
        {"fields": {"sec-websocket-version": "8, 13"}},
        {"fields": {"sec-websocket-version": None}},
        {"path": "/refuse/404"},
        {"path": "/refuse/200", "fields": {":protocol": "webtransport"}},
    )
    # The server's order: it names "second" first.
    assert (chosen["status"], chosen["fields"]["sec-websocket-protocol"]) == (200, "second")
    assert "sec-websocket-protocol" not in none["fields"]
    assert [s["status"] for s in (wrong, old, missing)] == [400] * 3
    assert wrong["fields"]["sec-websocket-version"] == "13"
    assert refused["status"] == 404
    assert post["status"] in (200, 501)  # nobody said that it would be one


def test_it_is_announced_only_when_wanted(
    certificate: Certificate, certificates: Authority, ask: Ask, ours: Site
) -> None:
    told = ask_aioquic(ours, certificates)
    assert told["settings"][ENABLE_CONNECT_PROTOCOL] == 1
    site = Site()
    with our_server(certificate, site, websocket=False) as server:
        site.address = server.address
        told = ask_aioquic(site, certificates, {"path": "/echo"})
    assert ENABLE_CONNECT_PROTOCOL not in told["settings"]
    assert (told["sockets"][0]["status"], told["sockets"][0]["reset"]) == (0, H3_MESSAGE_ERROR)
    assert told["closed"] is None


def test_a_large_message_of_aioquic(ask: Ask) -> None:
    size = 4_000_000
    (socket,) = ask({"steps": [["binary", size], ["messages", 1], ["close", 1000], ["over"]]})
    assert socket["messages"][0][1:3] == [size, bodies.digest(size)]


def test_a_flood_of_pings_from_aioquic(ask: Ask) -> None:
    flooded, other = ask(
        {"steps": [["flood", 3000], ["text", "after"], ["messages", 1], ["close", 1000], ["over"]]},
        {"steps": [["text", "beside"], ["messages", 1], ["close", 1000], ["over"]]},
    )
    pongs = [int(p) for p in flooded["pongs"]]
    assert pongs[-1] == 2999
    assert pongs == sorted(set(pongs))
    assert [s["messages"][0][3] for s in (flooded, other)] == ["after", "beside"]


def test_our_server_pings(ask: Ask) -> None:
    (socket,) = ask({"path": "/flood/100", "steps": [["messages", 1], ["close", 1000], ["over"]]})
    assert socket["pings"] == [f"{i}" for i in range(100)]


def test_our_server_closes(ask: Ask, ours: Site) -> None:
    well, badly = ask(
        {"path": "/close/1001", "steps": [["closed"], ["over"]]},
        {"path": "/close/4321", "steps": [["closed"], ["over"]]},
    )
    assert (well["close"], badly["close"]) == ([1001, "on purpose"], [4321, "on purpose"])
    assert well["ended"]
    assert badly["ended"]
    assert type(ours.ended["/close/1001"]) is ConnectionClosedOK
    assert type(ours.ended["/close/4321"]) is ConnectionClosedError


def test_half_closed_clients(ask: Ask, ours: Site) -> None:
    """The stream ends one way or another, without a close frame from there."""
    ends = {
        "fin": [["fin"], ["over"]],
        "reset": [["reset", H3_REQUEST_CANCELLED]],
        "fin in a message": [["raw", "0185", 0], ["fin"], ["over"]],
        "stop": [["stop", H3_REQUEST_CANCELLED], ["text", "no answer can leave"]],
    }
    wanted = [
        {"fields": {"x-name": name}, "steps": [["text", "a"], ["messages", 1], *steps]}
        for name, steps in ends.items()
    ]
    ask(*wanted)
    assert wait_until(lambda: len(ours.ended) == len(ends), 20)
    assert {name: (type(e), e.code) for name, e in ours.ended.items()} == {
        name: (ConnectionClosedError, 1006) for name in ends
    }


def test_a_close_with_the_end_of_the_stream_behind_it(ask: Ask, ours: Site) -> None:
    (socket,) = ask({"steps": [["close", 1000], ["fin"], ["closed"], ["over"]]})
    assert socket["close"][0] == 1000
    assert wait_until(lambda: len(ours.ended) == 1)
    assert type(ours.ended["/echo"]) is ConnectionClosedOK


def test_a_connection_that_is_closed_takes_all_its_sockets(ask: Ask, ours: Site) -> None:
    echo = {"steps": [["text", "a"], ["messages", 1]]}
    wanted = [{**echo, "fields": {"x-name": f"{i}"}} for i in range(5)]
    wanted[2] = {**wanted[2], "steps": [*echo["steps"], ["disconnect"]]}
    ask(*wanted)
    assert wait_until(lambda: len(ours.ended) == 5, 20)
    assert {(type(e), e.code) for e in ours.ended.values()} == {(ConnectionClosedError, 1006)}


# ---------------------------------------------------------------- bad input: codes on the wire


@pytest.fixture(scope="module")
def answered(certificate: Certificate, certificates: Authority) -> dict[str, dict[str, Any]]:
    """What our server answers to each case's frames."""
    site = Site()
    wanted = []
    for case in CASES:
        steps: list[list[Any]] = [["raw", case.wire(masked=True).hex(), case.chop]]
        if not case.closes:
            steps += [["messages", len(case.messages)], ["pongs", len(case.pongs)], ["close", 1000]]
        wanted.append({"fields": {"x-name": case.name.encode().hex()}, "steps": [*steps, ["closed"], ["over"]]})
    server = our_server(certificate, site)
    server.start()
    site.address = server.address
    try:
        sockets = ask_aioquic(site, certificates, *wanted)["sockets"]
        wait_until(lambda: len(site.ended) == len(CASES))
    finally:
        server.stop(timeout=0)
    for case, socket in zip(CASES, sockets, strict=True):
        socket["exception"] = site.ended.get(case.name.encode().hex())
    return {case.name: socket for case, socket in zip(CASES, sockets, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_our_server_does_what_autobahn_asks(answered: dict[str, dict[str, Any]], case: Case) -> None:
    socket = answered[case.name]
    assert socket["step"] is None
    got = [content if kind == "text" else content.encode("latin-1") for kind, *_, content in socket["messages"]]
    if case.closes:  # which may come before the echo left
        assert got == case.messages[: len(got)]
    else:
        assert got == case.messages
    assert [p.encode("latin-1") for p in socket["pongs"]] == case.pongs
    assert socket["close"][0] == case.code
    assert socket["ended"] or socket["reset"] is not None
    closed = socket["exception"]
    well = case.code in (1000, 1001, 1005)
    assert type(closed) is (ConnectionClosedOK if well else ConnectionClosedError)
    assert closed.code == case.code


HELLO = Frame(TEXT, b"Hello")

BAD = {
    "unmasked": (HELLO.wire(masked=False), 1002),
    "unmasked ping": (Frame(PING, b"x").wire(masked=False), 1002),
    "a length in more bytes than need be": (HELLO.wire(masked=True, length_bytes=3), 1002),
    "a length in far more bytes than need be": (HELLO.wire(masked=True, length_bytes=9), 1002),
    "a length of 2^63": (bytes.fromhex("82ff8000000000000000") + bytes(4), 1002),
    "rsv1 without an extension": (Frame(TEXT, b"x", rsv=4).wire(masked=True), 1002),
    "too large": (Frame(BINARY, bytes(LIMIT + 1)).wire(masked=True), 1009),
    "too large, said in the head": (bytes.fromhex("82ff0000000100000000") + bytes(4), 1009),
    "too large in parts": (
        Frame(BINARY, bytes(LIMIT), fin=False).wire(masked=True) + Frame(CONT, b"x").wire(masked=True),
        1009,
    ),
    "not UTF-8": (Frame(TEXT, b"\xff").wire(masked=True), 1007),
    "a close of one byte": (Frame(CLOSE, b"\x03").wire(masked=True), 1002),
}


def test_bad_input(ask: Ask, ours: Site) -> None:
    wanted = [
        {"path": "/limited", "fields": {"x-name": n}, "steps": [["raw", wire.hex(), 0], ["closed"], ["over"]]}
        for n, (wire, _) in BAD.items()
    ]
    sockets = ask(*wanted)
    assert {n: s["close"][0] for n, s in zip(BAD, sockets, strict=True)} == {n: code for n, (_, code) in BAD.items()}
    assert wait_until(lambda: len(ours.ended) == len(BAD), 20)
    assert {n: ours.ended[n].code for n in BAD} == {n: code for n, (_, code) in BAD.items()}
    for name in BAD:
        assert type(ours.ended[name]) is ConnectionClosedError
        assert isinstance(ours.ended[name].__cause__, PayloadTooBig) == name.startswith("too large")


def test_bad_compressed_input(ask: Ask, ours: Site) -> None:
    damaged = Frame(TEXT, b"\x06\x00\x00", rsv=4).wire(masked=True)
    not_utf8 = Frame(TEXT, bytes.fromhex("fa0f00"), rsv=4).wire(masked=True)  # inflates to FF
    continued = Frame(TEXT, b"\x00", fin=False, rsv=4).wire(masked=True)
    continued += Frame(CONT, b"\x00", rsv=4).wire(masked=True)
    cases = {
        "damaged": ([["raw", damaged.hex(), 0]], 1002),
        "not UTF-8": ([["raw", not_utf8.hex(), 0]], 1007),
        "rsv1 in a continuation": ([["raw", continued.hex(), 0]], 1002),
        "large": ([["text", "x" * (LIMIT + 1)]], 1009),
        "bomb": ([["text", "x" * 5_000_000]], 1009),
    }
    wanted = [
        {"path": "/limited", "deflate": "", "fields": {"x-name": n}, "steps": [*steps, ["closed"], ["over"]]}
        for n, (steps, _) in cases.items()
    ]
    sockets = ask(*wanted)
    expected = {n: code for n, (_, code) in cases.items()}
    assert {n: s["close"][0] for n, s in zip(cases, sockets, strict=True)} == expected
    assert wait_until(lambda: len(ours.ended) == len(cases), 20)
    assert {n: e.code for n, e in ours.ended.items()} == expected


def test_what_follows_a_close_is_dropped(ask: Ask, ours: Site) -> None:
    wire = [HELLO, frames.close(1000), HELLO, Frame(3), Frame(PING, b"late"), frames.close(4000)]
    data = b"".join(f.wire(masked=True) for f in wire)
    (socket,) = ask({"steps": [["raw", data.hex(), 0], ["closed"], ["over"]]})
    assert socket["close"][0] == 1000
    assert socket["pongs"] == []
    assert len(socket["messages"]) <= 1
    assert wait_until(lambda: len(ours.ended) == 1)
    assert type(ours.ended["/echo"]) is ConnectionClosedOK


# ---------------------------------------------------------------- ours with ours


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_64_megabytes(ours: Site, open_ws: Open, compression: str | None) -> None:
    size = 64 << 20 if compression is None else 8 << 20
    ws = open_ws(ours.url("/echo"), compression=compression)
    sending = gevent.spawn(ws.send, bodies.body(size))
    message = ws.recv(timeout=45)
    assert (len(message), bodies.digest_of(message)) == (size, bodies.digest(size))
    sending.get()


def test_a_slow_reader_holds_up_its_writer_only(ours: Site, open_ws: Open) -> None:
    ws = open_ws(ours.url("/endless"), compression=None)
    other = open_ws(ours.url("/echo"))

    def stands_still() -> bool:
        before = ours.sent
        gevent.sleep(0.2)
        return ours.sent == before

    assert wait_until(stands_still, 20)
    held = ours.sent
    for i in range(100):  # whoever reads is not held up by who does not
        other.send(f"{i}")
        assert other.recv() == f"{i}"
    assert ours.sent == held
    numbers = [int.from_bytes(ws.recv()[:4], "big") for _ in range(2 * held + 50)]
    assert numbers == list(range(2 * held + 50))


def test_both_close_at_once(ours: Site, open_ws: Open) -> None:
    for i in range(20):
        name = f"race-{i}"
        ws = open_ws(ours.url("/wait"), additional_headers={"x-name": name})
        assert wait_until(lambda name=name: name in ours.sockets)
        gevent.joinall([gevent.spawn(ws.close, 1000, "c"), gevent.spawn(ours.sockets[name].close, 1001, "s")])
        assert isinstance(closing(ws), ConnectionClosedOK)
        assert (ws.close_code, ours.sockets[name].close_code) == (1001, 1000)


def test_messages_before_a_close_are_received(ours: Site, open_ws: Open) -> None:
    ws = open_ws(ours.url("/echo"))
    for i in range(10):
        ws.send(f"{i}")
    assert wait_until(lambda: "/echo" in ours.sockets)
    got = [ws.recv() for _ in range(10)]
    for i in range(5):
        ws.send(f"last {i}")
    gevent.sleep(0.1)
    ours.sockets["/echo"].close(1001)
    with pytest.raises(ConnectionClosedOK):
        while True:
            got.append(ws.recv(timeout=20))
    assert got == [f"{i}" for i in range(10)] + [f"last {i}" for i in range(5)]


def test_a_stopped_server_says_that_it_goes_away(
    certificate: Certificate, open_ws: Open
) -> None:
    site = Site()
    server = our_server(certificate, site)
    server.start()
    site.address = server.address
    ws = open_ws(site.url("/echo"))
    ws.send("here")
    assert ws.recv() == "here"
    stopping = gevent.spawn(server.stop, timeout=0.2)
    assert closing(ws).code in (1001, 1006)
    stopping.get()
