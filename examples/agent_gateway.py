"""Agent gateway: many models behind one UDP port, a worker for each core, 0-RTT for clients that come back.

Why: agents talk to one address; which machine answers is the gateway's business. It passes requests on by
their path, and what the model says as it says it: nothing is kept until the end, in either direction.

    python examples/agent_gateway.py [WORKERS] [--port P --cert C --key K] \\
        --chat https://llm1.internal:4433 --embeddings https://embed.internal:4433

    /v1/chat/completions -> --chat      /v1/embeddings -> --embeddings      anything else -> 404
"""

from __future__ import annotations

import argparse
import os
import sys

import quicgreen

HOP_BY_HOP = {
    "connection", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
"""Fields that are of one connection, and no business of who is behind it (RFC 9110, section 7.6.1)."""

TIMEOUT = quicgreen.Timeout(connect=5, read=300, write=60)
"""A model may think for minutes before its first word."""


class Gateway:
    """One in each worker. Its connections to the backends are shared by all requests there."""

    def __init__(self, backends: dict[str, str], verify: bool) -> None:
        self.backends = backends
        self.verify = verify
        self.session: quicgreen.Session | None = None

    def __call__(self, request: quicgreen.Request) -> None:
        backend = self.backends.get(request.path.partition("?")[0])
        if backend is None:
            request.respond(404, {"content-type": "text/plain"}, b"no such model here\n")
            return
        if self.session is None:  # after the fork: connections are a worker's own
            self.session = quicgreen.Session(verify=self.verify, timeout=TIMEOUT)
        self.proxy_to(backend, request, self.session)

    def proxy_to(self, backend: str, request: quicgreen.Request, session: quicgreen.Session) -> None:
        """Send it on, and stream the answer back. When the client goes away, this greenlet's writing fails,
        and the backend is told to stop."""
        try:
            response = session.request(
                request.method,
                backend + request.path,
                headers=[*passed_on(request.headers), ("forwarded", f"for={request.remote_address[0]!r}")],
                data=None if request.method in ("GET", "HEAD") else request.iter_bytes(),
                stream=True,
            )
        except quicgreen.QuicTimeoutException as e:
            request.respond(504, {"content-type": "text/plain"}, f"the model is silent: {e}\n")
            return
        except (
            quicgreen.QuicConnectionException,
            quicgreen.QuicSocketException,
            quicgreen.QuicStreamException,
        ) as e:
            request.respond(502, {"content-type": "text/plain"}, f"the model does not answer: {e}\n")
            return
        with response:
            # Each piece leaves as it comes. One that breaks off midway breaks off here too.
            request.respond(response.status_code, passed_on(response.headers), response.iter_bytes())


def passed_on(headers: quicgreen.Headers) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.multi_items() if name not in HOP_BY_HOP]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("workers", nargs="?", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--port", type=int, default=4433)
    parser.add_argument("--cert", help="PEM; without one only this machine is served")
    parser.add_argument("--key", help="PEM")
    parser.add_argument("--chat", metavar="URL", required=True)
    parser.add_argument("--embeddings", metavar="URL", required=True)
    parser.add_argument("--insecure", action="store_true", help="believe the backends without certificates")
    options = parser.parse_args()
    backends = {"/v1/chat/completions": options.chat, "/v1/embeddings": options.embeddings}
    supervisor = quicgreen.Supervisor(
        Gateway(backends, verify=not options.insecure),
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
