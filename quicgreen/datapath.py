"""How an engine reaches the network: `QUICPRO_BUSY_POLL` and `QUICPRO_XDP`, read when something is opened.

AF_XDP is asked for in two places, once each: where a server binds its socket, and where an engine opens its
first connection. Where it cannot be had, the log says why, and the UDP socket is used.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import gevent

from . import _engine
from .configuration import busy_poll_us

_log = logging.getLogger("quicgreen")

_BUSY_S = 2.0
"""How long to try for an interface that somebody has: the system needs up to a second to give back what a
process had that has just ended."""

_AGAIN_S = 0.05

_told: set[str] = set()
"""What was said."""

_clients: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()
"""By engine, and by interface that was asked for: the endpoint there, or `ENDPOINT_AUTO`."""


def tune(engine: Any, *, busy_poll: int | None = None) -> None:
    """Set the engine as the program, else the environment, says.

    Args:
        busy_poll: microseconds to watch the network before the loop sleeps; None: `QUICPRO_BUSY_POLL`.

    Raises:
        QuicClientException: QUICPRO_BUSY_POLL is not a number.
    """
    engine.set_spin(busy_poll_us() if busy_poll is None else busy_poll)


def tune_client(engine: Any, *, busy_poll: int | None = None, xdp: str | None = None) -> None:
    """`tune`, and connections begin by AF_XDP.

    Args:
        xdp: its network interface, "" for none; None: `QUICPRO_XDP`.
    """
    tune(engine, busy_poll=busy_poll)
    interface = _interface(xdp)
    if not interface:
        engine.client_endpoint = _engine.ENDPOINT_AUTO
        return
    known = _clients.setdefault(engine, {})
    if interface not in known:
        rc = _attach(interface, lambda: engine.client_xdp(os.fsencode(interface)))
        known[interface] = max(rc, _engine.ENDPOINT_AUTO)
        _report(engine, interface, rc)
    engine.client_endpoint = known[interface]


def serve_by_xdp(engine: Any, endpoint: int, xdp: str | None) -> None:
    """Let a server's datagrams come and go by AF_XDP.

    Args:
        xdp: its network interface, "" for none; None: `QUICPRO_XDP`.
    """
    if interface := _interface(xdp):
        rc = _attach(interface, lambda: engine.endpoint_xdp(endpoint, os.fsencode(interface)))
        _report(engine, interface, endpoint if rc == 0 else rc)


def _interface(given: str | None) -> str:
    return os.environ.get("QUICPRO_XDP", "") if given is None else given


def _attach(interface: str, attempt: Callable[[], tuple[int, str]]) -> int:
    deadline = time.monotonic() + _BUSY_S
    while (result := attempt())[0] == _engine.AGAIN and time.monotonic() < deadline:
        gevent.sleep(_AGAIN_S)
    rc, reason = result
    if rc < 0:
        _say(logging.WARNING, f"QUICPRO_XDP={interface}: {reason}; the UDP socket is used")
    return rc


def _report(engine: Any, interface: str, endpoint: int) -> None:
    if endpoint >= 0:
        native = "xdp_native" in engine.endpoint_info(endpoint)["capabilities"]
        where = "in the interface's driver" if native else "behind the driver, which cannot do it itself"
        _say(logging.INFO, f"QUICPRO_XDP={interface}: AF_XDP, {where}")


def _say(level: int, text: str) -> None:
    if text not in _told:
        _told.add(text)
        _log.log(level, "%s", text)
