"""One QUIC connection, as a client opened it or a server's session accepted it."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gevent.event import Event

from . import _engine, qlog_files
from ._engine import (
    ACCEPTED,
    CLOSED_EVENT,
    CODE,
    CONN,
    CONNECTED,
    FLAGS,
    GOAWAY,
    OFFSET,
    QLOG,
    STREAM,
    TICKET,
    TYPE,
    VALUE,
)
from .configuration import microseconds
from .exceptions import (
    CAUSES,
    QuicException,
    QuicWarningConnectionSlow,
    QuicWarningPartialData,
    check_code,
    code_name,
    error,
    warn,
)
from .stats import ConnectionStats
from .stream import H3_NO_ERROR, Stream, stream_error

if TYPE_CHECKING:
    from ._contexts import Configuration
    from ._engine import Record
    from .hub import Runtime
    from .messages import Request

# Codes with which a peer says that we broke the protocol, not that it is busy or done.
_OUR_BREACH_H3 = {0x101, 0x103, 0x104, 0x105, 0x106, 0x108, 0x109, 0x10A, 0x10E, 0x200, 0x201, 0x202}
_FRAME_ENCODING_ERROR = 0x7  # RFC 9000, section 20.1: also for a frame of a type that is not known
_UNKNOWN_FRAME = "unknown frame type "  # h3_control.c, of HTTP/3's frames
_NOT_A_BREACH = {0x0, 0x1, 0x2, 0xB, 0xC, 0x10}


def closing_error(flags: int, code: int, text: str, where: str = "") -> QuicException:
    """The exception for the end of a connection (`QG_EVENT_CLOSED`) with the peer at `where`."""
    remote = bool(flags & _engine.REMOTE)
    at = f"{where}: " if where else ""
    if flags & _engine.ICMP:
        return error("unreachable", at + text, errno=code, request_sent=False)
    if flags & _engine.VERSION:
        return error("version", where, remote=True, request_sent=False)
    if flags & _engine.TIMED_OUT:
        established = bool(flags & _engine.ESTABLISHED)
        cause = "idle-timeout" if established else "handshake-timeout"
        return error(cause, where, request_sent=established)
    if flags & _engine.LOST:
        return error("lost", where, remote=True)
    if flags & _engine.TLS_ALERT:
        certificate = not remote and text.startswith("invalid certificate: ")
        detail = at + (text.removeprefix("invalid certificate: ") if certificate else text)
        return error(
            "certificate" if certificate else "alert",
            detail,
            wire_code=code,
            remote=remote,
            request_sent=False,
        )
    application = bool(flags & _engine.APP)
    if not application and code == _FRAME_ENCODING_ERROR:
        # quiche says no type, and the peer's CONNECTION_CLOSE does (RFC 9000, section 19.19), which it drops.
        detail, joint = (text, ": ") if text else ("or one that is badly encoded", ", ")
        return error("unknown-frame", detail, wire_code=code, remote=remote, joint=joint)
    if not remote and text.startswith(_UNKNOWN_FRAME):
        return error("unknown-frame", text.removeprefix(_UNKNOWN_FRAME), wire_code=code, joint=" ")
    name = code_name(code, application)
    detail = f"{name}: {text}" if text else name
    if code == (H3_NO_ERROR if application else 0) or (application and code == 0):
        cause = "closed-by-peer" if remote else "closed-here"
        return error(cause, text, wire_code=code, remote=remote)
    if not remote:
        return error("violation-by-peer", detail, wire_code=code)
    ours = code in _OUR_BREACH_H3 if application else code not in _NOT_A_BREACH
    return error("violation-here" if ours else "closed-by-peer", detail, wire_code=code, remote=True)


_LOOK_S = 1.0
"""How often a connection is looked at while it is used (docs/decisions/018)."""

_SLOWER = 4
"""Round trips this many times as long as the quickest: queues on the way are full, or it is another way."""

_TICKETS_KEPT = 8
"""Servers send two to four with each handshake."""


class BaseConnection:
    """What both sides' connections share.

    Attributes:
        id: the engine's connection id.
        alpn: the application protocol that was agreed on; "" before.
        closed: it is over.
    """

    def __init__(self, runtime: Runtime, conn: int) -> None:
        self._runtime = runtime
        self._engine = runtime.engine
        self._why: tuple[int, int, str] | None = None
        self._closed_event = Event()
        self._opened: deque[Any] = deque()  # RAW streams' events, or requests, not accepted yet
        self._opened_event = Event()
        self.id = conn
        self.alpn = ""
        self.draining = False
        self.on_closed: Callable[[], None] | None = None

    @property
    def _where(self) -> str:
        """The peer, for messages; "" where it is plain."""
        return ""

    @property
    def closed(self) -> bool:
        """Over, whoever ended it."""
        return self._why is not None or self._engine.closed

    def closing_error(self) -> QuicException | None:
        """Why it is over, as an exception to raise; None while it is not."""
        return None if self._why is None else closing_error(*self._why, self._where)

    def _on_event(self, record: Record) -> None:
        """In the hub's greenlet: note what happened, wake who waits."""
        kind = record[TYPE]
        if kind == CLOSED_EVENT:
            start = record[OFFSET]
            text = self._engine.arena[start : start + record[_engine.HEAD_LEN]]
            self._why = (record[FLAGS], record[CODE], bytes(text).decode("utf-8", "replace"))
            self._end()
        elif kind in (CONNECTED, ACCEPTED):
            start = record[OFFSET]
            alpn = self._engine.arena[start : start + record[_engine.HEAD_LEN]]
            self.alpn = bytes(alpn).decode("latin-1")
        elif kind == GOAWAY:
            self.draining = True
        elif kind == QLOG:
            qlog_files.report(self._engine, record)
        else:
            self._opened.append(record)
            self._opened_event.set()

    def _end(self) -> None:
        self._closed_event.set()
        self._opened_event.set()
        if self.on_closed is not None:
            self.on_closed()

    def _check(self) -> None:
        self._runtime.check("this connection")
        if self._why is not None:
            raise closing_error(*self._why, self._where)

    def _accept(self, timeout: float | None) -> Any:
        """What the peer opened next; None when the connection ended or `timeout` passed."""
        self._runtime.check("this connection")
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._opened and self._why is None:
            self._opened_event.clear()
            self._runtime.reference()
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self._opened_event.wait(left):
                    break
            finally:
                self._runtime.unreference()
        return self._opened.popleft() if self._opened else None

    def accept_stream(self, timeout: float | None = None) -> Stream | None:
        """Wait for a stream that the peer opens (RAW connections only). None when `timeout` seconds
        passed or the connection ended."""
        record = self._accept(timeout)
        if record is None:
            return None
        bidi = record[STREAM] & 2 == 0
        return Stream(self._runtime, record[CONN], record[STREAM], raw=True, owner=self, write_ended=not bidi)

    def open_stream(self, *, bidi: bool = True, timeout: float | None = 60.0) -> Stream:
        """Open a stream (RAW connections only), waiting while the peer's limit does not allow it.

        Raises:
            QuicTimeoutException: it was not allowed in time.
            QuicClientException: the connection speaks HTTP/3.
        """
        runtime = self._runtime
        while True:
            self._check()
            token = runtime.new_token()
            rc, stream = self._engine.open_stream(self.id, bidi, token, microseconds(timeout))
            if rc == 0:
                return Stream(
                    runtime, self.id, stream, raw=True, owner=self, read_ended=not bidi, timeout=timeout
                )
            self.await_opening(rc, token)

    def await_opening(self, rc: int, token: int) -> None:
        """`rc` came from a try to open a stream: wait until another try may succeed, or raise."""
        if rc != _engine.AGAIN:
            raise self._unsent(-rc, 0)
        try:
            record = self._runtime.wait(token)
        except BaseException:
            if not self._engine.closed:
                self._engine.cancel(self.id, token, 0)
            raise
        if record[TYPE] == _engine.DEADLINE:
            raise error("deadline", "the peer allows no further stream", request_sent=False)
        if record[TYPE] == _engine.STREAM_ERROR:
            raise self._unsent(record[_engine.STATUS], record[CODE])

    def _unsent(self, result: int, code: int) -> QuicException:
        """Why a stream was not opened: nothing of what was meant for it has left."""
        why = self.closing_error() or stream_error(result, code, sent=False)
        why.request_sent = False
        return why

    def info(self) -> dict[str, Any]:
        """Addresses, protocol, name and limits, as the engine knows them; {} when it is gone."""
        self._runtime.check("this connection")
        return self._engine.conn_info(self.id) or {}

    @property
    def remote_address(self) -> tuple[str, int]:
        """(ip, port) of the peer."""
        address: tuple[str, int] = self.info().get("remote_address", ("", 0))
        return address

    def stats(self) -> ConnectionStats | None:
        """Counters of the connection and its active path as a dict, by quiche's names (`ConnectionStats`
        describes them; times are nanoseconds); None when it is gone."""
        self._runtime.check("this connection")
        values: Any = self._engine.conn_stats(self.id)
        found: ConnectionStats | None = values
        return found

    def qlog(self, path: str | os.PathLike[str]) -> None:
        """Write the connection's qlog from now on: to the file `path`, which is made, or emptied; to a new
        file where that is a folder. It is in JSON-SEQ (a file's name ends in .sqlog), and whole after each
        turn of the loop. Another call changes the file.

        A file that cannot be written later on, on a full disk for instance, ends the qlog with a logged
        warning, and nothing else.

        Raises:
            QuicClientException: with cause "qlog-file" and the system's errno, when it cannot be made.
        """
        self._check()
        qlog_files.begin(self._engine, self.id, path)

    def peer_cert(self) -> bytes | None:
        """The peer's certificate (DER)."""
        self._runtime.check("this connection")
        return self._engine.peer_cert(self.id)

    def close(self, code: int | None = None, reason: str = "", *, timeout: float | None = 1.0) -> None:
        """Close the connection. Idempotent.

        Without a code: what was written is delivered first, for at most `timeout` seconds, which this
        waits for; `None` does not wait, and takes a second at most. With an application error code: at
        once. Whoever waits on the connection gets QuicConnectionException.
        """
        if self._why is not None or self._engine.closed:
            return
        self._runtime.check("this connection")
        if code is not None:
            check_code(code)
            self._engine.conn_close(self.id, True, code, reason.encode())
        else:
            self._engine.conn_finish(self.id, microseconds(1.0 if timeout is None else timeout))
        if timeout is not None:
            self._runtime.reference()
            try:
                self._closed_event.wait(timeout + 0.5)
            finally:
                self._runtime.unreference()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.alpn or "connecting"
        return f"<{type(self).__name__} {self.id:#x} ({state})>"


class ClientConnection(BaseConnection):
    """A connection that was opened here. `quicgreen.connect` makes one with HTTP on top.

    Attributes:
        on_ticket: called in the hub with each session ticket, as the engine has it: (bytes, seconds that it
            lives, whether it may carry early data).
        fetch_ticket: gives one of the tickets that went to a store.
        look_at: from when on (time.monotonic) there is something for `look` to do.
        session_mode: how its session is kept (`SessionMode`); None when it is not.
    """

    on_ticket: Callable[[bytes, int, bool], None] | None = None
    fetch_ticket: Callable[[], Any] | None = None
    session_mode: Any = None
    look_at = 0.0
    _handshake_s = 0.0
    _session: Mapping[str, Any] = {}
    _warned: frozenset[str] = frozenset()

    def __init__(
        self,
        runtime: Runtime,
        address: Any,
        configuration: Configuration,
        server_name: str | None,
        timeout: float | None,
    ) -> None:
        """Begin the handshake: it goes on in the background (`wait_established`)."""
        runtime.check("this runtime")
        super().__init__(runtime, 0)
        self._configuration = configuration  # the engine has its own reference; this keeps it findable
        self._token = runtime.new_token()
        self._established = Event()
        self._ticket_event = Event()
        runtime.targets[self._token] = self._on_event
        rc, value = self._engine.connect(
            address, configuration, server_name, self._token, microseconds(timeout)
        )
        if rc < 0:
            del runtime.targets[self._token]
            if rc == _engine.INVALID:
                raise error("argument", f"{server_name!r} is not a server name")
            if rc == _engine.SYSTEM:
                raise error("engine", os.strerror(value), errno=value)
            if rc == _engine.LIMIT:
                raise error("limit", "no more connections of one thread", request_sent=False)
            raise error("memory" if rc == _engine.NOMEM else "engine", _engine.error_text(rc))
        self.id = value
        self._address, self._name = address, server_name
        self.opened_at = time.monotonic()
        self.tickets: deque[Any] = deque(maxlen=_TICKETS_KEPT)
        """Session tickets that came and went to no store, oldest first."""
        self.in_flight = 0
        """Requests under way, as the pool counts them."""

    @property
    def _where(self) -> str:
        ip, port = _engine.format_address(self._address[0])
        named = self._name is not None and self._name != ip
        return f"{self._name}, {ip} port {port}" if named else f"{ip} port {port}"

    def _on_event(self, record: Record) -> None:
        if record[TYPE] == TICKET:
            if self.on_ticket is not None:
                early = bool(record[FLAGS] & _engine.EARLY)
                self.on_ticket(self._engine.take(record), record[VALUE], early)
            self._ticket_event.set()
            return
        super()._on_event(record)
        if record[TYPE] == CONNECTED:
            self._handshake_s = time.monotonic() - self.opened_at
            self._session = self._engine.session_info(self.id)
            self._established.set()

    def _end(self) -> None:
        self._runtime.targets.pop(self._token, None)
        self._established.set()
        self._ticket_event.set()
        super()._end()

    # ---------------------------------------------------------------- resumption

    def resume(self, ticket: bytes, early: bool) -> bool:
        """Take up the session of a ticket; to be called before anything was sent. False when it is not one
        that this version can use: the connection goes on without."""
        return self._engine.resume(self.id, ticket, early) == 0

    def export_ticket(self, timeout: float = 0.0) -> Any | None:
        """A session ticket of this server, for one other connection to it, in this process or another one
        (`connect(ticket=...)`; `Ticket.to_bytes`). Servers send some when the handshake is complete, or soon
        after: when there is none, the next one is waited for at most `timeout` seconds. None when none
        came."""
        self._runtime.check("this connection")
        self._ticket_event.clear()
        ticket = self._take_ticket()
        if ticket is None and timeout > 0 and self._why is None:
            self._runtime.reference()
            try:
                self._ticket_event.wait(timeout)
            finally:
                self._runtime.unreference()
            ticket = self._take_ticket()
        return ticket

    def _take_ticket(self) -> Any | None:
        if self.tickets:
            return self.tickets.pop()
        return None if self.fetch_ticket is None else self.fetch_ticket()

    @property
    def is_resumed(self) -> bool:
        """The handshake took up an earlier session (RFC 8446, section 2.2): no certificate was sent."""
        return bool(self._session_info().get("is_resumed"))

    @property
    def in_early_data(self) -> bool:
        """Requests go out before the handshake is complete (0-RTT)."""
        return bool(self._session_info().get("in_early_data"))

    @property
    def early_data(self) -> bool | None:
        """Whether the server took early data; None when none was sent, or it has not said."""
        taken: bool | None = self._session_info().get("early_data")
        return taken

    def _session_info(self) -> dict[str, Any]:
        self._runtime.check("this connection")
        # What the handshake came to is known when the connection is gone, too.
        return self._engine.session_info(self.id) or {**self._session, "in_early_data": False}

    @property
    def usable(self) -> bool:
        """New requests may be sent, or will be once the handshake is done."""
        return self._why is None and not self.draining

    def wait_established(self) -> None:
        """Wait until the handshake is done; raises why it failed. Its deadline was given at the start."""
        if not self._established.is_set():
            self._runtime.reference()
            try:
                self._established.wait()
            finally:
                self._runtime.unreference()
        self._check()
        self.look()

    # ---------------------------------------------------------------- warnings

    def look(self) -> None:
        """Warn of what is slow and of what was dropped, each once. For greenlets that use the connection,
        when `look_at` has passed: nothing in the hub warns, and no request pays for it."""
        now = time.monotonic()
        engine = self._engine
        if now < self.look_at or engine.closed:
            return
        self.look_at = now + _LOOK_S
        self._warn_slow()
        frame = (engine.conn_info(self.id) or {}).get("unknown_frame")
        if frame and self._first("frame"):
            text = f"{CAUSES['unknown-frame'].message} 0x{frame:x} (it is HTTP/3's, and was skipped)"
            warn(text, QuicWarningPartialData)
        if engine.datagrams_cut() and "datagrams cut" not in self._runtime.attachments:
            self._runtime.attachments["datagrams cut"] = True
            warn("a datagram was cut as it was received: it counts as lost", QuicWarningPartialData)

    def _warn_slow(self) -> None:
        limit = self._configuration.slow_handshake_s
        if "slow" in self._warned:
            return
        if self._handshake_s > limit:
            text = CAUSES["handshake-timeout"].message
            took, most = round(self._handshake_s * 1000), round(limit * 1000)
            self._first("slow")
            warn(f"{text}: {took} ms, slow_handshake_ms is {most}", QuicWarningConnectionSlow)
            return
        stats = self._engine.conn_stats(self.id) or {"rtt": 0, "min_rtt": 0}
        rtt, quickest = stats["rtt"], stats["min_rtt"]
        if rtt > _SLOWER * quickest > 0 and rtt > limit * 1e8 and self._first("slow"):
            text = f"round trips take {rtt / 1e6:.0f} ms, and took {quickest / 1e6:.0f} ms at their quickest"
            warn(text, QuicWarningConnectionSlow)

    def _first(self, what: str) -> bool:
        """Not warned of yet; it is from now on."""
        first = what not in self._warned
        self._warned |= {what}
        return first


class ServerConnection(BaseConnection):
    """A connection that a server accepted, for servers that handle sessions and not single requests."""

    def __init__(self, runtime: Runtime, record: Record, server: Any) -> None:
        super().__init__(runtime, record[CONN])
        self._server = server
        server.sessions[self.id] = self
        self._token = runtime.new_token()
        runtime.targets[self._token] = self._on_event
        self._engine.attach(self.id, self._token)
        self._on_event(record)

    def _end(self) -> None:
        self._runtime.targets.pop(self._token, None)
        self._server.sessions.pop(self.id, None)
        super()._end()

    def _on_event(self, record: Record) -> None:
        if record[TYPE] == _engine.REQUEST:
            # Its bytes die with this turn, so the request is made now.
            self._opened.append(self._server.new_request(record))
            self._opened_event.set()
        else:
            super()._on_event(record)

    def accept_request(self, timeout: float | None = None) -> Request | None:
        """Wait for the next request. None when `timeout` seconds passed or the connection ended."""
        request: Request | None = self._accept(timeout)
        return request
