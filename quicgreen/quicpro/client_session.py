"""A client's session: requests that are sent now and whose responses are asked for later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gevent import GreenletExit
from greenlet import getcurrent, greenlet

from .. import fields, h3
from ..client import DEFAULT_HEADERS, Connection, RequestHeaders, join
from ..configuration import Timeout
from ..exceptions import QuicException, error
from ..urls import PLAIN_PATH, quote_path
from ..websocket import WebSocketFile
from .config import Config
from .exchange import Asker, CompleteResponse, Exchange, ResponseHead, unknown
from .last_error import noted
from .session import Session, milliseconds

_REQUESTS_MAX = 4096
"""Whose responses nobody received: what is forgotten there would stay for as long as the session."""

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
        self._early_methods = frozenset(config.get("early_data_methods"))
        self._requests: dict[int, Exchange] = {}
        self._next_id = 0
        self._held: dict[greenlet, Exchange] = {}
        self._askers: dict[greenlet, Asker] = {}
        self._anyone: list[Asker] = []  # who polls without having asked for something
        self._paths: dict[str, bytes] = {}
        self._lines = fields.encode(DEFAULT_HEADERS)
        self._prefixes: dict[str, bytes] = {}
        connection.on_closed = self._on_closed

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

    @noted
    def send_request(
        self,
        path: str,
        headers: RequestHeaders | None = None,
        body: Any = None,
        *,
        method: str | None = None,
    ) -> int:
        """See `quicpro_send_request`."""
        self._check()
        self._let_go()
        if self.connection.alpn not in ("h3", ""):
            raise error("state", f"the session speaks {self.connection.alpn}, not HTTP/3")
        named = method is not None
        data, extra = (None, None) if body is None else h3.encode_body(body, None)
        if method is None:
            method = "GET" if body is None else "POST"
        host = declared = None
        lines = self._lines
        if headers is not None or extra:
            host, lines, declared = join(DEFAULT_HEADERS, extra or {}, _checked(headers))
        rest = self._path_line(path) + lines
        prefix = self.prefix(method, host)
        if len(self._requests) >= _REQUESTS_MAX:
            self._sweep()
        number = self._next_id
        exchange = Exchange(self, number, method, path)
        if body is None:
            exchange.held, exchange.host = rest, host
            exchange.declared, exchange.named = declared, named
            self._held[getcurrent()] = exchange
        else:
            exchange.send(prefix + rest, data, declared, self.may_be_early(method))
        self._requests[number] = exchange
        self._next_id += 4
        return number

    def may_be_early(self, method: str) -> bool:
        """Before the handshake is complete, where it could be replayed."""
        return method in self._early_methods

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

    def _path_line(self, path: str) -> bytes:
        line = self._paths.get(path) if isinstance(path, str) else None
        if line is None:
            line = fields.path_line(quoted(path))
            if len(self._paths) >= _HEADS_MAX:
                self._paths.clear()
            self._paths[path] = line
        return line

    def _let_go(self) -> None:
        """A request of this greenlet that waited for its body gets none."""
        if self._held:
            exchange = self._held.pop(getcurrent(), None)
            if exchange is not None:
                exchange.send_held()

    @noted
    def send_body_chunk(self, number: int, data: Any) -> int:
        """See `quiche_h3_send_body_chunk`."""
        exchange = self._body_of(number)
        if isinstance(data, str):
            data = data.encode()
        elif not isinstance(data, (bytes, bytearray, memoryview)):
            raise error("argument", f"a piece of a body is bytes or text, not {type(data).__name__}")
        return exchange.write_piece(data)

    @noted
    def finish_body(self, number: int) -> None:
        """See `quiche_h3_finish_body`."""
        self._body_of(number).finish_body()

    def _body_of(self, number: int) -> Exchange:
        exchange = self._find(number)
        if self._unhold(exchange):
            exchange.begin_body()
        self._let_go()
        return exchange

    # ---------------------------------------------------------------- receiving

    @noted
    def receive_response(self, number: int) -> CompleteResponse | None:
        """See `quicpro_receive_response`."""
        exchange = self._asked(number)
        try:
            complete = exchange.collect(self._body_max)
        except BaseException:
            self._forget(exchange)
            raise
        if not complete:
            self._ask(exchange)
            return None
        self._forget(exchange)
        return CompleteResponse(exchange.response, exchange.body())

    @noted
    def receive_head(self, number: int, ms: float | None = None) -> ResponseHead | None:
        """See `quicpro_receive_head`."""
        head: ResponseHead | None = self._await(number, ms, _head)
        return head

    @noted
    def receive_chunk(self, number: int, ms: float | None = None) -> bytes | None:
        """See `quicpro_receive_chunk`."""
        chunk: bytes | None = self._await(number, ms, Exchange.take)
        if chunk == b"":
            self._forget(self._requests[number])
        return chunk

    def _await(self, number: int, ms: float | None, look: Any) -> Any:
        seconds = milliseconds(ms, none=True)
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
        exchange.askers.append(asker)
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
        finally:
            if deadline is not None:
                runtime.deadlines.cancel(deadline)
            exchange.askers.remove(asker)

    def _find(self, number: int) -> Exchange:
        if self._closed:
            self._check()
        exchange = self._requests.get(number) if number.__class__ is int else None
        if exchange is None:
            self._check()
            raise unknown(number)
        return exchange

    def _asked(self, number: int) -> Exchange:
        """The request whose response is asked for: if it waited for a body, it gets none."""
        exchange = self._find(number)
        if self._unhold(exchange):
            exchange.send_held()
        self._let_go()
        return exchange

    def _unhold(self, exchange: Exchange) -> bool:
        """True when it waited for a body; whoever calls this sends it."""
        if exchange.held is None:
            return False
        for g, held in self._held.items():
            if held is exchange:
                del self._held[g]
                break
        return True

    # ---------------------------------------------------------------- polling

    def _ask(self, exchange: Exchange) -> None:
        """The calling greenlet wants to know of this request."""
        current = getcurrent()
        asker = self._askers.get(current)
        if asker is None:
            asker = self._askers[current] = Asker(current)
        if asker not in exchange.askers:
            exchange.askers.append(asker)
            asker.requests += 1

    def tell(self, askers: Iterable[Asker], good: bool) -> None:
        """There is something new, `good` or not, for these and for who polls for anything. In the hub."""
        for asker in [*askers, *self._anyone]:
            asker.news |= good
            if asker.token:
                self._runtime.answer(asker.token)

    def _on_closed(self) -> None:
        self.tell([a for e in self._requests.values() for a in e.askers], False)

    def _poll(self, seconds: float) -> None:
        runtime = self._runtime
        asker = self._askers.get(getcurrent())
        anyone = asker is None
        if asker is None:
            asker = Asker()
            self._anyone.append(asker)
        try:
            if asker.news:
                runtime.check("this session")
                runtime.turn()
                return
            self._check()
            self._let_go()
            if seconds:
                token = asker.token = runtime.new_token()
                runtime.wait_for(token, seconds)
            else:
                runtime.turn()
            if not asker.news:
                self._check()
        except GreenletExit:
            self._abandon(asker)
            raise
        finally:
            asker.token = 0
            asker.news = False
            if anyone:
                self._anyone.remove(asker)

    # ---------------------------------------------------------------- the end

    def _forget(self, exchange: Exchange) -> None:
        """It is over: received, failed, or given up."""
        if self._requests.pop(exchange.id, None) is None:
            return
        for asker in exchange.askers:
            asker.requests -= 1
            if not asker.requests and asker.greenlet is not None:
                self._askers.pop(asker.greenlet, None)

    def _abandon(self, asker: Asker) -> None:
        """A greenlet was killed: what nobody else asked for is given up."""
        for exchange in [e for e in self._requests.values() if e.askers == [asker]]:
            exchange.give_up()
            self._forget(exchange)

    def _sweep(self) -> None:
        """Make room: give up what only greenlets asked for that are gone."""
        for asker in [a for a in self._askers.values() if a.greenlet is not None and a.greenlet.dead]:
            self._abandon(asker)
        if len(self._requests) >= _REQUESTS_MAX:
            raise error("limit", f"{_REQUESTS_MAX} responses that nobody received")

    def _begin_close(self) -> None:
        for exchange in list(self._held.values()):
            if not self.connection.closed:
                exchange.send_held()
        self._held.clear()
        for exchange in list(self._requests.values()):
            exchange.forget()
            exchange.failure = error("closed-here", "the session was closed")
        self._runtime.later(self._on_closed)

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
        self._let_go()
        self._next_id += 4
        return self.connection.websocket(quoted(path), **options).makefile()

    @noted
    def export_ticket(self, ms: float = 0) -> bytes | None:
        """See `quicpro_export_ticket`."""
        seconds = milliseconds(ms)
        assert seconds is not None
        ticket = self.connection.export_ticket(seconds)
        return None if ticket is None else bytes(ticket.to_bytes())


def _head(exchange: Exchange) -> ResponseHead | None:
    head = exchange.head()
    return None if head is None else ResponseHead(*head)


def _checked(headers: Any) -> RequestHeaders | None:
    if headers is not None and not hasattr(headers, "items") and not isinstance(headers, (list, tuple)):
        raise error("argument", f"headers are a mapping or pairs, not {type(headers).__name__}")
    checked: RequestHeaders | None = headers
    return checked


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
