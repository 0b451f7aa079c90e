"""WebSocket chat client (HTTP/3 CONNECT).

Why: a thin front end for a chat, an event stream, or a push API where the server speaks when it likes.

    python examples/websocket_chat_client.py                 # with a server that it starts itself
    python examples/websocket_chat_client.py chat.example 443
"""

from _local import peer

from quicgreen.quicpro import feof, fgets, fwrite, quicpro_connect

host, port = peer("_site.py")

sess = quicpro_connect(host, port)
ws = sess.upgrade("/chat")  # RFC 9220: CONNECT becomes a WebSocket
fwrite(ws, "hello from Python\n")
while not feof(ws):
    if line := fgets(ws):  # "" is the close
        print("Server:", line, end="", flush=True)
sess.close()
