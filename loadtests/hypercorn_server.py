"""hypercorn, the HTTP/3 server of the asyncio world, with the least ASGI application. A child process of the
benchmark (see processes.py).

usage: hypercorn_server.py CERT KEY
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import json
import os
import socket
import sys
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.protocol import quic

SMALL = b"hello world"
HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", str(len(SMALL)).encode())],
}

counted = {"requests": 0, "body_sent": 0, "open": 0, "messages": 0, "bytes": 0}


async def echo(receive: Any, send: Any) -> None:
    """A WebSocket that sends back what comes."""
    await receive()  # websocket.connect
    counted["open"] += 1
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        counted["messages"] += 1
        counted["bytes"] += len(message["text"])
        await send({"type": "websocket.send", "text": message["text"]})
    counted["open"] -= 1


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    if scope["type"] != "http":
        raise ValueError("HTTP only")  # tells hypercorn that there is no lifespan
    counted["requests"] += 1  # before the client can have it
    counted["body_sent"] += len(SMALL)
    await send(HEAD)
    await send({"type": "http.response.body", "body": SMALL})


async def run(cert: str, key: str) -> None:
    # Datagrams of the same size as all peers'; hypercorn has no setting for it.
    configuration = functools.partial(QuicConfiguration, max_datagram_size=1350)
    setattr(quic, "QuicConfiguration", configuration)  # noqa: B010 - it is not hypercorn's to export
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.quic_bind = [f"fd://{udp.fileno()}"]  # what comes before it listens waits in the socket
    config.certfile, config.keyfile = cert, key
    config.errorlog = None
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def answer_stdin() -> None:
        if sys.stdin.readline():
            print(json.dumps(counted), flush=True)
        else:
            loop.remove_reader(sys.stdin)
            ended.set()

    loop.add_reader(sys.stdin, answer_stdin)
    version = importlib.metadata.version("hypercorn")
    print(json.dumps({"ready": True, "port": udp.getsockname()[1], "version": version}), flush=True)
    server = asyncio.create_task(serve(application, config, mode="asgi"))
    # It waits for clients that say nothing, so it is not asked to end in its own way.
    await asyncio.wait([server, asyncio.create_task(ended.wait())], return_when=asyncio.FIRST_COMPLETED)
    os._exit(int(server.done()))  # its tasks would complain at length of clients that are still there


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2]))
