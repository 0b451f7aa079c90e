"""Frames as a stranger sends them, over real streams: what we answer, and what our own side is told.

The Autobahn suite's cases for our server and our client, and what else must not be.
"""

from __future__ import annotations

from typing import Any

import gevent
import gevent.pool
import pytest
from helpers import frames
from helpers.frames import BINARY, CASES, CLOSE, CONT, PING, TEXT, Case, Frame
from helpers.processes import Peer
from helpers.websockets import LIMIT, Ask, Site, ask_aioquic, our_server, told
from support import wait_until

import quicgreen
from quicgreen.testing import Authority, Certificate
from quicgreen.websocket import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, PayloadTooBig

# ---------------------------------------------------------------- autobahn


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
        try:
            while True:
                got.append(ws.recv(timeout=20))
        except ConnectionClosed as e:
            closed = e
        wait_until(lambda: told(session, aioquic_sockets, name)["close"] is not None, 20)
        found[case.name] = (got, closed, told(session, aioquic_sockets, name))

    with quicgreen.Session(verify=certificates.ca_certs, timeout=20.0) as session:
        pool = gevent.pool.Pool(20)
        for number, case in enumerate(AS_CLIENT):
            pool.spawn(run, session, number, case)
        pool.join(raise_error=True)
    return found


SECTIONS = pytest.mark.parametrize("section", ["1", "2", "3", "4", "5", "6", "7"])


def of(section: str, cases: list[Case]) -> list[Case]:
    found = [c for c in cases if c.name.startswith(section)]
    assert found
    return found


def kind_of_end(case: Case) -> type[ConnectionClosed]:
    return ConnectionClosedOK if case.code in (1000, 1001, 1005) else ConnectionClosedError


@SECTIONS
def test_our_client_does_what_autobahn_asks(received: dict[str, Any], section: str) -> None:
    for case in of(section, AS_CLIENT):
        messages, closed, server = received[case.name]
        assert messages == case.messages, case.name
        assert [p.encode("latin-1") for p in server["pongs"]] == case.pongs, case.name
        assert (server["close"][0], closed.code, type(closed)) == (case.code, case.code, kind_of_end(case)), (
            case.name
        )


# ---------------------------------------------------------------- bad input: codes on the wire


@pytest.fixture(scope="module")
def answered(certificate: Certificate, certificates: Authority) -> dict[str, dict[str, Any]]:
    """What our server answers to each case's frames."""
    site = Site()
    wanted = []
    for number, case in enumerate(CASES):
        steps: list[list[Any]] = [["case", number]]
        if not case.closes:
            steps += [["messages", len(case.messages)], ["pongs", len(case.pongs)], ["close", 1000]]
        fields = {"x-name": case.name.encode().hex()}
        wanted.append({"fields": fields, "steps": [*steps, ["closed"], ["over"]]})
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


@SECTIONS
def test_our_server_does_what_autobahn_asks(answered: dict[str, dict[str, Any]], section: str) -> None:
    for case in of(section, CASES):
        socket = answered[case.name]
        assert socket["step"] is None, case.name
        got = [m[3] if m[0] == "text" else m[3].encode("latin-1") for m in socket["messages"]]
        # With an end right behind them, that may come before the echo left.
        assert got == (case.messages[: len(got)] if case.closes else case.messages), case.name
        assert [p.encode("latin-1") for p in socket["pongs"]] == case.pongs, case.name
        assert socket["ended"] or socket["reset"] is not None, case.name
        closed = socket["exception"]
        assert (socket["close"][0], closed.code) == (case.code, case.code), case.name
        assert type(closed) is kind_of_end(case), case.name


HELLO = Frame(TEXT, b"Hello")

BAD = {
    "unmasked": (HELLO.wire(masked=False), 1002),
    "unmasked ping": (Frame(PING, b"x").wire(masked=False), 1002),
    "a length in more bytes than need be": (HELLO.wire(masked=True, length_bytes=3), 1002),
    "a length in far more bytes than need be": (HELLO.wire(masked=True, length_bytes=9), 1002),
    "a length of 2^63": (bytes.fromhex("82ff8000000000000000") + bytes(4), 1002),
    "rsv1 without an extension": (Frame(TEXT, b"x", rsv=4).wire(masked=True), 1002),
    "too large": (Frame(BINARY, bytes(LIMIT + 1)).wire(masked=True), 1009),
    "too large in parts": (
        Frame(BINARY, bytes(LIMIT), fin=False).wire(masked=True) + Frame(CONT, b"x").wire(masked=True),
        1009,
    ),
    "not UTF-8": (Frame(TEXT, b"\xff").wire(masked=True), 1007),
    "a close of one byte": (Frame(CLOSE, b"\x03").wire(masked=True), 1002),
}


def test_bad_input(ask: Ask, our_sockets: Site) -> None:
    wanted = [
        {"path": "/limited", "fields": {"x-name": n}, "steps": [["raw", wire.hex(), 0], ["closed"], ["over"]]}
        for n, (wire, _) in BAD.items()
    ]
    sockets = ask(*wanted)
    expected = {n: code for n, (_, code) in BAD.items()}
    assert {n: s["close"][0] for n, s in zip(BAD, sockets, strict=True)} == expected
    assert wait_until(lambda: len(our_sockets.ended) == len(BAD), 20)
    assert {n: e.code for n, e in our_sockets.ended.items()} == expected
    for name in BAD:
        assert type(our_sockets.ended[name]) is ConnectionClosedError
        assert isinstance(our_sockets.ended[name].__cause__, PayloadTooBig) == name.startswith("too large")


def test_bad_compressed_input(ask: Ask, our_sockets: Site) -> None:
    damaged = Frame(TEXT, b"\x06\x00\x00", rsv=4).wire(masked=True)
    not_utf8 = Frame(TEXT, bytes.fromhex("fa0f00"), rsv=4).wire(masked=True)  # inflates to FF
    continued = Frame(TEXT, b"\x00", fin=False, rsv=4).wire(masked=True)
    continued += Frame(CONT, b"\x00", rsv=4).wire(masked=True)
    cases = {
        "damaged": ([["raw", damaged.hex(), 0]], 1002),
        "not UTF-8": ([["raw", not_utf8.hex(), 0]], 1007),
        "rsv1 in a continuation": ([["raw", continued.hex(), 0]], 1002),
        "large": ([["repeat", "x", LIMIT + 1]], 1009),
        "bomb": ([["repeat", "x", 5_000_000]], 1009),
    }
    wanted = [
        {"path": "/limited", "deflate": "", "fields": {"x-name": n}, "steps": [*steps, ["closed"], ["over"]]}
        for n, (steps, _) in cases.items()
    ]
    sockets = ask(*wanted)
    expected = {n: code for n, (_, code) in cases.items()}
    assert {n: s["close"][0] for n, s in zip(cases, sockets, strict=True)} == expected
    assert wait_until(lambda: len(our_sockets.ended) == len(cases), 20)
    assert {n: e.code for n, e in our_sockets.ended.items()} == expected


def test_what_follows_a_close_is_dropped(ask: Ask, our_sockets: Site) -> None:
    wire = [HELLO, frames.close(1000), HELLO, Frame(3), Frame(PING, b"late"), frames.close(4000)]
    data = b"".join(f.wire(masked=True) for f in wire)
    (socket,) = ask({"steps": [["raw", data.hex(), 0], ["closed"], ["over"]]})
    assert socket["close"][0] == 1000
    assert socket["pongs"] == []
    assert len(socket["messages"]) <= 1
    assert wait_until(lambda: len(our_sockets.ended) == 1)
    assert type(our_sockets.ended["/echo"]) is ConnectionClosedOK
