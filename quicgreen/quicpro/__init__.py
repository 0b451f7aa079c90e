"""The documentation's names, line by line: `from quicgreen.quicpro import *`.

    sess = quicpro_connect("example.org", 443)
    stream = quicpro_send_request(sess, "/")
    while not (resp := quicpro_receive_response(sess, stream)):
        quicpro_poll(sess, 20)
    print(resp["text"])
    quicpro_close(sess)

PHP's Fibers are greenlets, and its arrays dictionaries; `docs/quicpro.md` has the rest. It is a thin layer
over the classes of `quicgreen`, for programs that were written after it.
"""

from ..exceptions import (
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
from ..websocket import WebSocketFile
from .config import (
    Config,
)
from .constants import (
    QUICPRO_SESSION_AUTO,
    QUICPRO_SESSION_LIVE,
    QUICPRO_SESSION_SHM_LRU,
    QUICPRO_SESSION_TICKET,
    QUICPRO_SESSION_WARM,
)
from .fiber import (
    Fiber,
)
from .functions import (
    quiche_h3_finish_body,
    quiche_h3_send_body_chunk,
    quicpro_close,
    quicpro_connect,
    quicpro_export_ticket,
    quicpro_get_stats,
    quicpro_import_ticket,
    quicpro_poll,
    quicpro_receive_chunk,
    quicpro_receive_head,
    quicpro_receive_response,
    quicpro_send_request,
    quicpro_set_qlog_path,
)
from .last_error import (
    quicpro_get_last_error,
)
from .request import (
    Request,
    Stream,
)
from .server import (
    Server,
)
from .session import (
    Session,
)
from .websocketfile import (
    fclose,
    feof,
    fgets,
    fwrite,
)

__all__ = [
    "QUICPRO_SESSION_AUTO",
    "QUICPRO_SESSION_LIVE",
    "QUICPRO_SESSION_SHM_LRU",
    "QUICPRO_SESSION_TICKET",
    "QUICPRO_SESSION_WARM",
    "QUIC_ERROR_CONNECTION_LOST",
    "QUIC_ERROR_HANDSHAKE_FAILED",
    "QUIC_ERROR_INTERNAL",
    "QUIC_ERROR_INVALID_STATE",
    "QUIC_ERROR_OK",
    "QUIC_ERROR_STREAM_ERROR",
    "QUIC_ERROR_TIMEOUT",
    "QUIC_ERROR_TRANSPORT_ERROR",
    "QUIC_ERROR_UNSUPPORTED_VERSION",
    "Config",
    "Fiber",
    "QuicClientException",
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
    "Server",
    "Session",
    "Stream",
    "WebSocketFile",
    "fclose",
    "feof",
    "fgets",
    "fwrite",
    "quiche_h3_finish_body",
    "quiche_h3_send_body_chunk",
    "quicpro_close",
    "quicpro_connect",
    "quicpro_export_ticket",
    "quicpro_get_last_error",
    "quicpro_get_stats",
    "quicpro_import_ticket",
    "quicpro_poll",
    "quicpro_receive_chunk",
    "quicpro_receive_head",
    "quicpro_receive_response",
    "quicpro_send_request",
    "quicpro_set_qlog_path",
]
