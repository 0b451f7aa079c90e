"""`quicgreen info`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from typing import Any

from .. import __version__, settings
from ..session_modes import choose
from .output import EXIT_NOTHING, complain, put
from .stores import describe, mode_of_commands, without_password

_SETTINGS = "quicpro."


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_info)
    parser.add_argument("key", nargs="?", help="print this value only; a setting as `php -i` does")


def _info(options: argparse.Namespace) -> int:
    values = information()
    key = options.key
    if key is None:
        lines = [f"{name} => {value}\n" for name, value in values.items()]
    elif key not in values:
        complain(f"no such key: {key}")
        return EXIT_NOTHING
    elif key.removeprefix(_SETTINGS) in settings.load():
        lines = [f"{key} => {values[key]}\n"]
    else:
        lines = [f"{values[key]}\n"]
    put(sys.stdout.buffer, "".join(lines).encode("utf-8", "backslashreplace"))
    return 0


def information() -> dict[str, Any]:
    """What `quicgreen info` prints."""
    import gevent
    import greenlet

    from .. import _contexts, _engine, hub

    runtime = hub.current()
    values: dict[str, Any] = {
        "quicgreen.version": __version__,
        "quicgreen.engine": _engine.build_info(),
        "quicgreen.abi": _engine.ABI,
        "python.version": platform.python_version(),
        "gevent.version": gevent.__version__,
        "gevent.loop": f"{type(runtime.hub.loop).__module__} ({runtime.hub.loop.backend})",
        "greenlet.version": greenlet.__version__,
        "system.kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "greenlets.arena_cache": "on" if _engine.install_arena_cache() else "off",
    }
    endpoint, _ = runtime.engine.endpoint_udp("127.0.0.1", 0)
    if endpoint >= 0:
        info = runtime.engine.endpoint_info(endpoint)
        for name in _engine.CAPABILITIES:
            values[f"udp.{name}"] = "yes" if name in info["capabilities"] else "no"
        values["udp.receive_buffer"] = info["receive_buffer"]
        values["udp.send_buffer"] = info["send_buffer"]
        runtime.engine.endpoint_close(endpoint)
    for variable in ("QUICPRO_BUSY_POLL", "QUICPRO_XDP", "QP_TRACE", "QLOGDIR"):
        values[variable] = os.environ.get(variable) or "off"
    values |= _settings()
    values |= _sessions()
    for name, value in _contexts.config_defaults(is_server=True).items():
        values[f"transport.{name}"] = value
    return values


def _settings() -> dict[str, Any]:
    """Each as PHP prints a directive: the value in force, and the one that holds when nothing is set."""
    defaults = settings.load({})
    values = {}
    for name, setting in settings.load().items():
        shown = [without_password(str(v)) or "no value" for v in (setting.value, defaults[name].value)]
        values[f"{_SETTINGS}{name}"] = " => ".join(shown)
        values[f"{_SETTINGS}{name}.source"] = setting.source
    return values


def _sessions() -> dict[str, str]:
    """What the settings come to: for a program that is started as this command was, and for `fetch`."""
    return {
        "session.mode": choose().name,
        "session.store": describe(choose()),
        "fetch.session_mode": mode_of_commands().name,
        "fetch.session_store": describe(mode_of_commands()),
    }
