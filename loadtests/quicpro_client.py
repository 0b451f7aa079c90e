"""The measured client of rows h: the documentation's functions on one session that is kept, and `Session`. A
child process of the benchmark (see processes.py).

usage: quicpro_client.py PORT CERT
Commands: {"how": "functions" | "session", "count": REQUESTS}
          {"how": "chunks" | "plain", "count": MEGABYTES}
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.fileobject import FileObjectPosix
from green_client import GREENLETS, repeat
from green_server import LOOPBACK

import quicgreen
from quicgreen.quicpro import (
    quiche_h3_finish_body,
    quiche_h3_send_body_chunk,
    quicpro_close,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)

MEGABYTE = 1_000_000
CHUNK = b"x" * (16 * 1024)
PLAIN_CHUNK = b"x" * 65536


class Load:
    """Requests on one connection, counted."""

    def __init__(self, port: str, cert: str) -> None:
        options = {"ca_file": cert, "max_udp_payload_size": 1350, "discover_pmtu": False}
        self.sess = quicpro_connect("127.0.0.1", int(port), options)
        self.session = quicgreen.Session(verify=cert, config=LOOPBACK)
        self.base = f"https://127.0.0.1:{port}"
        self.body = 0

    def functions(self) -> None:
        """The documentation's loop."""
        stream = quicpro_send_request(self.sess, "/small")
        while not (response := quicpro_receive_response(self.sess, stream)):
            quicpro_poll(self.sess, 5)
        self._count(response["status"], response["body"])

    def session_(self) -> None:
        response = self.session.get(self.base + "/small")
        self._count(response.status_code, response.content)

    def _count(self, status: int, body: bytes) -> None:
        if status != 200:
            raise ValueError(f"status {status}")
        self.body += len(body)

    def chunks(self, size: int) -> None:
        """The documentation's upload."""
        stream = quicpro_send_request(self.sess, "/upload")
        while size:
            piece = CHUNK[:size]
            quiche_h3_send_body_chunk(self.sess, stream, piece)
            quicpro_poll(self.sess, 0)
            size -= len(piece)
        quiche_h3_finish_body(self.sess, stream)
        while not (response := quicpro_receive_response(self.sess, stream)):
            quicpro_poll(self.sess, 10)
        self._count(response["status"], response["body"])

    def plain(self, size: int) -> None:
        def pieces() -> Iterator[bytes]:
            left = size
            while left:
                piece = PLAIN_CHUNK[:left]
                yield piece
                left -= len(piece)

        response = self.session.post(self.base + "/upload", data=pieces())
        self._count(response.status_code, response.content)

    def run(self, how: str, count: int) -> dict[str, Any]:
        self.body = 0
        started = time.perf_counter()
        if how in ("chunks", "plain"):
            getattr(self, how)(count * MEGABYTE)
        else:
            calls = iter(range(count))  # all greenlets take from it
            call: Callable[[], None] = self.functions if how == "functions" else self.session_
            workers = [gevent.spawn(repeat, call, calls) for _ in range(GREENLETS)]
            gevent.joinall(workers, raise_error=True)
        return {"requests": count, "body_received": self.body, "seconds": time.perf_counter() - started}


def main() -> None:
    load = Load(sys.argv[1], sys.argv[2])
    print(json.dumps({"ready": True, "version": quicgreen.__version__}), flush=True)
    for line in FileObjectPosix(sys.stdin, "r", close=False):
        print(json.dumps(load.run(**json.loads(line))), flush=True)
    quicpro_close(load.sess)
    load.session.close()


if __name__ == "__main__":
    main()
