"""What can go wrong with a WebSocket.

    WebSocketException(QuicException)
    ├── ConnectionClosed
    │   ├── ConnectionClosedOK         both sides said that they are done
    │   └── ConnectionClosedError      anything else
    ├── InvalidHandshake               there is no WebSocket
    │   └── InvalidStatus              ... since the server answered with something else
    ├── PayloadTooBig                  a message was larger than `max_size`
    └── ConcurrencyError               two greenlets did what only one can do at a time

The names are those of the `websockets` library. Rows of `CAUSES` are added here, so that the table of the
core needs nothing of this package.
"""

from __future__ import annotations

from typing import Any

from ..exceptions import (
    CAUSES,
    QUIC_ERROR_CONNECTION_LOST,
    QUIC_ERROR_HANDSHAKE_FAILED,
    QUIC_ERROR_INVALID_STATE,
    QUIC_ERROR_OK,
    QUIC_ERROR_STREAM_ERROR,
    Cause,
    QuicException,
    error,
)

NORMAL_CLOSURE = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
UNSUPPORTED_DATA = 1003
NO_STATUS_RECEIVED = 1005
ABNORMAL_CLOSURE = 1006
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011

OK_CODES = {NORMAL_CLOSURE, GOING_AWAY, NO_STATUS_RECEIVED}

CODE_NAMES = {
    1000: "OK",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no status received",
    1006: "no close frame received",
    1007: "invalid payload data",
    1008: "policy violation",
    1009: "message too big",
    1010: "mandatory extension",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
}
"""RFC 6455, section 7.4.1, and IANA's registry."""


class WebSocketException(QuicException):
    """Base of what goes wrong with a WebSocket; the connection below may be well."""


class ConnectionClosed(WebSocketException):
    """The WebSocket is closed. What came before can still be received; this is what follows it."""

    code: int
    """The close code: the peer's; ours, when we ended it for what the peer did; 1006 when it ended without a
    close frame."""

    reason: str = ""
    """What was said with it."""

    received: tuple[int, str] | None = None
    """The peer's code and reason; None when no close frame came."""

    sent: tuple[int, str] | None = None
    """Ours; None when none was sent."""


class ConnectionClosedOK(ConnectionClosed):
    """Closed by both sides, with 1000, 1001 or no code."""


class ConnectionClosedError(ConnectionClosed):
    """Closed with another code, or without the close handshake: the stream was reset, the connection is lost.
    `__cause__` tells more where more is known."""


class InvalidHandshake(WebSocketException):
    """There is no WebSocket: the server cannot make one, or its answer is none that RFC 9220 allows."""


class InvalidStatus(InvalidHandshake):
    """The server answered with another status than 2xx: `response` has its answer."""

    response: Any = None


class PayloadTooBig(WebSocketException):
    """A message was larger than `max_size`. You get it as the `__cause__` of ConnectionClosedError."""


class ConcurrencyError(WebSocketException):
    """Another greenlet receives already, or is in the middle of a message of several frames."""


CAUSES.update(
    {
        "websocket-closed": Cause(
            ConnectionClosedOK,
            QUIC_ERROR_OK,
            "the WebSocket is closed",
            "both sides are done; open a new one to go on",
        ),
        "websocket-failed": Cause(
            ConnectionClosedError,
            QUIC_ERROR_CONNECTION_LOST,
            "the WebSocket ended",
            "open a new one; the code, and the exception's cause, tell why",
        ),
        "websocket-handshake": Cause(
            InvalidHandshake,
            QUIC_ERROR_HANDSHAKE_FAILED,
            "no WebSocket was opened",
            "see that the server takes WebSockets over HTTP/3 (RFC 9220)",
        ),
        "websocket-status": Cause(
            InvalidStatus,
            QUIC_ERROR_HANDSHAKE_FAILED,
            "the server did not open a WebSocket",
            "look at its answer: exception.response",
        ),
        "websocket-too-big": Cause(
            PayloadTooBig,
            QUIC_ERROR_STREAM_ERROR,
            "a message is larger than the limit",
            "raise max_size, or send smaller messages",
        ),
        "websocket-concurrency": Cause(
            ConcurrencyError,
            QUIC_ERROR_INVALID_STATE,
            "two greenlets cannot do this at a time",
            "let one greenlet receive, and give what came to the others",
        ),
    }
)


def describe(close: tuple[int, str]) -> str:
    """A code and a reason in words."""
    code, reason = close
    if code in CODE_NAMES:
        name = CODE_NAMES[code]
    elif 3000 <= code < 4000:
        name = "registered"
    elif 4000 <= code < 5000:
        name = "private use"
    else:
        name = "unknown"
    return f"{code} ({name}) {reason}".rstrip()


def closed(
    received: tuple[int, str] | None,
    sent: tuple[int, str] | None,
    *,
    failure: int | None = None,
    cause: BaseException | None = None,
) -> ConnectionClosed:
    """The exception for a WebSocket's end. `failure`: the code for which we ended it, if we did."""
    well = received is not None and sent is not None and received[0] in OK_CODES and sent[0] in OK_CODES
    said = [f"received {describe(received)}" if received else "no close frame received"]
    if sent is not None:
        said.append(f"sent {describe(sent)}")
    exception = error(
        "websocket-closed" if well else "websocket-failed",
        "; ".join(said),
        remote=received is not None and failure is None,
    )
    assert isinstance(exception, ConnectionClosed)
    exception.received, exception.sent = received, sent
    exception.code, exception.reason = what_closed(received, sent, failure)
    exception.__cause__ = cause
    return exception


def what_closed(
    received: tuple[int, str] | None, sent: tuple[int, str] | None, failure: int | None
) -> tuple[int, str]:
    """(code, reason) of an end, see `ConnectionClosed.code`."""
    if failure is not None:
        return failure, sent[1] if sent else ""
    return received or (ABNORMAL_CLOSURE, "")
