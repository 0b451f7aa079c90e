"""A peer: `websockets`, the WebSocket server of the asyncio world, over TLS and TCP.

Paths: /echo; /about sends as JSON what it was asked and what was agreed on, then waits; /close/CODE/REASON;
/status/N refuses; /drop ends the TCP connection without a word; /count/N sends N messages at once.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import signal
import ssl

import ready
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

SUBPROTOCOLS = ["chat", "superchat"]


async def handle(ws):
    what, *arguments = ws.request.path.partition("?")[0].strip("/").split("/")
    try:
        if what == "about":
            about = {
                "headers": [[name.lower(), value] for name, value in ws.request.headers.raw_items()],
                "path": ws.request.path,
                "subprotocol": ws.subprotocol,
                "extensions": [type(e).__name__ for e in ws.protocol.extensions],
            }
            await ws.send(json.dumps(about))
            await ws.wait_closed()
        elif what == "close":
            await ws.close(int(arguments[0]), arguments[1])
        elif what == "drop":
            ws.transport.abort()
        elif what == "count":
            for number in range(int(arguments[0])):
                await ws.send(str(number))
            await ws.wait_closed()
        else:
            async for message in ws:
                await ws.send(message)
    except ConnectionClosed:
        pass


def refuse(ws, request):
    if request.path.startswith("/status/"):
        return ws.respond(int(request.path[8:]), "not for you\n")
    return None


def choose(ws, offered):
    """One of ours, or none: by itself it would refuse who offers none."""
    return next((name for name in offered if name in SUBPROTOCOLS), None)


async def main() -> None:
    options = ready.options()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options["certfile"], options["keyfile"])
    if options.get("ca_certs"):
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(options["ca_certs"])
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with serve(
        handle,
        "127.0.0.1",
        options.get("port", 0),
        ssl=context,
        process_request=refuse,
        subprotocols=SUBPROTOCOLS,
        select_subprotocol=choose,
        max_size=None,
        close_timeout=0.2,
    ) as server:
        host, port = server.sockets[0].getsockname()[:2]
        ready.say(f"websockets/{importlib.metadata.version('websockets')}", host, port)
        await stopped.wait()


asyncio.run(main())
