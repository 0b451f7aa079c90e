"""A session's connections: which one a request goes on, and who waits for one.

Requests to an origin share its connections, `Limits.max_streams` on each. When all are full another one is
opened. When there are `Limits.max_connections` already, one that nobody uses makes room, whichever origin it
is to; else the request waits. Who came first is served first: every origin has a queue, the first of it is
told when something is free, and passes the word on as it leaves.
"""

from __future__ import annotations

import _socket
import copy
import errno
import ipaddress
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from gevent.event import Event

from . import _contexts, _engine, hub
from .configuration import Limits, Timeout
from .connection import ClientConnection
from .exceptions import QuicException, error
from .lookups import look_up
from .session_keeper import SessionKeeper
from .urls import ascii_host, split_authority

_ORIGINS_MAX = 1024

# ---------------------------------------------------------------- names


def seconds_left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _numeric(ip: str, port: int) -> Any | None:
    """An address in the engine's form. Client sockets are of one family: ::ffff:192.0.2.1 is 192.0.2.1."""
    if ip[:7].lower() == "::ffff:":
        try:
            ip = str(ipaddress.IPv6Address(ip).ipv4_mapped or ip)
        except ValueError:
            return None
    return _engine.parse_address(ip, port)


def resolve(host: str, port: int, timeout: float | None) -> list[Any]:
    """The host's addresses in the engine's form, as the resolver prefers them.

    Raises:
        QuicSocketException: there is no such name.
        QuicTimeoutException: the resolver did not answer in time.
    """
    address = _numeric(host, port)
    if address is not None:
        return [address]
    try:
        found = look_up(host, port, _socket.SOCK_DGRAM, timeout)
    except TimeoutError as e:
        raise error("handshake-timeout", f"resolving {host}: {e}", request_sent=False) from None
    except (OSError, UnicodeError) as e:
        why = getattr(e, "strerror", None) or e
        raise error("name", f"{host}: {why}", request_sent=False) from None
    ips = dict.fromkeys(str(entry[4][0]) for entry in found)
    addresses = [a for a in (_numeric(ip, port) for ip in ips) if a is not None]
    if not addresses:
        raise error("name", f"{host} has no address", request_sent=False)
    return addresses


# ---------------------------------------------------------------- one connection

_Connection = TypeVar("_Connection", bound=ClientConnection)

dialled: weakref.WeakSet[ClientConnection] = weakref.WeakSet()
"""All connections that were opened and may be open still: the end of the program closes them."""


def dial(
    runtime: hub.Runtime,
    kind: type[_Connection],
    addresses: list[Any],
    configuration: _contexts.Configuration,
    name: str | None,
    deadline: float | None,
    prepare: Callable[[_Connection], None] | None = None,
) -> _Connection:
    """Connect to the first address that answers; each gets its share of the time, so that a silent one
    leaves some to the next. The last one is not waited for: its handshake goes on while the caller prepares
    a request. `prepare` is called with each connection before anything is sent on it."""

    def begin(address: Any, seconds: float | None) -> _Connection:
        connection = kind(runtime, address, configuration, name, seconds)
        dialled.add(connection)
        if prepare is not None:
            try:
                prepare(connection)
            except BaseException:
                connection.close(0, timeout=None)
                raise
        return connection

    for after, address in zip(range(len(addresses) - 1, 0, -1), addresses, strict=False):
        left = seconds_left(deadline)
        connection = None
        try:
            share = None if left is None else left / (after + 1)
            connection = begin(address, share)
            connection.wait_established()
            return connection
        except QuicException as e:
            if not _may_be_the_address(e):
                raise
        except BaseException:
            if connection is not None:
                connection.close(0, timeout=None)
            raise
    return begin(addresses[-1], seconds_left(deadline))


def _may_be_the_address(e: QuicException) -> bool:
    """Another address of the host may answer where this one did not."""
    if e.cause == "engine":  # no such family of addresses on this machine
        return e.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
    return e.cause in ("unreachable", "handshake-timeout")


# ---------------------------------------------------------------- many


class PooledConnection(ClientConnection):
    """A connection of a pool.

    Attributes:
        rested: nobody used it before the requests that are under way now, and none of them was answered
            yet: it may have died meanwhile.
    """

    origin: Origin
    rested = False


class _Turn(Event):  # type: ignore[misc]
    """A place in a queue; set when it is time to look again."""

    failure: QuicException | None = None


class Origin:
    """One scheme, host and port: its connections, and the head that all its requests begin with."""

    __slots__ = ("authority", "connections", "host", "opening", "port", "prefixes", "queue")

    def __init__(self, host: str, port: int, authority: str) -> None:
        self.host = host
        self.port = port
        self.authority = authority
        self.connections: list[PooledConnection] = []
        self.opening = False
        self.prefixes: dict[str, bytes] = {}
        self.queue: deque[_Turn] = deque()


class Pool:
    """See above. It belongs to one runtime, and so to one thread."""

    def __init__(
        self,
        runtime: hub.Runtime,
        configuration: _contexts.Configuration,
        limits: Limits,
        server_name: str | None,
        sessions: SessionKeeper,
        on_connection: Callable[[ClientConnection], None] | None = None,
    ) -> None:
        self.runtime = runtime
        self.origins: dict[str, Origin] = {}
        self._configuration = configuration
        self._limits = limits
        self._server_name = server_name
        self.sessions = sessions
        self._on_connection = on_connection
        self._count = 0  # connections in all, those that are being opened included
        self._queued: dict[Origin, None] = {}  # origins with a queue, in the order in which those began
        self._closed = False

    def new_origin(self, authority: str) -> Origin:
        host, port = split_authority(authority)
        if len(self.origins) >= _ORIGINS_MAX:
            for key in [k for k, o in self.origins.items() if not (o.connections or o.opening or o.queue)]:
                del self.origins[key]
        origin = self.origins[authority] = Origin(ascii_host(host), port, authority.lower())
        return origin

    def connection(self, origin: Origin, limit: Timeout) -> PooledConnection:
        """A connection with room for one more request, opened if need be. The caller counts it in
        (`in_flight`) before it waits for anything, and calls `release` when the request is done."""
        if not origin.queue:
            most = self._limits.max_streams
            for connection in origin.connections:
                if connection.in_flight < most and not connection.draining and connection._why is None:
                    return connection
            if not self._queued and self._may_open(origin):
                return self._open(origin, limit)
        return self._wait(origin, limit)

    def answered(self, connection: PooledConnection) -> None:
        """A request is done, and had its response."""
        connection.rested = False
        self.release(connection)

    def release(self, connection: PooledConnection) -> None:
        """A request is done."""
        connection.in_flight -= 1
        if connection.in_flight == 0:
            connection.rested = True
        if connection.draining and connection.in_flight == 0:
            connection.close(timeout=None)
        if self._queued:
            self._wake(connection.origin)

    def close_rested(self, origin: Origin) -> None:
        """One that had rested was dead: those that rest still are as old."""
        for connection in list(origin.connections):
            if connection.rested and connection.in_flight == 0:
                connection.close(timeout=None)
                self._forget(connection)

    def close(self, timeout: float | None) -> None:
        """Close all connections; waits for that at most `timeout` seconds."""
        self._closed = True
        for origin in self._queued:
            for turn in origin.queue:
                turn.set()
        connections = [c for origin in self.origins.values() for c in origin.connections]
        for connection in connections:
            connection.close(timeout=None)
        if timeout:
            deadline = time.monotonic() + timeout
            for connection in connections:
                self._sleep(connection._closed_event, deadline)

    # ---------------------------------------------------------------- opening

    def _may_open(self, origin: Origin) -> bool:
        if origin.opening:
            return False
        return self._count < self._limits.max_connections or self._evict()

    def _evict(self) -> bool:
        """Close one connection that nobody uses, of whichever origin."""
        for origin in self.origins.values():
            for connection in origin.connections:
                if connection.in_flight == 0:
                    connection.close(timeout=None)
                    self._forget(connection)
                    return True
        return False

    def _open(self, origin: Origin, limit: Timeout) -> PooledConnection:
        origin.opening = True
        self._count += 1
        deadline = None if limit.connect is None else time.monotonic() + limit.connect
        name = self._server_name or origin.host
        try:
            addresses = resolve(origin.host, origin.port, limit.connect)
            resume = self.sessions.resume(origin.host, origin.port, seconds_left(deadline))

            def prepare(connection: PooledConnection) -> None:
                resume(connection)
                if self._on_connection is not None:
                    self._on_connection(connection)

            connection = dial(
                self.runtime, PooledConnection, addresses, self._configuration, name, deadline, prepare
            )
        except BaseException as e:
            self._count -= 1
            if isinstance(e, QuicException) and not origin.connections:
                # They waited for this one. To try in turn would take each of them longer than it may.
                for turn in origin.queue:
                    turn.failure = e
                    turn.set()
            raise
        finally:
            origin.opening = False
            self._wake(origin)
        connection.origin = origin
        origin.connections.append(connection)
        if connection.closed:
            self._forget(connection)
        else:
            connection.on_closed = lambda: self._forget(connection)
        if self._closed:
            connection.close(0, timeout=None)
            raise _closed()
        return connection

    def _forget(self, connection: PooledConnection) -> None:
        """A connection is over. Runs in the hub."""
        origin = connection.origin
        if connection in origin.connections:
            origin.connections.remove(connection)
            self._count -= 1
            self._wake(origin)

    # ---------------------------------------------------------------- waiting

    def _wait(self, origin: Origin, limit: Timeout) -> PooledConnection:
        deadline = None if limit.pool is None else time.monotonic() + limit.pool
        turn = _Turn()
        origin.queue.append(turn)
        self._queued.setdefault(origin)
        try:
            while True:
                if origin.queue[0] is turn:
                    for connection in origin.connections:
                        if connection.in_flight < self._limits.max_streams and connection.usable:
                            return connection
                    if self._may_open(origin):
                        return self._open(origin, limit)
                if not self._sleep(turn, deadline):
                    raise error("pool-timeout", request_sent=False)
                turn.clear()
                if self._closed:
                    raise _closed()
                if turn.failure is not None:
                    raise copy.copy(turn.failure)
        finally:
            origin.queue.remove(turn)
            if not origin.queue:
                del self._queued[origin]
            self._wake(origin)

    def _wake(self, origin: Origin) -> None:
        """Something is free: a place on a connection of this origin, or one for another connection."""
        if not origin.queue:
            if not self._queued:
                return
            origin = next(iter(self._queued))
        origin.queue[0].set()

    def _sleep(self, event: Event, deadline: float | None) -> bool:
        """Wait for the event; False when the deadline passed."""
        self.runtime.reference()
        try:
            return bool(event.wait(seconds_left(deadline)))
        finally:
            self.runtime.unreference()


def _closed() -> QuicException:
    return error("state", "the session was closed meanwhile", request_sent=False)
