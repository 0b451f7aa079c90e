"""Ticket resumption over several workers: whoever issued a client's ticket, any worker takes it.

Why: behind one port a client comes back to another worker than the last time, and with most servers its
ticket is then worth nothing. Here workers share the keys and the register of early data, so it resumes, and
its GET is in the first packet (0-RTT), wherever it lands.

    python examples/ticket_resumption_multiworker.py 4              # 127.0.0.1:4433, until it is stopped
    python examples/ticket_resumption_multiworker.py 4 --port 443 --cert cert.pem --key key.pem
    quicgreen fetch -k -v https://127.0.0.1:4433/a     # again and again: other workers, "TLS session resumed"
"""

from __future__ import annotations

import argparse
import os
import sys

import quicgreen


def handle(request: quicgreen.Request) -> None:
    worker = os.environ["QUICGREEN_WORKER"]
    early = "yes" if request.early_data else "no"
    request.respond(
        200,
        {"content-type": "text/plain", "x-early-data": early},
        f"echo from worker {worker}: {request.path}\n",
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("workers", nargs="?", type=int, default=4)
    parser.add_argument("--port", type=int, default=4433)
    parser.add_argument("--cert", help="PEM; without one only this machine is served")
    parser.add_argument("--key", help="PEM")
    options = parser.parse_args()
    supervisor = quicgreen.Supervisor(
        handle,
        workers=options.workers,
        bind=f"{'0.0.0.0' if options.cert else '127.0.0.1'}:{options.port}",
        certfile=options.cert,
        keyfile=options.key,
        early_data=True,
    )
    return supervisor.run(say)


def say(supervisor: quicgreen.Supervisor) -> None:
    host, port = supervisor.address
    print(f"serving on {host}:{port} with {supervisor.num_workers} workers", flush=True)


if __name__ == "__main__":
    sys.exit(main())
