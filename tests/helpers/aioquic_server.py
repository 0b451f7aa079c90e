"""A peer: a server made of aioquic, HTTP/3 or, with another protocol in `alpn`, raw streams.

Beside routes.py's:
    /stream/N      no content-length
    /slow/MS       answers after MS milliseconds
    /silence       never answers
    /trailers      a body, and trailers
    /hints         two informational responses before the final one
    /early         answers 413 as soon as the head is there, and stops reading (H3_NO_ERROR)
    /reset/CODE    a head, ten bytes, then RESET_STREAM
    /refuse        RESET_STREAM with H3_REQUEST_REJECTED, nothing else
    /goaway        CONNECTION_CLOSE with H3_NO_ERROR instead of an answer
    /breach        a frame that may not be there (H3_FRAME_UNEXPECTED)
    /short/N       announces N bytes and sends one less
    /frame/TYPE    an HTTP/3 frame of this type (hexadecimal) before the answer
    /quic-frame/TYPE
                   a QUIC frame of this type instead of an answer
    /blames/TYPE   CONNECTION_CLOSE for a QUIC frame of this type, which did not come
    /counters      JSON: what this server has seen, and the codes with which clients closed
Options
    tickets     "early": offers session tickets and takes early data; "forgets": offers them and knows none
                when it sees one again
Raw: a stream is answered with "length:digest:" of what came and the same bytes; "open N" makes the server
open a bidirectional and a unidirectional stream with N bytes each.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json

import ready
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration

from helpers import bodies, routes

VERSION = f"aioquic/{importlib.metadata.version('aioquic')}"

COUNTERS = {
    "handshakes": 0,
    "resumed": 0,
    "early": 0,
    "requests": 0,
    "resets": 0,
    "stops": 0,
    "terminated": 0,
    "codes": [],
}


class Http(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.requests = {}

    def quic_event_received(self, event):
        count(event)
        if isinstance(event, events.ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is None:
            return
        for received in self.http.handle_event(event):
            if isinstance(received, HeadersReceived) and received.stream_id not in self.requests:
                self.requests[received.stream_id] = (received.headers, [])
                self.at_head(received.stream_id, received.headers)
            elif isinstance(received, DataReceived):
                self.requests[received.stream_id][1].append(received.data)
            if received.stream_ended and received.stream_id in self.requests:
                fields, pieces = self.requests[received.stream_id]
                self.at_end(received.stream_id, fields, b"".join(pieces))

    def at_head(self, stream, fields):
        COUNTERS["requests"] += 1
        if dict(fields)[b":path"] == b"/early":
            self.head(stream, 413)
            self.http.send_data(stream, b"enough", True)
            self._quic.stop_stream(stream, ErrorCode.H3_NO_ERROR)
            self.transmit()

    def at_end(self, stream, fields, body):
        pseudo = dict(fields)
        path = pseudo[b":path"].decode()
        what, *arguments = path.strip("/").split("/")
        special = getattr(self, f"do_{what.replace('-', '_')}", None)
        if special is not None:
            special(stream, *arguments)
        elif what != "early":
            method = pseudo[b":method"].decode()
            regular = [(n, v) for n, v in fields if not n.startswith(b":")]
            status, own, content = routes.answer(method, path, regular, body, VERSION)
            if status not in (204, 304):
                own.append((b"content-length", b"%d" % len(content)))
            self.http.send_headers(stream, [(b":status", b"%d" % status), *own])
            self.http.send_data(stream, b"" if method == "HEAD" else content, True)
        self.transmit()

    def head(self, stream, status=200, *fields):
        self.http.send_headers(stream, [(b":status", b"%d" % status), (b"x-peer", VERSION.encode()), *fields])

    def do_stream(self, stream, size):
        self.head(stream)
        for block in bodies.blocks(int(size)):
            self.http.send_data(stream, block, False)
        self.http.send_data(stream, b"", True)

    def do_slow(self, stream, pause_ms):
        def answer():
            self.head(stream)
            self.http.send_data(stream, b"at last", True)
            self.transmit()

        asyncio.get_running_loop().call_later(int(pause_ms) / 1000, answer)

    def do_silence(self, stream):
        pass

    def do_trailers(self, stream):
        self.head(stream)
        self.http.send_data(stream, b"body", False)
        self.http.send_headers(stream, [(b"x-checksum", b"abc"), (b"x-end", b"1")], True)

    def do_hints(self, stream):
        for _ in range(2):
            self.http.send_headers(stream, [(b":status", b"103"), (b"link", b"</a.css>")])
        self.head(stream)
        self.http.send_data(stream, b"final", True)

    def do_reset(self, stream, code):
        self.head(stream)
        self.http.send_data(stream, b"ten bytes.", False)
        # Behind the bytes, which would else be dropped with the rest of the stream.
        asyncio.get_running_loop().call_later(0.05, self.reset, stream, int(code))

    def do_refuse(self, stream):
        self.reset(stream, ErrorCode.H3_REQUEST_REJECTED)

    def reset(self, stream, code):
        self._quic.reset_stream(stream, code)
        self.transmit()

    def do_goaway(self, stream):
        self._quic.close(error_code=ErrorCode.H3_NO_ERROR, reason_phrase="maintenance")

    def do_breach(self, stream):
        # SETTINGS on a request stream (RFC 9114, section 7.2.4).
        self._quic.send_stream_data(stream, encode_uint_var(4) + encode_uint_var(0))

    def do_short(self, stream, size):
        self.head(stream, 200, (b"content-length", size.encode()))
        self.http.send_data(stream, b"x" * (int(size) - 1), True)

    def do_frame(self, stream, kind):
        self._quic.send_stream_data(stream, encode_uint_var(int(kind, 16)) + encode_uint_var(3) + b"???")
        self.head(stream)
        self.http.send_data(stream, b"after it", True)

    def do_quic_frame(self, stream, kind):
        # aioquic sends what it knows; here a PING becomes something else.
        self._quic._write_ping_frame = lambda builder, *rest: builder.start_frame(int(kind, 16), capacity=16)
        self._quic.send_ping(1)

    def do_blames(self, stream, kind):
        self._quic.close(error_code=7, frame_type=int(kind, 16), reason_phrase="never heard of it")

    def do_counters(self, stream):
        self.head(stream)
        self.http.send_data(stream, json.dumps(COUNTERS).encode(), True)


class Raw(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.received = {}

    def quic_event_received(self, event):
        count(event)
        if not isinstance(event, events.StreamDataReceived):
            return
        text = self.received[event.stream_id] = self.received.get(event.stream_id, b"") + event.data
        if not event.end_stream:
            return
        if text.startswith(b"open "):
            body = bodies.body(int(text[5:]))
            for unidirectional in (False, True):
                stream = self._quic.get_next_available_stream_id(is_unidirectional=unidirectional)
                self._quic.send_stream_data(stream, body, True)
        if not event.stream_id & 2:
            head = f"{len(text)}:{bodies.digest_of(text)}:".encode()
            self._quic.send_stream_data(event.stream_id, head + text, True)
        self.transmit()


def count(event):
    if isinstance(event, events.HandshakeCompleted):
        COUNTERS["handshakes"] += 1
        COUNTERS["resumed"] += event.session_resumed
        COUNTERS["early"] += event.early_data_accepted
    elif isinstance(event, events.StreamReset):
        COUNTERS["resets"] += 1
    elif isinstance(event, events.StopSendingReceived):
        COUNTERS["stops"] += 1
    elif isinstance(event, events.ConnectionTerminated):
        COUNTERS["terminated"] += 1
        COUNTERS["codes"] = [*COUNTERS["codes"], event.error_code][-50:]


async def main() -> None:
    options = ready.options()
    alpn = options.get("alpn", ["h3"])
    configuration = QuicConfiguration(is_client=False, alpn_protocols=alpn, idle_timeout=10)
    configuration.load_cert_chain(options["certfile"], options["keyfile"])
    tickets, wanted = {}, options.get("tickets")
    server = await serve(
        options.get("host", "127.0.0.1"),
        0,
        configuration=configuration,
        create_protocol=Http if "h3" in alpn else Raw,
        retry=options.get("retry", False),
        session_ticket_handler=(lambda t: tickets.update({t.ticket: t})) if wanted else None,
        # Each is good for one connection.
        session_ticket_fetcher=(lambda name: tickets.pop(name, None) if wanted == "early" else None),
    )
    host, port = server._transport.get_extra_info("socket").getsockname()[:2]
    ready.say(VERSION, host, port)
    await asyncio.Event().wait()


asyncio.run(main())
