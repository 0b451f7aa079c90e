"""A server: what the example of agents talks to. After each request it says in a file who asked what so far.

Options
    host, certfile, keyfile
    counts      the file: {"requests": {"IP PATH": n}, "connections": {IP: n}}
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, defaultdict

import ready  # isort: skip - it makes what follows importable

from support import ROOT

import quicgreen
from quicgreen._engine import CONN

sys.path.append(str(ROOT / "examples"))
import _agent_site

VERSION = f"quicgreen/{quicgreen.__version__}"


def main() -> None:
    options = ready.options()
    requests: Counter[str] = Counter()
    connections: defaultdict[str, set[int]] = defaultdict(set)

    def handle(request: quicgreen.Request) -> None:
        ip = request.remote_address[0]
        requests[f"{ip} {request.path}"] += 1
        connections[ip].add(request._record[CONN])
        said = {"requests": requests, "connections": {ip: len(them) for ip, them in connections.items()}}
        with open(options["counts"] + ".new", "w") as file:
            json.dump(said, file)
        os.replace(file.name, options["counts"])
        _agent_site.handle(request)

    files = {"certfile": options["certfile"], "keyfile": options["keyfile"]}
    server = quicgreen.Server((options["host"], 0), handle, **files)
    server.start()
    ready.say(VERSION, options["host"], server.server_port)
    server.serve_forever()


main()
