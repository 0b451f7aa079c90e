"""The class that a locustfile's users are made from."""

from __future__ import annotations

from typing import Any

from locust import FastHttpUser, User
from locust.exception import StopTest

from ..client import Session
from ..configuration import Limits, QuicConfiguration, Timeout
from ..tickets import MemoryTicketStore
from .client import QuicSession

_CONNECTIONS = 10
"""Of a user with a session of its own; one is used as long as it has room. FastHttpUser's number."""


class QuicUser(User):
    """A user over HTTP/3. Settings are attributes of a class below this one; names and defaults are those of
    `FastHttpUser` where it has them."""

    abstract = True

    host: str | None = None
    """https://name[:port], or by `--host`."""

    network_timeout: float = 60.0
    """Seconds to wait for more of a response, or for room for more of a request."""

    connection_timeout: float = 60.0
    """Seconds for a handshake."""

    insecure: bool = True
    """Certificates are not verified."""

    verify: bool | str = True
    """With `insecure = False`: True, or the path of trusted certificates."""

    default_headers: dict[str, str] | None = None
    """For every request."""

    session: Session | None = None
    """One for all users of the class in a process, which share its connections: `quicgreen.Session(...)`,
    for which the settings here do not count. None: each user has its own, and so a connection of its own."""

    max_connections: int = _CONNECTIONS
    """Of a user with a session of its own."""

    keepalive_expiry: float | None = 30.0
    """Seconds after which a connection that the user does not use is closed. The server's idle timeout counts
    too; a user that thinks longer connects anew. None: `config.max_idle_ms`."""

    config: QuicConfiguration | None = None
    """Of the transport."""

    early_data: bool = True
    """A user that comes back resumes its session, and its safe requests leave at once (0-RTT)."""

    client: QuicSession

    # Its ways with JSON: they need a `client`, and nothing else of that class.
    rest = FastHttpUser.rest
    rest_ = FastHttpUser.rest_
    _callstack_regex = FastHttpUser._callstack_regex

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        if self.host is None or not self.host.lower().startswith("https://"):
            raise StopTest(f"the host of a QuicUser is https://..., not {self.host!r}: set `host`, or --host")
        session = self.session if self.session is not None else self._new_session()
        self.client = QuicSession(self.host, environment.events.request, self, session)

    def _new_session(self) -> Session:
        seconds = self.network_timeout
        return Session(
            headers=self.default_headers,
            verify=False if self.insecure else self.verify,
            timeout=Timeout(connect=self.connection_timeout, read=seconds, write=seconds, pool=seconds),
            limits=Limits(max_connections=self.max_connections, keepalive_expiry=self.keepalive_expiry),
            config=self.config,
            tickets=MemoryTicketStore(),  # its own: another user's would be another machine's
            early_data=self.early_data,
        )

    def start(self, group: Any) -> Any:
        """Run it in a greenlet of `group`; at its end its connections are closed."""
        greenlet = super().start(group)
        if self.session is None:
            greenlet.link(lambda _: self.client.session.close(timeout=None))
        return greenlet
