"""WebSockets over HTTP/3: our client with hypercorn, aioquic and ourselves; aioquic's client with our server.

What crossed the wire is told by the other side.
"""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from helpers import bodies, frames
from helpers.processes import Peer
from helpers.websockets import Ask, Open, Site, ask_aioquic, closing, our_server, told
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
)

H3_REQUEST_CANCELLED = 0x10C
H3_MESSAGE_ERROR = 0x10E

ENABLE_CONNECT_PROTOCOL = "8"

DEFLATES = [
    "",
    "client_max_window_bits",
    "server_no_context_takeover; client_no_context_takeover",
    "server_max_window_bits=9; client_max_window_bits=9",
]

TEXTS = ["", "a", "κόσμε", *frames.VALID_UTF8, "x" * 125, "y" * 126, "z" * 70_000]
SIZES = [0, 1, 125, 126, 65535, 65536, 300_000]


@pytest.fixture(params=["hypercorn", "aioquic_sockets", "our_sockets"])
def server(request: pytest.FixtureRequest) -> Any:
    """Each server in turn; what they have in common is `url`."""
    return request.getfixturevalue(request.param)


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
    field = ws.response_headers.get("sec-websocket-extensions")
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
    # hypercorn stands still when an application answers so by itself.
    path, status = ("/deny", 403) if "hypercorn" in getattr(server, "name", "") else ("/refuse/404", 404)
    with pytest.raises(InvalidStatus) as caught:
        open_ws(server.url(path))
    assert caught.value.response.status_code == status
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


def test_the_end_of_a_stream_without_a_close(aioquic_sockets: Peer, open_ws: Open) -> None:
    def opened(path: str) -> Any:
        for _ in range(20):
            try:
                return open_ws(aioquic_sockets.url(path))
            except quicgreen.QuicStreamException:  # a reset may overtake the answer (RFC 9000, section 3.2)
                assert "reset" in path
        raise AssertionError(path)

    for path in ("/fin", f"/reset/{H3_REQUEST_CANCELLED}"):
        ws = opened(path)
        closed = closing(ws)
        assert isinstance(closed, ConnectionClosedError)
        assert (closed.code, ws.close_code) == (1006, 1006)
        assert (closed.received, closed.sent) == (None, None)


def test_a_server_that_stops_reading(aioquic_sockets: Peer, open_ws: Open) -> None:
    ws = open_ws(aioquic_sockets.url(f"/stop/{H3_REQUEST_CANCELLED}"), close_timeout=0.2)

    def write() -> None:
        while True:
            ws.send(b"x" * 1000)
            gevent.sleep(0.01)

    with pytest.raises(ConnectionClosedError) as caught:
        write()
    assert caught.value.code == 1006


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
    ws = open_ws(aioquic_sockets.url("/silent"), close_timeout=0.3)
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


# ---------------------------------------------------------------- aioquic's client with our server


def test_aioquic_s_messages(ask: Ask, our_sockets: Site) -> None:
    texts = [["repeat", t[:1], len(t)] if len(t) > 1000 else ["text", t] for t in TEXTS]
    binaries = [["binary", n] for n in SIZES]
    fragments = [
        ["fragments", "text", ["one ", "", "κόσμε", " three"]],
        ["fragments", "binary", ["\x00", "\xff" * 1000, ""]],
    ]
    steps = [*texts, *binaries, *fragments]
    plain = {"steps": [*steps, ["messages", len(steps)], ["close", 1000], ["over"]]}
    compressed = [{**plain, "deflate": d, "fields": {"x-name": f"with '{d}'"}} for d in DEFLATES]
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
        assert socket["messages"][-1][2] == bodies.digest_of(b"\x00" + b"\xff" * 1000)
        assert (socket["close"][0], socket["ended"], socket["reset"]) == (1000, True, None)
    assert [s["deflated"] for s in sockets] == [False, True, True, True, True]
    # What repeats became less on the way.
    assert max(s["bytes"] for s in sockets[1:]) < sockets[0]["bytes"] - 60_000
    assert len(our_sockets.clients) == 1
    assert wait_until(lambda: len(our_sockets.ended) == len(sockets))
    assert {type(e) for e in our_sockets.ended.values()} == {ConnectionClosedOK}


def test_many_sockets_of_aioquic(ask: Ask, our_sockets: Site) -> None:
    end = [["messages", 1], ["pongs", 1], ["close", 1000], ["over"]]
    sockets = ask(*({"steps": [["text", f"from {i}"], ["ping", f"{i}"], *end]} for i in range(100)))
    assert [s["messages"][0][3] for s in sockets] == [f"from {i}" for i in range(100)]
    assert [s["pongs"] for s in sockets] == [[f"{i}"] for i in range(100)]
    assert len(our_sockets.clients) == 1


def test_what_the_opening_says(ask: Ask) -> None:
    chosen, none, wrong, old, missing, refused, other = ask(
        {"subprotocols": ["third", "first", "second"], "steps": [["close", 1000], ["over"]]},
        {"subprotocols": ["third"], "steps": [["close", 1000], ["over"]]},
        {"fields": {"sec-websocket-version": "12"}},
        {"fields": {"sec-websocket-version": "8, 13"}},
        {"fields": {"sec-websocket-version": None}},
        {"path": "/refuse/404"},
        {"fields": {":protocol": "webtransport"}},
    )
    # The server's order: it names "second" first.
    assert (chosen["status"], chosen["fields"]["sec-websocket-protocol"]) == (200, "second")
    assert "sec-websocket-protocol" not in none["fields"]
    assert [s["status"] for s in (wrong, old, missing)] == [400] * 3
    assert wrong["fields"]["sec-websocket-version"] == "13"
    assert refused["status"] == 404
    assert other["status"] == 501  # our handler's word for what is no WebSocket


def test_it_is_announced_only_when_wanted(
    certificate: Certificate, certificates: Authority, ask: Ask, our_sockets: Site
) -> None:
    said = ask_aioquic(our_sockets, certificates)
    assert said["settings"][ENABLE_CONNECT_PROTOCOL] == 1
    site = Site()
    with our_server(certificate, site, websocket=False) as server:
        site.address = server.address
        said = ask_aioquic(site, certificates, {"path": "/echo"})
    assert ENABLE_CONNECT_PROTOCOL not in said["settings"]
    assert (said["sockets"][0]["status"], said["sockets"][0]["reset"]) == (0, H3_MESSAGE_ERROR)
    assert said["closed"] is None


def test_a_large_message_of_aioquic(ask: Ask) -> None:
    size = 16_000_000
    (socket,) = ask({"steps": [["binary", size], ["messages", 1], ["close", 1000], ["over"]]})
    assert socket["messages"][0][1:3] == [size, bodies.digest(size)]


def test_a_flood_of_pings_from_aioquic(ask: Ask) -> None:
    flooded, other = ask(
        {"steps": [["flood", 3000, 0], ["text", "after"], ["messages", 1], ["close", 1000], ["over"]]},
        {"steps": [["text", "beside"], ["messages", 1], ["close", 1000], ["over"]]},
    )
    pongs = [int(p) for p in flooded["pongs"]]
    assert pongs[-1] == 2999
    assert pongs == sorted(set(pongs))
    assert [s["messages"][0][3] for s in (flooded, other)] == ["after", "beside"]


def test_a_flood_of_pings_by_who_takes_no_pongs(ask: Ask, our_sockets: Site) -> None:
    # Pongs that wait are bounded, and so are pings that are read: the rest stays with the peer.
    (socket,) = ask({"steps": [["deaf"], ["flood", 40_000, 120], ["held"], ["disconnect"]]})
    assert 0 < socket["taken"] < 3_500_000  # of five millions; each side's windows are a million
    assert wait_until(lambda: len(our_sockets.ended) == 1)


def test_our_server_pings(ask: Ask) -> None:
    (socket,) = ask({"path": "/flood/100", "steps": [["messages", 1], ["close", 1000], ["over"]]})
    assert socket["pings"] == [f"{i}" for i in range(100)]


def test_our_server_closes(ask: Ask, our_sockets: Site) -> None:
    well, badly = ask(
        {"path": "/close/1001", "steps": [["closed"], ["over"]]},
        {"path": "/close/4321", "steps": [["closed"], ["over"]]},
    )
    assert (well["close"], badly["close"]) == ([1001, "on purpose"], [4321, "on purpose"])
    assert well["ended"]
    assert badly["ended"]
    assert type(our_sockets.ended["/close/1001"]) is ConnectionClosedOK
    assert type(our_sockets.ended["/close/4321"]) is ConnectionClosedError


def test_half_closed_clients(ask: Ask, our_sockets: Site) -> None:
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
    assert wait_until(lambda: len(our_sockets.ended) == len(ends), 20)
    assert {name: (type(e), e.code) for name, e in our_sockets.ended.items()} == {
        name: (ConnectionClosedError, 1006) for name in ends
    }


def test_a_close_with_the_end_of_the_stream_behind_it(ask: Ask, our_sockets: Site) -> None:
    (socket,) = ask({"steps": [["close", 1000], ["fin"], ["closed"], ["over"]]})
    assert socket["close"][0] == 1000
    assert wait_until(lambda: len(our_sockets.ended) == 1)
    assert type(our_sockets.ended["/echo"]) is ConnectionClosedOK


def test_a_connection_that_is_closed_takes_all_its_sockets(ask: Ask, our_sockets: Site) -> None:
    echo = {"steps": [["text", "a"], ["messages", 1]]}
    wanted = [{**echo, "fields": {"x-name": f"{i}"}} for i in range(5)]
    wanted[2] = {**wanted[2], "steps": [*echo["steps"], ["disconnect"]]}
    ask(*wanted)
    assert wait_until(lambda: len(our_sockets.ended) == 5, 20)
    assert {(type(e), e.code) for e in our_sockets.ended.values()} == {(ConnectionClosedError, 1006)}


# ---------------------------------------------------------------- ours with ours


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_64_megabytes(our_sockets: Site, open_ws: Open, compression: str | None) -> None:
    size = 64 << 20 if compression is None else 8 << 20
    ws = open_ws(our_sockets.url("/echo"), compression=compression)
    sending = gevent.spawn(ws.send, bodies.body(size))
    message = ws.recv(timeout=45)
    assert (len(message), bodies.digest_of(message)) == (size, bodies.digest(size))
    sending.get()


def test_a_slow_reader_holds_up_its_writer_only(our_sockets: Site, open_ws: Open) -> None:
    ws = open_ws(our_sockets.url("/endless"), compression=None)
    other = open_ws(our_sockets.url("/echo"))

    def stands_still() -> bool:
        before = our_sockets.sent
        gevent.sleep(0.2)
        return our_sockets.sent == before

    assert wait_until(stands_still, 20)
    held = our_sockets.sent
    for i in range(100):  # whoever reads is not held up by who does not
        other.send(f"{i}")
        assert other.recv() == f"{i}"
    assert our_sockets.sent == held
    numbers = [int.from_bytes(ws.recv()[:4], "big") for _ in range(2 * held + 50)]
    assert numbers == list(range(2 * held + 50))


def test_both_close_at_once(our_sockets: Site, open_ws: Open) -> None:
    for i in range(20):
        name = f"race-{i}"
        ws = open_ws(our_sockets.url("/wait"), additional_headers={"x-name": name})
        assert wait_until(lambda name=name: name in our_sockets.sockets)
        theirs = our_sockets.sockets[name]
        gevent.joinall([gevent.spawn(ws.close, 1000, "c"), gevent.spawn(theirs.close, 1001, "s")])
        assert isinstance(closing(ws), ConnectionClosedOK)
        # Either may have come first.
        assert (ws.close_code, theirs.close_code) in {(1001, 1000), (1000, 1000), (1001, 1001)}


def test_messages_before_a_close_are_received(our_sockets: Site, open_ws: Open) -> None:
    ws = open_ws(our_sockets.url("/echo"))
    for i in range(10):
        ws.send(f"{i}")
    assert wait_until(lambda: "/echo" in our_sockets.sockets)
    got = [ws.recv() for _ in range(10)]
    for i in range(5):
        ws.send(f"last {i}")
    gevent.sleep(0.1)
    our_sockets.sockets["/echo"].close(1001)
    got += ws  # to the end, which is in order
    assert got == [f"{i}" for i in range(10)] + [f"last {i}" for i in range(5)]
