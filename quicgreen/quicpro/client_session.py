"""A client's session: requests that are sent now and whose responses are asked for later."""

from __future__ import annotations

import time
from typing import Any

import gevent
from gevent import GreenletExit
from greenlet import getcurrent

from .. import fields, h3
from .._engine import BODY_LEN, FIN, FLAGS, HEAD_LEN, MORE, STATUS
from ..client import DEFAULT_HEADERS, Connection, RequestHeaders, join
from ..configuration import Timeout
from ..exceptions import QuicException, error
from ..hub import thread_id
from ..urls import PLAIN_PATH, quote_path
from ..websocket import WebSocketFile
from .asker import Asker, Askers
from .config import Config
from .exchange import CompleteResponse, Exchange, ResponseHead, unknown
from .last_error import noted
from .session import Session, checked_fields, milliseconds, milliseconds_or_none

_REQUESTS_MAX = 4096
"""Whose responses nobody received: what is forgotten there would stay for as long as the session."""

_BATCH = 65536
"""Bytes of bodies that wait for each other when one comes upon the other: as much as the engine keeps."""

_BATCH_S = 0.001
"""And for how long at most."""

_LOOK_MASK = 0xFF
"""A look at the connection each 64 requests."""

_WHOLE = FIN | MORE

_NOTHING: dict[str, str] = {}

_HEADS_MAX = 256
"""Encoded heads that are kept for requests that repeat."""


class ClientSession(Session):
    """See `Session`; `quicpro_connect` makes one."""

    connection: Connection

    def __init__(self, connection: Connection, config: Config) -> None:
        super().__init__(connection)
        self.config = config
        self.limit: Timeout = config.timeout()
        self._body_max: int = config.get("max_body_bytes")
        self.early_methods = frozenset(config.get("early_data_methods"))
        """What may be sent before the handshake is complete, where it could be replayed."""
        self._requests: dict[int, Exchange] = {}
        self._next_id = 0
        self._held = 0  # requests that are not on their way
        self._written = 0  # bytes of bodies since the network had its last turn
        self._turned_at = 0.0
        self._askers = Askers()
        self.anyone: list[Asker] = []
        """Who polls without having asked for something."""
        self._heads: dict[str, bytes] = {}  # of GETs without further fields, by their paths
        self._lines = fields.encode(DEFAULT_HEADERS)
        self._prefixes: dict[str, bytes] = {}
        connection.on_closed = self._wake_all

    # ---------------------------------------------------------------- what it is

    @property
    def is_resumed(self) -> bool:
        """The handshake took up an earlier session: no certificate was sent, and a round trip saved."""
        return self.connection.is_resumed

    @property
    def in_early_data(self) -> bool:
        """Requests go out before the handshake is complete (0-RTT)."""
        return self.connection.in_early_data

    @property
    def early_data(self) -> bool | None:
        """Whether the server took early data; None when none was sent, or it has not said."""
        return self.connection.early_data

    # ---------------------------------------------------------------- sending

    def send_request(
        self,
        path: str,
        headers: RequestHeaders | None = None,
        body: Any = None,
        *,
        method: str | None = None,
    ) -> int:
        """See `quicpro_send_request`."""
        connection = self.connection
        if (
            self._closed
            or connection._why is not None
            or self._engine.closed
            or thread_id() != self._runtime.thread
        ):
            self._check()
        if self._held:
            self._let_go()
        if len(self._requests) >= _REQUESTS_MAX:
            self._sweep()
        number = self._next_id
        if not number & _LOOK_MASK:
            self._look()
        if body is None and headers is None and method is None:
            exchange = Exchange(self, number, "GET", path)
            exchange.held = self._heads.get(path) or self._get_head(path)
        else:
            exchange = self._other(number, path, headers, body, method)
        if exchange.held is not None:
            asker = self._askers.get(id(getcurrent())) or self._askers.new()
            asker.held = exchange
            self._held += 1
        self._requests[number] = exchange
        self._next_id = number + 4
        return number

    def _look(self) -> None:
        """Is the way slow? Looked at when nothing came, and now and then."""
        if time.monotonic() > self.connection.look_at:
            self.connection.look()

    def _other(self, number: int, path: str, headers: Any, body: Any, method: str | None) -> Exchange:
        """A request with fields, a body, or a method: on its way, if it has a body."""
        self._check_protocol()
        data, extra = (None, _NOTHING) if body is None else h3.encode_body(body, None)
        host, lines, declared = join(DEFAULT_HEADERS, extra, checked_fields(headers))
        named = method is not None
        if method is None:
            method = "GET" if body is None else "POST"
        head = self.prefix(method, host) + fields.path_line(quoted(path)) + lines
        exchange = Exchange(self, number, method, path)
        if body is None:
            exchange.held, exchange.host = head, host
            exchange.declared, exchange.named = declared, named
        else:
            exchange.send(head, data, declared, method in self.early_methods)
        return exchange

    def _check_protocol(self) -> None:
        if self.connection.alpn not in ("h3", ""):
            raise error("state", f"the session speaks {self.connection.alpn}, not HTTP/3")

    def _get_head(self, path: str) -> bytes:
        self._check_protocol()
        head = self.prefix("GET", None) + fields.path_line(quoted(path)) + self._lines
        if len(self._heads) >= _HEADS_MAX:
            self._heads.clear()
        self._heads[path] = head
        return head

    def prefix(self, method: str, host: str | None) -> bytes:
        """The head's begin, encoded."""
        if host is not None:
            return h3.head_prefix(method, host)
        prefix = self._prefixes.get(method)
        if prefix is None:
            prefix = h3.head_prefix(method, self.connection.authority)
            if len(self._prefixes) < _HEADS_MAX:
                self._prefixes[method] = prefix
        return prefix

    def _let_go(self, exchange: Exchange | None = None) -> None:
        """Requests that waited for a body get none: the calling greenlet's, and this one."""
        asker = self._askers.get(id(getcurrent()))
        if asker is not None and asker.held is not None:
            held, asker.held = asker.held, None
            self._held -= 1
            held.send_held()
        if exchange is not None and exchange.held is not None:
            self._runtime.check("this session")
            self._unhold(exchange)
            exchange.send_held()

    def _unhold(self, exchange: Exchange) -> None:
        """It is sent now, whoever's it was: that greenlet may be gone."""
        self._held -= 1
        for asker in self._askers.values():
            if asker.held is exchange:
                asker.held = None
                break

    def send_body_chunk(self, number: int, data: Any) -> int:
        """See `quiche_h3_send_body_chunk`."""
        exchange = self._body_of(number)
        if isinstance(data, str):
            data = data.encode()
        elif not isinstance(data, (bytes, bytearray, memoryview)):
            raise error("argument", f"a piece of a body is bytes or text, not {type(data).__name__}")
        self._written += len(data)
        return exchange.write_piece(data)

    def finish_body(self, number: int) -> None:
        """See `quiche_h3_finish_body`."""
        self._body_of(number).finish_body()

    def _body_of(self, number: int) -> Exchange:
        exchange = self._find(number)
        if self._held:
            if exchange.held is not None:
                self._unhold(exchange)
                try:
                    exchange.begin_body()
                except BaseException:
                    exchange.give_up()
                    self._forget(exchange)
                    raise
            self._let_go()
        return exchange

    # ---------------------------------------------------------------- receiving

    def receive_response(self, number: int) -> CompleteResponse | None:
        """See `quicpro_receive_response`."""
        exchange = self._requests.get(number) if number.__class__ is int else None
        if exchange is None or self._closed:
            exchange = self._find(number)
        asker = self._askers.get(id(getcurrent())) or self._askers.new()
        if self._held:
            if asker.held is exchange:  # as it mostly is
                asker.held = None
                self._held -= 1
                exchange.send_held()
            else:
                self._let_go(exchange)
        record = exchange._record
        if record is not None:
            if (
                record[FLAGS] & _WHOLE == FIN
                and exchange._number < 0
                and exchange.failure is None
                and record[BODY_LEN] <= self._body_max
            ):  # most come whole
                del self._requests[number]
                for other in exchange.others:
                    other.requests -= 1
                if exchange.asker is not None:
                    exchange.asker.requests -= 1
                head, data = record[HEAD_LEN], exchange._data
                return CompleteResponse(record[STATUS], data[:head], data[head:])
            if self._collect(exchange):
                return CompleteResponse(
                    record[STATUS], exchange._data[: record[HEAD_LEN]], exchange.body(), exchange.trailers
                )
        elif exchange.failure is not None:
            self._forget(exchange)
            exchange.check()
        if exchange.asker is None:
            exchange.asker = asker
            asker.requests += 1
        elif exchange.asker is not asker:
            exchange.add(asker)
        return None

    def _collect(self, exchange: Exchange) -> bool:
        try:
            complete = exchange.collect(self._body_max)
        except BaseException:
            self._forget(exchange)
            raise
        if complete:
            self._forget(exchange)
        return complete

    def receive_head(self, number: int, ms: float | None = None) -> ResponseHead | None:
        """See `quicpro_receive_head`."""
        head: ResponseHead | None = self._await(number, ms, _head)
        return head

    def receive_chunk(self, number: int, ms: float | None = None) -> bytes | None:
        """See `quicpro_receive_chunk`."""
        chunk: bytes | None = self._await(number, ms, Exchange.take)
        if chunk == b"":
            self._forget(self._requests[number])
        return chunk

    def _await(self, number: int, ms: float | None, look: Any) -> Any:
        seconds = milliseconds_or_none(ms)
        exchange = self._asked(number)
        try:
            found = look(exchange)
            if found is None and seconds != 0:
                found = self._wait_for(exchange, seconds, look)
        except QuicException:
            self._forget(exchange)
            raise
        return found

    def _wait_for(self, exchange: Exchange, seconds: float | None, look: Any) -> Any:
        """What `look` finds, as soon as that is not None; None when it is not there in time."""
        runtime = self._runtime
        asker = Asker()
        exchange.add(asker)
        deadline = None
        token = asker.token = runtime.new_token()
        try:
            if seconds is not None:
                deadline = runtime.deadlines.add(seconds, lambda: runtime.answer(token))
            while (found := look(exchange)) is None:
                if deadline is not None and deadline[2] is None:
                    return None
                runtime.wait(token)
                self._find(exchange.id)
            return found
        except GreenletExit:
            if exchange.askers == (asker,):
                self._abandon(asker)
            raise
        finally:
            if deadline is not None:
                runtime.deadlines.cancel(deadline)
            exchange.remove(asker)

    def _find(self, number: int) -> Exchange:
        exchange = self._requests.get(number) if number.__class__ is int else None
        if exchange is None or self._closed:
            if self._closed or exchange is None:
                self._check()
            raise unknown(number)
        return exchange

    def _asked(self, number: int) -> Exchange:
        """The request whose response is asked for."""
        exchange = self._find(number)
        if self._held:
            self._let_go(exchange)
        return exchange

    # ---------------------------------------------------------------- polling

    def tell(self, exchange: Exchange) -> None:
        """There is something new of it. In the hub."""
        for asker in [*exchange.askers, *self.anyone]:
            asker.news |= exchange.failure is None
            if asker.token:
                self._runtime.answer(asker.token)

    def _wake_all(self) -> None:
        """The session is over. In the hub."""
        askers = [asker for exchange in self._requests.values() for asker in exchange.askers]
        for asker in [*askers, *self.anyone]:
            if asker.token:
                self._runtime.answer(asker.token)

    def poll(self, ms: float) -> None:
        """See `quicpro_poll`; raises where that returns False."""
        runtime = self._runtime
        seconds = ms / 1000 if ms.__class__ is int and ms >= 0 else milliseconds(ms)
        if self._engine.closed or thread_id() != runtime.thread:
            runtime.check("this session")
        asker = self._askers.get(id(getcurrent()))
        if asker is None or not asker.requests:
            self._poll_anything(seconds)
            return
        if asker.news:
            asker.news = False
            self._turn()
            return
        if self._closed or self.connection._why is not None or self._held:
            self._check()
            self._let_go()
        try:
            if seconds:
                token = asker.token = runtime.new_token()
                runtime.wait_for(token, seconds)
            else:
                self._turn()
        except GreenletExit:
            self._abandon(asker)
            raise
        finally:
            asker.token = 0
        if not asker.news:
            self._check()
            self._look()
        asker.news = False

    def _poll_anything(self, seconds: float) -> None:
        self._check()
        if self._held:
            self._let_go()
        if not seconds:
            self._turn()
            return
        asker = Asker()
        self.anyone.append(asker)
        try:
            token = asker.token = self._runtime.new_token()
            self._runtime.wait_for(token, seconds)
        finally:
            self.anyone.remove(asker)
        if not asker.news:
            self._check()

    def _turn(self) -> None:
        """One turn of the loop. Pieces of a body that come one upon the other leave together, as those that
        are larger do: what a turn of the network costs does not depend on its bytes."""
        now = time.monotonic()
        if 0 < self._written < _BATCH and now - self._turned_at < _BATCH_S:
            gevent.sleep(0)
            return
        self._written = 0
        self._turned_at = now
        self._runtime.turn()

    # ---------------------------------------------------------------- the end

    def _forget(self, exchange: Exchange) -> None:
        """It is over: received, failed, or given up."""
        if self._requests.pop(exchange.id, None) is not None:
            if exchange.asker is not None:
                exchange.asker.requests -= 1
            for asker in exchange.others:
                asker.requests -= 1
            exchange.end()

    def _abandon(self, asker: Asker) -> None:
        """A greenlet is gone: what nobody else asked for is given up."""
        for exchange in [e for e in self._requests.values() if e.askers == (asker,)]:
            exchange.give_up()
            self._forget(exchange)

    def _sweep(self) -> None:
        """Make room: give up what only greenlets asked for that are gone."""
        for asker in {e.asker for e in self._requests.values() if e.asker is not None and e.asker.dead}:
            self._abandon(asker)
        if len(self._requests) >= _REQUESTS_MAX:
            raise error("limit", f"{_REQUESTS_MAX} responses that nobody received")

    def _begin_close(self) -> None:
        for exchange in list(self._requests.values()) if self._held else ():
            if exchange.held is not None:
                self._unhold(exchange)
                if not self.connection.closed:
                    exchange.send_held()
        for exchange in list(self._requests.values()):
            exchange.forget()
            exchange.failure = error("closed-here", "the session was closed")
        if not self._engine.closed:
            self._runtime.later(self._wake_all)

    # ---------------------------------------------------------------- WebSocket, tickets

    @noted
    def upgrade(self, path: str, **options: Any) -> WebSocketFile:
        """Open a WebSocket (RFC 9220) at `path`, as a text file: `fwrite`, `fgets`, `feof`, `fclose`, or its
        methods. Options as `quicgreen.websocket.connect`.

        Raises:
            InvalidStatus: the server refused; `response` is its answer.
            InvalidHandshake: it takes no WebSockets.
        """
        self._check()
        if self._held:
            self._let_go()
        self._next_id += 4
        return self.connection.websocket(quoted(path), **options).makefile()

    def export_ticket(self, ms: float = 0) -> bytes | None:
        """See `quicpro_export_ticket`."""
        seconds = milliseconds(ms)
        ticket = self.connection.export_ticket(seconds)
        return None if ticket is None else bytes(ticket.to_bytes())


def _head(exchange: Exchange) -> ResponseHead | None:
    if exchange.status is None:
        exchange.check()
        return None
    return ResponseHead(exchange)


def quoted(path: Any) -> str:
    """A path as it is sent."""
    if not isinstance(path, str) or path[:1] not in ("/", "*"):
        raise error("argument", f"{path!r} is not a path: it begins with a slash")
    if PLAIN_PATH.fullmatch(path):
        return path
    if "#" in path:
        path = path.partition("#")[0]
    before, _, query = path.partition("?")
    return quote_path(before, query)
