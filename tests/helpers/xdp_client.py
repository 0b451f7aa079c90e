"""A client: our own, on a host with or without AF_XDP. Prints what it saw as JSON.

Options
    servers     [host, port] each: addresses of one server
    ca          what to trust
    xdp         interface; "" for none
    size        of a download and of an upload, in bytes
    websocket   true: say something over one, too
    early       true: come again with early data
    gone_ms     nothing of the above: ask every 50 ms until it answers again, for so long at most; tells how
                often it did not, and how long that took
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time

import ready  # isort: skip - it makes what follows importable

import gevent
from support import wait_until

import quicgreen
from helpers import bodies
from quicgreen import hub

VERSION = f"quicgreen/{quicgreen.__version__}"


def open_one(options, server, **more):
    host, port = server
    return quicgreen.connect(
        host,
        port,
        server_name="localhost",
        verify=options["ca"],
        xdp=options.get("xdp", ""),
        timeout=more.pop("timeout", 10.0),
        **more,
    )


def ask(options, server):
    size = options["size"]
    with open_one(options, server) as c:
        told = {"version": c.get("/version").headers["x-peer"], "server": c.remote_address}
        got = c.get(f"/size/{size}")
        told["download"] = hashlib.sha256(got.content).hexdigest() == got.headers["x-sha256"]
        sent = c.post("/sink", data=bodies.body(size)).json()
        told["upload"] = (sent["length"], sent["sha256"]) == (size, bodies.digest(size))
        if options.get("websocket"):
            with c.websocket("/words") as ws:
                ws.send("hello")
                ws.send("x" * 100_000)
                told["websocket"] = [ws.recv(), len(ws.recv())]
        if options.get("early"):
            if not wait_until(lambda: c.tickets):
                raise AssertionError("no ticket came")
            ticket = c.export_ticket()
    if options.get("early"):
        with open_one(options, server, ticket=ticket, early_data=True) as c:
            told["early"] = [c.get("/version").status_code, c.is_resumed, c.early_data]
    return told


def wait_for_it(options, server):
    began, failures = time.monotonic(), 0
    while time.monotonic() - began < options["gone_ms"] / 1000:
        try:
            with open_one(options, server, timeout=0.5) as c:
                return {"answered": c.get("/version").status_code, "failures": failures,
                        "after": time.monotonic() - began}  # fmt: skip
        except quicgreen.QuicException:
            failures += 1
            gevent.sleep(0.05)
    return {"answered": None, "failures": failures, "after": None}


def main() -> None:
    options = ready.options()
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(message)s")
    do = wait_for_it if "gone_ms" in options else ask
    told = [do(options, server) for server in options["servers"]]
    print(json.dumps({"version": VERSION, "told": told, "engine": hub.current().engine.counters()}))


main()
