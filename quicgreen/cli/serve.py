"""`quicgreen serve`."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from typing import Any

from .. import __version__
from .output import quiet_interrupts


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_serve)
    parser.add_argument("handler", metavar="MODULE:HANDLER", help="a callable that takes a Request")
    parser.add_argument("--interface", choices=["native"], default="native", help="what HANDLER is")
    parser.add_argument("-b", "--bind", metavar="HOST:PORT", default="127.0.0.1:4433")
    parser.add_argument("--certfile", metavar="FILE", help="certificate chain (PEM)")
    parser.add_argument("--keyfile", metavar="FILE", help="its key (PEM); may stand in the certificate file")
    parser.add_argument(
        "--ca-certs", metavar="FILE", help="demand client certificates signed by one of these"
    )
    parser.add_argument(
        "--spawn", default="default", help="default, raw, or how many handlers may run at once"
    )
    parser.add_argument(
        "--retry", choices=["never", "always"], default="never", help="prove client addresses"
    )
    parser.add_argument(
        "--early-data",
        action="store_true",
        help="take requests of returning clients before their handshake is complete (0-RTT)",
    )
    parser.add_argument("--websocket", action="store_true", help="let clients ask for WebSockets")
    parser.add_argument(
        "--qlog-dir", metavar="DIR", help="each connection writes its qlog to a file of its own there"
    )
    parser.add_argument("--graceful-timeout", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--chdir", metavar="DIR", help="change to this folder first")
    parser.add_argument("--no-patch", action="store_true", help="do not monkey-patch the standard library")


def _serve(options: argparse.Namespace) -> int:
    if not options.no_patch:
        # Before the handler's module is imported, so that what it imports is cooperative.
        from gevent import monkey

        monkey.patch_all()
    import gevent
    import gevent.queue

    from ..configuration import QuicConfiguration
    from ..server import Server

    quiet_interrupts()
    if options.chdir:
        try:
            os.chdir(options.chdir)
        except OSError as e:
            sys.exit(f"quicgreen: --chdir: {e}")
    handler = _load(options.handler)
    tls = _development_certificate(options.bind) if options.certfile is None else None
    server = Server(
        options.bind,
        handler,
        certfile=options.certfile,
        keyfile=options.keyfile,
        ca_certs=options.ca_certs,
        tls=tls,
        spawn=int(options.spawn) if options.spawn.isdigit() else options.spawn,
        retry=options.retry,
        early_data=options.early_data,
        websocket=options.websocket,
        config=QuicConfiguration(qlog_dir=options.qlog_dir),
    )
    server.start()
    if tls is not None:
        print(
            "no --certfile: made a self-signed certificate for this machine; clients must not verify it "
            "(quicgreen fetch -k)"
        )
    if options.early_data:
        print(
            "early data (0-RTT) is taken: a GET, HEAD or OPTIONS without a body may run before its client's "
            "handshake is complete"
        )
    host, port = server.address or ("", 0)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    print(f"quicgreen {__version__} serves {options.handler} on https://{where}/ (UDP)", flush=True)
    signals = gevent.queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, signals.put, number)
    signals.get()
    print("stopping; once more stops at once", flush=True)
    draining = gevent.spawn(server.stop, timeout=options.graceful_timeout)
    impatient = gevent.spawn(signals.get)
    gevent.wait([draining, impatient], count=1)
    server.close()
    return 0


def _load(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        sys.exit(f"quicgreen: {name!r} is not of the form MODULE:HANDLER")
    sys.path.insert(0, os.getcwd())
    try:
        handler: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{module_name}.".startswith(f"{e.name}."):
            raise  # something that the module imports: its author wants the traceback
        sys.exit(f"quicgreen: no module named {e.name!r} here (see --chdir)")
    for part in attribute.split("."):
        handler = getattr(handler, part, None)
    if not callable(handler):
        sys.exit(f"quicgreen: {module_name} has no callable {attribute!r}")
    return handler


def _development_certificate(bind: str) -> Any:
    """Without a certificate: one for this machine only."""
    from gevent.baseserver import parse_address as split_address

    from .._contexts import self_signed
    from .._engine import parse_address
    from ..configuration import ServerTls

    try:
        host = split_address(bind)[1][0]
    except ValueError:
        sys.exit(f"quicgreen: --bind {bind!r} is not of the form HOST:PORT")
    if host not in ("localhost", "::1") and not host.startswith("127."):
        sys.exit("quicgreen: --certfile and --keyfile are needed to serve other machines")
    names = dict.fromkeys(["localhost", "127.0.0.1", "::1", *([host] if parse_address(host, 0) else [])])
    cert, key = self_signed(",".join(names))
    return ServerTls(cert_pem=cert, key_pem=key)
