"""The opening handshake: extended CONNECT (RFC 9220, and RFC 8441 below it), both sides.

The client sends CONNECT with `:protocol: websocket`, and only where the server's SETTINGS allow it. A 2xx
answer opens the WebSocket, whose frames are the bytes of both bodies; any other answer is a refusal. There is
no key, and no `Upgrade` (RFC 9220, section 3).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import _engine, client, fields
from .._engine import AGAIN, BODY_LEN, CONN, DATE, FIN, FLAGS, HEAD_LEN, RESPONSE, STATUS, STREAM, TYPE
from ..configuration import Timeout, microseconds
from ..connection import ClientConnection
from ..exceptions import QuicException, error
from ..h3 import failure
from ..headers import Headers
from ..messages import Response
from ..pool import seconds_left
from ..repeats import ATTEMPTS, found_dead, unprocessed
from ..stream import Stream, stream_error
from . import deflate
from .connection import WebSocket
from .exceptions import InvalidStatus
from .pipes import EnginePipe
from .protocol import Protocol

if TYPE_CHECKING:
    from ..client import RequestHeaders, Session
    from ..hub import Runtime
    from ..messages import Request

_PROTOCOL = "websocket"

_VERSION = "13"
"""RFC 6455, section 4.1."""

_HTTP3_SHARE = 0.3
"""Of the time for opening, when there is another way: 3 of 10 s, which is a retransmission or two."""

_NO_HTTP3 = {"unreachable", "handshake-timeout", "version", "alert"}
"""Causes that say nothing about the server but that HTTP/3 is not to be had."""

_REFUSAL_MAX = 65536
"""The body of a refusal that is read at once: it is there to be read by people."""

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def listed(value: str | None) -> list[str]:
    """The elements of a field that is a list of tokens."""
    return [item for item in (part.strip() for part in (value or "").split(",")) if item]


def _check_subprotocols(subprotocols: Sequence[str] | None) -> list[str]:
    if isinstance(subprotocols, str):
        raise error("argument", "subprotocols is a list of names, not a name")
    names = list(subprotocols or ())
    for name in names:
        if not isinstance(name, str) or not name or not _TOKEN.issuperset(name):
            raise error("argument", f"{name!r} is not a subprotocol (RFC 6455, section 4.1)")
    return names


def _check_compression(compression: str | None) -> bool:
    if compression not in ("deflate", None):
        raise error("argument", f"compression is 'deflate' or None, not {compression!r}")
    return compression is not None


# ---------------------------------------------------------------- client


def connect(
    uri: str,
    *,
    verify: bool | str = True,
    cert: str | tuple[str, str] | None = None,
    server_name: str | None = None,
    session: Session | None = None,
    **options: Any,
) -> WebSocket:
    """Open a WebSocket: `wss://host[:port]/path`.

        with quicgreen.websocket.connect("wss://example.org/chat") as websocket:
            websocket.send("hello")
            print(websocket.recv())

    It is a stream on a connection that other requests and WebSockets of this thread share.

    Args:
        verify, cert, server_name: as in `Session`.
        session: whose connections are used, instead of the three.
        additional_headers: fields of the request.
        origin: its Origin field.
        subprotocols: to be offered, preferred first.
        compression: "deflate" offers permessage-deflate (RFC 7692); None does not.
        open_timeout: seconds for all of this.
        ping_interval: seconds between pings, which keep the connection alive and find out when the peer is
            gone; None for none.
        ping_timeout: seconds that a pong may take: then the WebSocket is closed with 1011. None: for ever.
        close_timeout: seconds that the peer may take to close, once this side has.
        max_size: bytes of a message that comes; a larger one ends the WebSocket with 1009. None for any.
        max_queue: messages that are kept for who does not receive them yet; the peer's further ones wait with
            the peer, as do those beyond 64 KiB. None: only that counts.
        http3: "only"; or "auto", to go on over TLS and TCP (RFC 6455) when HTTP/3 is not to be had: nobody
            answers there, or the server announces no WebSockets. A refusal and a wrong certificate are final.

    Raises:
        InvalidStatus: the server refused; `response` is its answer.
        InvalidHandshake: it takes no WebSockets over HTTP/3, or its answer is wrong.
        QuicTimeoutException: not in time.
        QuicSocketException, QuicTlsHandshakeException, QuicConnectionException: no connection.
    """
    if session is None:
        session = client.session_for(verify, cert, server_name)
    return session.websocket(uri, **options)


def open_websocket(
    session: Session,
    url: str,
    *,
    additional_headers: RequestHeaders | None = None,
    origin: str | None = None,
    subprotocols: Sequence[str] | None = None,
    compression: str | None = "deflate",
    open_timeout: float | None = 10.0,
    http3: str = "only",
    **options: Any,
) -> WebSocket:
    """`Session.websocket`: arguments and errors as `connect`."""
    offer = Offer(subprotocols, compression, origin)
    if http3 == "auto":
        return _http3_or_tcp(session, url, offer, additional_headers, open_timeout, options)
    if http3 != "only":
        raise error("argument", f"http3 is 'only' or 'auto', not {http3!r}")
    return _over_http3(session, url, offer, additional_headers, open_timeout, open_timeout, options)


def _http3_or_tcp(
    session: Session,
    url: str,
    offer: Offer,
    additional_headers: RequestHeaders | None,
    open_timeout: float | None,
    options: dict[str, Any],
) -> WebSocket:
    deadline = None if open_timeout is None else time.monotonic() + open_timeout
    share = None if open_timeout is None else open_timeout * _HTTP3_SHARE
    try:
        return _over_http3(session, url, offer, additional_headers, open_timeout, share, options)
    except QuicException as e:
        unannounced = e.cause == "websocket-handshake" and not e.request_sent
        if not (unannounced or e.cause in _NO_HTTP3):
            raise
    from . import fallback  # which imports ssl

    return fallback.open_websocket(
        session, _https(url), offer, additional_headers, seconds_left(deadline), options
    )


def _over_http3(
    session: Session,
    url: str,
    offer: Offer,
    additional_headers: RequestHeaders | None,
    open_timeout: float | None,
    connect_timeout: float | None,
    options: dict[str, Any],
) -> WebSocket:
    pool, place, path_line = session.route(_https(url))
    host, lines, declared = client.join(session._own, offer.fields(), additional_headers)
    _check_undeclared(declared)
    head = _head(host or place.authority, path_line) + lines
    deadline = None if open_timeout is None else time.monotonic() + open_timeout
    attempts = ATTEMPTS
    repeated = False
    while True:
        left = seconds_left(deadline)
        connection = pool.connection(place, Timeout(connect_timeout, left, left, left))
        connection.in_flight += 1
        attempts -= 1
        try:
            if not connection.alpn:  # whether it may be asked for stands in the server's SETTINGS
                connection.wait_established()
            stream, record, data = _ask(connection, head, deadline, open_timeout)
        except BaseException as e:
            dead = not repeated and found_dead(e, "GET", connection.rested)
            pool.release(connection)
            if not (dead or (attempts and unprocessed(e))):
                raise
            if dead:
                repeated = True
                pool.close_rested(place)
            continue
        break
    if not 200 <= record[STATUS] < 300:
        raise _refused(connection, stream, record, data, url, pool.answered)
    return _opened(connection, record, data, offer, head, options, lambda: pool.answered(connection))


def open_on_connection(
    connection: ClientConnection,
    authority: str,
    path: str,
    *,
    additional_headers: RequestHeaders | None = None,
    origin: str | None = None,
    subprotocols: Sequence[str] | None = None,
    compression: str | None = "deflate",
    open_timeout: float | None = 10.0,
    **options: Any,
) -> WebSocket:
    """`Connection.websocket`: arguments and errors as `connect`."""
    offer = Offer(subprotocols, compression, origin)
    host, lines, declared = client.join(client.DEFAULT_HEADERS, offer.fields(), additional_headers)
    _check_undeclared(declared)
    head = _head(host or authority, fields.path_line(path)) + lines
    deadline = None if open_timeout is None else time.monotonic() + open_timeout
    if not connection.alpn:
        connection.wait_established()
    stream, record, data = _ask(connection, head, deadline, open_timeout)
    if not 200 <= record[STATUS] < 300:
        url = f"https://{authority}{path}"
        raise _refused(connection, stream, record, data, url, lambda _: None)
    return _opened(connection, record, data, offer, head, options, lambda: None)


def _check_undeclared(declared: int | None) -> None:
    if declared is not None:
        raise error("argument", "a CONNECT has no content-length (RFC 9110, section 9.3.6)")


class Offer:
    """What a client asks for beside the path."""

    def __init__(
        self, subprotocols: Sequence[str] | None, compression: str | None, origin: str | None
    ) -> None:
        self.subprotocols = _check_subprotocols(subprotocols)
        self.compresses = _check_compression(compression)
        self.origin = origin

    def fields(self) -> dict[str, str]:
        """The request's fields for it."""
        found = {"sec-websocket-version": _VERSION}
        if self.origin is not None:
            found["origin"] = self.origin
        if self.subprotocols:
            found["sec-websocket-protocol"] = ", ".join(self.subprotocols)
        if self.compresses:
            found["sec-websocket-extensions"] = deflate.offer()
        return found

    def agreed(self, answer: Headers) -> tuple[str | None, Any]:
        """(subprotocol, compression) that the server chose.

        Raises:
            InvalidHandshake: what was not offered (RFC 6455, section 4.1, the last list)."""
        subprotocol = answer.get("sec-websocket-protocol")
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise error(
                "websocket-handshake", f"the server chose the subprotocol {subprotocol!r}", remote=True
            )
        extensions = ", ".join(answer.get_list("sec-websocket-extensions"))
        if not extensions:
            return subprotocol, None
        if not self.compresses:
            raise error("websocket-handshake", f"the server chose the extension {extensions!r}", remote=True)
        try:
            return subprotocol, deflate.agreed(extensions)
        except deflate.NegotiationError as e:
            raise error("websocket-handshake", str(e), remote=True) from None


def _https(url: str) -> str:
    """The same for who knows no `wss`: its default port and all else are those of `https`."""
    scheme, colon, rest = url.partition(":") if isinstance(url, str) else ("", "", "")
    if not colon or scheme.lower() not in ("wss", "https"):
        raise error("argument", f"{url!r}: only wss:// URLs can be opened over QUIC")
    return f"https:{rest}"


def _head(authority: str, path_line: bytes) -> bytes:
    return (
        fields.pseudo_line(":method", "CONNECT")
        + fields.pseudo_line(":protocol", _PROTOCOL)
        + fields.pseudo_line(":scheme", "https")
        + fields.pseudo_line(":authority", authority)
        + path_line
    )


def _ask(
    connection: ClientConnection, head: bytes, deadline: float | None, open_timeout: float | None
) -> tuple[int, Any, bytes]:
    """(stream, event, its bytes) of the answer."""
    runtime = connection._runtime
    engine = runtime.engine
    while True:
        token = runtime.new_token()
        left = microseconds(seconds_left(deadline))
        rc, stream = engine.open_request(connection.id, head, _engine.EXTENDED, token, left)
        if rc == 0:
            break
        if rc == _engine.UNABLE:
            raise error("websocket-handshake", "the server does not announce it", request_sent=False)
        connection.await_opening(rc, token)
    try:
        token = runtime.new_token()
        rc = engine.await_response(connection.id, stream, token, microseconds(seconds_left(deadline)))
        if rc != AGAIN:
            raise connection.closing_error() or stream_error(-rc, 0)
        record = runtime.wait(token)
        if record[TYPE] != RESPONSE:
            raise failure(connection, record, Timeout.of(open_timeout))
        data = engine.take(record)
        connection.look()
        return stream, record, data
    except BaseException:
        if not engine.closed:
            engine.release(connection.id, stream)
        raise


def _refused(
    connection: ClientConnection,
    stream: int,
    record: Any,
    data: bytes,
    url: str,
    on_done: Callable[[Any], None],
) -> QuicException:
    """The server's answer, as an exception."""
    runtime = connection._runtime
    ends = bool(record[FLAGS] & FIN)
    runtime.engine.write(connection.id, stream, b"", FIN, 0, 0)  # we have nothing to say either
    body = Stream(
        runtime, connection.id, stream, timeout=10.0, owner=connection, write_ended=True, read_ended=ends
    )
    response = Response(connection, record, data, "CONNECT", url, 0.0, 10.0, on_done, body)
    if response.content_length is not None and response.content_length <= _REFUSAL_MAX:
        try:
            response.read()
        except QuicException:
            pass  # the status says enough
    detail = f"{response.status_code} {response.reason}".rstrip()
    exception = error("websocket-status", detail, remote=True)
    assert isinstance(exception, InvalidStatus)
    exception.response = response
    return exception


def _opened(
    connection: ClientConnection,
    record: Any,
    data: bytes,
    offer: Offer,
    head: bytes,
    options: dict[str, Any],
    on_over: Callable[[], None],
) -> WebSocket:
    runtime = connection._runtime
    pipe = EnginePipe(runtime, record[CONN], record[STREAM], connection)
    try:
        return client_websocket(
            runtime,
            pipe,
            offer,
            Headers(data[: record[HEAD_LEN]]),
            begun=data[len(data) - record[BODY_LEN] :] if record[BODY_LEN] else b"",
            ended=bool(record[FLAGS] & FIN),
            on_over=on_over,
            **options,
        )
    except BaseException:
        pipe.release()
        on_over()
        raise


def client_websocket(
    runtime: Runtime,
    pipe: Any,
    offer: Offer,
    answer: Headers,
    *,
    begun: bytes = b"",
    ended: bool = False,
    max_size: int | None = 1 << 20,
    **options: Any,
) -> WebSocket:
    """The client's end, once the server has agreed: on any pipe. `options`: of `WebSocket`."""
    subprotocol, compression = offer.agreed(answer)
    websocket = WebSocket(
        runtime,
        pipe,
        Protocol(is_server=False, max_size=max_size, deflate=compression),
        subprotocol=subprotocol,
        request_headers=Headers.of(offer.fields()),
        response_headers=answer,
        **options,
    )
    websocket._start(begun, ended)
    return websocket


# ---------------------------------------------------------------- server


def accept(
    request: Request,
    *,
    subprotocols: Sequence[str] | None = None,
    compression: str | None = "deflate",
    headers: fields.Fields | None = None,
    max_size: int | None = 1 << 20,
    ping_interval: float | None = 20.0,
    ping_timeout: float | None = 20.0,
    close_timeout: float | None = 10.0,
    max_queue: int | None = 16,
) -> WebSocket:
    """`Request.accept_websocket`: answer with 200, and take over the request's stream.

    Args:
        subprotocols: those that are spoken here, preferred first. The first one that the client offers is
            chosen; when there is none, none is.
        compression: "deflate" takes permessage-deflate when the client offers it; None does not.
        headers: further fields of the answer.
        max_size, ping_interval, ping_timeout, close_timeout, max_queue: as in `connect`.

    Raises:
        QuicClientException: the request asks for no WebSocket, or was answered.
        InvalidHandshake: it cannot be accepted, and was answered with 400.
    """
    request._check()
    if not request.is_websocket or request._answered:
        raise error("state", "answered already" if request._answered else "no WebSocket was asked for")
    ours = _check_subprotocols(subprotocols)
    compresses = _check_compression(compression)
    asked = request.headers
    if asked.get("sec-websocket-version") != _VERSION:
        raise _reject(
            request, f"Sec-WebSocket-Version is not {_VERSION}", {"sec-websocket-version": _VERSION}
        )
    answer: list[tuple[str, Any]] = []
    theirs = listed(asked.get("sec-websocket-protocol"))
    subprotocol = next((name for name in ours if name in theirs), None)
    if subprotocol is not None:
        answer.append(("sec-websocket-protocol", subprotocol))
    codec = None
    extensions = ", ".join(asked.get_list("sec-websocket-extensions"))
    if compresses and extensions:
        try:
            chosen = deflate.accept(extensions)
        except deflate.NegotiationError as e:
            raise _reject(request, str(e), {}) from None
        if chosen is not None:
            answer.append(("sec-websocket-extensions", chosen[0]))
            codec = chosen[1]
    answer += fields.pairs(headers or ())
    head = fields.status_line(200) + fields.encode(answer)
    record = request._record
    runtime = request._runtime
    runtime.engine.send_head(DATE, record[CONN], record[STREAM], head)
    request._answered = 1
    websocket = request._websocket = WebSocket(
        runtime,
        EnginePipe(runtime, record[CONN], record[STREAM]),
        Protocol(is_server=True, max_size=max_size, deflate=codec),
        subprotocol=subprotocol,
        request_headers=asked,
        response_headers=Headers.of((name, _text(value)) for name, value in answer),
        request=request,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        max_queue=max_queue,
    )
    websocket._start(request._rest_inline(), request._whole)
    return websocket


def _text(value: fields.FieldValue) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _reject(request: Request, why: str, headers: dict[str, str]) -> QuicException:
    request.respond(400, {"content-type": "text/plain; charset=utf-8", **headers}, f"{why}\n")
    return error("websocket-handshake", why, remote=True)
