"""A server that fails in every way that a client has to live with, by the path that is asked for.

/reset     the answer is broken off after its first bytes
/drop      the connection is closed instead of an answer
/silence   there is no answer
/error     status 503
"""

from __future__ import annotations

import gevent
from _local import say_where, where_to_serve

import quicgreen
from quicgreen.connection import ServerConnection


def handle(connection: ServerConnection) -> None:
    while (request := connection.accept_request()) is not None:
        if request.path == "/reset":
            answer = request.start_response(200)
            answer.write(b"ten bytes.")
            gevent.sleep(0.05)
            answer.reset(0x102)  # H3_INTERNAL_ERROR
        elif request.path == "/drop":
            connection.close(0x102, "on purpose")
        elif request.path == "/error":
            request.respond(503, {"content-type": "text/plain"}, "not now\n")
        elif request.path != "/silence":
            request.respond(200, {"content-type": "text/plain"}, "well\n")


def main() -> None:
    host, port, certfile, keyfile = where_to_serve()
    files = {"certfile": certfile, "keyfile": keyfile}
    with quicgreen.Server((host, port), handle, sessions=True, **files) as server:
        say_where(server.server_host, server.server_port)
        server.serve_forever()


if __name__ == "__main__":
    main()
