"""What can go wrong, told once.

    QuicException(OSError)
    ├── QuicConnectionException(ConnectionError)   there is no connection, or it ended
    │   └── QuicSocketException                    ... by the network: no name, no route, nobody there
    ├── QuicStreamException                        one request or stream failed; the others go on
    ├── QuicTlsHandshakeException                  certificate, name, protocol or another TLS alert
    ├── QuicTimeoutException(TimeoutError)         a deadline passed
    ├── QuicTransportException                     QUIC or HTTP/3 was violated, or no common version
    │   └── QuicErrorUnknownFrame                  ... by a frame nobody knows
    ├── QuicServerException                        a server could not start or go on
    └── QuicClientException                        used in a way that cannot work

    QuicWarning(UserWarning)
    ├── QuicWarningInvalidParameters
    ├── QuicWarningConnectionSlow
    ├── QuicWarningDeprecatedFeature
    ├── QuicWarningPartialData
    └── QuicWarningTicketStore

`CAUSES` is the one table from what happened to class, code, words and advice; every layer raises through
`error()`, and the reference page is made from it.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from errno import EDQUOT, EFBIG, ENOSPC

QUIC_ERROR_OK = 0
QUIC_ERROR_TIMEOUT = 1
QUIC_ERROR_INVALID_STATE = 2
QUIC_ERROR_CONNECTION_LOST = 3
QUIC_ERROR_HANDSHAKE_FAILED = 4
QUIC_ERROR_STREAM_ERROR = 5
QUIC_ERROR_TRANSPORT_ERROR = 6
QUIC_ERROR_INTERNAL = 7
QUIC_ERROR_UNSUPPORTED_VERSION = 8


class QuicException(OSError):
    """Base of everything that quicgreen raises."""

    cause: str = ""
    """Key in `CAUSES`."""

    code: int = QUIC_ERROR_INTERNAL
    """One of the `QUIC_ERROR_*` constants."""

    wire_code: int | None = None
    """The error code that crossed the network: HTTP/3's (RFC 9114, section 8.1), QPACK's, or QUIC's
    (RFC 9000, section 20.1)."""

    remote: bool = False
    """The peer said so; else it was found out here."""

    request_sent: bool = True
    """False when it is certain that nothing of the request left: it may be sent again."""


class QuicConnectionException(QuicException, ConnectionError):
    """There is no connection, or it ended. Handshakes that fail for TLS (`QuicTlsHandshakeException`) or for
    time (`QuicTimeoutException`) have their own classes."""


class QuicSocketException(QuicConnectionException):
    """The network: no such name, no route, or nobody listens there. `errno` tells when the system did."""


class QuicStreamException(QuicException):
    """One request or stream failed; the connection and its other streams go on."""


class QuicTlsHandshakeException(QuicException):
    """The TLS handshake failed: certificate, name, protocol, or another alert (RFC 8446, section 6)."""


class QuicTimeoutException(QuicException, TimeoutError):
    """A deadline passed. What was waited for is given up; the connection stays usable unless it was the
    handshake or the idle timeout that passed."""


class QuicTransportException(QuicException):
    """QUIC or HTTP/3 was violated by one side, or there is no common version."""


class QuicErrorUnknownFrame(QuicTransportException):
    """A frame of a type that nobody knows where none may be."""


class QuicServerException(QuicException):
    """A server could not start or go on."""


class QuicClientException(QuicException):
    """Something was used in a way that cannot work; nothing was sent."""


class QuicWarning(UserWarning):
    """Base of quicgreen's warnings. They are issued with `warnings.warn` and never raised."""


class QuicWarningInvalidParameters(QuicWarning):
    """An option that is not known was given."""


class QuicWarningConnectionSlow(QuicWarning):
    """A client's handshake took longer than `slow_handshake_ms`, or its round trips four times as long as the
    quickest one. Issued once per connection, where it is used next."""


class QuicWarningDeprecatedFeature(QuicWarning):
    """A renamed option was used by its old name."""


class QuicWarningPartialData(QuicWarning):
    """Something was taken only in part: a body that ended before its content-length (reading it then raises
    too), datagrams that were cut as they were received, or frames of a type that is not known, which HTTP/3
    skips (RFC 9114, section 9)."""


class QuicWarningTicketStore(QuicWarning):
    """Session tickets could not be fetched or kept; connections go on with full handshakes."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A row of the table."""

    exception: type[QuicException]
    code: int
    message: str
    advice: str


CAUSES: dict[str, Cause] = {
    "handshake-timeout": Cause(
        QuicTimeoutException,
        QUIC_ERROR_TIMEOUT,
        "Connection handshake took too long",
        "check that UDP reaches the server's port, or raise timeout=",
    ),
    "idle-timeout": Cause(
        QuicTimeoutException,
        QUIC_ERROR_TIMEOUT,
        "nothing came from the peer for the idle timeout",
        "open a new connection; raise max_idle_ms on both sides for longer pauses",
    ),
    "deadline": Cause(
        QuicTimeoutException,
        QUIC_ERROR_TIMEOUT,
        "timed out",
        "try again, or raise timeout=; the connection is still good",
    ),
    "pool-timeout": Cause(
        QuicTimeoutException,
        QUIC_ERROR_TIMEOUT,
        "no connection of the pool became free in time",
        "close responses that are not read to their end, or raise limits=",
    ),
    "certificate": Cause(
        QuicTlsHandshakeException,
        QUIC_ERROR_HANDSHAKE_FAILED,
        "TLS handshake failed: invalid certificate",
        "check the server's certificate and name; verify='ca.pem' trusts a private authority",
    ),
    "alert": Cause(
        QuicTlsHandshakeException,
        QUIC_ERROR_HANDSHAKE_FAILED,
        "TLS handshake failed",
        "check certificates and application protocols (ALPN) on both sides",
    ),
    "version": Cause(
        QuicTransportException,
        QUIC_ERROR_UNSUPPORTED_VERSION,
        "no common QUIC version",
        "the peer does not speak QUIC version 1 (RFC 9000)",
    ),
    "name": Cause(
        QuicSocketException,
        QUIC_ERROR_CONNECTION_LOST,
        "the host's name could not be resolved",
        "check the name and the resolver",
    ),
    "unreachable": Cause(
        QuicSocketException,
        QUIC_ERROR_CONNECTION_LOST,
        "the host cannot be reached",
        "check address, port and firewall: QUIC needs UDP",
    ),
    "closed-by-peer": Cause(
        QuicConnectionException,
        QUIC_ERROR_CONNECTION_LOST,
        "the peer closed the connection",
        "open a new connection",
    ),
    "closed-here": Cause(
        QuicConnectionException,
        QUIC_ERROR_CONNECTION_LOST,
        "the connection was closed",
        "open a new connection",
    ),
    "lost": Cause(
        QuicConnectionException,
        QUIC_ERROR_CONNECTION_LOST,
        "the peer no longer knows the connection (it was restarted)",
        "open a new connection",
    ),
    "violation-by-peer": Cause(
        QuicTransportException,
        QUIC_ERROR_TRANSPORT_ERROR,
        "the peer broke the protocol",
        "the connection is closed; report this to who runs the peer",
    ),
    "violation-here": Cause(
        QuicTransportException,
        QUIC_ERROR_TRANSPORT_ERROR,
        "the peer says that we broke the protocol",
        "the connection is closed; please report this to quicgreen",
    ),
    "unknown-frame": Cause(
        QuicErrorUnknownFrame,
        QUIC_ERROR_TRANSPORT_ERROR,
        "Received unknown QUIC frame type",
        "the connection is closed; one side speaks an extension that was not agreed on",
    ),
    "reset": Cause(
        QuicStreamException,
        QUIC_ERROR_STREAM_ERROR,
        "the peer reset the stream",
        "try again if the request is idempotent; other requests are not affected",
    ),
    "stopped": Cause(
        QuicStreamException,
        QUIC_ERROR_STREAM_ERROR,
        "the peer stopped reading the stream",
        "look at the response, which may tell why; other requests are not affected",
    ),
    "refused": Cause(
        QuicStreamException,
        QUIC_ERROR_STREAM_ERROR,
        "the peer did not process the request",
        "send it again: nothing was done",
    ),
    "malformed": Cause(
        QuicStreamException,
        QUIC_ERROR_STREAM_ERROR,
        "the message is malformed",
        "report this to who runs the peer; other requests are not affected",
    ),
    "body-too-short": Cause(
        QuicStreamException,
        QUIC_ERROR_STREAM_ERROR,
        "the body ended before its content-length",
        "what came is only a part: ask again; if it comes again, report it to who runs the peer",
    ),
    "head-too-large": Cause(
        QuicStreamException,
        QUIC_ERROR_STREAM_ERROR,
        "the message's head is too large",
        "send fewer or shorter fields, or raise max_field_section_size on the receiving side",
    ),
    "body-too-large": Cause(
        QuicStreamException,
        QUIC_ERROR_STREAM_ERROR,
        "the body is larger than the limit",
        "read it in pieces, or raise the limit",
    ),
    "http-status": Cause(
        QuicClientException,
        QUIC_ERROR_OK,
        "the server answered with an error",
        "look at the response: exception.response",
    ),
    "content-length": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "the body does not have the length that its content-length field says",
        "leave content-length out, or give a body of that length",
    ),
    "stream-gone": Cause(
        QuicStreamException,
        QUIC_ERROR_INVALID_STATE,
        "the stream has ended",
        "nothing more can be read or written on it",
    ),
    "state": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "not possible in this state",
        "see the method's description for when it may be called",
    ),
    "argument": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "wrong argument",
        "see the method's description",
    ),
    "thread": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "used from another thread than the one it belongs to",
        "open it in the thread that uses it: every thread has an engine of its own",
    ),
    "fork": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "opened before fork",
        "connections and servers stay with the process that made them: open new ones after fork",
    ),
    "unanswered": Cause(
        QuicServerException,
        QUIC_ERROR_INVALID_STATE,
        "the handler returned without answering",
        "call respond() or start_response() on every way through it; the client got status 500",
    ),
    "bind": Cause(
        QuicServerException,
        QUIC_ERROR_INTERNAL,
        "the address cannot be bound",
        "choose a free port and one of this host's addresses",
    ),
    "certificate-file": Cause(
        QuicServerException,
        QUIC_ERROR_INTERNAL,
        "the certificate or key cannot be used",
        "both must be PEM files, and the key must be the certificate's",
    ),
    "configuration": Cause(
        QuicServerException,
        QUIC_ERROR_INVALID_STATE,
        "the configuration cannot be used",
        "quicgreen serve --check-config looks at it, --print-config shows where each setting is from",
    ),
    "application": Cause(
        QuicServerException,
        QUIC_ERROR_INVALID_STATE,
        "the application cannot be used",
        "it is named MODULE:HANDLER, and imported from the current folder or that of --chdir",
    ),
    "supervisor": Cause(
        QuicServerException,
        QUIC_ERROR_INTERNAL,
        "the supervisor cannot go on",
        "its log says what its workers met",
    ),
    "control": Cause(
        QuicServerException,
        QUIC_ERROR_CONNECTION_LOST,
        "no supervisor answers",
        "see that it runs, and that --pid names the file that it writes",
    ),
    "client-certificate": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "the client's certificate or key cannot be used",
        "cert= names a PEM file that holds both, or a pair of files, and the key must be the certificate's",
    ),
    "trust-file": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "the trusted certificates cannot be used",
        "verify= must name a PEM file or an OpenSSL-style folder",
    ),
    "qlog-file": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "the qlog cannot be written",
        "give a file that can be made, or a folder that is there and may be written to",
    ),
    "qlog-format": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "this is no qlog that can be read",
        "JSON-SEQ (.sqlog) and JSON (.qlog) of qlog 0.3 and later can; unpack .gz first",
    ),
    "ticket": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "the session ticket cannot be used",
        "it is torn, or another version of quicgreen made it: a full handshake gives a new one",
    ),
    "ticket-too-large": Cause(
        QuicClientException,
        QUIC_ERROR_INVALID_STATE,
        "the session ticket does not fit the store",
        "raise quicpro.shm_size and remove the old segment, or use another store",
    ),
    "ticket-folder": Cause(
        QuicClientException,
        QUIC_ERROR_INTERNAL,
        "the folder for session tickets cannot be used",
        "it must be yours, writable for you and not for others; requests go on without resumption",
    ),
    "ticket-disk": Cause(
        QuicClientException,
        QUIC_ERROR_INTERNAL,
        "no space for session tickets",
        "free some, or choose another place; requests go on without resumption",
    ),
    "ticket-segment": Cause(
        QuicClientException,
        QUIC_ERROR_INTERNAL,
        "the shared-memory file for session tickets cannot be used",
        "remove it if nobody needs it, or name another one: quicpro.shm_path",
    ),
    "ticket-redis": Cause(
        QuicSocketException,
        QUIC_ERROR_CONNECTION_LOST,
        "Redis does not keep session tickets",
        "see that the server runs and takes writes; requests go on without resumption",
    ),
    "group": Cause(
        QuicServerException,
        QUIC_ERROR_INTERNAL,
        "what the workers share cannot be used",
        "memory ran out, or the file that was named is not theirs: remove it, or name another one",
    ),
    "slots": Cause(
        QuicServerException,
        QUIC_ERROR_INVALID_STATE,
        "there is no slot for another worker",
        "wait until one has ended, or make the group with more slots",
    ),
    "engine": Cause(
        QuicException,
        QUIC_ERROR_INTERNAL,
        "Unable to initialize QUIC context",
        "descriptors or memory ran out: see ulimit -n and the system's log",
    ),
    "memory": Cause(
        QuicException,
        QUIC_ERROR_INTERNAL,
        "there is no memory left",
        "close what is no longer used; see ulimit -v and the system's log",
    ),
    "limit": Cause(
        QuicClientException,
        QUIC_ERROR_INTERNAL,
        "a limit was reached",
        "close what is no longer used",
    ),
}


NO_SPACE = frozenset({ENOSPC, EDQUOT, EFBIG})
"""What a full disk, a quota and a limit of the process are called by the system."""


def error(
    cause: str,
    detail: str = "",
    *,
    wire_code: int | None = None,
    remote: bool = False,
    request_sent: bool = True,
    errno: int | None = None,
    joint: str = ": ",
) -> QuicException:
    """The exception for `cause`, ready to be raised: what, the detail, and what to do next."""
    row = CAUSES[cause]
    what = f"{row.message}{joint}{detail}" if detail else row.message
    exception = row.exception(f"{what} ({row.advice})")
    exception.cause = cause
    exception.code = row.code
    exception.wire_code = wire_code
    exception.remote = remote
    exception.request_sent = request_sent
    if errno is not None:
        exception.errno = errno
    return exception


def warn(text: str, category: type[QuicWarning]) -> None:
    """Warn whoever called into this package, at the line that did. To be called in a greenlet of the
    application, never in the hub: what it does with warnings is its own."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(f"{__package__}."):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


H3_ERRORS = {
    0x100: "H3_NO_ERROR",
    0x101: "H3_GENERAL_PROTOCOL_ERROR",
    0x102: "H3_INTERNAL_ERROR",
    0x103: "H3_STREAM_CREATION_ERROR",
    0x104: "H3_CLOSED_CRITICAL_STREAM",
    0x105: "H3_FRAME_UNEXPECTED",
    0x106: "H3_FRAME_ERROR",
    0x107: "H3_EXCESSIVE_LOAD",
    0x108: "H3_ID_ERROR",
    0x109: "H3_SETTINGS_ERROR",
    0x10A: "H3_MISSING_SETTINGS",
    0x10B: "H3_REQUEST_REJECTED",
    0x10C: "H3_REQUEST_CANCELLED",
    0x10D: "H3_REQUEST_INCOMPLETE",
    0x10E: "H3_MESSAGE_ERROR",
    0x10F: "H3_CONNECT_ERROR",
    0x110: "H3_VERSION_FALLBACK",
    0x200: "QPACK_DECOMPRESSION_FAILED",
    0x201: "QPACK_ENCODER_STREAM_ERROR",
    0x202: "QPACK_DECODER_STREAM_ERROR",
}
"""RFC 9114, section 8.1; RFC 9204, section 6; RFC 9297 has none."""

TRANSPORT_ERRORS = {
    0x0: "NO_ERROR",
    0x1: "INTERNAL_ERROR",
    0x2: "CONNECTION_REFUSED",
    0x3: "FLOW_CONTROL_ERROR",
    0x4: "STREAM_LIMIT_ERROR",
    0x5: "STREAM_STATE_ERROR",
    0x6: "FINAL_SIZE_ERROR",
    0x7: "FRAME_ENCODING_ERROR",
    0x8: "TRANSPORT_PARAMETER_ERROR",
    0x9: "CONNECTION_ID_LIMIT_ERROR",
    0xA: "PROTOCOL_VIOLATION",
    0xB: "INVALID_TOKEN",
    0xC: "APPLICATION_ERROR",
    0xD: "CRYPTO_BUFFER_EXCEEDED",
    0xE: "KEY_UPDATE_ERROR",
    0xF: "AEAD_LIMIT_REACHED",
    0x10: "NO_VIABLE_PATH",
}
"""RFC 9000, section 20.1."""


_CODE_MAX = (1 << 62) - 1


def check_code(code: int) -> None:
    """An error code that an application gives must be one that can be sent (RFC 9000, section 16)."""
    if not isinstance(code, int) or not 0 <= code <= _CODE_MAX:
        raise error("argument", f"{code!r} is not an error code: 0 to 2^62 - 1")


def code_name(code: int, application: bool) -> str:
    """The RFC's name for a wire code, or its number."""
    return (H3_ERRORS if application else TRANSPORT_ERRORS).get(code, f"0x{code:x}")
