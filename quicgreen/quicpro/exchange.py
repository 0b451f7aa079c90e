"""One request of a session, and the greenlets that asked for its response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..bodies import Tally
from ..exceptions import error
from ..headers import Headers
from ..messages import charset
from ..outstanding import Outstanding
from .asker import Asker

if TYPE_CHECKING:
    from .client_session import ClientSession


class Exchange(Outstanding):
    """A request and its response.

    Attributes:
        session: whose it is.
        id: the number that the session gave it.
        held: the head of a request that is not sent yet, since it may get a body; None for any other.
        host: who it is for, if that is not the session's server.
        declared: the content-length that its fields have.
        named: its method was given, and is kept when it gets a body.
        asker: who asked for the response first.
        others: and who else.
    """

    __slots__ = ("asker", "held", "id", "others", "session")

    host: str | None = None
    declared: int | None = None
    named = False
    _tally: Tally | None = None
    _instead = ", which quicpro_receive_chunk takes as they come"

    def __init__(self, session: ClientSession, number: int, method: str, path: str) -> None:
        Outstanding.__init__(self, session.connection, method, path, session.limit)
        self.session = session
        self.id = number
        self.held: bytes | None = None
        self.asker: Asker | None = None
        self.others: tuple[Asker, ...] = ()

    # ---------------------------------------------------------------- who asked

    def _tell(self) -> None:
        asker = self.asker
        if self.others or self.session.anyone:
            self.session.tell(self)
        elif asker is not None:
            if self.failure is None:
                asker.news = True
            token = asker.token
            if token:
                self._runtime.answer(token)

    @property
    def askers(self) -> tuple[Asker, ...]:
        """Everybody who asked for it."""
        return self.others if self.asker is None else (self.asker, *self.others)

    def add(self, asker: Asker) -> None:
        """It asks too."""
        if self.asker is asker or asker in self.others:
            return
        if self.asker is None:
            self.asker = asker
        else:
            self.others += (asker,)
        asker.requests += 1

    def remove(self, asker: Asker) -> None:
        """It asks no more."""
        asker.requests -= 1
        if self.asker is asker:
            self.asker = None
        else:
            self.others = tuple(a for a in self.others if a is not asker)

    # ---------------------------------------------------------------- sending

    def begin_body(self) -> None:
        """It gets a body: send what was held."""
        head, self.held = self.held, None
        assert head is not None
        session = self.session
        if not self.named:
            head = head[len(session.prefix(self._method, self.host)) :]
            self._method = "POST"
            head = session.prefix("POST", self.host) + head
        self._tally = Tally(self.declared)
        self.open(head)

    def send_held(self) -> None:
        """It gets none."""
        head, self.held = self.held, None
        assert head is not None
        if self.declared:  # told to who asks for the response, whoever's call this is
            self.failure = error("content-length", f"no body, announced as {self.declared}")
        else:
            self.submit(head, b"", self._method in self.session.early_methods)

    def write_piece(self, data: bytes | bytearray | memoryview) -> int:
        """Send more of the body."""
        if self._tally is not None:
            self._tally.add(len(data))
        return self.write(data)

    def finish_body(self) -> None:
        """End the body."""
        if self._tally is not None:
            self._tally.add(0, last=True)
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

    __slots__ = ("_body", "_head", "_status", "_trailers")

    def __init__(self, status: int, head: bytes, body: bytes, trailers: Headers | None = None) -> None:
        self._status = status
        self._head: bytes | Headers = head
        self._body = body
        self._trailers = trailers

    def __getitem__(self, key: str) -> Any:
        if key == "body":
            return self._body
        if key == "status":
            return self._status
        if key == "headers":
            if isinstance(self._head, bytes):
                self._head = Headers(self._head)
            return self._head
        if key == "text":  # made when it is asked for: a picture is none
            return self._body.decode(charset(self["headers"]) or "utf-8", "replace")
        if key == "trailers":
            return self._trailers
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{key!r}: {self[key]!r}' for key in _KEYS)}}}"


class ResponseHead(dict[str, Any]):
    """What `quicpro_receive_head` gives: `status` and `headers`."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(status=exchange.status, headers=exchange.headers)


def unknown(number: Any) -> Exception:
    """The error for an id that names no request (any more)."""
    if not isinstance(number, int) or isinstance(number, bool):
        return error("argument", f"a stream's id is what quicpro_send_request gave, not {number!r}")
    return error("stream-gone", f"{number} is no request under way: unknown, or received to its end")
