"""When a request is sent again, without a word to its caller (docs/decisions/016)."""

from __future__ import annotations

from typing import Any

from .exceptions import QuicException

ATTEMPTS = 3
"""How often a request is sent when each time it is certain that the server did nothing of it."""

TOO_EARLY = 425
"""The server does not want this request in early data (RFC 8470, section 5.2)."""

_ELSEWHERE = {"refused", "closed-by-peer", "closed-here", "idle-timeout", "lost"}
"""Why a request was not processed that may be on another connection."""

_DEATHS = {"closed-by-peer", "idle-timeout", "lost", "unreachable"}
"""How a connection ends that died while nobody used it."""

_IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
"""To do it twice is to do it once (RFC 9110, section 9.2.2)."""


def is_whole(body: Any) -> bool:
    """It can be sent again: a file or an iterable may have been read in part."""
    return body is None or isinstance(body, bytes)


def unprocessed(e: BaseException) -> bool:
    """Nothing of the request was processed, and another connection may do better."""
    return isinstance(e, QuicException) and not e.request_sent and e.cause in _ELSEWHERE


def found_dead(e: BaseException, method: str, rested: bool) -> bool:
    """The connection had rested (`PooledConnection.rested`), and most likely was dead before this request;
    if it was not, no harm is done by another one."""
    return rested and method in _IDEMPOTENT and isinstance(e, QuicException) and e.cause in _DEATHS
