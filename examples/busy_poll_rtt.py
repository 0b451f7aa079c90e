"""XDP and busy polling: the round trip in microseconds.

Why: on hardware of one's own, trading or telemetry, latency goes down to microseconds when neither system
calls nor the kernel's queues stand in the way. Where AF_XDP cannot be had, as on loopback, the log says why,
and the UDP socket is used. It gains most with QUICPRO_XDP and QUICPRO_BUSY_POLL on the server's side too.

    python examples/busy_poll_rtt.py                     # with a server that it starts itself
    python examples/busy_poll_rtt.py 10.0.0.2 4433 ens6
"""

import logging
import os
import sys

from _local import peer

from quicgreen.quicpro import (
    quicpro_close,
    quicpro_connect,
    quicpro_get_stats,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)

logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)

host, port = peer("_site.py")

os.environ["QUICPRO_XDP"] = sys.argv[3] if len(sys.argv) > 3 else "lo"  # an AF_XDP socket on it
os.environ["QUICPRO_BUSY_POLL"] = "50"  # watch the network for 50 µs before yielding

s = quicpro_connect(host, port)
for _ in range(100):  # the first ones warm up, and the round-trip time is a smoothed one
    id = quicpro_send_request(s, "/ping")
    while not quicpro_receive_response(s, id):
        quicpro_poll(s, 0)
lat = quicpro_get_stats(s)["rtt"]
print(f"RTT: {lat / 1000:.1f} µs")
quicpro_close(s)
