"""One request of a session, and the greenlets that asked for its response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from greenlet import greenlet

from ..bodies import Tally
from ..exceptions import error
from ..headers import Headers
from ..outstanding import Outstanding

if TYPE_CHECKING:
    from .client_session import ClientSession


class Asker:
    """A greenlet that asked a session for responses, or polls it for anything.

    Attributes:
        requests: how many it asked for that are not over.
        news: something came since it was told last.
        token: what it sleeps with; 0 while it does not.
    """

    __slots__ = ("greenlet", "news", "requests", "token")

    def __init__(self, greenlet: greenlet | None = None) -> None:
        self.greenlet = greenlet
        self.requests = 0
        self.news = False
        self.token = 0


class Exchange(Outstanding):
    """A request and its response.

    Attributes:
        id: the number that the session gave it.
        held: encoded path and fields of a request that is not sent yet, since it may get a body; None for any
            other.
        host: who it is for, if that is not the session's server.
        declared: the content-length that its fields have.
        named: its method was given, and is kept when it gets a body.
        askers: who asked for the response.
        tally: of the body that is sent in pieces.
    """

    __slots__ = ("_session", "askers", "declared", "held", "host", "id", "named", "tally")

    def __init__(self, session: ClientSession, number: int, method: str, path: str) -> None:
        super().__init__(session.connection, method, path, session.limit)
        self._session = session
        self.id = number
        self.held: bytes | None = None
        self.host: str | None = None
        self.declared: int | None = None
        self.named = False
        self.askers: list[Asker] = []
        self.tally: Tally | None = None

    def _tell(self) -> None:
        self._session.tell(self.askers, self.failure is None)

    def begin_body(self) -> None:
        """It gets a body: send what was held."""
        rest, self.held = self.held, None
        assert rest is not None
        if not self.named:
            self._method = "POST"
        self.tally = Tally(self.declared)
        self.open(self._session.prefix(self._method, self.host) + rest)

    def send_held(self) -> None:
        """It gets none."""
        rest, self.held = self.held, None
        assert rest is not None
        session, method = self._session, self._method
        head = session.prefix(method, self.host) + rest
        self.send(head, None, self.declared, session.may_be_early(method))

    def write_piece(self, data: Any) -> int:
        """Send more of the body."""
        if self.tally is not None:
            self.tally.add(len(data))
        return self.write(data)

    def finish_body(self) -> None:
        """End the body. One that is shorter than announced is cut off, so that the server knows."""
        if self.tally is not None:
            self.tally.add(0, last=True)
        self.finish()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self._method} {self._path}>"


_KEYS = ("status", "headers", "body", "text", "trailers")


class CompleteResponse(Mapping[str, Any]):
    """What `quicpro_receive_response` gives: a mapping with

    status    int
    headers   the fields, case-insensitive
    body      bytes
    text      the body as str: in the charset that the response says, else UTF-8
    trailers  the fields after the body; None when there were none
    """

    __slots__ = ("_body", "_response")

    def __init__(self, response: Any, body: bytes) -> None:
        self._response = response
        self._body = body

    def __getitem__(self, key: str) -> Any:
        if key == "body":
            return self._body
        if key == "status":
            return self._response.status_code
        if key == "headers":
            return self._response.headers
        if key == "text":  # made when it is asked for: a picture is none
            return self._response.decode(self._body)
        if key == "trailers":
            return self._response.trailers
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{key!r}: {self[key]!r}' for key in _KEYS)}}}"


class ResponseHead(dict[str, Any]):
    """What `quicpro_receive_head` gives: `status` and `headers`."""

    def __init__(self, status: int, headers: Headers) -> None:
        super().__init__(status=status, headers=headers)


def unknown(number: Any) -> Exception:
    """The error for an id that names no request (any more)."""
    if not isinstance(number, int) or isinstance(number, bool):
        return error("argument", f"a stream's id is what quicpro_send_request gave, not {number!r}")
    return error("stream-gone", f"{number} is no request under way: unknown, or received to its end")
