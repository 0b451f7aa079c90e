"""QUIC and HTTP/3 for Python programs that live in greenlets.

    import quicgreen
    print(quicgreen.get("https://example.org/").text)

What looks blocking yields to gevent's hub; all network work of the process is done in C, in a few batched
calls per turn. Importing this patches nothing and imports neither ssl nor any adapter.
"""

from . import supervisor as supervisor
from . import websocket as websocket
from ._group import WorkerGroup
from .client import Connection, Session, connect, delete, get, head, options, patch, post, put, request
from .configuration import ClientTls, Limits, QuicConfiguration, ServerTls, Timeout
from .exceptions import (
    QUIC_ERROR_CONNECTION_LOST,
    QUIC_ERROR_HANDSHAKE_FAILED,
    QUIC_ERROR_INTERNAL,
    QUIC_ERROR_INVALID_STATE,
    QUIC_ERROR_OK,
    QUIC_ERROR_STREAM_ERROR,
    QUIC_ERROR_TIMEOUT,
    QUIC_ERROR_TRANSPORT_ERROR,
    QUIC_ERROR_UNSUPPORTED_VERSION,
    QuicClientException,
    QuicConnectionException,
    QuicErrorUnknownFrame,
    QuicException,
    QuicServerException,
    QuicSocketException,
    QuicStreamException,
    QuicTimeoutException,
    QuicTlsHandshakeException,
    QuicTransportException,
    QuicWarning,
    QuicWarningConnectionSlow,
    QuicWarningDeprecatedFeature,
    QuicWarningInvalidParameters,
    QuicWarningPartialData,
    QuicWarningTicketStore,
)
from .headers import Headers
from .messages import Request, Response
from .server import Server
from .stream import Stream
from .supervisor import Supervisor

__version__ = "0.1.0"

__all__ = [
    "QUIC_ERROR_CONNECTION_LOST",
    "QUIC_ERROR_HANDSHAKE_FAILED",
    "QUIC_ERROR_INTERNAL",
    "QUIC_ERROR_INVALID_STATE",
    "QUIC_ERROR_OK",
    "QUIC_ERROR_STREAM_ERROR",
    "QUIC_ERROR_TIMEOUT",
    "QUIC_ERROR_TRANSPORT_ERROR",
    "QUIC_ERROR_UNSUPPORTED_VERSION",
    "ClientTls",
    "Connection",
    "Headers",
    "Limits",
    "QuicClientException",
    "QuicConfiguration",
    "QuicConnectionException",
    "QuicErrorUnknownFrame",
    "QuicException",
    "QuicServerException",
    "QuicSocketException",
    "QuicStreamException",
    "QuicTimeoutException",
    "QuicTlsHandshakeException",
    "QuicTransportException",
    "QuicWarning",
    "QuicWarningConnectionSlow",
    "QuicWarningDeprecatedFeature",
    "QuicWarningInvalidParameters",
    "QuicWarningPartialData",
    "QuicWarningTicketStore",
    "Request",
    "Response",
    "Server",
    "ServerTls",
    "Session",
    "Stream",
    "Supervisor",
    "Timeout",
    "WorkerGroup",
    "connect",
    "delete",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
    "request",
]
