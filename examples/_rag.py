"""A retrieval-augmented answerer for the examples, over WebSocket.

One line of JSON asks; lines of text answer, then [DONE]. It looks up the passages that share most words with
the question and, as the conversation goes on, with what was asked before: that is the context it keeps.
"""

from __future__ import annotations

import json
import re

import gevent
from _local import serve

import quicgreen

PASSAGES = [
    "E=mc² says that mass and energy are the same thing, in different units.",
    "It follows from special relativity, which Albert Einstein published in 1905.",
    "QUIC carries HTTP/3 over UDP and needs one round trip for its handshake.",
]

SHOWN = 2

COMMON = {"and", "are", "for", "its", "one", "that", "the", "what", "which", "who"}


def words(text: str) -> set[str]:
    """Those that mean something. E-MC² and E=mc² are one."""
    return {w for w in re.findall(r"\w+", text.lower()) if len(w) > 2} - COMMON


def retrieve(question: str, context: set[str]) -> list[str]:
    asked = words(question)
    ranked = sorted(PASSAGES, key=lambda p: (len(asked & words(p)), len(context & words(p))), reverse=True)
    return ranked[:SHOWN]


def handle(request: quicgreen.Request) -> None:
    if not request.is_websocket:
        request.respond(404)
        return
    context: set[str] = set()
    with request.accept_websocket() as ws:
        for message in ws:
            try:
                question = json.loads(message)["ask"]
            except (ValueError, KeyError, TypeError):
                ws.close(1007, 'not understood: {"ask": "..."} is')
                break
            for passage in retrieve(question, context):
                context |= words(passage)
                ws.send(passage + "\n")
                gevent.sleep(0.05)
            ws.send("[DONE]\n")


if __name__ == "__main__":
    serve(handle, websocket=True)
