"""A peer: a server of WebSockets made of aioquic and wsproto.

/echo           each message back, of its own kind
/wire           sends the bytes of the field x-wire (hexadecimal), x-chop at a time, as they are; then listens
/send/N         a binary message: the body of N bytes
/close/CODE     closes as soon as it is open
/fin            ends its side of the stream without a Close frame
/reset/CODE     breaks the stream off
/stop/CODE      refuses the client's side
/flood/N        so many pings, then the text "done"
/silent         answers nothing, not even a Close frame
/refuse/STATUS  an answer with that status and the text "refused"
Over HTTP: /version, and /told/NAME: JSON, what the socket got whose request had x-name: NAME.
Options
    connect     false: SETTINGS do not offer extended CONNECT
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json

import ready
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3Connection, Setting
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration

from helpers import bodies
from helpers.aioquic_sockets import Socket, accepted_deflate

VERSION = f"aioquic/{importlib.metadata.version('aioquic')}"

SOCKETS = {}
OPTIONS = {}


class WithoutConnect(H3Connection):
    def _get_local_settings(self):
        settings = super()._get_local_settings()
        del settings[Setting.ENABLE_CONNECT_PROTOCOL]
        return settings


class Server(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.sockets = {}
        self.tasks = set()

    def quic_event_received(self, event):
        if isinstance(event, events.ProtocolNegotiated):
            self.http = (H3Connection if OPTIONS.get("connect", True) else WithoutConnect)(self._quic)
        elif getattr(event, "stream_id", None) in self.sockets and not isinstance(
            event, events.StreamDataReceived
        ):
            self.sockets[event.stream_id].take(event)
        elif isinstance(event, events.ConnectionTerminated):
            for socket in self.sockets.values():
                socket.take(event)
        if self.http is None:
            return
        for received in self.http.handle_event(event):
            if isinstance(received, HeadersReceived) and received.stream_id not in self.sockets:
                self.begin(received.stream_id, dict(received.headers))
            if isinstance(received, DataReceived) and received.stream_id in self.sockets:
                self.sockets[received.stream_id].take(received)

    def begin(self, stream, head):
        path = head[b":path"].decode()
        if head[b":method"] == b"CONNECT" and head.get(b":protocol") == b"websocket":
            what, *arguments = path.strip("/").split("/")
            self.begin_socket(stream, head, what, arguments)
            return
        if path.startswith("/told/"):
            self.answer(stream, 200, json.dumps(SOCKETS[path.removeprefix("/told/")].told()).encode())
        else:
            self.answer(stream, 200 if path == "/version" else 404, b"")

    def answer(self, stream, status, body):
        head = [(b":status", b"%d" % status), (b"x-peer", VERSION.encode())]
        self.http.send_headers(stream, [*head, (b"content-length", b"%d" % len(body))])
        self.http.send_data(stream, body, True)
        self.transmit()

    def begin_socket(self, stream, head, what, arguments):
        if what == "refuse":
            self.answer(stream, int(arguments[0]), b"refused")
            return
        socket = self.sockets[stream] = Socket(self, stream, is_client=False)
        SOCKETS[head.get(b"x-name", b"").decode()] = socket
        fields = [(b":status", b"200"), (b"x-peer", VERSION.encode())]
        agreed = accepted_deflate(head.get(b"sec-websocket-extensions", b"").decode())
        if agreed is not None:
            fields.append((b"sec-websocket-extensions", agreed[0].encode()))
        if b"sec-websocket-protocol" in head:
            first = head[b"sec-websocket-protocol"].split(b",")[0].strip()
            fields.append((b"sec-websocket-protocol", first))
        self.http.send_headers(stream, fields)
        socket.open(agreed[1] if agreed is not None else None)
        self.transmit()
        run = getattr(self, f"do_{what.replace('-', '_')}")(socket, head, *arguments)
        self.tasks.add(task := asyncio.ensure_future(run))
        task.add_done_callback(self.tasks.discard)

    async def do_echo(self, socket, head):
        socket.on_message = lambda m: socket.send_text(m) if isinstance(m, str) else socket.send_binary(m)
        for message in socket.messages:  # it may have come already
            socket.on_message(message)

    async def do_wire(self, socket, head):
        await socket.send_chopped(bytes.fromhex(head[b"x-wire"].decode()), int(head.get(b"x-chop", b"0")))

    async def do_send(self, socket, head, size):
        socket.send_binary(bodies.body(int(size)))

    async def do_close(self, socket, head, code):
        socket.send_close(int(code), "on purpose")

    async def do_fin(self, socket, head):
        socket.send_raw(b"", True)

    async def do_reset(self, socket, head, code):
        socket.abort(int(code))

    async def do_stop(self, socket, head, code):
        socket.stop(int(code))

    async def do_flood(self, socket, head, count):
        for i in range(int(count)):
            socket.send_ping(b"%d" % i)
            if i % 500 == 0:
                await asyncio.sleep(0)
        socket.send_text("done")

    async def do_silent(self, socket, head):
        socket.ws = None


async def main() -> None:
    OPTIONS.update(ready.options())
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"], idle_timeout=30)
    configuration.load_cert_chain(OPTIONS["certfile"], OPTIONS["keyfile"])
    server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=Server)
    host, port = server._transport.get_extra_info("socket").getsockname()[:2]
    ready.say(VERSION, host, port)
    await asyncio.Event().wait()


asyncio.run(main())
