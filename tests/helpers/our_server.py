"""A peer: quicgreen's own server in a process of its own.

Beside routes.py's, which are answered piece by piece here:
    /stream/N      no content-length
    /drip/N/MS     N pieces, MS milliseconds apart
    /slow/MS       answers after MS milliseconds
    /mirror        the request's body, as it comes
    /silence       never answers
    /trailers      a body, and trailers
    /hints         two informational responses before the final one
    /early         413 without reading the body
    /never-read    keeps the request and never reads its body
    /words         a WebSocket that says what it hears
    /raise         an error in the handler
    /raise-late    an error after the head and ten bytes
    /reset/CODE    a head, ten bytes, then RESET_STREAM
    /hit/NAME      counts how often this ran: in all, with request.early_data, and on a connection whose
                   handshake was not complete
    /counters      JSON: the engine's counters, greenlets, descriptors, memory, the client's address and
                   the server name it asked for, what /hit counted, the register's counts, key rotations
Raw: as aioquic_server.py.

Options
    early_data        take early data
    fresh_register    with a register that trusts the keys from the start: no two minutes without early data
    secret, origin_s, period_s, window
                      of the key ring
    rotate_every_s    turn the ring that often, instead of each period
    websocket         let clients ask for them
    xdp               interface, for AF_XDP
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import time
from pathlib import Path

import ready  # isort: skip - it makes what follows importable

import gevent
from greenlet import greenlet

import quicgreen
from helpers import bodies, routes
from quicgreen import _contexts, _engine, hub
from quicgreen.configuration import ServerTls

VERSION = f"quicgreen/{quicgreen.__version__}"

HITS = {}
ROTATIONS = {"count": 0}


def handle(request: quicgreen.Request) -> None:
    what, *arguments = request.path.strip("/").split("/")
    special = globals().get(f"do_{what.replace('-', '_')}")
    if special is not None:
        special(request, *arguments)
        return
    fields = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in request.headers.multi_items()]
    status, own, body = routes.answer(request.method, request.path, fields, request.read(), VERSION)
    text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in own]
    request.respond(status, text, body)


def answer(request, body, *fields, status=200):
    request.respond(status, [("x-peer", VERSION), *fields], body)


def do_size(request, size):
    length = ("content-length", size)
    answer(request, bodies.blocks(int(size)), length, ("x-sha256", bodies.digest(int(size))))


def do_stream(request, size):
    answer(request, bodies.blocks(int(size)))


def do_echo(request):
    length = request.content_length
    fields = [("content-length", length)] if length is not None else []
    answer(request, request.iter_bytes(), ("x-method", request.method), *fields)


def do_sink(request):
    sha, length = hashlib.sha256(), 0
    buffer = bytearray(1 << 16)
    while n := request.readinto(buffer):
        sha.update(memoryview(buffer)[:n])
        length += n
    trailers = request.trailers.multi_items() if request.trailers is not None else None
    told = routes.seen(
        request.method, request.headers.multi_items(), length, sha.hexdigest(), trailers=trailers
    )
    answer(request, told)


def do_drip(request, count, pause_ms):
    def drops():
        for i in range(int(count)):
            gevent.sleep(int(pause_ms) / 1000)
            yield b"%d\n" % i

    answer(request, drops())


def do_slow(request, pause_ms):
    gevent.sleep(int(pause_ms) / 1000)
    answer(request, b"at last")


def do_silence(request):
    gevent.sleep(600)


def do_never_read(request):
    gevent.sleep(600)


def do_trailers(request):
    stream = request.start_response(200, [("x-peer", VERSION)])
    stream.write(b"body")
    stream.send_trailers([("x-checksum", "abc"), ("x-end", "1")])


def do_hints(request):
    for _ in range(2):
        request.inform(103, [("link", "</a.css>")])
    answer(request, b"final")


def do_early(request):
    answer(request, b"enough", status=413)


def do_words(request):
    with request.accept_websocket() as ws:
        for message in ws:
            ws.send(message)


def do_raise(request):
    raise ZeroDivisionError("on purpose")


def do_raise_late(request):
    request.start_response(200, [("x-peer", VERSION)]).write(b"ten bytes.")
    gevent.sleep(0.05)
    raise ZeroDivisionError("on purpose")


def do_reset(request, code):
    stream = request.start_response(200, [("x-peer", VERSION)])
    stream.write(b"ten bytes.")
    gevent.sleep(0.05)
    stream.reset(int(code))


def do_hit(request, name):
    hits = HITS.setdefault(name, {"runs": 0, "early": 0, "before_handshake": 0})
    hits["runs"] += 1
    hits["early"] += request.early_data
    info = hub.current().engine.session_info(request._record[_engine.CONN])
    hits["before_handshake"] += info["in_early_data"]
    body = request.read()
    answer(request, body or b"hit", ("x-early", int(request.early_data)))


def do_counters(request):
    gc.collect()
    register = request._server.replay_register
    told = {
        "engine": hub.current().engine.counters(),
        "greenlets": sum(1 for o in gc.get_objects() if isinstance(o, greenlet) and o),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "rss": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"),
        "client": request.remote_address,
        "server_name": hub.current().engine.conn_info(request._record[_engine.CONN])["server_name"],
        "hits": HITS,
        "replay": register.counts() if register is not None else None,
        "rotations": ROTATIONS["count"],
    }
    answer(request, json.dumps(told).encode())


def handle_raw(connection: quicgreen.Connection) -> None:
    while (stream := connection.accept_stream()) is not None:
        gevent.spawn(answer_raw, connection, stream)


def answer_raw(connection, stream):
    text = stream.read()
    if text.startswith(b"open "):
        body = bodies.body(int(text[5:]))
        for bidi in (True, False):
            connection.open_stream(bidi=bidi).finish(body)
    if not stream.id & 2:
        stream.finish(f"{len(text)}:{bodies.digest_of(text)}:".encode() + text)


def make_keys(options):
    """A ring, when the options say anything about it."""
    names = {"origin_s", "period_s", "window"} & options.keys()
    secret = bytes.fromhex(options["secret"]) if "secret" in options else None
    return _contexts.Keys(secret, **{name: options[name] for name in names}) if names or secret else None


def rotate_for_ever(keys, period_s, every_s):
    began = int(time.time())
    while True:
        gevent.sleep(every_s)
        ROTATIONS["count"] += 1
        # The ring goes forward only, so that the engine's own look at the clock changes nothing.
        keys.rotate(began + ROTATIONS["count"] * period_s)


def main() -> None:
    options = ready.options()
    alpn = tuple(options.get("alpn", ["h3"]))
    keys = make_keys(options)
    if "rotate_every_s" in options:
        gevent.spawn(rotate_for_ever, keys, options["period_s"], options["rotate_every_s"])
    server = quicgreen.Server(
        (options.get("host", "127.0.0.1"), options.get("port", 0)),
        handle if "h3" in alpn else handle_raw,
        tls=ServerTls(
            certfile=options["certfile"],
            keyfile=options["keyfile"],
            ca_certs=options.get("ca_certs"),
            alpn=alpn,
        ),
        config=quicgreen.QuicConfiguration(**options.get("config", {})),
        retry=options.get("retry", "never"),
        keys=keys,
        early_data=options.get("early_data", False),
        replay=_contexts.ReplayRegister() if options.get("fresh_register") else None,
        stream_timeout=options.get("stream_timeout", 60.0),
        websocket=options.get("websocket", False),
        xdp=options.get("xdp"),
    )
    server.start()
    host, port = server.address
    ready.say(VERSION, host, port)
    stopping = gevent.event.Event()
    gevent.signal_handler(signal.SIGTERM, stopping.set)
    stopping.wait()
    server.stop(timeout=0)


main()
