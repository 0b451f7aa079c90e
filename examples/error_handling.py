"""Error handling: what each exception means, and what to do then.

Why: a network fails in more ways than one, and each wants another answer: wait, ask again, ask elsewhere,
or tell who runs it. All of them are in docs/ERROR_AND_EXCEPTION_REFERENCE.md, with what to do next.

    python examples/error_handling.py                    # all of them, with servers that it starts itself
    python examples/error_handling.py bad.host 443 /data
"""

import socket
import sys

import certifi
from _local import start

from quicgreen.quicpro import (
    QuicConnectionException,
    QuicSocketException,
    QuicStreamException,
    QuicTimeoutException,
    QuicTlsHandshakeException,
    QuicTransportException,
    quicpro_close,
    quicpro_connect,
    quicpro_get_last_error,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)

PATIENCE_MS = 500


def get(host: str, port: int, path: str, options: dict[str, object]) -> str:
    sess = quicpro_connect(host, port, options)
    try:
        id = quicpro_send_request(sess, path)
        waited_ms = 0
        while not (resp := quicpro_receive_response(sess, id)):
            if not quicpro_poll(sess, 10):
                raise RuntimeError(f"poll failed: {quicpro_get_last_error()}")
            waited_ms += 10  # or less: a poll ends when something came
            if waited_ms > PATIENCE_MS:
                raise TimeoutError("no answer in time")
        return f"status {resp['status']}: {resp['text'].strip()}"
    finally:
        quicpro_close(sess)


def attempt(host: str, port: int, path: str, **options: object) -> str:
    """What came, or what is to be done."""
    try:
        return get(host, port, path, options)
    except QuicSocketException as e:
        return f"look at name, port and firewall: {e}"
    except QuicTlsHandshakeException as e:
        return f"do not send it anything: {e}"
    except QuicTimeoutException as e:
        return f"ask again later: {e}"
    except QuicStreamException as e:
        return f"ask again, if that does no harm; the session is good: {e}"
    except QuicConnectionException as e:
        return f"open a new session: {e}"
    except QuicTransportException as e:
        return f"tell who runs the server: {e}"
    except RuntimeError as e:
        return f"open a new session: {e}"
    except TimeoutError as e:
        return f"give up: {e}"


def main() -> None:
    host, port = start("_faulty.py")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        silent = s.getsockname()[1]
        print("a name that does not exist →", attempt("bad.host.invalid", 443, "/"))
        print("a server that does not answer →", attempt(host, silent, "/", connect_timeout_ms=300))
    print("a port that nobody has →", attempt(host, silent, "/"))
    print("a certificate of nobody known →", attempt(host, port, "/", ca_file=certifi.where()))
    for path in ("/reset", "/drop", "/silence", "/error", "/"):
        print(f"{path} →", attempt(host, port, path))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(attempt(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
    else:
        main()
