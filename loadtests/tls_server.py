"""gevent's own server, for locust's own users: HTTP/1.1 over TLS. A child process of the benchmark (see
processes.py).

usage: tls_server.py CERT KEY
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable

import gevent
from gevent.fileobject import FileObjectPosix
from gevent.pywsgi import WSGIServer

counted = {"requests": 0, "connections": 0}


class Counting(WSGIServer):  # type: ignore[misc]
    """Counts connections too."""

    def handle(self, *arguments: object) -> None:
        counted["connections"] += 1
        super().handle(*arguments)


def small(environ: dict[str, object], start_response: Callable[..., object]) -> list[bytes]:
    counted["requests"] += 1
    start_response("200 OK", [("content-length", "11")])
    return [b"hello world"]


def main() -> None:
    cert, key = sys.argv[1:]
    server = Counting(("127.0.0.1", 0), small, certfile=cert, keyfile=key, log=None, backlog=4096)
    server.start()
    version = importlib.metadata.version("gevent")
    print(json.dumps({"ready": True, "port": server.server_port, "version": version}), flush=True)
    for _ in FileObjectPosix(sys.stdin, "r", close=False):
        print(json.dumps(counted), flush=True)
    gevent.get_hub().destroy()


if __name__ == "__main__":
    main()
