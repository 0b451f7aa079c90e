"""A small site for the examples: pages, an upload, and a chat over WebSocket."""

from __future__ import annotations

import hashlib
import json
from itertools import count
from urllib.parse import parse_qs, urlsplit

import gevent
from _local import serve

import quicgreen
from quicgreen.websocket import WebSocket

requests_of: dict[tuple[str, int], count[int]] = {}
"""By client's address, so by connection."""


def handle(request: quicgreen.Request) -> None:
    if request.is_websocket:
        with request.accept_websocket() as ws:
            chat(ws)
        return
    url = urlsplit(request.path)
    if url.path == "/upload":
        upload(request)
    elif url.path == "/data":
        number = next(requests_of.setdefault(request.remote_address, count(1)))
        item = {"id": parse_qs(url.query)["id"][0], "request_on_this_connection": number}
        request.respond(200, {"content-type": "application/json"}, json.dumps(item))
    else:
        request.respond(200, {"content-type": "text/plain"}, f"this is {url.path}\n")


def upload(request: quicgreen.Request) -> None:
    """Takes any length in constant memory."""
    digest, length = hashlib.sha256(), 0
    for piece in request.iter_bytes():
        digest.update(piece)
        length += len(piece)
    seen = {"received": length, "sha256": digest.hexdigest()}
    request.respond(201, {"content-type": "application/json"}, json.dumps(seen))


def chat(ws: WebSocket) -> None:
    """Repeats what it hears, says some things of its own accord, and hangs up."""
    ws.send(f"you said: {ws.recv()}")
    for text in ("somebody came in", "somebody else went out"):
        gevent.sleep(0.1)
        ws.send(f"{text}\n")
    ws.close(1000, "closing time")


if __name__ == "__main__":
    serve(handle, websocket=True)
