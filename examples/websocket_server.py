"""Minimal WebSocket server with fibers (at most 5 chats).

Why: a WebSocket endpoint for few, such as a panel of who is online, without another program beside it. The
budget caps the open chats at five, so the memory it takes is known.

    python examples/websocket_server.py                                # itself, and six clients
    python examples/websocket_server.py :: 4433 cert.pem key.pem       # until it is stopped
"""

import sys

from _local import say_where, start, where_to_serve

from quicgreen.quicpro import (
    Config,
    Fiber,
    QuicException,
    Server,
    Session,
    fclose,
    feof,
    fgets,
    fwrite,
    quicpro_connect,
)

BUDGET = 5
open_chats = 0


def handle(sess: Session) -> None:
    global open_chats
    if open_chats >= BUDGET or not sess.isWebSocket("/chat"):
        sess.close()
        return
    open_chats += 1
    try:
        ws = sess.upgrade("/chat")
        while not feof(ws):
            fwrite(ws, fgets(ws).upper())
        fclose(ws)
        sess.close()
    finally:  # also when the client's network is gone
        open_chats -= 1


def serve(host: str, port: int, cert_file: str, key_file: str) -> None:
    cfg = Config.new({"cert_file": cert_file, "key_file": key_file})
    server = Server(host, port, cfg)
    say_where(*server.address)
    while c := server.accept():
        Fiber(handle).start(c)


def main() -> None:
    host, port = start("websocket_server.py")
    chats = []
    for number in range(1, BUDGET + 2):
        sess = quicpro_connect(host, port)
        try:
            ws = sess.upgrade("/chat")
            fwrite(ws, f"hello from {number}\n")
            print(fgets(ws), end="")
            chats.append((sess, ws))
        except QuicException as e:
            print(f"{number} is not let in: {type(e).__name__}")
    for sess, ws in chats:
        fclose(ws)
        sess.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(*where_to_serve())
    else:
        main()
