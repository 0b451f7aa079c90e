"""How an engine reaches the network: `QUICPRO_BUSY_POLL` and `QUICPRO_XDP`, read when something is opened."""

from __future__ import annotations

import logging
import os
from typing import Any

from .configuration import busy_poll_us

_log = logging.getLogger("quicgreen")

_told: set[str] = set()
"""Interfaces of which it was said."""


def tune(engine: Any, *, busy_poll: int | None = None, xdp: str | None = None) -> None:
    """Set the engine as the program, else the environment, says.

    Args:
        busy_poll: microseconds to watch the network before the loop sleeps; None: `QUICPRO_BUSY_POLL`.
        xdp: network interface for an AF_XDP socket; None: `QUICPRO_XDP`. There is none in this version: that
            is logged, once, and the UDP socket is used.

    Raises:
        QuicClientException: QUICPRO_BUSY_POLL is not a number.
    """
    engine.set_spin(busy_poll_us() if busy_poll is None else busy_poll)
    interface = os.environ.get("QUICPRO_XDP", "") if xdp is None else xdp
    if interface and interface not in _told:
        _told.add(interface)
        _log.warning("QUICPRO_XDP=%s: this version has no AF_XDP datapath; the UDP socket is used", interface)
