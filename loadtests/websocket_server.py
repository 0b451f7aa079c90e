"""The measured server of WebSockets: it sends back what comes. A child process of the benchmark (see
processes.py).

usage: websocket_server.py CERT KEY [--deflate]
"""

from __future__ import annotations

import argparse
import json
import sys

import gevent
from gevent.fileobject import FileObjectPosix
from green_server import LOOPBACK

import quicgreen
from quicgreen.websocket import ConnectionClosed

counted = {"messages": 0, "bytes": 0, "open": 0, "compressed": 0}


def echo(request: quicgreen.Request) -> None:
    """The least that a handler can do, as in websockets_server.py."""
    ws = request.accept_websocket(compression=COMPRESSION)
    counted["open"] += 1
    counted["compressed"] += "sec-websocket-extensions" in ws.response_headers
    try:
        for message in ws:
            counted["messages"] += 1
            counted["bytes"] += len(message)
            ws.send(message)
    except ConnectionClosed:
        pass
    finally:
        counted["open"] -= 1


COMPRESSION: str | None = None


def main() -> None:
    global COMPRESSION
    parser = argparse.ArgumentParser()
    parser.add_argument("cert")
    parser.add_argument("key")
    parser.add_argument("--deflate", action="store_true")
    options = parser.parse_args()
    COMPRESSION = "deflate" if options.deflate else None
    server = quicgreen.Server(
        ("127.0.0.1", 0),
        echo,
        certfile=options.cert,
        keyfile=options.key,
        config=LOOPBACK,
        websocket=True,
    )
    server.start()
    gevent.spawn(answer_stdin, server)
    about = {"ready": True, "port": server.server_port, "version": quicgreen.__version__}
    print(json.dumps(about), flush=True)
    server.serve_forever()


def answer_stdin(server: quicgreen.Server) -> None:
    """Each line asks for the totals; without stdin there is nobody to serve."""
    for _ in FileObjectPosix(sys.stdin, "r", close=False):
        print(json.dumps(counted), flush=True)
    server.close()


if __name__ == "__main__":
    main()
