"""A server's request and the stream of its answer."""

from __future__ import annotations

from typing import Any

from .. import messages
from .._engine import CONN, STREAM
from ..bodies import Tally
from ..exceptions import error
from ..fields import Fields, length_of, pairs
from ..stream import H3_INTERNAL_ERROR, StreamGuard
from ..stream import Stream as BodyStream
from .last_error import noted
from .session import checked_fields


class Request:
    """A request that a session received: `headers()`, `body()`, and `stream()` to answer it.

    One that is forgotten without having been answered to its end is reset, so that no client waits for it.
    """

    def __init__(self, request: messages.Request, session: Any) -> None:
        self._request = request
        self._stream = Stream(request, session)

    def headers(self) -> dict[str, str]:
        """All fields by their names in lower case, `:method`, `:path`, `:scheme` and `:authority` among them.
        Several of one name are joined with ", " (cookies with "; ")."""
        found = self._request.headers
        pseudo = {":method": self.method, ":scheme": self._request.scheme}
        pseudo |= {":authority": self._request.authority, ":path": self.path}
        if protocol := found.get(":protocol"):
            pseudo[":protocol"] = protocol
        return {**{name: value for name, value in pseudo.items() if value}, **found}

    @property
    def method(self) -> str:
        """ "GET", "POST" and so on."""
        return self._request.method

    @property
    def path(self) -> str:
        """Path and query."""
        return self._request.path

    @property
    def early_data(self) -> bool:
        """It came in early data (0-RTT), which can be replayed."""
        return self._request.early_data

    def stream(self) -> Stream:
        """What answers it."""
        return self._stream

    @noted
    def body(self) -> bytes:
        """All of the body; at most `max_body_bytes`. Asked for again it is b"".

        Raises:
            QuicStreamException: it is larger, or the client reset it.
            QuicTimeoutException: it stopped coming.
        """
        return self._request.read()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.path}>"


class Stream:
    """The stream of a request: `respond`, then `sendBody` until `fin`."""

    def __init__(self, request: messages.Request, session: Any) -> None:
        self._request = request
        self._session = session
        self._body: BodyStream | None = None  # once it was answered
        self._tally = Tally(None)
        self._ended = False
        record = request._record
        self._guard = StreamGuard(session.connection, record[CONN], record[STREAM], None)

    @property
    def id(self) -> int:
        """The QUIC stream id."""
        number: int = self._request._record[STREAM]
        return number

    @noted
    def respond(self, status: int = 200, headers: Fields | None = None) -> None:
        """Send status and fields; the body follows with `sendBody`.

        Raises:
            QuicClientException: it was answered already, or a field is not allowed.
            QuicConnectionException: the session is over.
        """
        self._session._check()
        items = list(pairs(checked_fields(headers) or ()))
        declared = None
        for name, value in items:
            if name.lower() == "content-length":
                declared = length_of(value)
        self._body = self._request.start_response(status, items)
        if self._request._answered != 2:  # a HEAD's answer announces what it does not have
            self._tally = Tally(declared)

    @noted
    def send_body(self, data: bytes | bytearray | memoryview | str = b"", fin: bool = False) -> int:
        """Send a piece of the body, with `fin` the last one; waits while the client takes no more, which is
        the back-pressure. Returns the bytes sent.

        Raises:
            QuicClientException: there was no `respond`; or the pieces are not what content-length says.
            QuicStreamException: it was ended; or the client reads no further.
            QuicTimeoutException: the client took nothing for `read_timeout_ms`.
            QuicConnectionException: the session is over.
        """
        if self._body is None:
            raise error("state", "respond() comes before sendBody()")
        if isinstance(data, str):
            data = data.encode()
        elif not isinstance(data, (bytes, bytearray, memoryview)):
            raise error("argument", f"a piece of a body is bytes or text, not {type(data).__name__}")
        if self._ended:
            raise error("stream-gone", "sent to after its end")
        self._session._check()
        try:
            self._tally.add(len(data), last=fin)
            if fin:
                self._body.finish(data)
            elif data:
                self._body.write(data)
        except BaseException:
            self._body.reset(H3_INTERNAL_ERROR)
            self._end()
            raise
        if fin:
            self._end()
        return len(data)

    sendBody = send_body  # noqa: N815

    @noted
    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes of the request's body, b"" at its end; all that is left with -1."""
        return self._request.read(size)

    @noted
    def reset(self) -> None:
        """Give it up, both ways: the client gets an error."""
        if not self._ended:
            self._request._fail(killed=True)
            self._end()

    def cut_off(self) -> None:
        """The session is closed: what was not said will not be."""
        if not self._ended:
            self._end()

    def _end(self) -> None:
        """All was said; what was not read is refused."""
        self._ended = True
        self._guard.disarm()
        self._request._end()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"
