"""A peer: hypercorn, with the ASGI application below.

Beside routes.py's: /stream/N (no content-length), /drip/N/MS (N pieces, MS apart), /slow/MS.
As WebSockets: /echo, /close/CODE, /deny (which is a 403).
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import socket

import ready
from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.protocol.h3 import H3Protocol

from helpers import bodies, routes

VERSION = f"hypercorn/{importlib.metadata.version('hypercorn')}"


class Gone:
    async def handle(self, event):
        pass


class Streams(dict):
    """hypercorn forgets a WebSocket's stream at the Close frame, and its whole server ends with a KeyError
    when the client then ends the stream, as RFC 9220 wants it to."""

    def __missing__(self, stream):
        return Gone()


def tolerate_ends():
    begin = H3Protocol.__init__

    def begin_tolerant(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        self.streams = Streams()

    H3Protocol.__init__ = begin_tolerant


async def in_websocket(scope, receive, send):
    await receive()
    what, *arguments = scope["path"].strip("/").split("/")
    if what == "deny":
        await send({"type": "websocket.close"})
        return
    subprotocol = scope["subprotocols"][0] if scope["subprotocols"] else None
    fields = [(b"x-peer", VERSION.encode())]
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": fields})
    if what == "close":
        await send({"type": "websocket.close", "code": int(arguments[0]), "reason": "on purpose"})
        return
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await in_websocket(scope, receive, send)
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    what, *arguments = scope["path"].strip("/").split("/")
    if what in ("stream", "drip"):
        await in_pieces(send, what, [int(a) for a in arguments])
        return
    if what == "slow":
        await asyncio.sleep(int(arguments[0]) / 1000)
        what = "version"
    fields = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    path = "/version" if what == "version" else scope["path"]
    status, own, content = routes.answer(scope["method"], path, fields, body, VERSION)
    if status not in (204, 304):
        own.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": status, "headers": own})
    await send({"type": "http.response.body", "body": content})


async def in_pieces(send, what, arguments):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-peer", VERSION.encode())]})
    if what == "stream":
        for block in bodies.blocks(arguments[0]):
            await send({"type": "http.response.body", "body": block, "more_body": True})
    else:
        count, pause_ms = arguments
        for i in range(count):
            await asyncio.sleep(pause_ms / 1000)
            await send({"type": "http.response.body", "body": b"%d\n" % i, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    options = ready.options()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    tcp.bind(("127.0.0.1", 0))
    config = Config()
    config.certfile, config.keyfile = options["certfile"], options["keyfile"]
    config.bind, config.quic_bind = [f"fd://{tcp.detach()}"], [f"fd://{udp.fileno()}"]
    config.errorlog = "-"
    config.graceful_timeout = 0.1
    tolerate_ends()
    host, port = udp.getsockname()
    udp.detach()
    ready.say(VERSION, host, port)
    asyncio.run(serve(app, config))


main()
