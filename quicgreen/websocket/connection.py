"""A WebSocket as its user holds it: `Protocol` over a pipe, for greenlets.

Nobody waits but the user's greenlets. Bytes are read where the engine tells of them, in the hub: pings are
answered, a close frame is heard, and messages are kept (`Inbox`), whether somebody receives or not. What is
sent and not taken yet is kept in order (`Outbox`); who sends waits until it was taken.

Rule: `_on_*` run in the hub and never wait. They leave a consistent object before they wake anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gevent.event import Event

from .._frames import TEXT
from ..exceptions import QuicException, error
from ..headers import Headers
from ..hub import thread_id
from ..stream import H3_REQUEST_CANCELLED
from .exceptions import GOING_AWAY, INTERNAL_ERROR, NORMAL_CLOSURE, ConnectionClosed
from .inbox import Inbox
from .outbox import Outbox
from .pings import Pings, control_payload
from .protocol import OPEN, Data, Protocol, State, encode

if TYPE_CHECKING:
    from ..hub import Runtime
    from .textfile import WebSocketFile


class WebSocket:
    """Messages both ways. `quicgreen.websocket.connect` and `Request.accept_websocket` make one.

    Any greenlet may send; one receives at a time. Whoever goes on after the end gets `ConnectionClosed`.

    Attributes:
        subprotocol: what both sides agreed on; None for none.
        request_headers, response_headers: the fields of the opening handshake.
        request: the server's `Request`; None in a client.
    """

    __slots__ = (
        "__weakref__", "_close_entry", "_close_timeout", "_closers", "_fragment_end", "_inbox",
        "_on_over", "_outbox", "_over", "_pings", "_pipe", "_protocol", "_runtime", "request",
        "request_headers", "response_headers", "subprotocol",
    )  # fmt: skip

    def __init__(
        self,
        runtime: Runtime,
        pipe: Any,
        protocol: Protocol,
        *,
        subprotocol: str | None = None,
        request_headers: Headers | None = None,
        response_headers: Headers | None = None,
        request: Any = None,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        close_timeout: float | None = 10.0,
        max_queue: int | None = 16,
        on_over: Callable[[], None] | None = None,
    ) -> None:
        """`on_over` is called once, when the pipe is not used any more."""
        self._runtime = runtime
        self._pipe = pipe
        self._protocol = protocol
        self._on_over = on_over
        self._close_timeout = close_timeout
        self.subprotocol = subprotocol
        self.request_headers = request_headers or Headers()
        self.response_headers = response_headers or Headers()
        self.request = request
        self._outbox = Outbox(runtime, pipe, self)
        self._inbox = Inbox(runtime, pipe, protocol, self._outbox, max_queue, self)
        self._pings = Pings(runtime, self, ping_interval, ping_timeout)
        self._fragment_end: Event | None = None  # somebody is in the middle of sending a message
        # The end
        self._close_entry: Any = None
        self._closers: list[int] = []
        self._over = False

    def _start(self, begun: bytes = b"", ended: bool = False) -> None:
        """Begin. `begun`: bytes that came with the head, `ended`: and there will be no more."""
        if begun:
            self._inbox.take(bytearray(begun), len(begun))
        if ended:
            self._inbox.end(None)
        elif not self._over:
            self._inbox.read()
        if self._protocol.state is State.OPEN:
            self._pings.plan()

    # ---------------------------------------------------------------- what it is

    @property
    def state(self) -> State:
        """OPEN, CLOSING or CLOSED."""
        return self._protocol.state

    @property
    def close_code(self) -> int | None:
        """How it was closed (`ConnectionClosed.code`); None while it is not."""
        return self._protocol.code

    @property
    def close_reason(self) -> str | None:
        """What was said with the code."""
        return self._protocol.reason

    @property
    def remote_address(self) -> tuple[str, int]:
        """(ip, port) of the peer."""
        self._check()
        address: tuple[str, int] = self._pipe.remote_address
        return address

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ({self.state.name.lower()})>"

    def _check(self) -> None:
        self._runtime.check("this WebSocket")

    # ---------------------------------------------------------------- receiving

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> Any:
        """Wait for the next message: str for a text message, bytes for a binary one.

        Args:
            timeout: seconds; None for as long as it takes.
            decode: True gives str for a binary message too, False bytes for a text one.

        Raises:
            ConnectionClosed: it is closed, and all that came before was received.
            QuicTimeoutException: nothing came in time (it is a TimeoutError); nothing is lost.
            ConcurrencyError: another greenlet receives.
        """
        runtime = self._runtime
        if thread_id() != runtime.thread or runtime.engine.closed:
            self._check()
        return self._inbox.message(timeout, decode)

    def recv_streaming(self, decode: bool | None = None) -> Iterator[Any]:
        """The next message, in pieces as they come: of str for a text message, of bytes for a binary one. It
        must be taken to its end before something else is received.

        Raises as `recv`."""
        self._check()
        decoder: Any = None
        ends = False
        while not ends:
            opcode, payload, ends = self._inbox.piece()
            if opcode == TEXT if decode is None else decode:
                if decoder is None:
                    import codecs

                    decoder = codecs.getincrementaldecoder("utf-8")()
                text = decoder.decode(payload, ends)
                if text:
                    yield text
            elif payload:
                yield payload

    def __iter__(self) -> Iterator[Any]:
        """Messages, until it is closed in order."""
        while True:
            try:
                message = self.recv()
            except ConnectionClosed as e:
                if e.cause == "websocket-closed":
                    return
                raise
            yield message

    def _on_control(self) -> None:
        """Something came that is no message."""
        protocol = self._protocol
        if protocol.pongs:
            for pong in protocol.pongs:
                self._pings.take(pong)
            protocol.pongs.clear()
        if protocol.out:
            self._reply()
        if not protocol.hears:
            self._settle()

    def _on_read_end(self, cause: QuicException | None) -> None:
        """The peer's side ended: in order, or with an error."""
        self._protocol.lost(cause)
        if cause is not None:
            self._give_up()
        else:
            self._settle()

    # ---------------------------------------------------------------- sending

    def send(self, message: Data | Iterable[Data], *, text: bool | None = None) -> None:
        """Send a message: text for str, binary for bytes and its like. An iterable is one message of several
        frames, each sent as it is given. Waits until the engine has taken it, which is the back-pressure.

        Args:
            text: True sends bytes, which must be UTF-8, as text; False str as a binary message.

        Raises:
            ConnectionClosed: it is closed, or closing.
        """
        runtime = self._runtime
        if thread_id() != runtime.thread or runtime.engine.closed:
            self._check()
        if isinstance(message, (str, bytes, bytearray, memoryview)):
            data: bytes | memoryview
            if text is None and message.__class__ is str:
                opcode, data = TEXT, message.encode()
            else:
                opcode, data = encode(message, text)
            protocol, outbox = self._protocol, self._outbox
            if self._fragment_end is not None or outbox.closed or protocol.state is not OPEN:
                self._await_turn()
            if not outbox.transmit(protocol.message(opcode, data)):
                raise self._exception()
        elif isinstance(message, Mapping) or not isinstance(message, Iterable):
            raise error(
                "argument", f"{type(message).__name__} is no message: str, bytes, or an iterable of them"
            )
        else:
            self._send_fragments(iter(message), text)

    def _send_fragments(self, parts: Iterator[Data], text: bool | None) -> None:
        try:
            part = next(parts)
        except StopIteration:
            return
        opcode, data = encode(part, text)
        protocol = self._protocol
        self._await_turn()
        compress = protocol.compresses
        self._fragment_end = Event()
        try:
            self._transmit(protocol.fragment(opcode, data, fin=False, compress=compress))
            for part in parts:
                again, data = encode(part, text)
                if again != opcode:
                    raise error("argument", "a message is of str, or of bytes, not of both")
                self._check_open()
                self._transmit(protocol.fragment(0, data, fin=False, first=False, compress=compress))
            self._check_open()
            self._transmit(protocol.fragment(0, b"", fin=True, first=False, compress=compress))
        except BaseException:
            self._fail(INTERNAL_ERROR, "a message was not sent to its end")
            raise
        finally:
            self._fragment_end.set()
            self._fragment_end = None

    def _await_turn(self) -> None:
        """May a message be sent now? Wait while another one is not at its end."""
        while True:
            self._check_open()
            other = self._fragment_end
            if other is None:
                return
            self._runtime.reference()
            try:
                other.wait()
            finally:
                self._runtime.unreference()

    def _check_open(self) -> None:
        if self._outbox.closed or self._protocol.state is not State.OPEN:
            raise self._exception()

    def _exception(self) -> ConnectionClosed:
        e = self._protocol.exception()
        if e.__cause__ is None:
            e.__cause__ = self._outbox.failure
        return e

    def _transmit(self, frame: bytes) -> None:
        """Send a frame, and wait until it was taken."""
        if not self._outbox.transmit(frame):
            raise self._exception()

    def _reply(self) -> None:
        """Send what the protocol has to say by itself."""
        out = self._protocol.out
        frame = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._outbox.put(frame, reply=True)

    def _on_sent(self) -> None:
        """In the hub: some of the outbox was taken."""
        if not self._over:
            self._settle()
            self._inbox.read()
            self._inbox.tell()

    def _on_send_failure(self) -> None:
        """What comes is heard: it may tell why. It may have been left for the pongs that waited. But a close
        frame that the peer cannot hear is not worth waiting for."""
        if self._inbox.closing:
            self._runtime.later(self._on_close_unheard)
        elif not self._over:
            self._plan_end()
            self._runtime.later(self._on_sent)

    def _on_close_unheard(self) -> None:
        if not self._over:
            self._protocol.lost(self._outbox.failure)
            self._give_up()
            self._inbox.tell()

    # ---------------------------------------------------------------- pings

    @property
    def latency(self) -> float:
        """Seconds that the last ping took; 0.0 before."""
        return self._pings.latency

    def ping(self, data: str | bytes | None = None) -> Event:
        """Send a ping (RFC 6455, section 5.5.2). Returns an event that is set when the pong came, or will not
        come any more; `latency` tells how long it took.

        Args:
            data: at most 125 bytes; None for some that no other ping under way has.

        Raises:
            ConnectionClosed: it is closed, or closing.
        """
        self._check()
        self._check_open()
        payload, pong = self._pings.new(data)
        self._send_ping(payload)
        return pong

    def pong(self, data: str | bytes = b"") -> None:
        """Send a pong that nobody asked for: a sign of life (section 5.5.3). Raises as `ping`."""
        self._check()
        self._check_open()
        self._outbox.put(self._protocol.pong(control_payload(data)))

    def _send_ping(self, payload: bytes) -> None:
        if self._protocol.state is State.OPEN:
            self._outbox.put(self._protocol.ping(payload))

    def _on_pong_missing(self) -> None:
        """In the hub."""
        if self._inbox.is_full:
            self._pings.wait_on()  # it may lie among what nobody has received yet
        else:
            self._fail(INTERNAL_ERROR, "keepalive ping timeout")

    # ---------------------------------------------------------------- the end

    def close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close it, and wait for the peer's close frame, at most `close_timeout` seconds. What the peer sent
        before it, and nobody received, is dropped. Idempotent.

        Raises:
            QuicClientException: a code that must not be sent, or a reason of more than 123 bytes.
        """
        if self._runtime.engine.closed and self._over:
            return
        self._check()
        self._begin_close(code, reason)
        runtime = self._runtime
        while self._protocol.hears and not self._over:
            token = runtime.new_token()
            self._closers.append(token)
            try:
                runtime.wait(token)
            finally:
                self._closers.remove(token)

    def _begin_close(self, code: int, reason: str = "") -> None:
        """Say that we are done, without waiting for anything."""
        self._protocol.close(code, reason)
        if self._over or self._inbox.closing:
            return
        self._inbox.closing = True
        self._pings.rest()
        if self._protocol.out:
            self._reply()
        if self._outbox.failure is not None:
            self._on_send_failure()
            return
        self._plan_end()
        if not self._over:
            self._inbox.read()
        self._runtime.later(self._inbox.tell)

    def _fail(self, code: int, text: str) -> None:
        """End it for something that cannot be mended."""
        self._protocol.fail(code, text)
        if self._protocol.out:
            self._reply()
        self._settle()
        if not self._over:
            self._inbox.read()
        self._runtime.later(self._inbox.tell)

    def _plan_end(self) -> None:
        """The peer has `close_timeout` seconds from now to come to its end."""
        if self._close_entry is None and self._close_timeout is not None and not self._over:
            self._close_entry = self._runtime.deadlines.add(self._close_timeout, self._on_close_timeout)

    def _on_close_timeout(self) -> None:
        self._close_entry = None
        if not self._over:
            late = error("deadline", f"the peer did not close within {self._close_timeout} s")
            self._protocol.lost(late if self._protocol.hears else None)
            self._give_up()
            self._inbox.tell()

    def _settle(self) -> None:
        """Nothing is heard any more, or nothing can be sent: go on to the end as far as possible."""
        protocol = self._protocol
        if self._over or protocol.hears:
            return
        self._pings.rest()
        # All was said (RFC 9220: the end of a stream is that of a TCP connection).
        self._outbox.end()
        if self._over:
            return
        self._wake_closers()
        if self._outbox.closed and self._inbox.ended:
            self._finish()
        else:
            self._plan_end()

    def _give_up(self) -> None:
        """The stream is of no use any more."""
        self._outbox.drop()
        if not self._runtime.engine.closed:
            self._pipe.reset(H3_REQUEST_CANCELLED)
        self._finish()

    def _finish(self) -> None:
        """The last thing that happens."""
        if self._over:
            return
        self._over = True
        self._protocol.lost()
        self._pings.rest()
        if self._close_entry is not None:
            self._runtime.deadlines.cancel(self._close_entry)
            self._close_entry = None
        self._inbox.drop()
        self._outbox.owner = None
        self._outbox.drop()
        self._pings.end()
        self._pipe.release()
        self._wake_closers()
        if self._on_over is not None:
            self._on_over()

    def _wake_closers(self) -> None:
        for token in self._closers:
            self._runtime.later(self._runtime.answer, token)

    def _leave(self, *, failed: bool = False, killed: bool = False) -> None:
        """Whoever used it has come to its end."""
        if not self._runtime.engine.closed and not self._over:
            self._begin_close(GOING_AWAY if killed else INTERNAL_ERROR if failed else NORMAL_CLOSURE)

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, kind: Any, exception: BaseException | None, traceback: Any) -> None:
        if exception is None:
            self.close()
        else:
            self._leave(failed=True, killed=not isinstance(exception, Exception))

    # ---------------------------------------------------------------- as a file

    def makefile(self) -> WebSocketFile:
        """A text file over it: each write is a message, and lines are read from those that come."""
        from .textfile import WebSocketFile

        return WebSocketFile(self)
