"""A server that hands over sessions: `accept`, as the documentation has it."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from gevent.event import Event

from .. import datapath
from .. import server as core
from .._contexts import Keys
from ..connection import ServerConnection
from ..exceptions import error
from ..urls import ascii_host
from .config import Config
from .last_error import noted
from .server_session import ServerSession
from .session import milliseconds_or_none

_ACCEPT_BACKLOG = 1024
"""Sessions that nobody accepted yet; a further one is closed, as a full TCP backlog refuses."""


class Server:
    """Listen on a UDP address, from now on.

        server = Server("::", 4433, Config.new({"cert_file": "cert.pem", "key_file": "key.pem"}))
        while session := server.accept(100):
            Fiber(handle).start(session)

    Args:
        host: an address, IPv4 or IPv6, with or without brackets; or a name. "", "::" and "[::]" mean all
            addresses, IPv4 included.
        port: 0 for a free one (`port`).
        config: a `Config` or a mapping; `cert_file` is needed. With `session_cache` in it, servers of
            processes that are forked after it was made share the port, and any of them takes up any client's
            session.

    Raises:
        QuicServerException: somebody else holds the port; or the certificate cannot be used.
        QuicClientException: a wrong argument.
    """

    @noted
    def __init__(self, host: str, port: int, config: Any = None) -> None:
        self.config = cfg = Config.of(config)
        cfg.warn_of("server")
        self._waiting: deque[ServerConnection] = deque()
        self._arrived = Event()
        self._server = core.Server(
            _address(host, port),
            spawn=self._take,
            handle=_unused,
            sessions=True,
            tls=cfg.server_tls(),
            config=cfg.transport(),
            retry="always" if cfg.get("retry_token") else "never",
            max_connections=cfg.get("max_connections"),
            max_body_bytes=cfg.get("max_body_bytes"),
            stream_timeout=cfg.get("read_timeout_ms") / 1000,
            keys=_keys(cfg),
            tickets=cfg.get("session_cache"),
            early_data=_early_data(cfg),
            websocket=cfg.get("extended_connect"),
            group=cfg.group,
            xdp=cfg.get("xdp"),
        )
        self._server.start()
        datapath.tune(self._server._engine, busy_poll=cfg.get("busy_poll"))

    @property
    def address(self) -> tuple[str, int]:
        """(ip, port) that is served."""
        assert self._server.address is not None
        return self._server.address

    @property
    def port(self) -> int:
        """The port that is served."""
        return self.address[1]

    @property
    def closed(self) -> bool:
        """`close` was called."""
        return self._server.closed

    def _take(self, run: Any, connection: ServerConnection) -> None:
        """In the hub: a session has begun."""
        if len(self._waiting) >= _ACCEPT_BACKLOG:
            connection.close(0, timeout=None)
            return
        self._waiting.append(connection)
        self._arrived.set()

    @noted
    def accept(self, ms: float | None = None) -> ServerSession | None:
        """The next session. It waits for one, and gives way to other greenlets meanwhile; None only when the
        server was closed: a quiet port ends no loop.

        Args:
            ms: how long it sleeps at most until it looks again, in milliseconds. It has no bearing on what
                is returned.
        """
        seconds = milliseconds_or_none(ms)
        runtime = self._server._runtime
        runtime.check("this server")
        while True:
            while self._waiting:
                connection = self._waiting.popleft()
                if not connection.closed:
                    return ServerSession(connection)
            if self._server.closed:
                return None
            self._arrived.clear()
            if seconds == 0:
                runtime.turn()
            else:
                self._arrived.wait(seconds)

    def __iter__(self) -> Any:
        """Sessions, until it is closed."""
        return iter(self.accept, None)

    @noted
    def close(self, timeout: float | None = None) -> None:
        """Take no new sessions, tell the others that this is the end (GOAWAY), wait `timeout` seconds, 1 by
        default, for them to end, and close them. `accept` returns None. Idempotent."""
        if not self._server.closed:
            self._server.stop(timeout)
        self._waiting.clear()
        self._arrived.set()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._server!r}>"


def _unused(session: Any) -> None:
    """Sessions are taken by `accept`."""


def _address(host: Any, port: Any) -> tuple[str, int]:
    if not isinstance(host, str):
        raise error("argument", f"a host is text, not {type(host).__name__}")
    check_port(port, lowest=0)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if host in ("", "::"):
        return "", port
    return ascii_host(host), port


def check_port(port: Any, *, lowest: int = 1) -> None:
    """Refuse what is no port."""
    if isinstance(port, bool) or not isinstance(port, int) or not lowest <= port < 65536:
        raise error("argument", f"{port!r} is not a port")


def _early_data(cfg: Config) -> bool:
    """With `session_cache` in so many words, unless `early_data` says otherwise."""
    if "early_data" in cfg:
        return bool(cfg["early_data"])
    return "session_cache" in cfg and bool(cfg["session_cache"])


def _keys(cfg: Config) -> Keys | None:
    """The ring that seals tickets; None for one of the server's own."""
    if not cfg.keys() & {"ticket_key_file", "ticket_key_rotate_s"}:
        return None
    if cfg.group is not None and "ticket_key_file" not in cfg:
        return None  # the group's, which has the period
    options = {}
    if "ticket_key_rotate_s" in cfg:
        options["period_s"] = cfg["ticket_key_rotate_s"]
    if "ticket_key_file" not in cfg:
        return Keys(**options)
    path = cfg["ticket_key_file"]
    try:
        with open(path, "rb") as file:
            secret = file.read(33)
            since = int(os.fstat(file.fileno()).st_mtime)
    except OSError as e:
        raise error("argument", f"ticket_key_file: {path}: {e.strerror}", errno=e.errno) from None
    if len(secret) != 32:
        raise error("argument", f"ticket_key_file: {path} is not 32 bytes long")
    return Keys(secret, origin_s=since, **options)
