"""Ticket resumption over several workers: whoever issued a client's ticket, any worker takes it.

Why: behind one port a client comes back to another worker than the last time, and with most servers its
ticket is then worth nothing. Here workers share the keys and the register of early data, so it resumes, and
its GET is in the first packet (0-RTT), wherever it lands.

    python examples/ticket_resumption_multiworker.py 4              # 127.0.0.1:4433, until it is stopped
    python examples/ticket_resumption_multiworker.py 4 --port 443 --cert cert.pem --key key.pem
    quicgreen fetch -k -v https://127.0.0.1:4433/a     # again and again: other workers, "TLS session resumed"
"""

from __future__ import annotations

import os

import _workers

from quicgreen.quicpro import Config, Fiber, Server, Session


def worker(id: int, host: str, port: int, cfg: Config) -> None:
    _workers.end_with_parent()
    srv = Server(host, port, cfg)
    print(f"[worker {id}] ready on {host}:{srv.port}\n", end="", flush=True)  # whole: others print too
    while s := srv.accept(100):
        Fiber(lambda s: handle(s, id)).start(s)


def handle(sess: Session, wid: int) -> None:
    req = sess.receiveRequest()
    path = req.headers().get(":path", "/")
    stream = req.stream()
    stream.respond(200, {"content-type": "text/plain"})
    stream.sendBody(f"echo from worker {wid}: {path}\n", fin=True)
    sess.close()


def main() -> None:
    options = _workers.options(4)
    cfg = Config.new(
        {**options.files, "alpn": ["h3"], "session_cache": True}
    )  # shared, since before the fork
    pids = []
    for i in range(options.workers):
        if (pid := os.fork()) == 0:
            worker(i, options.host, options.port, cfg)
            os._exit(0)
        pids.append(pid)
    _workers.wait(pids)


if __name__ == "__main__":
    main()
