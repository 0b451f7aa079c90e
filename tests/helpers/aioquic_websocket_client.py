"""A peer: a client of WebSockets made of aioquic and wsproto. Prints what happened as JSON.

Options
    host, ip, port, ca  where to
    sockets             each {"path", "fields", "subprotocols", "deflate", "steps"}; all on one connection, at
                        the same time. `deflate`: the offer's parameters, "" for none of them
Steps, each a list
    text S, repeat S N (a text), binary N (that body), ping S, close CODE REASON
    fragments KIND [S, ...]     a message of so many frames
    raw HEX N                   bytes as they are, N at a time; 0 for all at once
    case N                      the frames of that case in frames.py
    flood N SIZE                so many pings, numbered, of at least SIZE bytes
    deaf                        give no more room for what comes, on this connection
    held                        wait until nothing more of what we sent is taken
    messages N, pongs N, pings N    wait for so many in all
    closed, over                wait for the peer's Close frame; for the end of its stream
    fin, reset CODE, stop CODE  end the sending side, break it off, refuse the other
    disconnect                  close the connection
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json

import ready
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from wsproto.events import BytesMessage, TextMessage

from helpers import bodies
from helpers.aioquic_sockets import Socket, chosen_deflate
from helpers.frames import CASES

VERSION = f"aioquic/{importlib.metadata.version('aioquic')}"

_STEP_S = 25.0


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.sockets = {}
        self.heads = {}
        self.settled = asyncio.Event()
        self.closed_with = None

    def quic_event_received(self, event):
        if isinstance(event, events.ConnectionTerminated):
            self.closed_with = event.error_code
            for socket in self.sockets.values():
                socket.ended = True
                socket.changed.set()
        elif getattr(event, "stream_id", None) in self.sockets and not isinstance(
            event, events.StreamDataReceived
        ):
            self.sockets[event.stream_id].take(event)
        for received in self.http.handle_event(event):
            self.http_event_received(received)
        if self.http.received_settings is not None:
            self.settled.set()

    def http_event_received(self, event):
        stream = getattr(event, "stream_id", None)
        if stream not in self.sockets:
            return
        socket = self.sockets[stream]
        if isinstance(event, HeadersReceived) and stream not in self.heads:
            self.heads[stream] = dict(event.headers)
            if self.heads[stream][b":status"] == b"200":
                field = self.heads[stream].get(b"sec-websocket-extensions", b"").decode()
                socket.open(chosen_deflate(field))
        socket.take(event)

    def open(self, authority, wanted):
        stream = self._quic.get_next_available_stream_id()
        self.sockets[stream] = Socket(self, stream, is_client=True)
        fields = {
            ":method": "CONNECT",
            ":protocol": "websocket",
            ":scheme": "https",
            ":authority": authority,
            ":path": wanted.get("path", "/echo"),
            "sec-websocket-version": "13",
            "user-agent": VERSION,
        }
        if wanted.get("subprotocols"):
            fields["sec-websocket-protocol"] = ", ".join(wanted["subprotocols"])
        if "deflate" in wanted:
            offer = wanted["deflate"]
            fields["sec-websocket-extensions"] = f"permessage-deflate{'; ' if offer else ''}{offer}"
        fields |= wanted.get("fields", {})  # None takes one out
        pairs = [(n.encode(), v.encode("latin-1")) for n, v in fields.items() if v is not None]
        self.http.send_headers(stream, pairs)
        self.transmit()
        return self.sockets[stream]


async def run_step(client, socket, what, *arguments):
    if what == "text":
        socket.send_text(arguments[0])
    elif what == "repeat":
        socket.send_text(arguments[0] * arguments[1])
    elif what == "binary":
        socket.send_binary(bodies.body(arguments[0]))
    elif what == "fragments":
        kind, parts = arguments
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            data = part if kind == "text" else part.encode("latin-1")
            socket.send((TextMessage if kind == "text" else BytesMessage)(data, message_finished=last))
    elif what == "ping":
        socket.send_ping(arguments[0].encode("latin-1"))
    elif what == "flood":
        for i in range(arguments[0]):
            socket.send_ping((b"%d" % i).ljust(arguments[1]))
            if i % 500 == 0:
                await asyncio.sleep(0)
    elif what == "raw":
        await socket.send_chopped(bytes.fromhex(arguments[0]), arguments[1])
    elif what == "case":
        case = CASES[arguments[0]]
        await socket.send_chopped(case.wire(masked=True), case.chop)
    elif what == "deaf":
        client._quic._write_stream_limits = client._quic._write_connection_limits = lambda **_: None
    elif what == "held":
        taken = -1
        while taken != socket.taken:
            taken = socket.taken
            await asyncio.sleep(0.3)
    elif what == "close":
        socket.send_close(*arguments)
    elif what in ("messages", "pongs", "pings"):
        await socket.until(lambda: len(getattr(socket, what)) >= arguments[0] or socket.over)
    elif what == "closed":
        await socket.until(lambda: socket.close is not None or socket.over)
    elif what == "over":
        await socket.until(lambda: socket.over)
    elif what == "fin":
        socket.send_raw(b"", True)
    elif what == "reset":
        socket.abort(*arguments)
    elif what == "stop":
        socket.stop(*arguments)
    elif what == "disconnect":
        client.close()
    else:
        raise ValueError(what)


async def run_socket(client, authority, wanted):
    socket = client.open(authority, wanted)
    told = {}
    try:
        await asyncio.wait_for(socket.until(lambda: socket.stream in client.heads or socket.over), _STEP_S)
        head = client.heads.get(socket.stream, {})
        told = {"status": int(head.get(b":status", 0)), "fields": text_of(head)}
        if socket.ws is not None:
            for step in wanted.get("steps", []):
                told["step"] = step
                await asyncio.wait_for(run_step(client, socket, *step), _STEP_S)
        told["step"] = None
    except asyncio.TimeoutError:
        pass  # `step` says where
    return told | socket.told()


def text_of(head):
    return {n.decode(): v.decode("latin-1") for n, v in head.items()}


async def main() -> None:
    options = ready.options()
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], server_name=options["host"], idle_timeout=30
    )
    configuration.load_verify_locations(options["ca"])
    async with connect(
        options["ip"], options["port"], configuration=configuration, create_protocol=Client
    ) as client:
        await asyncio.wait_for(client.settled.wait(), _STEP_S)
        authority = f"{options['host']}:{options['port']}"
        running = [run_socket(client, authority, wanted) for wanted in options["sockets"]]
        told = await asyncio.gather(*running)
        if not any(["disconnect"] in wanted.get("steps", []) for wanted in options["sockets"]):
            with contextlib.suppress(ConnectionError):  # it may be closed
                await client.ping()  # what we said last has arrived
        settings, closed = client.http.received_settings, client.closed_with
    print(json.dumps({"version": VERSION, "sockets": told, "settings": settings, "closed": closed}))


asyncio.run(main())
