"""Warm start in a FaaS or serverless container.

Why: cut the pain of cold starts on AWS Lambda, Cloud Run and the like: the global survives between
invocations, so repeated calls skip the handshake.

    python examples/faas_warm_start.py                     # with a server that it starts itself
    python examples/faas_warm_start.py api.example 4433
"""

from _local import peer

from quicgreen.quicpro import (
    Session,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)

host, port = peer("_site.py")

GLOBAL_SESS: Session | None = None
"""Survives as long as the container."""


def handler(event: dict[str, int]) -> str:
    global GLOBAL_SESS
    # It may have died while the container was frozen: one turn of the loop tells.
    if GLOBAL_SESS is None or not quicpro_poll(GLOBAL_SESS, 0):
        GLOBAL_SESS = quicpro_connect(host, port)
    id = quicpro_send_request(GLOBAL_SESS, f"/data?id={event['id']}")
    while not (r := quicpro_receive_response(GLOBAL_SESS, id)):
        quicpro_poll(GLOBAL_SESS, 5)
    return r["text"]


if __name__ == "__main__":  # what the platform does
    for number in (1, 2, 3):
        print(handler({"id": number}))
