"""Streaming chat completion (Server-Sent Events).

Why: show a language model's tokens as they come, without waiting for the whole answer.

    python examples/sse_chat_completion.py                      # from a model that it starts itself
    python examples/sse_chat_completion.py llm.example 443      # OpenAI, Ollama, vLLM behind HTTP/3
"""

import json
import sys

from _local import peer

from quicgreen.quicpro import (
    quicpro_close,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_chunk,
    quicpro_receive_head,
    quicpro_receive_response,
    quicpro_send_request,
)

host, port = peer("_llm.py")

sess = quicpro_connect(host, port)
body = json.dumps(
    {
        "model": "gpt-4o",
        "stream": True,
        "messages": [{"role": "user", "content": "Hello, who won the 2022 World Cup?"}],
    }
)
hdrs = {"content-type": "application/json"}
id = quicpro_send_request(sess, "/v1/chat/completions", hdrs, body)
if quicpro_receive_head(sess, id)["status"] != 200:
    while not (r := quicpro_receive_response(sess, id)):
        quicpro_poll(sess, 10)
    sys.exit(f"status {r['status']}: {r['text']}")

rest = b""
while chunk := quicpro_receive_chunk(sess, id):  # what is there; b"" at the end
    *lines, rest = (rest + chunk).split(b"\n")
    for line in lines:
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            print(json.loads(line[6:])["choices"][0]["delta"].get("content", ""), end="", flush=True)
print()
quicpro_close(sess)
