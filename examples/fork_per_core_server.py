"""Fork-per-core server: a worker process for each CPU, all on one UDP port.

Why: one process uses one core. Workers share the port, the keys of session tickets and the register of early
data, so it does not matter to a client which of them it meets.

    python examples/fork_per_core_server.py                                          # 127.0.0.1:4433
    python examples/fork_per_core_server.py 8 --port 443 --cert cert.pem --key key.pem
    quicgreen fetch -k https://127.0.0.1:4433/                                       # hello from ...
"""

from __future__ import annotations

import argparse
import os
import sys

import quicgreen


def handle(request: quicgreen.Request) -> None:
    worker = os.environ["QUICGREEN_WORKER"]
    request.respond(200, {"content-type": "text/plain"}, f"hello from {worker}\n")


def main() -> int:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser()
    parser.add_argument("workers", nargs="?", type=int, default=cores)
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
        affinity="auto" if options.workers == cores else "none",
    )
    return supervisor.run(say)


def say(supervisor: quicgreen.Supervisor) -> None:
    host, port = supervisor.address
    print(f"serving on {host}:{port} with {supervisor.num_workers} workers", flush=True)


if __name__ == "__main__":
    sys.exit(main())
