"""HTTP requests over one connection: a head and a body go out, a `Response` comes back.

A request without a body, or with a small one, is one submission and one event. Any other is sent as the
server takes it, on a stream of its own.
"""

from __future__ import annotations

import json as json_module
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from . import _engine, fields
from ._engine import (
    BODY_LEN,
    CODE,
    CONN,
    DEADLINE,
    FIN,
    FLAGS,
    HEAD_LEN,
    INLINE_MAX,
    MORE,
    OFFSET,
    OP_REQUEST,
    RESPONSE,
    STATUS,
    STREAM,
    TYPE,
)
from .bodies import as_bytes
from .configuration import Timeout, microseconds
from .connection import ClientConnection
from .exceptions import QuicException, error
from .messages import Response
from .stream import H3_REQUEST_CANCELLED, Stream, stream_error, told
from .upload import Upload

_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_FLAGS = {
    "GET": FIN | _engine.EARLY,
    "HEAD": FIN | _engine.HEAD | _engine.EARLY,
    "OPTIONS": FIN | _engine.EARLY,
}
"""Of a request without a body. These methods may be sent early: a replay does no harm (RFC 9110, section
9.2.1; RFC 8470, section 2)."""

_FLAGS_WITH_BODY = {"HEAD": FIN | _engine.HEAD}


def head_prefix(method: str, authority: str) -> bytes:
    """:method, :scheme and :authority, encoded."""
    if not isinstance(method, str) or not _METHOD.fullmatch(method):
        raise error("argument", f"{method!r} is not a method (RFC 9110, section 9.1)")
    return (
        fields.pseudo_line(":method", method)
        + fields.pseudo_line(":scheme", "https")
        + fields.pseudo_line(":authority", authority)
    )


def encode_body(data: Any, json: Any) -> tuple[Any, dict[str, str]]:
    """(body, fields that it brings): bytes, None, or something to be sent in pieces."""
    if json is not None:
        if data is not None:
            raise error("argument", "data and json exclude each other")
        text = json_module.dumps(json, separators=(",", ":"))
        return text.encode(), {"content-type": "application/json"}
    if data is None or data.__class__ is bytes:
        return data, {}
    if isinstance(data, str):
        return data.encode(), {"content-type": "text/plain; charset=utf-8"}
    if isinstance(data, Mapping):
        form = urlencode(data, doseq=True).encode()
        return form, {"content-type": "application/x-www-form-urlencoded"}
    if isinstance(data, (bytearray, memoryview)):
        return bytes(as_bytes(data)), {}
    if not (isinstance(data, Iterable) or callable(getattr(data, "read", None))):
        raise error("argument", f"{type(data).__name__} cannot be sent as a body")
    return data, {}


def with_length(head: bytes, body: Any, declared: int | None) -> bytes:
    """The head, with a content-length if the body's is known and the head has none.

    Raises:
        QuicClientException: it has another one.
    """
    if body is None:
        if declared:
            raise error("content-length", f"no body, announced as {declared}", request_sent=False)
    elif isinstance(body, bytes):
        if declared is None:
            return head + fields.length_line(len(body))
        if declared != len(body):
            detail = f"{len(body)} bytes, announced as {declared}"
            raise error("content-length", detail, request_sent=False)
    return head


def submit(
    connection: ClientConnection,
    method: str,
    head: bytes,
    body: bytes,
    token: int,
    limit: Timeout,
    early: bool | None,
) -> None:
    """Hand a request with a body of at most `INLINE_MAX` bytes to the engine: it leaves with the turn. The
    event with `token` is its answer."""
    flags = _FLAGS.get(method, FIN) if not body else _FLAGS_WITH_BODY.get(method, FIN)
    if early is not None:
        flags = flags | _engine.EARLY if early else flags & ~_engine.EARLY
    connection._engine.submit(OP_REQUEST, flags, connection.id, 0, token, limit.read_us, 0, head, body)


def open_request(connection: ClientConnection, head: bytes, limit: Timeout) -> int:
    """Send a head whose body follows, waiting while no stream may be opened; returns the stream's id.

    Raises:
        QuicTimeoutException: none was allowed in time.
        QuicConnectionException: the connection ended.
    """
    runtime = connection._runtime
    while True:
        token = runtime.new_token()
        rc, number = runtime.engine.open_request(connection.id, head, 0, token, microseconds(limit.pool))
        if rc == 0:
            return number
        connection.await_opening(rc, token)


def await_head(connection: ClientConnection, stream: int, token: int, timeout_us: int) -> None:
    """Have the event with `token` tell of the response's head on an open stream."""
    rc = connection._engine.await_response(connection.id, stream, token, timeout_us)
    if rc != _engine.AGAIN:
        raise connection.closing_error() or stream_error(-rc, 0)


def exchange(
    connection: ClientConnection,
    method: str,
    url: str,
    head: bytes,
    body: Any,
    limit: Timeout,
    on_done: Callable[[Any], None] | None,
    declared: int | None = None,
    early: bool | None = None,
) -> Response:
    """Send a request and wait for its response's head.

    `on_done(connection)` is called when the response's body ended or was given up, and not when this
    raises. `declared`: the content-length that `head` has already; None: it has none. `early`: may it be
    sent before the handshake is complete, where it could be replayed? None: as its method says.
    """
    head = with_length(head, body, declared)
    if body is None:
        body = b""
    elif body.__class__ is not bytes or len(body) > INLINE_MAX:
        return _upload(connection, method, url, head, body, limit, on_done, declared)
    runtime = connection._runtime
    engine = runtime.engine
    token = runtime.new_token()
    started = time.monotonic()
    submit(connection, method, head, body, token, limit, early)
    try:
        record = runtime.wait(token)
    except BaseException:
        if not engine.closed:
            engine.cancel(connection.id, token, H3_REQUEST_CANCELLED)
        raise
    if record[TYPE] != RESPONSE:
        why = failure(connection, record, limit)
        connection.look()  # the way may be slow
        raise told(why)
    offset = record[OFFSET]
    data = engine.arena[offset : offset + record[HEAD_LEN] + record[BODY_LEN]]
    now = time.monotonic()
    if now > connection.look_at:
        _look(connection, record)
    return Response(connection, record, data, method, url, now - started, limit.read, on_done)


def _look(connection: ClientConnection, record: Any) -> None:
    """`connection.look()`, between an answer and its `Response`: where warnings are errors there is none."""
    try:
        connection.look()
    except BaseException:
        connection._engine.release(record[CONN], record[STREAM])
        raise


def _upload(
    connection: ClientConnection,
    method: str,
    url: str,
    head: bytes,
    body: Any,
    limit: Timeout,
    on_done: Callable[[Any], None] | None,
    declared: int | None,
) -> Response:
    """A request whose body is sent as the server takes it, while its response may come."""
    runtime = connection._runtime
    engine = runtime.engine
    number = open_request(connection, head, limit)
    stream = Stream(runtime, connection.id, number, timeout=limit.read, owner=connection, write_ended=True)
    started = time.monotonic()
    upload = None

    def done(owner: Any) -> None:
        if upload is not None and (stream.released or not stream.read_ended):
            upload.sender.kill(block=False)  # the response was given up, and the request with it
        if on_done is not None:
            on_done(owner)

    try:
        token = runtime.new_token()
        await_head(connection, number, token, 0)
        upload = Upload(connection, number, body, declared, limit, token)
        record = runtime.wait(token)
        if record[TYPE] != RESPONSE:
            raise told(failure(connection, record, limit))
        data = engine.take(record)
        elapsed = time.monotonic() - started
        connection.look()
        if record[FLAGS] & FIN:
            upload.sender.join()  # the server said all that it has to say, and may want the rest still
    except BaseException:
        if upload is not None:
            upload.sender.kill(block=False)
        stream.release()
        raise
    return Response(connection, record, data, method, url, elapsed, limit.read, done, stream)


def failure(connection: ClientConnection, record: Any, limit: Timeout) -> QuicException:
    """What the event says, which is not a response."""
    engine = connection._engine
    if record[TYPE] == DEADLINE:
        sent = bool(record[CONN])  # else it still waited for the handshake, or for a stream
        if sent:
            engine.reset(record[CONN], record[STREAM], H3_REQUEST_CANCELLED)
        return error("deadline", f"no response in {limit.read} s", request_sent=sent)
    unsent = bool(record[FLAGS] & MORE)
    if record[STATUS] in (-_engine.CLOSED, -_engine.GONE):
        why = connection.closing_error()
        if why is not None:
            why.request_sent = not unsent
            return why
    if record[CONN] and not unsent:
        engine.release(record[CONN], record[STREAM])
    return stream_error(record[STATUS], record[CODE], sent=not unsent)
