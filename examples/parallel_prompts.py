"""Ten parallel prompts with fibers.

Why: score a list of reviews, extract keywords or translate many sentences in one process, in the time of
one.

    python examples/parallel_prompts.py                     # to a model that it starts itself
    python examples/parallel_prompts.py llm.example 443
"""

import json

from _local import peer

from quicgreen.quicpro import (
    Fiber,
    quicpro_close,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)

host, port = peer("_llm.py")


def ask(prompt: str) -> str:
    s = quicpro_connect(host, port)
    id = quicpro_send_request(
        s,
        "/v1/completions",
        {"content-type": "application/json"},
        json.dumps({"model": "gpt-4o", "prompt": prompt}),
    )
    while not (r := quicpro_receive_response(s, id)):
        quicpro_poll(s, 5)
    quicpro_close(s)
    text: str = json.loads(r["body"])["choices"][0]["text"]
    return text


prompts = [f"Summarise text {i}" for i in range(1, 11)]
fibers = [Fiber(ask) for _ in prompts]
for f, p in zip(fibers, prompts, strict=True):
    f.start(p)
for idx, f in enumerate(fibers):
    print(f"#{idx} → {f.getReturn()}")
