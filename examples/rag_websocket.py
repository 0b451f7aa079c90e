"""Bidirectional WebSocket to a RAG pipeline.

Why: keep one connection to a retrieval-augmented-generation server, so that each question finds the context
of those before it and no handshake is made again.

    python examples/rag_websocket.py                        # with a server that it starts itself
    python examples/rag_websocket.py rag.example 8443
"""

import json

from _local import peer

from quicgreen.quicpro import fclose, feof, fgets, fwrite, quicpro_connect

host, port = peer("_rag.py")

sess = quicpro_connect(host, port)
ws = sess.upgrade("/chat")  # RFC 9220: CONNECT becomes a WebSocket
for question in ("What is E-MC²?", "And who published it?"):
    fwrite(ws, json.dumps({"ask": question}) + "\n")
    while not feof(ws):
        msg = fgets(ws)
        if "[DONE]" in msg:
            break
        print("Agent says:", msg, end="", flush=True)
fclose(ws)
sess.close()
