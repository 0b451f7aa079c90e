"""WebSockets of ours, served and asked for: what the tests with other implementations share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gevent.event import Event

import quicgreen
from quicgreen.testing import Authority, Certificate
from quicgreen.websocket import ConnectionClosed, InvalidHandshake, WebSocket

from .processes import Peer, run_client

Open = Callable[..., WebSocket]
Ask = Callable[..., list[dict[str, Any]]]

LIMIT = 1000
"""Bytes of a message at /limited."""


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
        if not request.is_websocket:
            request.respond(501)
            return
        if what == "refuse":
            request.respond(int(arguments[0]), None, "refused")
            return
        self.clients.add(request.remote_address)
        limit = LIMIT if what == "limited" else None
        try:
            ws = request.accept_websocket(
                subprotocols=["second", "first"], max_size=limit, ping_interval=None
            )
        except InvalidHandshake:
            return  # it was answered
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


def our_server(certificate: Certificate, site: Site, *, websocket: bool = True) -> quicgreen.Server:
    return quicgreen.Server(
        ("127.0.0.1", 0),
        site,
        certfile=certificate.certfile,
        keyfile=certificate.keyfile,
        config=quicgreen.QuicConfiguration(initial_max_streams_bidi=1000),
        websocket=websocket,
    )


def ask_aioquic(site: Site, certificates: Authority, *sockets: dict[str, Any]) -> dict[str, Any]:
    """Run sockets of aioquic's client on one connection."""
    host, port = site.address
    told = run_client(
        "aioquic_websocket_client.py",
        host="localhost",
        ip=host,
        port=port,
        ca=certificates.ca_certs,
        sockets=list(sockets),
    )
    assert told["version"].startswith("aioquic/")
    return told


def closing(ws: WebSocket) -> ConnectionClosed:
    """How it ends, when nothing more comes."""
    with pytest.raises(ConnectionClosed) as caught:
        ws.recv(timeout=20)
    return caught.value


def told(session: quicgreen.Session, peer: Peer, name: str) -> dict[str, Any]:
    """What aioquic's server says that its socket got."""
    found: dict[str, Any] = session.get(peer.url(f"/told/{name}")).json()
    return found
