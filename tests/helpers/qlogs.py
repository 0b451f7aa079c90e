"""Qlog files to be read: made by hand, and by aioquic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support import check_python_in_thread

AIOQUIC = """
import asyncio, sys, ssl
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.logger import QuicFileLogger

class Client(QuicConnectionProtocol):
    def quic_event_received(self, event):
        for e in self.http.handle_event(event):
            if e.stream_ended:
                self.done.set()

async def main():
    configuration = QuicConfiguration(alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE)
    configuration.quic_logger = QuicFileLogger(sys.argv[2])
    options = {"configuration": configuration, "create_protocol": Client}
    async with connect("127.0.0.1", int(sys.argv[1]), **options) as c:
        c.done = asyncio.Event()
        c.http = H3Connection(c._quic)
        stream = c._quic.get_next_available_stream_id()
        c.http.send_headers(stream, [(b":method", b"POST"), (b":scheme", b"https"),
                                     (b":authority", b"localhost"), (b":path", b"/aio")])
        c.http.send_data(stream, b"x" * 50_000, end_stream=True)
        c.transmit()
        await asyncio.wait_for(c.done.wait(), 20)

asyncio.run(main())
"""


def of_aioquic(port: int, folder: Path) -> Path:
    """What aioquic wrote of a POST of 50,000 bytes and its answer."""
    check_python_in_thread(AIOQUIC, str(port), str(folder), PYTHONWARNINGS=None)
    (file,) = folder.glob("*.qlog")
    return file


def event(time: float, name: str, **data: Any) -> dict[str, Any]:
    return {"time": time, "name": name, "data": data}


def sent(
    time: float, *frames: dict[str, Any], name: str = "quic:packet_sent", size: int = 100
) -> dict[str, Any]:
    header = {"packet_type": "1RTT", "packet_number": 1}
    return event(time, name, header=header, raw={"length": size}, frames=list(frames))


HEAD = {
    "file_schema": "urn:ietf:params:qlog:file:sequential",
    "serialization_format": "JSON-SEQ",
    "title": "by hand",
    "trace": {
        "vantage_point": {"type": "server"},
        "common_fields": {
            "reference_time": {
                "clock_type": "monotonic",
                "epoch": "unknown",
                "wall_clock_time": "2026-11-25T17:00:00.500Z",
            }
        },
        "event_schemas": ["urn:ietf:params:qlog:events:quic-12"],
    },
}


def write(path: Path, *events: dict[str, Any], head: dict[str, Any] = HEAD) -> Path:
    """A file of JSON-SEQ."""
    path.write_text("".join(f"\x1e{json.dumps(e)}\n" for e in (head, *events)))
    return path
