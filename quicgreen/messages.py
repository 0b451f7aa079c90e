"""The two messages a user holds: a server's `Request` and a client's `Response`.

Both are thin: an event's bytes in one copy, decoded when asked, and a `Stream` for what did not come with
them.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from . import _engine, fields
from ._engine import (
    BODY_LEN,
    CONN,
    DATE,
    EARLY,
    FIN,
    FLAGS,
    HEAD_LEN,
    INLINE_MAX,
    INTERIM,
    METHODS,
    MORE,
    OFFSET,
    PATH_LEN,
    STATUS,
    STREAM,
    UNKNOWN_LENGTH,
    VALUE,
)
from .bodies import CHUNK, Body, as_bytes, close_body, exactly, pieces
from .exceptions import error
from .fields import lengths, lines, statuses
from .headers import Headers
from .hub import thread_id
from .stream import H3_INTERNAL_ERROR, Stream, StreamGuard, UnsentStream

if TYPE_CHECKING:
    from .hub import Runtime
    from .server import Server
    from .websocket import WebSocket

_FIN_DATE = FIN | DATE
_HEAD = _engine.METHODS.index("HEAD")
_CONNECT = _engine.METHODS.index("CONNECT")
_BODILESS = {204, 304}


def charset(headers: Headers) -> str | None:
    """What the content-type says of a text's encoding, if Python knows that."""
    for parameter in (headers.get("content-type") or "").split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "charset":
            try:
                "".encode(value.strip('"'))
            except LookupError:
                return None
            return value.strip('"')
    return None


class _Received:
    """The receiving side, the same for both messages: first bytes that came with the head, then the
    stream."""

    _runtime: Runtime
    _record: Any
    _data: bytes
    _stream: Stream | None = None
    _headers: Headers | None = None
    _inline: int

    @property
    def headers(self) -> Headers:
        """The fields, case-insensitive; decoded as they are asked for."""
        if self._headers is None:
            record = self._record
            start = record[PATH_LEN]
            self._headers = Headers(self._data[start : start + record[HEAD_LEN]])
        return self._headers

    @property
    def content_length(self) -> int | None:
        """What the content-length field says."""
        length: int = self._record[VALUE]
        return None if length == UNKNOWN_LENGTH else length

    @property
    def stream(self) -> Stream:
        """The stream below; reading from it skips what came with the head."""
        if self._stream is None:
            self._stream = self._new_stream()
        return self._stream

    def _new_stream(self) -> Stream:
        raise NotImplementedError

    def _rest_inline(self) -> bytes:
        """What came with the head and was not read yet."""
        return self._data[len(self._data) - self._inline :] if self._inline else b""

    def _check(self) -> None:
        """May the calling thread, of this process, use it?"""
        runtime = self._runtime
        if thread_id() != runtime.thread or runtime.engine.closed:
            runtime.refuse(f"this {type(self).__name__.lower()}")

    def readinto(self, buffer: Any) -> int:
        """Read body bytes into a writable buffer; 0 at the end. Errors as `Stream.readinto`."""
        self._check()
        if self._inline:
            view = memoryview(buffer).cast("B")
            rest = self._rest_inline()[: len(view)]
            view[: len(rest)] = rest
            self._inline -= len(rest)
            return len(rest)
        return 0 if self._whole else self.stream.readinto(buffer)

    @property
    def _whole(self) -> bool:
        """All of the body came with the head."""
        return bool(self._record[FLAGS] & FIN)

    def _read(self, size: int, limit: int | None) -> bytes:
        self._check()
        if size >= 0:
            if self._inline:
                rest = self._rest_inline()[:size]
                self._inline -= len(rest)
                return rest
            return b"" if self._whole else self.stream.read(size)
        rest = self._rest_inline()
        self._inline = 0
        if not self._whole:
            return self.stream.read_all(limit, rest)
        if limit is not None and len(rest) > limit:
            raise error("body-too-large", f"more than {limit} bytes")
        return rest

    def iter_bytes(self, chunk_size: int = CHUNK) -> Iterator[bytes]:
        """The body in pieces of at most `chunk_size` bytes, each as soon as it came."""
        while piece := self._read(chunk_size, None):
            yield piece


class Request(_Received):
    """A request as a handler sees it; `respond` answers it."""

    _answered = 0  # 1: the head is sent, 2: all is
    _websocket: WebSocket | None = None  # which the stream belongs to then

    def __init__(self, server: Server, record: Any) -> None:
        self._server = server
        self._runtime = server._runtime
        engine = self._engine = server._engine
        self._record = record
        start = record[OFFSET]
        size = self._inline = record[BODY_LEN]
        # One copy: what stands in the arena is gone after this turn.
        self._data = engine.arena[start : start + record[PATH_LEN] + record[HEAD_LEN] + size]

    # ---------------------------------------------------------------- what it says

    @property
    def method(self) -> str:
        """ "GET", "POST" and so on, as the client said it."""
        return METHODS[self._record[STATUS]] or self.headers[":method"]

    @property
    def path(self) -> str:
        """Path and query, as on the request line (RFC 9114, section 4.3.1)."""
        return self._data[: self._record[PATH_LEN]].decode("ascii")

    @property
    def authority(self) -> str:
        """Host and port the client asked for."""
        return self.headers.get(":authority") or ""

    @property
    def scheme(self) -> str:
        """ "https" in practice; "" where there is none (CONNECT)."""
        return self.headers.get(":scheme") or ""

    @property
    def remote_address(self) -> tuple[str, int]:
        """(ip, port) of the client."""
        self._check()
        info = self._engine.conn_info(self._record[CONN])
        address: tuple[str, int] = info["remote_address"] if info else ("", 0)
        return address

    @property
    def early_data(self) -> bool:
        """It came in early data (0-RTT), which can be replayed (RFC 8470)."""
        return bool(self._record[FLAGS] & EARLY)

    @property
    def is_websocket(self) -> bool:
        """It asks for a WebSocket (RFC 9220; `Server(websocket=True)`). Any other answer than
        `accept_websocket` refuses it."""
        return self._record[STATUS] == _CONNECT and self.headers.get(":protocol") == "websocket"

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"

    # ---------------------------------------------------------------- its body

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes of the body, b"" at its end; with -1 all of it, which may be no more than the
        server's `max_body_bytes`."""
        return self._read(size, self._server.max_body_bytes)

    @property
    def trailers(self) -> Headers | None:
        """The fields after the body, once it was read to its end."""
        if self._whole and self._record[FLAGS] & MORE and self._stream is None:
            record = self._record
            return Headers(self._engine.trailers(record[CONN], record[STREAM]))
        return self._stream.trailers if self._stream is not None else None

    def _new_stream(self, kind: type[Stream] = Stream) -> Stream:
        record = self._record
        return kind(
            self._runtime,
            record[CONN],
            record[STREAM],
            timeout=self._server.stream_timeout,
            read_ended=bool(record[FLAGS] & FIN),
            write_ended=self._answered == 2,
        )

    # ---------------------------------------------------------------- the answer

    def respond(self, status: int = 200, headers: fields.Fields | None = None, body: Body = b"") -> None:
        """Answer: status, fields and body. With bytes or text it returns at once; a file or an iterable is
        sent piece by piece as the client takes it.

        `content-length` is added where the length is known, and `date`.

        Raises:
            QuicClientException: it was answered already, or a field is not allowed.
            QuicStreamException: the client does not want the rest (only for a body in pieces).
        """
        engine = self._engine
        if self._answered or thread_id() != self._runtime.thread or engine.closed:
            self._check()
            raise error("state", "the request was answered already")
        head = statuses.get(status) or fields.status_line(status)
        if status < 200:
            raise error("argument", f"status {status} is not final: see inform()")
        flags = _FIN_DATE
        declared = None  # the content-length that the handler gave
        if headers:
            known = lines.get
            for item in headers.items() if headers.__class__ is dict else fields.pairs(headers):
                line = known(item)
                if line is None:
                    line = fields.line(*item)
                    if line and line[0] in fields.WATCHED:
                        if line[0] == fields.DATE_FIRST:
                            flags = FIN
                        else:
                            declared = fields.length_of(item[1])
                head += line
        record = self._record
        if body.__class__ is str:
            body = body.encode()
        if body.__class__ is bytes:
            size = len(body)
            if size <= INLINE_MAX and declared is None:
                if status == 200 or status not in _BODILESS:
                    head += lengths.get(size) or fields.length_line(size)
                elif size:
                    raise error("argument", f"a response with status {status} has no body")
                self._answered = 2
                if record[STATUS] == _HEAD:
                    body = b""
                if not engine.respond(flags, record[CONN], record[STREAM], head, body):
                    raise engine.head_too_large(head)
                if not engine.dirty:
                    engine.touch()
                return
        self._respond_in_pieces(status, head, flags, declared, body)

    def _respond_in_pieces(
        self, status: int, head: bytes, flags: int, declared: int | None, body: Any
    ) -> None:
        record = self._record
        parts: Iterable[Any]
        if body is None or isinstance(body, (bytes, bytearray, memoryview)):
            data = as_bytes(b"" if body is None else body)
            if len(data) and status in _BODILESS:
                raise error("argument", f"a response with status {status} has no body")
            if declared is None:
                if status not in _BODILESS:
                    head += fields.length_line(len(data))
            elif declared != len(data) and record[STATUS] != _HEAD and status != 304:
                raise error("content-length", f"{len(data)} bytes, announced as {declared}")
            parts = (data,) if len(data) else ()
        else:
            parts = pieces(body)
        if declared is not None:
            parts = exactly(declared, parts)
        if record[STATUS] == _HEAD or status in _BODILESS:
            self._answered = 2
            self._send_head(flags, head)
            close_body(body)
            return
        self._answered = 1
        self._send_head(flags & ~FIN, head)
        stream = self.stream
        try:
            for part in parts:
                stream.write(part)
            stream.finish()
        except BaseException:
            stream.reset(H3_INTERNAL_ERROR)
            raise
        finally:
            close_body(body)
        self._answered = 2

    def start_response(self, status: int = 200, headers: fields.Fields = ()) -> Stream:
        """Send the head only; the body is written to the returned stream, which `finish()` ends."""
        self._check()
        if self._answered:
            raise error("state", "the request was answered already")
        items = list(fields.pairs(headers))
        head = fields.status_line(status) + fields.encode(items)
        if status < 200:
            raise error("argument", f"status {status} is not final: see inform()")
        date = 0 if any(name.lower() == "date" for name, _ in items) else DATE
        if self._record[STATUS] == _HEAD or status in _BODILESS:
            self._answered = 2
            self._send_head(FIN | date, head)
            return self._new_stream(UnsentStream)
        self._answered = 1
        self._send_head(date, head)
        return self.stream

    def inform(self, status: int, headers: fields.Fields = ()) -> None:
        """Send an informational (1xx) response, such as 103 Early Hints, before the final one."""
        self._check()
        if self._answered or not 100 <= status < 200:
            if self._answered:
                raise error("state", "the request was answered already")
            raise error("argument", f"status {status} is not informational: 100 to 199 are")
        head = fields.status_line(status) + fields.encode(headers)
        self._send_head(INTERIM, head)

    def accept_websocket(self, **options: Any) -> WebSocket:
        """Open the WebSocket that is asked for: see `quicgreen.websocket.accept`."""
        return self._server.accept_websocket(self, **options)

    def _send_head(self, flags: int, head: bytes) -> None:
        record = self._record
        self._engine.send_head(flags, record[CONN], record[STREAM], head)

    # ---------------------------------------------------------------- for the server

    def _fail(self, killed: bool) -> None:
        """The handler raised: say so, if nothing was said yet, else cut the response off."""
        if self._engine.closed:
            return
        if self._websocket is not None:
            self._websocket._leave(failed=True, killed=killed)
        elif self._answered == 0 and not killed:
            self.respond(500, {"content-type": "text/plain"}, b"Internal Server Error")
        elif self._answered != 2:
            self._answered = 2
            self._engine.reset(self._record[CONN], self._record[STREAM], H3_INTERNAL_ERROR)

    def _end(self) -> None:
        """The handler is done with it: what was not read is refused, what was not sent is cut off."""
        engine = self._engine
        if self._websocket is not None:
            self._websocket._leave()
        elif not engine.closed:
            engine.release(self._record[CONN], self._record[STREAM])


class Response(_Received):
    """A response as a client sees it. Attribute names are requests' and httpx's.

    Attributes:
        status_code: the status.
        url: the URL that was asked for.
        request_method: the method it was asked with.
        elapsed: seconds from the call to the complete head.
        connection: the connection it came on.
    """

    http_version = "HTTP/3"
    encoding: str | None = None
    """Character set for `text`, when the response does not say or lies."""

    _content: bytes | None = None
    _guard: StreamGuard | None = None
    _given_up = False  # closed before its end

    def __init__(
        self,
        owner: Any,
        record: Any,
        data: bytes,
        method: str,
        url: str,
        elapsed: float,
        timeout: float | None,
        on_done: Callable[[Any], None] | None,
        stream: Stream | None = None,
    ) -> None:
        """`on_done(owner)` is called once, when the body ended or was given up."""
        self._owner = owner
        self._runtime = owner._runtime
        self._record = record
        self._data = data
        self._inline = record[BODY_LEN]
        self.status_code: int = record[STATUS]
        self.request_method = method
        self.url = url
        self.elapsed = elapsed
        self._timeout = timeout
        if stream is not None:
            self._stream = stream
        if record[FLAGS] & FIN and stream is None and not record[FLAGS] & MORE:
            if on_done is not None:
                on_done(owner)
        else:
            self._begin_body(on_done)

    def _begin_body(self, on_done: Callable[[Any], None] | None) -> None:
        """Not everything came at once: somebody has to end it."""
        record = self._record
        self._guard = StreamGuard(self._owner, record[CONN], record[STREAM], on_done)
        if record[FLAGS] & FIN:
            stream = self.stream
            if record[FLAGS] & MORE:
                stream.trailers = Headers(stream._engine.trailers(record[CONN], record[STREAM]))
            stream.release()
            self._done()

    @property
    def connection(self) -> Any:
        """The connection that it came by."""
        return self._owner

    @property
    def ok(self) -> bool:
        """The status is below 400."""
        return self.status_code < 400

    @property
    def reason(self) -> str:
        """The status's usual phrase: HTTP/3 sends none."""
        try:
            return HTTPStatus(self.status_code).phrase
        except ValueError:
            return ""

    @property
    def trailers(self) -> Headers | None:
        """The fields after the body, once it was read to its end."""
        return self._stream.trailers if self._stream is not None else None

    def __repr__(self) -> str:
        return f"<Response [{self.status_code}]>"

    def __bool__(self) -> bool:
        return self.ok

    # ---------------------------------------------------------------- the body

    def _new_stream(self) -> Stream:
        record = self._record
        return Stream(
            self._runtime,
            record[CONN],
            record[STREAM],
            timeout=self._timeout,
            owner=self._owner,
            write_ended=True,
            read_ended=self._whole,
        )

    def _check_open(self) -> None:
        if self._given_up:
            raise error(
                "state", "the response was closed before its body was read to the end, and the rest is gone"
            )

    def _read(self, size: int, limit: int | None) -> bytes:
        self._check()
        self._check_open()
        try:
            piece = super()._read(size, limit)
        except BaseException:
            self.close()
            raise
        if self._stream is not None and self._stream._read_ended and not self._inline:
            self._done()
        return piece

    def readinto(self, buffer: Any) -> int:
        self._check_open()
        n = super().readinto(buffer)
        if self._stream is not None and self._stream._read_ended and not self._inline:
            self._done()
        return n

    def read(self) -> bytes:
        """All of the body; kept, so that it can be asked for again."""
        if self._content is None:
            if self._guard is None and self._whole:  # it came with the head
                self._check()
                self._content = self._rest_inline()
                self._inline = 0
            else:
                self._content = self._read(-1, None)
                self._done()
        return self._content

    @property
    def content(self) -> bytes:
        """The body."""
        return self.read()

    def iter_bytes(self, chunk_size: int = CHUNK) -> Iterator[bytes]:
        """The body in pieces of at most `chunk_size` bytes, each as soon as it came. A body that is here
        already is kept, and can be had again."""
        if self._guard is not None and self._content is None:
            yield from super().iter_bytes(chunk_size)
            return
        content = self.read()
        for start in range(0, len(content), chunk_size):
            yield content[start : start + chunk_size]

    @property
    def text(self) -> str:
        """The body as text: in `encoding`, else the content-type's charset, else UTF-8."""
        body = self.read()
        return body.decode(self.encoding or charset(self.headers) or "utf-8", "replace")

    def json(self, **options: Any) -> Any:
        """The body, parsed as JSON (RFC 8259). Raises ValueError when it is not."""
        return json_module.loads(self.read(), **options)

    def iter_text(self, chunk_size: int = CHUNK) -> Iterator[str]:
        """The body as text, in pieces."""
        import codecs

        decoder = codecs.getincrementaldecoder(self.encoding or charset(self.headers) or "utf-8")("replace")
        for piece in self.iter_bytes(chunk_size):
            if text := decoder.decode(piece):
                yield text
        if text := decoder.decode(b"", True):
            yield text

    def iter_lines(self) -> Iterator[str]:
        """The body's lines, without their ends, each as soon as it is complete."""
        rest = ""
        for text in self.iter_text():
            lines = (rest + text).split("\n")
            rest = lines.pop()
            for line in lines:
                yield line.removesuffix("\r")
        if rest:
            yield rest

    def raise_for_status(self) -> Response:
        """Returns itself, or raises QuicClientException (with `response`) for a status of 400 or more."""
        if self.status_code < 400:
            return self
        detail = f"{self.status_code} {self.reason} for {self.request_method} {self.url}"
        exception = error("http-status", detail)
        exception.response = self  # type: ignore[attr-defined]
        raise exception

    # ---------------------------------------------------------------- the end

    def close(self) -> None:
        """Give up what was not read; the connection goes on. Idempotent."""
        if self._guard is not None:
            self.stream.release()
            self._given_up = True
            self._done()

    def _done(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.disarm()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
