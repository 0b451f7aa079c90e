"""Single-process async server.

Why: one process serves thousands of clients at a time, each in a fiber that is written as if it were alone.

    python examples/async_server.py                                 # itself, and a client
    python examples/async_server.py '[::]' 4433 cert.pem key.pem    # until it is stopped
"""

import sys

from _local import say_where, start, where_to_serve

from quicgreen.quicpro import (
    Config,
    Fiber,
    Server,
    Session,
    quicpro_close,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)


def handle(s: Session) -> None:
    req = s.receiveRequest()
    path = req.headers().get(":path", "/")
    stream = req.stream()
    stream.respond(200, {"content-type": "text/plain"})
    stream.sendBody(f"echo {path}\n", fin=True)
    s.close()


def serve(host: str, port: int, cert_file: str, key_file: str) -> None:
    cfg = Config.new({"cert_file": cert_file, "key_file": key_file, "alpn": ["h3"]})
    srv = Server(host, port, cfg)
    say_where(*srv.address)
    while sess := srv.accept(100):
        Fiber(handle).start(sess)


def main() -> None:
    host, port = start("async_server.py")
    for path in ("/hello", "/again"):
        s = quicpro_connect(host, port)
        id = quicpro_send_request(s, path)
        while not (r := quicpro_receive_response(s, id)):
            quicpro_poll(s, 5)
        print(r["text"], end="")
        quicpro_close(s)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(*where_to_serve())
    else:
        main()
