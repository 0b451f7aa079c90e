"""`quicgreen serve`: in this process alone, or with workers under a supervisor."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

from .. import __version__
from ..exceptions import QuicException, error
from ..supervisor import Settings, Supervisor, application, certificates, config
from .output import quiet_interrupts, tell

_SUPERVISED = {
    "workers", "timeout", "max_requests", "max_requests_jitter", "ticket_key_rotate_s", "ticket_keys",
    "steering", "affinity", "pidfile", "preload_app", "user", "group", "proc_name",
}  # fmt: skip
"""Settings that have a meaning only under a supervisor: with one of them, or a file, there is one."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_serve, refuse=parser.error)
    parser.add_argument(
        "handler",
        metavar="MODULE:HANDLER",
        nargs="?",
        help="a callable that takes a Request; may stand in the file",
    )
    parser.add_argument("-c", "--config", metavar="FILE", help="settings, as TOML or Python")
    parser.add_argument("--check-config", action="store_true", help="look at all settings and end")
    parser.add_argument(
        "--print-config", action="store_true", help="the same, and print them, and where each is from"
    )
    config.add_options(parser)


def _serve(options: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(options).items() if name in config.FIELDS}
    try:
        loaded = config.load(given, options.config)
    except QuicException as e:
        if e.__cause__ is not None:
            traceback.print_exception(e.__cause__)
        raise
    app: str = options.handler or loaded.app or ""
    if not app:
        options.refuse("MODULE:HANDLER is needed, here or as `app` in a file of --config")
    application.split(app)
    logging.basicConfig(
        level=loaded.settings.log_level.upper(),
        format="%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
    )
    if options.check_config or options.print_config:
        return _check(app, loaded, show=options.print_config)
    if options.config or loaded.sources.keys() & _SUPERVISED:
        return Supervisor(app, config=options.config, **given).run(_say_where)
    return _serve_alone(app, loaded.settings)


def _check(app: str, loaded: config.Loaded, *, show: bool) -> int:
    _enter(loaded.settings)
    certificates.load(loaded.settings)
    application.load(app)
    if show:
        tell(f"app = {app!r}")
        tell(str(loaded))
    return 0


def _enter(settings: Settings) -> None:
    """What comes before the application is imported."""
    if not settings.no_patch:
        # So that what it imports is cooperative.
        from gevent import monkey

        monkey.patch_all()
    if settings.chdir:
        try:
            os.chdir(settings.chdir)
        except OSError as e:
            raise error("configuration", f"chdir: {settings.chdir}: {e.strerror}", errno=e.errno) from None


def _say_where(supervisor: Supervisor) -> None:
    _say(supervisor.name, supervisor.settings, supervisor.address)
    print(f"{supervisor.num_workers} workers, supervisor's pid {supervisor.pid}", flush=True)


def _say(app: str, settings: Settings, address: tuple[str, int]) -> None:
    if settings.certfile is None:
        print(
            "no --certfile: made a self-signed certificate for this machine; clients must not verify it "
            "(quicgreen fetch -k)"
        )
    if settings.early_data:
        print(
            "early data (0-RTT) is taken: a GET, HEAD or OPTIONS without a body may run before its client's "
            "handshake is complete"
        )
    host, port = address
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    print(f"quicgreen {__version__} serves {app} on https://{where}/ (UDP)", flush=True)


def _serve_alone(app: str, settings: Settings) -> int:
    _enter(settings)
    import gevent
    import gevent.queue

    from ..server import Server

    quiet_interrupts()
    handler: Callable[[Any], Any] = application.load(app)
    server = Server(
        settings.bind,
        handler,
        tls=certificates.load(settings),
        config=settings.transport,
        spawn=settings.spawn,
        retry=settings.retry,
        max_connections=settings.max_connections,
        sessions=settings.interface == "session",
        early_data=settings.early_data,
        websocket=settings.websocket,
    )
    server.start()
    _say(app, settings, server.address or ("", 0))
    signals = gevent.queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, signals.put, number)
    signals.get()
    print("stopping; once more stops at once", flush=True)
    draining = gevent.spawn(server.stop, timeout=settings.graceful_timeout)
    impatient = gevent.spawn(signals.get)
    gevent.wait([draining, impatient], count=1)
    server.close()
    return 0
