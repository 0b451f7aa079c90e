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
    /raise         an error in the handler
    /raise-late    an error after the head and ten bytes
    /reset/CODE    a head, ten bytes, then RESET_STREAM
    /counters      JSON: the engine's counters, greenlets, descriptors, memory, the client's address and
                   the server name it asked for
Raw: as aioquic_server.py.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
from pathlib import Path

import ready  # isort: skip - it makes what follows importable

import gevent
from greenlet import greenlet

import quicgreen
from helpers import bodies, routes
from quicgreen import _contexts, _engine, hub
from quicgreen.configuration import ServerTls

VERSION = f"quicgreen/{quicgreen.__version__}"


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


def do_counters(request):
    gc.collect()
    told = {
        "engine": hub.current().engine.counters(),
        "greenlets": sum(1 for o in gc.get_objects() if isinstance(o, greenlet) and o),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "rss": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"),
        "client": request.remote_address,
        "server_name": hub.current().engine.conn_info(request._record[_engine.CONN])["server_name"],
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


def main() -> None:
    options = ready.options()
    alpn = tuple(options.get("alpn", ["h3"]))
    secret = options.get("secret")
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
        keys=_contexts.Keys(bytes.fromhex(secret), origin_s=options["origin_s"]) if secret else None,
        stream_timeout=options.get("stream_timeout", 60.0),
    )
    server.start()
    host, port = server.address
    ready.say(VERSION, host, port)
    stopping = gevent.event.Event()
    gevent.signal_handler(signal.SIGTERM, stopping.set)
    stopping.wait()
    server.stop(timeout=0)


main()
