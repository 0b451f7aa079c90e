"""WebSockets over aioquic's HTTP/3 (RFC 9220), framed by wsproto: what the two aioquic peers share."""

from __future__ import annotations

import asyncio
import hashlib

from aioquic.h3.events import DataReceived
from aioquic.quic import events
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import LocalProtocolError

KEPT = 70_000
"""Longer messages are told by their length and digest only."""


def chosen_deflate(field: str) -> PerMessageDeflate | None:
    """The client's extension, when the server's field says so."""
    if not field:
        return None
    extension = PerMessageDeflate()
    extension.finalize(field)
    return extension


def accepted_deflate(field: str) -> tuple[str, PerMessageDeflate] | None:
    """The server's answer to a field with one offer of it."""
    extension = PerMessageDeflate()
    if not field.startswith("permessage-deflate"):
        return None
    answer = extension.accept(field)
    return f"permessage-deflate{'; ' if answer else ''}{answer}", extension


class Socket:
    """One on a stream. It answers pings and a close by itself, and remembers what it got."""

    def __init__(self, protocol, stream, *, is_client):
        self.protocol = protocol
        self.stream = stream
        self.role = ConnectionType.CLIENT if is_client else ConnectionType.SERVER
        self.ws = None
        self.deflated = False
        self.messages, self.pings, self.pongs = [], [], []
        self.close = self.reset = self.stopped = None
        self.ended = self.fin_sent = False
        self.bytes_received = 0
        self.changed = asyncio.Event()
        self.on_message = None
        self._parts = []

    def open(self, extension=None):
        self.deflated = extension is not None
        self.ws = Connection(self.role, [extension] if extension is not None else [])

    # ---------------------------------------------------------------- out

    def send_raw(self, data, fin=False):
        if self.fin_sent or self.reset is not None or self.stopped is not None:
            return
        self.fin_sent = fin
        self.protocol.http.send_data(self.stream, bytes(data), fin)
        self.protocol.transmit()

    async def send_chopped(self, data, size):
        for i in range(0, len(data), size or len(data)):
            self.send_raw(data[i : i + (size or len(data))])
            await asyncio.sleep(0)

    def send(self, event):
        try:
            data = self.ws.send(event)
        except LocalProtocolError:
            return  # it is closing
        # The end of the stream is the end of the connection below (RFC 9220, section 3).
        self.send_raw(data, fin=isinstance(event, CloseConnection) and self.close is not None)

    def send_text(self, text):
        self.send(TextMessage(text))

    def send_binary(self, data, finished=True):
        self.send(BytesMessage(data, message_finished=finished))

    def send_ping(self, payload=b""):
        self.send(Ping(payload))

    def send_close(self, code=1000, reason=None):
        self.send(CloseConnection(code, reason))

    def abort(self, code):
        self.protocol._quic.reset_stream(self.stream, code)
        self.protocol.transmit()

    def stop(self, code):
        self.protocol._quic.stop_stream(self.stream, code)
        self.protocol.transmit()

    # ---------------------------------------------------------------- in

    def take(self, event):
        """One of aioquic's, of HTTP/3 or of QUIC."""
        if isinstance(event, DataReceived) and self.ws is not None:
            self.bytes_received += len(event.data)
            if event.data and self.ws.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
                self.ws.receive_data(event.data)
                for received in self.ws.events():
                    self.take_message(received)
        elif isinstance(event, events.StreamReset):
            self.reset = event.error_code
        elif isinstance(event, events.StopSendingReceived):
            self.stopped = event.error_code
        elif isinstance(event, events.ConnectionTerminated):
            self.ended = True
        if getattr(event, "stream_ended", False):
            self.ended = True
        self.changed.set()

    def take_message(self, event):
        if isinstance(event, Message):
            self._parts.append(event.data)
            if event.message_finished:
                whole = ("" if isinstance(event, TextMessage) else b"").join(self._parts)
                self._parts = []
                self.messages.append(whole)
                if self.on_message is not None:
                    self.on_message(whole)
        elif isinstance(event, Ping):
            self.pings.append(bytes(event.payload))
            self.send(event.response())
        elif isinstance(event, Pong):
            self.pongs.append(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            self.close = [int(event.code), event.reason]
            if self.ws.state is ConnectionState.REMOTE_CLOSING:
                self.send(event.response())
            elif not self.fin_sent:
                self.send_raw(b"", True)

    @property
    def over(self):
        return self.ended or self.reset is not None

    @property
    def taken(self):
        """Bytes of ours that the peer has acknowledged."""
        stream = self.protocol._quic._streams.get(self.stream)
        return stream.sender._buffer_start if stream is not None else 0

    async def until(self, condition):
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    def told(self):
        return {
            "messages": [told(m) for m in self.messages],
            "pings": [p.decode("latin-1") for p in self.pings],
            "pongs": [p.decode("latin-1") for p in self.pongs],
            "close": self.close,
            "ended": self.ended,
            "reset": self.reset,
            "stopped": self.stopped,
            "deflated": self.deflated,
            "bytes": self.bytes_received,
            "taken": self.taken,
        }


def told(message):
    """[kind, length, digest, the message itself when it is short and text or latin-1 of it]."""
    data = message.encode() if isinstance(message, str) else bytes(message)
    kind = "text" if isinstance(message, str) else "binary"
    content = (message if kind == "text" else data.decode("latin-1")) if len(data) <= KEPT else None
    return [kind, len(data), hashlib.sha256(data).hexdigest(), content]
