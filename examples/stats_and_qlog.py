"""Collecting statistics and qlog traces.

Why: to see what congestion control, retransmissions or a handshake do. qlog is the trace format of QUIC:
qvis and Wireshark read it, and so does `quicgreen qlog show FILE`.

    python examples/stats_and_qlog.py                            # with a server that it starts itself
    python examples/stats_and_qlog.py example.org 443 /tmp/example.qlog
"""

import os
import sys
import tempfile

from _local import peer

from quicgreen.quicpro import (
    quicpro_close,
    quicpro_connect,
    quicpro_get_stats,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
    quicpro_set_qlog_path,
)

host, port = peer("_site.py")
path = sys.argv[3] if len(sys.argv) > 3 else os.path.join(tempfile.mkdtemp(), "example.qlog")

s = quicpro_connect(host, port)
quicpro_set_qlog_path(s, path)  # live from here on
id = quicpro_send_request(s, "/")
while not quicpro_receive_response(s, id):
    quicpro_poll(s, 10)
for name, value in quicpro_get_stats(s).items():
    print(f"{name}: {value}")
quicpro_close(s)
print(f"{path}: {os.path.getsize(path)} bytes")
