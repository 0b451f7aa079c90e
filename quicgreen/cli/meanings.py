"""What `quicgreen explain` and the page of errors say beside the table of causes: of codes, of warnings, and
of what stands on the wire. Each row: what it means, and what to do next."""

from __future__ import annotations

Meaning = tuple[str, str]

CODES: dict[str, Meaning] = {
    "QUIC_ERROR_OK": (
        "success; an exception that has it tells of an answer, not of a failure of ours",
        "look at the answer: exception.response",
    ),
    "QUIC_ERROR_TIMEOUT": (
        "a deadline passed",
        "try again if that does no harm; raise timeout= where the other side needs longer",
    ),
    "QUIC_ERROR_INVALID_STATE": (
        "a function was called with a wrong argument, or when it is not possible",
        "mend the call: nothing was sent, and nothing is lost",
    ),
    "QUIC_ERROR_CONNECTION_LOST": (
        "there is no connection, or it ended",
        "open a new one; a session does so by itself",
    ),
    "QUIC_ERROR_HANDSHAKE_FAILED": (
        "the TLS handshake failed",
        "check certificate, name and application protocol (ALPN); to try again does not help",
    ),
    "QUIC_ERROR_STREAM_ERROR": (
        "one request failed; the connection and all other requests go on",
        "send it again if that does no harm, or if exception.request_sent is false",
    ),
    "QUIC_ERROR_TRANSPORT_ERROR": (
        "one side broke the rules of QUIC or HTTP/3",
        "report it to who runs the peer; if the peer says that we did, to quicgreen",
    ),
    "QUIC_ERROR_INTERNAL": (
        "something of this machine was refused: a port, a file, a descriptor, memory",
        "see what the message names: ulimit -n, permissions, who has the port",
    ),
    "QUIC_ERROR_UNSUPPORTED_VERSION": (
        "the peer speaks no version of QUIC that we do",
        "it must speak version 1 (RFC 9000)",
    ),
}

WARNINGS: dict[str, str] = {
    "QuicWarningInvalidParameters": "correct the name, which the warning says; the option counts for nothing",
    "QuicWarningConnectionSlow": "look for full queues, loss or a long way (quicgreen ping); "
    "slow_handshake_ms sets the limit, and 0 turns it off",
    "QuicWarningDeprecatedFeature": "use the new name, which the warning says; the old one still works",
    "QuicWarningPartialData": "do not use a body that is not whole; ask again, and report what comes again",
    "QuicWarningTicketStore": "mend the place where tickets are kept; connections go on with full handshakes",
}

_RECONNECT = "open a new connection"
_REPORT = "report it to who runs the side that broke the rules"

HTTP3: dict[str, Meaning] = {
    "H3_NO_ERROR": ("no error: it is over, or the rest is not wanted", "nothing"),
    "H3_GENERAL_PROTOCOL_ERROR": ("a rule was broken for which there is no other code", _REPORT),
    "H3_INTERNAL_ERROR": (
        "the other side failed, such as a handler that raised",
        "look at its log; ask again",
    ),
    "H3_STREAM_CREATION_ERROR": ("a stream was opened that may not be", _REPORT),
    "H3_CLOSED_CRITICAL_STREAM": ("a stream was closed that must stay open (control, QPACK)", _REPORT),
    "H3_FRAME_UNEXPECTED": ("a frame came where none of its type may be", _REPORT),
    "H3_FRAME_ERROR": ("a frame was badly laid out, or of a wrong size", _REPORT),
    "H3_EXCESSIVE_LOAD": ("one side asks for more than the other will bear", "send less, or fewer at a time"),
    "H3_ID_ERROR": ("an id was used that was not allowed", _REPORT),
    "H3_SETTINGS_ERROR": ("SETTINGS that are wrong", _REPORT),
    "H3_MISSING_SETTINGS": ("the control stream did not begin with SETTINGS", _REPORT),
    "H3_REQUEST_REJECTED": ("the server did nothing of the request", "send it again: that is safe"),
    "H3_REQUEST_CANCELLED": (
        "the request, or its answer, is not wanted any more",
        "ask again if it still is",
    ),
    "H3_REQUEST_INCOMPLETE": (
        "a request's stream ended before the request was whole",
        "send it again, whole",
    ),
    "H3_MESSAGE_ERROR": (
        "a request or an answer is malformed: its fields, or a body of another length than announced",
        _REPORT,
    ),
    "H3_CONNECT_ERROR": ("the connection behind a CONNECT failed", "look at what the proxy connects to"),
    "H3_VERSION_FALLBACK": ("this cannot be served over HTTP/3", "ask again over HTTP/1.1"),
    "QPACK_DECOMPRESSION_FAILED": ("a field section could not be decoded", _REPORT),
    "QPACK_ENCODER_STREAM_ERROR": ("a wrong instruction came on the encoder's stream", _REPORT),
    "QPACK_DECODER_STREAM_ERROR": ("a wrong instruction came on the decoder's stream", _REPORT),
}
"""RFC 9114, section 8.1; RFC 9204, section 6."""

TRANSPORT: dict[str, Meaning] = {
    "NO_ERROR": ("no error: the connection is over", _RECONNECT),
    "INTERNAL_ERROR": ("the other side failed and cannot go on", f"look at its log; {_RECONNECT}"),
    "CONNECTION_REFUSED": ("the server takes no connection now", "try again later"),
    "FLOW_CONTROL_ERROR": ("more data came than was allowed", _REPORT),
    "STREAM_LIMIT_ERROR": ("more streams were opened than was allowed", _REPORT),
    "STREAM_STATE_ERROR": ("a frame came for a stream that is not in the state for it", _REPORT),
    "FINAL_SIZE_ERROR": ("a stream's size changed after its end was told", _REPORT),
    "FRAME_ENCODING_ERROR": ("a frame was badly encoded, or of a type that is not known", _REPORT),
    "TRANSPORT_PARAMETER_ERROR": ("transport parameters that are wrong", _REPORT),
    "CONNECTION_ID_LIMIT_ERROR": ("more connection ids were given than are kept", _REPORT),
    "PROTOCOL_VIOLATION": ("a rule was broken for which there is no other code", _REPORT),
    "INVALID_TOKEN": ("the token of a Retry was not taken", "try again: the address may have changed"),
    "APPLICATION_ERROR": ("the application closed before the handshake was done", _RECONNECT),
    "CRYPTO_BUFFER_EXCEEDED": (
        "a handshake larger than the other side keeps",
        "use a shorter chain of certificates",
    ),
    "KEY_UPDATE_ERROR": ("keys were changed against the rules", _REPORT),
    "AEAD_LIMIT_REACHED": ("the keys were used for as much as they may be", _RECONNECT),
    "NO_VIABLE_PATH": ("no way to the peer works any more", _RECONNECT),
}
"""RFC 9000, section 20.1."""

_CERTIFICATE = "check the certificate that was sent, and its date, names and chain"
_BOTH = "compare versions and settings of TLS on both sides"

ALERTS: dict[int, tuple[str, str, str]] = {
    0: ("close_notify", "the connection is over", _RECONNECT),
    10: ("unexpected_message", "a message came out of turn", _REPORT),
    20: ("bad_record_mac", "a record was changed on its way, or sealed wrongly", _REPORT),
    22: ("record_overflow", "a record was too long", _REPORT),
    40: ("handshake_failure", "no common parameters", _BOTH),
    42: ("bad_certificate", "a certificate is damaged or its signature wrong", _CERTIFICATE),
    43: ("unsupported_certificate", "a certificate is of a kind that is not taken", _CERTIFICATE),
    44: ("certificate_revoked", "the certificate was revoked", "get a new one"),
    45: (
        "certificate_expired",
        "the certificate's time is over, or has not begun",
        "renew it; check the clocks",
    ),
    46: ("certificate_unknown", "the certificate was not taken for another reason", _CERTIFICATE),
    47: ("illegal_parameter", "a field of the handshake is wrong", _REPORT),
    48: (
        "unknown_ca",
        "nobody who is trusted signed the certificate",
        "verify='ca.pem' trusts a private authority; a server must send its whole chain",
    ),
    49: ("access_denied", "the certificate is good, and not allowed here", "ask who runs the server"),
    50: ("decode_error", "a message could not be read", _REPORT),
    51: ("decrypt_error", "a signature or a key exchange did not match", "the key must be the certificate's"),
    70: ("protocol_version", "no common version of TLS", "QUIC needs TLS 1.3 on both sides"),
    71: ("insufficient_security", "what was offered is too weak for the server", _BOTH),
    80: ("internal_error", "the other side failed", "look at its log"),
    86: ("inappropriate_fallback", "an older version was asked for than both speak", _BOTH),
    90: ("user_canceled", "the handshake was given up", "try again"),
    109: ("missing_extension", "an extension is missing that must be there", _BOTH),
    110: ("unsupported_extension", "an extension came that was not asked for", _REPORT),
    112: ("unrecognized_name", "the server does not serve this name", "check host and server_name="),
    113: ("bad_certificate_status_response", "the certificate's status is wrong", _CERTIFICATE),
    115: ("unknown_psk_identity", "the session is not known", "connect without the ticket"),
    116: (
        "certificate_required",
        "a client must show a certificate here",
        "give one: cert=('client.pem', 'key.pem')",
    ),
    120: (
        "no_application_protocol",
        "no common application protocol (ALPN)",
        "HTTP/3 is 'h3': see that the server offers what alpn= asks for",
    ),
    121: (
        "ech_required",
        "the server takes only an encrypted ClientHello",
        "we send none: ask for another way in",
    ),
}
"""Number -> name, what, next: RFC 8446, section 6; RFC 7301, section 3.2; RFC 9849, section 5. On the wire of
QUIC they are 0x100 and the number (RFC 9001, section 4.8)."""
