"""Single GET request (synchronous).

Why: health checks, one-shot scripts, cron jobs, or any task that needs exactly one HTTP/3 request and does
not care about overlap.

    python examples/single_get.py                    # from a server that it starts itself
    python examples/single_get.py example.org 443
"""

from _local import peer

from quicgreen.quicpro import (
    quicpro_close,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)

host, port = peer("_site.py")

sess = quicpro_connect(host, port)
stream = quicpro_send_request(sess, "/")
while not (resp := quicpro_receive_response(sess, stream)):
    quicpro_poll(sess, 20)  # at most 20 ms a time
print(resp["text"], end="")
quicpro_close(sess)
