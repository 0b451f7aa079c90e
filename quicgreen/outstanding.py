"""A request whose response nobody waits for: it is asked whether it is here.

The event of the response's head is kept where it arrives, in the hub; what did not come with it stays in the
engine, which is the back-pressure, until somebody asks for it. `_tell` is called in the hub whenever there is
something new to ask for.
"""

from __future__ import annotations

from typing import Any

from . import h3
from ._engine import (
    BODY_LEN,
    FIN,
    FLAGS,
    HEAD_LEN,
    INLINE_MAX,
    MORE,
    OFFSET,
    RESPONSE,
    STATUS,
    STREAM,
    TYPE,
)
from .configuration import Timeout
from .connection import ClientConnection
from .exceptions import QuicException, error
from .headers import Headers
from .messages import Response
from .stream import H3_REQUEST_CANCELLED, Stream, told
from .upload import Upload, expect_response

_FIN_MORE = FIN | MORE

_READ_SIZE = 65536
"""As much as the engine copies in one call is worth."""


class Outstanding:
    """One request on a connection, and what came of its response.

    Attributes:
        failure: why there will be no response, or no more of it; None while there may be.
    """

    # What every request has stands in slots; the rest, which most never get, in their dictionaries.
    __slots__ = (
        "__dict__", "_connection", "_data", "_limit", "_method", "_number", "_path", "_record", "_runtime",
        "_token", "failure",
    )  # fmt: skip

    _body: Stream | None = None  # of the request, while its pieces are given
    _upload: Upload | None = None  # or the greenlet that sends them
    _response: Response | None = None  # with a body that did not come whole
    _pieces: list[bytes] | None = None  # collected of it
    _size = 0  # of those
    _ended = False  # all was taken
    _instead = ""  # what to do with a body that is too large, for the error's text

    def __init__(self, connection: ClientConnection, method: str, path: str, limit: Timeout) -> None:
        self._connection = connection
        self._runtime = connection._runtime
        self._method = method
        self._path = path
        self._limit = limit
        self._token = 0  # of the event that is waited for: the head, or more of the body
        self._number = -1  # the stream's, where it was opened for a body that is sent in pieces
        self._record: Any = None  # of the response's head
        self._data = b""  # the head's, and the begin of the body
        self.failure: Exception | None = None

    def _tell(self) -> None:
        """There is something new. Called in the hub, as the last thing that is done there."""

    # ---------------------------------------------------------------- sending

    def send(self, head: bytes, body: Any, declared: int | None, early: bool | None) -> None:
        """Send it whole: without a wait, unless the body is large or comes in pieces and no stream may be
        opened yet. Arguments and errors as `h3.exchange`."""
        head = h3.with_length(head, body, declared)
        if body is None:
            body = b""
        elif body.__class__ is not bytes or len(body) > INLINE_MAX:
            self._open(head)
            self._upload = Upload(self._connection, self._number, body, declared, self._limit, self._token)
            self._upload.sender.rawlink(lambda _: self._tell())
            return
        self.submit(head, body, early)

    def submit(self, head: bytes, body: bytes, early: bool | None) -> None:
        """Send it in one submission, see `h3.submit`."""
        runtime = self._runtime
        token = self._token = runtime.new_token()
        h3.submit(self._connection, self._method, head, body, token, self._limit, early)
        runtime.targets[token] = self._on_event

    def open(self, head: bytes) -> None:
        """Send the head; the body follows with `write` and `finish`. May wait as `h3.open_request`."""
        self._open(head)
        self._body = Stream(
            self._runtime,
            self._connection.id,
            self._number,
            timeout=self._limit.write,
            owner=self._connection,
        )

    def _open(self, head: bytes) -> None:
        connection = self._connection
        number = h3.open_request(connection, head, self._limit)
        token = self._runtime.new_token()
        try:
            h3.await_head(connection, number, token, 0)
        except BaseException:
            self._runtime.engine.release(connection.id, number)
            raise
        self._number = number
        self._token = token
        self._runtime.targets[token] = self._on_event

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send more of the body; waits until it was taken, which is the back-pressure. Errors as
        `Stream.write`."""
        return self._open_body().write(data)

    def finish(self) -> None:
        """The body has come to its end."""
        body = self._open_body()
        body.finish()
        expect_response(body, self._token, self._limit)
        self._body = None

    def _open_body(self) -> Stream:
        if self._body is None:
            raise error("stream-gone", "the request's body has ended")
        return self._body

    # ---------------------------------------------------------------- events, in the hub

    def _on_event(self, record: Any) -> None:
        runtime = self._runtime
        del runtime.targets[self._token]
        self._token = 0
        if record[TYPE] == RESPONSE:
            offset = record[OFFSET]
            self._data = runtime.engine.arena[offset : offset + record[HEAD_LEN] + record[BODY_LEN]]
            self._record = record
        else:
            self.failure = h3.failure(self._connection, record, self._limit)
            self._stop_sending()
        self._tell()

    def _on_readable(self, record: Any) -> None:
        del self._runtime.targets[self._token]
        self._token = 0
        response = self._response
        assert response is not None
        problem = self.failure = response.stream.problem(record, "reading")
        if problem is not None:
            response.close()
        self._tell()

    def throw(self, exception: Exception) -> None:
        """The upload's word that the body cannot be sent: see `Upload`."""
        self._token = 0
        self.failure = exception
        self._runtime.engine.release(self._connection.id, self._number)
        self._tell()

    def _stop_sending(self) -> None:
        if self._upload is not None:
            self._upload.sender.kill(block=False)
        self._body = None

    # ---------------------------------------------------------------- asking

    @property
    def status(self) -> int | None:
        """The response's status; None before its head is here."""
        return None if self._record is None else self._record[STATUS]

    @property
    def headers(self) -> Headers:
        """The response's fields, once its head is here."""
        return Headers(self._data[: self._record[HEAD_LEN]])

    @property
    def trailers(self) -> Headers | None:
        """The fields after the body, once that was taken to its end."""
        return None if self._response is None else self._response.trailers

    def check(self) -> None:
        """Raise why it failed, if it did."""
        if self.failure is not None:
            raise told(self.failure) if isinstance(self.failure, QuicException) else self.failure

    def collect(self, limit: int) -> bool:
        """Take what came of the body; True when the response is here to its end.

        Raises:
            QuicStreamException: the body has more than `limit` bytes; or what `failure` says.
        """
        record = self._record
        if record is None or self.failure is not None:
            self.check()
            return False
        if record[FLAGS] & _FIN_MORE == FIN:
            if self._upload is not None and not self._upload.sender.ready():
                return False  # the server said all that it has to say, and may want the rest still
            if record[BODY_LEN] > limit:
                raise self._too_large(limit)
            return True
        while not self._ended:
            piece = self._next()
            if piece is None:
                return False
            self._size += len(piece)
            if self._size > limit:
                raise self._too_large(limit)
            if self._pieces is None:
                self._pieces = []
            self._pieces.append(piece)
        return self._upload is None or self._upload.sender.ready()

    def _too_large(self, limit: int) -> QuicException:
        self.give_up()
        return error("body-too-large", f"more than {limit} bytes{self._instead}")

    def body(self) -> bytes:
        """What was collected and not taken."""
        record = self._record
        if record[FLAGS] & _FIN_MORE != FIN:
            return b"".join(self._pieces or ())
        if self._ended:
            return b""
        return self._data[len(self._data) - record[BODY_LEN] :] if record[BODY_LEN] else b""

    def take(self) -> bytes | None:
        """The next bytes of the body: b"" at its end, None when nothing is here. Errors as `collect`."""
        record = self._record
        if record is None or self.failure is not None:
            self.check()
            return None
        if record[FLAGS] & _FIN_MORE == FIN or self._pieces:
            piece = self.body()
            self._pieces, self._size = None, 0
            self._ended |= record[FLAGS] & _FIN_MORE == FIN
            return piece
        while not self._ended:
            next_piece = self._next()
            if next_piece != b"":
                return next_piece
        return b""

    def _next(self) -> bytes | None:
        """Bytes that are here, b"" maybe at the end; None when there are none yet."""
        if self._token:
            return None
        response = self._response
        if response is None:  # not `or`: a response with an error status is false
            response = self._begin_body()
        if response._inline:
            piece = response._rest_inline()
            response._inline = 0
            return piece
        runtime = self._runtime
        if len(runtime.scratch) < _READ_SIZE:
            runtime.scratch = bytearray(_READ_SIZE)
        buffer = runtime.scratch
        try:
            n, self._token = response.stream.read_now(buffer, self._on_readable)
        except QuicException as e:
            self.failure = e
            response.close()
            raise
        if n < 0:
            return None
        if response.stream.read_ended:
            self._ended = True
            response._done()
        return bytes(memoryview(buffer)[:n])

    def _begin_body(self) -> Response:
        """With the response it is seen to that the stream has an end, whoever forgets it."""
        record = self._record
        stream = None
        if self._number >= 0:
            stream = Stream(
                self._runtime,
                self._connection.id,
                record[STREAM],
                timeout=self._limit.read,
                owner=self._connection,
                write_ended=True,
                read_ended=bool(record[FLAGS] & FIN),
            )
        self._response = Response(
            self._connection,
            record,
            self._data,
            self._method,
            self._path,
            0.0,
            self._limit.read,
            None,
            stream,
        )
        return self._response

    # ---------------------------------------------------------------- the end

    def end(self) -> None:
        """The response was taken to its end: what is still to be sent is given up. Idempotent."""
        if self._number >= 0 and (self._response is None or self.sending):
            self._stop_sending()
            if not self._runtime.engine.closed:
                self._runtime.engine.release(self._connection.id, self._number)

    @property
    def sending(self) -> bool:
        """The request's body has not come to its end."""
        return self._body is not None or (self._upload is not None and not self._upload.sender.ready())

    def give_up(self) -> None:
        """Nobody wants the response any more; the connection goes on. Idempotent."""
        token = self.forget()
        engine = self._runtime.engine
        if engine.closed:
            return
        if self._response is not None:
            self._response.close()
        elif self._number >= 0:
            engine.release(self._connection.id, self._number)
        elif self._record is not None:
            engine.release(self._connection.id, self._record[STREAM])
        elif token:
            engine.cancel(self._connection.id, token, H3_REQUEST_CANCELLED)

    def forget(self) -> int:
        """Hear no more of it; what was written goes on to the server. Returns the token that was waited
        for."""
        token, self._token = self._token, 0
        self._runtime.targets.pop(token, None)
        self._stop_sending()
        return token
