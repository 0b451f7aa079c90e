"""aioquic as a client: a hundred requests at a time on one connection. A child process of the benchmark (see
processes.py).

usage: aioquic_client.py PORT CERT
Commands: {"count": N}
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
import time
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

AT_ONCE = 100


class Client(QuicConnectionProtocol):
    """HTTP/3 on top of aioquic's protocol class, after its own example client."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic)
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self.body = 0

    def quic_event_received(self, event: QuicEvent) -> None:
        for item in self.http.handle_event(event):
            if isinstance(item, HeadersReceived) and (b":status", b"200") not in item.headers:
                raise ValueError(f"not 200: {item.headers}")
            if isinstance(item, DataReceived):
                self.body += len(item.data)
            if isinstance(item, (HeadersReceived, DataReceived)) and item.stream_ended:
                self.waiting.pop(item.stream_id).set_result(None)

    async def get(self, path: str) -> None:
        stream = self._quic.get_next_available_stream_id()
        head = {":method": "GET", ":scheme": "https", ":authority": "127.0.0.1", ":path": path}
        self.http.send_headers(stream, [(k.encode(), v.encode()) for k, v in head.items()], end_stream=True)
        done = self.waiting[stream] = asyncio.get_running_loop().create_future()
        self.transmit()
        await done


async def load(client: Client, count: int) -> dict[str, Any]:
    calls = iter(range(count))
    client.body = 0

    async def worker() -> None:
        for _ in calls:
            await client.get("/small")

    started = time.perf_counter()
    await asyncio.gather(*[worker() for _ in range(AT_ONCE)])
    seconds = time.perf_counter() - started
    return {"requests": count, "body_received": client.body, "seconds": seconds}


async def run(port: int, cert: str) -> None:
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, max_datagram_size=1350)
    configuration.load_verify_locations(cert)
    loop = asyncio.get_running_loop()
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Client) as client:
        assert isinstance(client, Client)
        version = importlib.metadata.version("aioquic")
        print(json.dumps({"ready": True, "version": version}), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await load(client, **json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), sys.argv[2]))
