"""A peer: a client made of aioquic. Prints what happened as JSON.

Options
    host, port, ca, server_name     where to; `server_name` is what the certificate must be for
    rounds      a list of connections, one after the other; each a list of requests that are sent together.
                With more than one, the session ticket of a round is used in the next.
    server_names, ports
                one for each round, instead of the one for all
    verify      false: take any certificate
    alpn        another protocol than h3: each request's body goes on a raw stream of its own
    cert, key   a client certificate
    versions    QUIC versions to offer, the first one first
    opens       wait until the server has opened so many raw streams and ended them
    pings       send one ten times a second: after a change of address somebody has to speak first
    ip          send to this address instead of `host`'s
    early       requests of a resumed round leave before the handshake is complete (0-RTT)
    key_update  change the packets' keys before the requests are sent (RFC 9001, section 6)
A request is {"method", "path", "size", "fields", "cancel", "abort"}: `size` bytes of body; `cancel` gives up
reading with H3_REQUEST_CANCELLED once its response has begun; `abort` sends the body without its end, and
RESET_STREAM with that code once its response has begun; `until_stopped` waits for the server's STOP_SENDING
too. Raw: {"size"} or {"text"}.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import ssl

import ready
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import Epoch

from helpers import bodies

VERSION = f"aioquic/{importlib.metadata.version('aioquic')}"


class Answer:
    def __init__(self, until_stopped=False):
        self.until_stopped = until_stopped
        self.status = 0
        self.interim, self.fields, self.trailers = [], [], None
        self.sha, self.length = hashlib.sha256(), 0
        self.reset = None
        self.stopped = None
        self.content = b""
        self.done = asyncio.get_running_loop().create_future()

    def told(self):
        return {
            "status": self.status,
            "interim": self.interim,
            "fields": self.fields,
            "trailers": self.trailers,
            "length": self.length,
            "sha256": self.sha.hexdigest(),
            "content": self.content.decode("latin-1"),
            "reset": self.reset,
            "stopped": self.stopped,
        }

    def take_fields(self, raw):
        fields = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in raw]
        if fields and fields[0][0] != ":status":
            self.trailers = fields
        elif fields[0][1].startswith("1"):
            self.interim.append(int(fields[0][1]))
        else:
            self.status, self.fields = int(fields[0][1]), fields[1:]

    def take_data(self, data):
        self.sha.update(data)
        self.length += len(data)
        if len(self.content) < 65536:  # for answers that are to be read
            self.content = (self.content + data)[:65536]

    def end(self):
        if not self.done.done() and (self.stopped is not None or not self.until_stopped):
            self.done.set_result(None)


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.answers = {}
        self.handshake = {}
        self.closed_with = None
        self.cancelling = set()
        self.aborting = {}
        self.opened = {}  # raw streams that the server opened

    def quic_event_received(self, event):
        if isinstance(event, events.HandshakeCompleted):
            self.handshake = {"alpn": event.alpn_protocol, "resumed": event.session_resumed}
            self.handshake["early"] = event.early_data_accepted
        elif isinstance(event, events.ConnectionTerminated):
            self.closed_with = {"code": event.error_code, "reason": event.reason_phrase}
            for answer in self.answers.values():
                answer.until_stopped = False
                answer.end()
        elif isinstance(event, events.StreamReset) and event.stream_id in self.answers:
            self.answers[event.stream_id].reset = event.error_code
            self.answers[event.stream_id].end()
        elif isinstance(event, events.StopSendingReceived) and event.stream_id in self.answers:
            answer = self.answers[event.stream_id]
            answer.stopped = event.error_code
            if answer.status:
                answer.end()
        if self.http is not None:
            for received in self.http.handle_event(event):
                self.take(received)
        elif isinstance(event, events.StreamDataReceived):
            answer = self.answers.get(event.stream_id) or self.opened.setdefault(event.stream_id, Answer())
            answer.take_data(event.data)
            if event.end_stream:
                answer.end()

    def take(self, received):
        answer = self.answers.get(received.stream_id)
        if answer is None:
            return
        if isinstance(received, HeadersReceived):
            answer.take_fields(received.headers)
            if received.stream_id in self.cancelling and answer.status:
                self.cancelling.remove(received.stream_id)
                self._quic.stop_stream(received.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            elif received.stream_id in self.aborting and answer.status:
                self._quic.reset_stream(received.stream_id, self.aborting.pop(received.stream_id))
        elif isinstance(received, DataReceived):
            answer.take_data(received.data)
        if received.stream_ended:
            answer.end()

    def send(self, request, authority):
        stream = self._quic.get_next_available_stream_id()
        self.answers[stream] = Answer(request.get("until_stopped", False))
        size = request.get("size")
        if self.http is None:
            text = request["text"].encode() if "text" in request else bodies.body(size)
            self._quic.send_stream_data(stream, text, True)
            return self.answers[stream]
        if request.get("cancel"):
            self.cancelling.add(stream)
        fields = [
            (b":method", request.get("method", "GET").encode()),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", request["path"].encode()),
            (b"user-agent", VERSION.encode()),
            *((n.encode("latin-1"), v.encode("latin-1")) for n, v in request.get("fields", [])),
        ]
        self.http.send_headers(stream, fields, size is None)
        if size is not None:
            trailers = request.get("trailers")
            if "abort" in request:
                self.aborting[stream] = request["abort"]
            self.http.send_data(stream, bodies.body(size), trailers is None and "abort" not in request)
            if trailers is not None:
                self.http.send_headers(stream, [(n.encode(), v.encode()) for n, v in trailers], True)
        return self.answers[stream]


async def ping_for_ever(client):
    while True:
        await asyncio.sleep(0.1)
        await client.ping()


async def run_round(options, configuration, requests, tickets):
    raw = "h3" not in configuration.alpn_protocols
    early = bool(options.get("early") and configuration.session_ticket)
    told, clients = {}, []

    def create(*arguments, **more):
        clients.append(Client(*arguments, **more))
        return clients[-1]

    try:
        async with connect(
            options.get("ip", options["host"]),
            options["port"],
            configuration=configuration,
            create_protocol=create,
            session_ticket_handler=tickets.append,
            wait_connected=not early,
        ) as client:
            if not raw:
                client.http = H3Connection(client._quic)
            if options.get("key_update"):
                await client.ping()  # not before the handshake is confirmed
                client.request_key_update()
            authority = f"{options['host']}:{options['port']}"
            answers = [client.send(request, authority) for request in requests]
            client.transmit()
            if options.get("pings"):
                pinging = asyncio.create_task(ping_for_ever(client))
            await asyncio.wait_for(asyncio.gather(*(a.done for a in answers)), 40)
            while sum(a.done.done() for a in client.opened.values()) < options.get("opens", 0):
                await asyncio.sleep(0.01)
            if options.get("pings"):
                pinging.cancel()
            # A ping's answer comes behind the tickets, and behind what the server says to our cancellations.
            if client.closed_with is None:
                await client.ping()
            told = {**client.handshake, "answers": [a.told() for a in answers]}
            told["closed"] = client.closed_with  # by the server: our own end comes after this
            told["opened"] = {stream: a.told() for stream, a in client.opened.items()}
            told["negotiated"] = client._quic._version
            told["key_phase"] = client._quic._cryptos[Epoch.ONE_RTT].recv.key_phase
            told["settings"] = client.http.received_settings if client.http is not None else None
    except ConnectionError as e:
        told["error"] = repr(e)
        told["closed"] = clients[-1].closed_with
    return told


async def main() -> None:
    options = ready.options()
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=options.get("alpn", ["h3"]),
        server_name=options.get("server_name", options["host"]),
        idle_timeout=options.get("idle_timeout", 20),
    )
    configuration.load_verify_locations(options["ca"])
    if "cert" in options:
        configuration.load_cert_chain(options["cert"], options["key"])
    if "versions" in options:
        configuration.supported_versions = options["versions"]
        configuration.original_version = options["versions"][0]
    told, tickets = [], []
    if options.get("verify") is False:
        configuration.verify_mode = ssl.CERT_NONE
    for i, requests in enumerate(options["rounds"]):
        configuration.session_ticket = tickets[-1] if tickets else None
        if "server_names" in options:
            configuration.server_name = options["server_names"][i]
        if "ports" in options:
            options["port"] = options["ports"][i]
        told.append(await run_round(options, configuration, requests, tickets))
    print(json.dumps({"version": VERSION, "rounds": told, "tickets": len(tickets)}))


asyncio.run(main())
