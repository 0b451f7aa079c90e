"""`websockets`, the WebSocket server of the asyncio world, over TLS and TCP: it sends back what comes. A
child process of the benchmark (see processes.py).

usage: websockets_server.py CERT KEY [--deflate]
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import ssl
import sys

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

counted = {"messages": 0, "bytes": 0, "open": 0, "compressed": 0}


async def echo(ws: ServerConnection) -> None:
    counted["open"] += 1
    counted["compressed"] += bool(ws.protocol.extensions)
    try:
        async for message in ws:
            counted["messages"] += 1
            counted["bytes"] += len(message)
            await ws.send(message)
    except ConnectionClosed:
        pass
    finally:
        counted["open"] -= 1


async def run(cert: str, key: str, *options: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    compression = "deflate" if "--deflate" in options else None
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def answer_stdin() -> None:
        if sys.stdin.readline():
            print(json.dumps(counted), flush=True)
        else:
            loop.remove_reader(sys.stdin)
            ended.set()

    loop.add_reader(sys.stdin, answer_stdin)
    server = await serve(echo, "127.0.0.1", 0, ssl=context, compression=compression, close_timeout=0.1)
    port = server.sockets[0].getsockname()[1]
    version = importlib.metadata.version("websockets")
    print(json.dumps({"ready": True, "port": port, "version": version}), flush=True)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
