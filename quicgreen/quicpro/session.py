"""A session, as both sides have it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..connection import BaseConnection
from ..exceptions import error
from .last_error import noted


class Session:
    """A QUIC connection and what is done on it. `quicpro_connect` and `Server.accept` give one.

    Attributes:
        connection: the connection below, for what is not said here.
    """

    connection: BaseConnection

    _close_s = 1.0
    """A client's last words are short."""

    def __init__(self, connection: BaseConnection) -> None:
        self.connection = connection
        self._runtime = connection._runtime
        self._engine = connection._engine
        self._closed = False

    @property
    def closed(self) -> bool:
        """It is over, whoever ended it."""
        return self._closed or self.connection.closed

    @property
    def alpn(self) -> str:
        """The application protocol; "" while that is not agreed on."""
        return self.connection.alpn

    @property
    def remote_address(self) -> tuple[str, int]:
        """(ip, port) of the peer."""
        return self.connection.remote_address

    def _check(self) -> None:
        if self._closed:
            self._runtime.check("this session")
            raise error("closed-here", "the session was closed", request_sent=False)
        self.connection._check()

    def poll(self, ms: float) -> None:
        """See `quicpro_poll`; raises where that returns False."""
        raise NotImplementedError

    def stats(self) -> dict[str, Any]:
        """See `quicpro_get_stats`."""
        self._check()
        counters = self.connection.stats()
        if counters is None:
            raise error("closed-here", "the session is over")
        return {**counters}

    def set_qlog_path(self, path: str | os.PathLike[str]) -> None:
        """See `quicpro_set_qlog_path`."""
        self._check()
        self.connection.qlog(path)

    def upgrade(self, path: str, **options: Any) -> Any:
        """Open a WebSocket: see the two sides."""
        raise NotImplementedError

    @noted
    def close(self) -> None:
        """Close the session: what was written still reaches the peer, for which this waits: at most a second,
        a server's session ten. Whoever waits on it gets QuicConnectionException. Idempotent."""
        if self._closed:
            return
        if not self.connection.closed:
            self._runtime.check("this session")
        self._closed = True
        self._begin_close()
        self.connection.close(timeout=self._close_s)

    def _begin_close(self) -> None:
        """What ends with the session."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else self.alpn or 'connecting'}>"


def checked_fields(headers: Any) -> Any:
    """Fields that are a mapping or pairs; whether each is one is seen where it is encoded."""
    if headers is None or isinstance(headers, Mapping):
        return headers
    if isinstance(headers, (list, tuple)) and all(
        isinstance(item, (list, tuple)) and len(item) == 2 for item in headers
    ):
        return headers
    raise error("argument", f"headers are a mapping or a list of pairs, not {headers!r:.60}")


def milliseconds(ms: Any) -> float:
    """In seconds."""
    if isinstance(ms, bool) or not isinstance(ms, (int, float)) or not 0 <= ms < 1e12:
        raise error("argument", f"a time is a number of milliseconds, not {ms!r}")
    return ms / 1000


def milliseconds_or_none(ms: Any) -> float | None:
    """The same; None is for ever."""
    return None if ms is None else milliseconds(ms)
