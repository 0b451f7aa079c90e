"""Tickets in Redis, for clients on many hosts.

A key's tickets are a list, newest first, under PREFIX and the key's fingerprint. The list lives in Redis as
long as its newest ticket (a relative time: Redis's clock need not agree with ours). A ticket is taken by
LREM, which removes it for one caller.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..exceptions import QuicException, error
from .store import KEEP, fingerprint
from .ticket import Ticket


class RedisTicketStore:
    """Tickets in a Redis server (or one that speaks its protocol). Needs redis-py: `quicgreen[redis]`.

    Nothing is connected to before the first operation, and a server that is away is an error of that
    operation; nothing is tried again, but the next operation connects anew. How much is kept in all is for
    Redis to decide (`maxmemory`). Whoever may read it can use the tickets: use TLS (`rediss://`) and a
    password where others are on the network.

    Args:
        client_or_url: "redis://host:port/db", or a `redis.Redis` of yours, whose timeouts hold then.
        prefix: of all keys; stores with different ones do not see each other's tickets.
        timeout: seconds for a connection to be made, and for each answer.
        clock: gives wall-clock seconds.

    Raises:
        QuicClientException: redis-py is not installed, or the client decodes responses to text.
        QuicSocketException: by all methods, with cause "ticket-redis": the server is away or refuses.
    """

    def __init__(
        self,
        client_or_url: Any,
        *,
        prefix: str = "quicgreen:ticket:",
        timeout: float = 0.5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise error("argument", "the store needs redis-py: pip install 'quicgreen[redis]'") from None
        self._failures = (redis.RedisError, OSError)
        self._prefix = prefix
        self._clock = clock
        self._own = isinstance(client_or_url, str)
        if self._own:
            try:
                self._client: Any = redis.Redis.from_url(
                    client_or_url,
                    socket_timeout=timeout,
                    socket_connect_timeout=timeout,
                    # A put that is tried again may have been done already: a ticket would be used twice.
                    retry=Retry(NoBackoff(), 0),
                )
            except ValueError as e:
                raise error("argument", str(e)) from None
        else:
            self._client = client_or_url
            options: dict[str, Any] = getattr(client_or_url, "get_connection_kwargs", dict)()
            if options.get("decode_responses"):
                raise error("argument", "tickets are bytes: the client must not have decode_responses=True")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except QuicException:
            raise
        except self._failures as e:
            raise error("ticket-redis", str(e)) from e

    def _name(self, key: str) -> str:
        return self._prefix + fingerprint(key)

    def _live(self, name: Any) -> Iterator[tuple[bytes, Ticket]]:
        now = self._clock()
        for data in self._client.lrange(name, 0, -1):
            try:
                ticket = Ticket.from_bytes(data)
            except QuicException:
                continue  # of another version: it may be good for others
            if not ticket.expired(now):
                yield data, ticket

    def get(self, key: str) -> Ticket | None:
        with self._errors():
            for _, ticket in self._live(self._name(key)):
                return ticket
        return None

    def put(self, key: str, ticket: Ticket) -> None:
        now = self._clock()
        if ticket.expired(now):
            return
        name, data = self._name(key), ticket.to_bytes()
        with self._errors(), self._client.pipeline(transaction=True) as transaction:
            transaction.lrem(name, 0, data)  # the same again is not another one
            transaction.lpush(name, data)
            transaction.ltrim(name, 0, KEEP - 1)
            transaction.pexpire(name, max(1, int((ticket.ends_at - now) * 1000)))
            transaction.execute()

    def pop(self, key: str) -> Ticket | None:
        name = self._name(key)
        with self._errors():
            for data, ticket in self._live(name):
                if self._client.lrem(name, 1, data) == 1:
                    return ticket
        return None

    def delete(self, key: str) -> None:
        with self._errors():
            self._client.delete(self._name(key))

    def _names(self) -> Iterator[bytes]:
        pattern = re.sub(r"([*?\[\]\\^-])", r"\\\1", self._prefix) + "?" * 32
        yield from self._client.scan_iter(match=pattern, count=1000)

    def items(self) -> Iterator[tuple[str, Ticket]]:
        with self._errors():
            for name in self._names():
                key = name[-32:].decode()
                found = [ticket for _, ticket in self._live(name)]
                yield from ((key, ticket) for ticket in found)

    def clear(self) -> None:
        with self._errors():
            for name in self._names():
                self._client.delete(name)

    def close(self) -> None:
        if self._own:
            with self._errors():
                self._client.close()
