"""Streaming POST upload (chunked body).

Why: send a file of many gigabytes to an object store without loading it into memory. It goes in chunks of
16 kB, and where the network is slower than the disk the loop waits for it, and others run.

    python examples/streaming_post.py                            # 8 MB to a server that it starts itself
    python examples/streaming_post.py uploader.example 8443 dump.raw
"""

import os
import sys
import tempfile

from _local import peer

from quicgreen.quicpro import (
    quiche_h3_finish_body,
    quiche_h3_send_body_chunk,
    quicpro_close,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)

host, port = peer("_site.py")

with open(sys.argv[3], "rb") if len(sys.argv) > 3 else tempfile.TemporaryFile() as file:
    if len(sys.argv) <= 3:
        file.write(os.urandom(1 << 20) * 8)
        file.seek(0)

    s = quicpro_connect(host, port)
    sid = quicpro_send_request(s, "/upload", {"content-type": "application/octet-stream"})
    while chunk := file.read(16 * 1024):
        quiche_h3_send_body_chunk(s, sid, chunk)
        quicpro_poll(s, 0)  # one turn of the loop
    quiche_h3_finish_body(s, sid)
    while not (r := quicpro_receive_response(s, sid)):
        quicpro_poll(s, 10)
    print(r["status"], r["text"])
    quicpro_close(s)
