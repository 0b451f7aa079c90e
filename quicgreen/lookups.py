"""Names are looked up in gevent's threads, which no fork cuts in two (forks.py), and with a deadline."""

from __future__ import annotations

import _socket
import contextlib
from typing import Any

import gevent
from gevent.resolver.thread import Resolver as ThreadResolver

from . import forks

_NUMERIC = _socket.AI_NUMERICHOST | _socket.AI_NUMERICSERV


class _Threads:
    """As much of a `gevent.threadpool.ThreadPool` as a resolver uses."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def apply(self, function: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return self._pool.apply(forks.whole, (function, args, kwargs))


class Resolver(ThreadResolver):  # type: ignore[misc]
    """gevent's default, whose lookups no fork cuts in two. What is an address already takes no thread."""

    def __init__(self, hub: Any) -> None:
        super().__init__(hub)
        self.pool = _Threads(hub.threadpool)

    def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        # Nobody's address, and addresses that this host can reach: the kernel is asked for its own then.
        if host is not None and not flags & _socket.AI_ADDRCONFIG:
            with contextlib.suppress(_socket.gaierror):
                return _socket.getaddrinfo(host, port, family, type, proto, flags | _NUMERIC)
        return super().getaddrinfo(host, port, family, type, proto, flags)


def install(hub: Any) -> None:
    """Have this hub look up names here, unless the program chose another resolver than gevent's default."""
    if hub.resolver_class is ThreadResolver and type(hub.resolver) is ThreadResolver:
        hub.resolver = Resolver(hub)


def look_up(host: str, port: int | None, kind: int, timeout: float | None) -> list[Any]:
    """`getaddrinfo` for sockets of this kind, with a deadline in seconds.

    Raises:
        TimeoutError: there was no answer in time.
        OSError, UnicodeError: as `getaddrinfo`.
    """
    from gevent import socket

    limit = gevent.Timeout(timeout)
    limit.start()
    try:
        return list(socket.getaddrinfo(host, port, type=kind))
    except gevent.Timeout as e:
        if e is not limit:
            raise
        why = f"no answer in {timeout:g} s"
        if forks.forked():
            why += "; a process that was forked in the middle of another thread's lookup never gets one"
        raise TimeoutError(why) from None
    finally:
        limit.close()
