"""Health check of an HTTP/3 server, with the exit status that monitoring expects.

Why: Nagios, Icinga, Kubernetes and the like run a command and look at its exit status: 0 well, 1 slow, 2
down, 3 the check itself was called wrongly. The line says why, and has the times for a graph.

    python examples/health_check.py                                # of a server that it starts itself
    python examples/health_check.py example.org 443 --path /health --slow-ms 200 --timeout-ms 2000
"""

import argparse
import sys
import time

from _local import start

from quicgreen.quicpro import (
    QuicException,
    quicpro_close,
    quicpro_connect,
    quicpro_get_stats,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)

OK, WARNING, CRITICAL, UNKNOWN = range(4)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        print(f"UNKNOWN - {message}")
        sys.exit(UNKNOWN)


def check(host: str, port: int, path: str, slow_ms: float, timeout_ms: int) -> tuple[int, str]:
    """(exit status, what to say). One deadline for all of it: a check that hangs tells nothing."""
    started = time.monotonic()

    def passed_ms() -> float:
        return (time.monotonic() - started) * 1000

    try:
        sess = quicpro_connect(host, port, {"connect_timeout_ms": timeout_ms})
        try:
            connect_ms = passed_ms()
            id = quicpro_send_request(sess, path)
            while not (resp := quicpro_receive_response(sess, id)):
                left_ms = timeout_ms - passed_ms()
                if left_ms <= 0:
                    return CRITICAL, f"no answer within {timeout_ms} ms"
                quicpro_poll(sess, max(1, int(left_ms)))
            total_ms = passed_ms()
            rtt_ms = quicpro_get_stats(sess)["rtt"] / 1e6
        finally:
            quicpro_close(sess)
    except QuicException as e:
        return CRITICAL, f"{type(e).__name__}: {e}"
    times = f"connect={connect_ms:.1f}ms total={total_ms:.1f}ms rtt={rtt_ms:.3f}ms"
    if resp["status"] >= 400:
        return CRITICAL, f"status {resp['status']} for {path} | {times}"
    if total_ms > slow_ms:
        return WARNING, f"status {resp['status']} after {total_ms:.1f} ms | {times}"
    return OK, f"status {resp['status']} | {times}"


def main() -> int:
    parser = Parser(description="Check an HTTP/3 server.")
    parser.add_argument("host", nargs="?", help="without it, a server started for this run")
    parser.add_argument("port", nargs="?", type=int, default=443)
    parser.add_argument("--path", default="/")
    parser.add_argument("--slow-ms", type=float, default=1000, help="WARNING beyond (1000)")
    parser.add_argument("--timeout-ms", type=int, default=5000, help="CRITICAL beyond (5000)")
    args = parser.parse_args()
    host, port = (args.host, args.port) if args.host is not None else start("_site.py")
    status, words = check(host, port, args.path, args.slow_ms, args.timeout_ms)
    print(("OK", "WARNING", "CRITICAL")[status], "-", words)
    return status


if __name__ == "__main__":
    sys.exit(main())
