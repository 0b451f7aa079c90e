"""Parallel GETs with fibers.

Why: fetch several pages or API endpoints at once in one process, to warm a cache or to render from them.

    python examples/parallel_gets.py                 # from a server that it starts itself
    python examples/parallel_gets.py example.org 443
"""

from _local import peer

from quicgreen.quicpro import (
    Fiber,
    quicpro_close,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)

host, port = peer("_site.py")


def fetch(path: str) -> str:
    s = quicpro_connect(host, port)
    id = quicpro_send_request(s, path)
    while not (r := quicpro_receive_response(s, id)):
        quicpro_poll(s, 5)  # the other fibers run meanwhile
    quicpro_close(s)
    return r["text"]


jobs = ["/a", "/b", "/c"]
fibers = [Fiber(fetch) for _ in jobs]
for f, path in zip(fibers, jobs, strict=True):
    f.start(path)
for f in fibers:
    print(f.getReturn(), end="")
