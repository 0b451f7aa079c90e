"""A language model for the examples: OpenAI's two oldest endpoints, and no great mind.

It takes 0.1 s for a token, as a large one would.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import gevent
from _local import serve

import quicgreen
from quicgreen import sse

TOKEN_S = 0.1

ANSWER = ["Argentina", " won", " the", " 2022", " World", " Cup", "."]


def handle(request: quicgreen.Request) -> None:
    try:
        asked = json.loads(request.read())
        if request.path == "/v1/chat/completions":
            answer_chat(request, asked["messages"], asked.get("stream", False))
        elif request.path == "/v1/completions":
            answer_prompt(request, asked["prompt"])
        else:
            refuse(request, 404, f"there is no {request.path}")
    except (ValueError, KeyError, TypeError) as e:
        refuse(request, 400, f"not understood: {e!r}")


def answer_chat(request: quicgreen.Request, messages: list[dict[str, str]], stream: bool) -> None:
    if stream:
        request.respond(200, {"content-type": "text/event-stream", "cache-control": "no-store"}, tokens())
        return
    gevent.sleep(TOKEN_S * len(ANSWER))
    message = {"role": "assistant", "content": "".join(ANSWER)}
    answer(request, 200, {"choices": [{"index": 0, "message": message}]})


def tokens() -> Iterator[bytes]:
    """Each leaves when it is there."""
    for token in ANSWER:
        gevent.sleep(TOKEN_S)
        yield sse.encode(json.dumps({"choices": [{"index": 0, "delta": {"content": token}}]}))
    yield sse.encode("[DONE]")


def answer_prompt(request: quicgreen.Request, prompt: str) -> None:
    gevent.sleep(5 * TOKEN_S)
    text = f"{prompt.removeprefix('Summarise ')} in short"
    answer(request, 200, {"choices": [{"index": 0, "text": text}]})


def refuse(request: quicgreen.Request, status: int, why: str) -> None:
    answer(request, status, {"error": {"message": why}})


def answer(request: quicgreen.Request, status: int, what: dict[str, object]) -> None:
    request.respond(status, {"content-type": "application/json"}, json.dumps(what))


if __name__ == "__main__":
    serve(handle)
