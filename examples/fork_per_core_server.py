"""Fork-per-core server: a worker process for each CPU, all on one UDP port.

Why: one process uses one core. Workers share the port, the keys of session tickets and the register of early
data, so it does not matter to a client which of them it meets.

    python examples/fork_per_core_server.py                                          # 127.0.0.1:4433
    python examples/fork_per_core_server.py 8 --port 443 --cert cert.pem --key key.pem
    quicgreen fetch -k https://127.0.0.1:4433/                                       # hello from ...
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
    stream = req.stream()
    stream.respond(200, {"content-type": "text/plain"})
    stream.sendBody(f"hello from {wid}\n", fin=True)
    sess.close()


def main() -> None:
    options = _workers.options(len(os.sched_getaffinity(0)))
    cfg = Config.new({**options.files, "alpn": ["h3"], "session_cache": True})  # before the fork
    pids = []
    for i in range(options.workers):
        if (pid := os.fork()) == 0:
            worker(i, options.host, options.port, cfg)
            os._exit(0)
        pids.append(pid)
    _workers.wait(pids)


if __name__ == "__main__":
    main()
