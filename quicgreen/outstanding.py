"""A request whose response nobody waits for: it is asked whether it is here.

The event of the response's head is kept where it arrives, in the hub; the body stays in the engine, which is
the back-pressure, until somebody asks for it. `_tell` is called in the hub whenever there is something new to
ask for; who wants to be woken overrides it.
"""

from __future__ import annotations

import time
from typing import Any

from . import _engine, h3
from ._engine import FIN, FLAGS, HEAD_LEN, RESPONSE, STATUS, STREAM, TYPE
from .configuration import Timeout
from .connection import ClientConnection
from .exceptions import QuicException, error
from .headers import Headers
from .messages import Response
from .stream import H3_REQUEST_CANCELLED, Stream
from .upload import Upload, expect_response

_READ_SIZE = 65536
"""As much as the engine copies in one call is worth."""


class Outstanding:
    """One request on a connection, and what came of its response.

    Attributes:
        failure: why there will be no response, or no more of it; None while there may be.
    """

    __slots__ = (
        "_body", "_connection", "_data", "_elapsed", "_ended", "_limit", "_method", "_number", "_path",
        "_pieces", "_record", "_runtime", "_size", "_started", "_token", "_upload", "_whole", "failure",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection, method: str, path: str, limit: Timeout) -> None:
        self._connection = connection
        self._runtime = connection._runtime
        self._method = method
        self._path = path
        self._limit = limit
        self._token = 0  # of the event that is waited for: the head, or more of the body
        self._body: Stream | None = None  # of the request, while it is sent in pieces
        self._upload: Upload | None = None
        self._pieces: list[bytes] = []
        self._size = 0  # of the pieces
        self._ended = False  # all of the response's body was taken from the engine
        self._started = self._elapsed = 0.0
        self._number = -1  # the stream's, where it was opened before the head was sent
        self._record: Any = None  # of the response's head
        self._data = b""
        self._whole: Response | None = None
        self.failure: Exception | None = None

    def _tell(self) -> None:
        """There is something new. Called in the hub."""

    # ---------------------------------------------------------------- sending

    def send(self, head: bytes, body: Any, declared: int | None, early: bool | None) -> None:
        """Send it whole: without a wait, unless the body is large or comes in pieces and no stream may be
        opened yet. Arguments and errors as `h3.exchange`."""
        head = h3.with_length(head, body, declared)
        if body is not None and (body.__class__ is not bytes or len(body) > _engine.INLINE_MAX):
            self._open(head)
            self._upload = Upload(self._connection, self._number, body, declared, self._limit, self._token)
            self._upload.sender.rawlink(lambda _: self._tell())
            return
        self._started = time.monotonic()
        token = self._token = self._runtime.new_token()
        self._runtime.targets[token] = self._on_event
        h3.submit(self._connection, self._method, head, body or b"", token, self._limit, early)

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
        number = self._number = h3.open_request(self._connection, head, self._limit)
        self._started = time.monotonic()
        token = self._runtime.new_token()
        try:
            h3.await_head(self._connection, number, token, 0)
        except BaseException:
            self._runtime.engine.release(self._connection.id, number)
            raise
        self._token = token
        self._runtime.targets[token] = self._on_event

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send more of the body; waits until it was taken, which is the back-pressure. Errors as
        `Stream.write`."""
        if self._body is None:
            raise error("stream-gone", "the request's body has ended")
        return self._body.write(data)

    def finish(self) -> None:
        """The body has come to its end."""
        if self._body is None:
            raise error("stream-gone", "the request's body has ended")
        self._body.finish()
        expect_response(self._body, self._token, self._limit)
        self._body = None

    # ---------------------------------------------------------------- events, in the hub

    def _on_event(self, record: Any) -> None:
        self._runtime.targets.pop(self._token, None)
        self._token = 0
        if record[TYPE] == RESPONSE:
            self._record = record
            self._data = self._runtime.engine.take(record)
            self._elapsed = time.monotonic() - self._started
        else:
            self.failure = h3.failure(self._connection, record, self._limit)
            self._stop_sending()
        self._tell()

    def _on_readable(self, record: Any) -> None:
        self._runtime.targets.pop(self._token, None)
        self._token = 0
        response = self._response()
        problem = self.failure = response.stream.problem(record, "reading")
        if problem is not None:
            response.close()
        self._tell()

    def throw(self, exception: Exception) -> None:
        """The upload's word that the body cannot be sent, see `Upload`."""
        self._token = 0
        self.failure = exception
        self._runtime.engine.release(self._connection.id, self._number)
        self._tell()

    def _on_done(self, _: Any) -> None:
        """The response came to its end, or was given up, and with it what is still sent."""
        if self._whole is not None and self._whole._given_up:
            self._stop_sending()

    def _stop_sending(self) -> None:
        if self._upload is not None:
            self._upload.sender.kill(block=False)
        self._body = None

    # ---------------------------------------------------------------- asking

    @property
    def sending(self) -> bool:
        """The request's body is not sent to its end."""
        return self._body is not None or (self._upload is not None and not self._upload.sender.ready())

    def collect(self, limit: int) -> bool:
        """Take what came of the body; True when the response is here to its end.

        Raises:
            QuicStreamException: the body has more than `limit` bytes; or what `failure` says.
        """
        if self._upload is not None and self.sending and self._came_whole:
            return False  # the server said all that it has to say, and may want the rest still
        while not self._ended:
            piece = self._next()
            if piece is None:
                return False
            if not piece:
                break
            self._size += len(piece)
            if self._size > limit:
                self.give_up()
                self.failure = error("body-too-large", f"more than {limit} bytes")
                raise self.failure
            self._pieces.append(piece)
        return self._upload is None or not self.sending

    @property
    def _came_whole(self) -> bool:
        return self._record is not None and bool(self._record[FLAGS] & FIN)

    @property
    def response(self) -> Response | None:
        """The response, when its head is here; to be asked for what `collect` and `take` do not give."""
        return None if self._record is None else self._response()

    def _response(self) -> Response:
        """Made when it is asked for: one that is whole ends its stream, and what is still sent with it."""
        if self._whole is None:
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
                    read_ended=self._came_whole,
                )
            self._whole = Response(
                self._connection,
                record,
                self._data,
                self._method,
                self._path,
                self._elapsed,
                self._limit.read,
                self._on_done,
                stream,
            )
        return self._whole

    def head(self) -> tuple[int, Headers] | None:
        """(status, fields) of the response; None before they came. Raises what `failure` says."""
        if self._record is None:
            if self.failure is not None:
                raise self.failure
            return None
        return self._record[STATUS], Headers(self._data[: self._record[HEAD_LEN]])

    def body(self) -> bytes:
        """What was collected."""
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take(self) -> bytes | None:
        """The next bytes of the body: b"" at its end, None when nothing is here. Errors as `collect`."""
        if self._pieces:
            piece = self.body()
            self._pieces.clear()
            self._size = 0
            return piece
        return b"" if self._ended else self._next()

    def _next(self) -> bytes | None:
        if self._token:
            return None
        if self.failure is not None:
            raise self.failure
        if self._record is None:
            return None
        response = self._response()
        if response._inline:
            piece = response._rest_inline()
            response._inline = 0
            return piece
        if response._guard is None:  # it came whole
            self._ended = True
            return b""
        buffer = self._scratch()
        try:
            n, self._token = response.stream.read_now(buffer, self._on_readable)
        except QuicException as e:
            self.failure = e
            response.close()
            raise
        if n < 0:
            return None
        if n == 0 or response.stream.read_ended:
            self._ended = True
            response._done()
        return bytes(memoryview(buffer)[:n])

    def _scratch(self) -> bytearray:
        runtime = self._runtime
        if len(runtime.scratch) < _READ_SIZE:
            runtime.scratch = bytearray(_READ_SIZE)
        return runtime.scratch

    # ---------------------------------------------------------------- the end

    def give_up(self) -> None:
        """Nobody wants the response any more; the connection goes on. Idempotent."""
        token = self.forget()
        engine = self._runtime.engine
        if engine.closed:
            return
        if self._whole is not None:
            self._whole.close()
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
