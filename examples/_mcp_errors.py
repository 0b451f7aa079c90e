"""What can go wrong with a tool call, in the words of quicpro_async's documentation.

tool name typo                QuicErrorUnknownFrame     check the name
bad JSON in the request       QuicTransportException    HTTP 400: mend it and send it again
events cut off                QuicStreamException       call again if that does no harm
server unreachable            QuicSocketException       look at name, port and firewall
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quicgreen import (
    QUIC_ERROR_CONNECTION_LOST,
    QUIC_ERROR_STREAM_ERROR,
    QUIC_ERROR_TRANSPORT_ERROR,
    QuicConnectionException,
    QuicErrorUnknownFrame,
    QuicException,
    QuicSocketException,
    QuicStreamException,
    QuicTransportException,
)

CODES = {
    QuicErrorUnknownFrame: QUIC_ERROR_TRANSPORT_ERROR,
    QuicTransportException: QUIC_ERROR_TRANSPORT_ERROR,
    QuicStreamException: QUIC_ERROR_STREAM_ERROR,
    QuicSocketException: QUIC_ERROR_CONNECTION_LOST,
}


def refused(status: int, why: str) -> QuicException:
    """For an answer with a status of 400 or more."""
    if status == 404:
        return _made(QuicErrorUnknownFrame, f"HTTP {status}: {why} (check the tool's name)")
    return _made(QuicTransportException, f"HTTP {status}: {why} (mend the request and send it again)")


def unknown_tool(why: str) -> QuicException:
    """For an error inside the protocol that comes to the same."""
    return _made(QuicErrorUnknownFrame, f"{why} (check the tool's name)")


def cut_off(why: str) -> QuicException:
    """For events that ended before the result."""
    return _made(QuicStreamException, f"the answer was cut off: {why} (call again if that does no harm)")


@contextmanager
def mcp_errors() -> Iterator[None]:
    """Whatever the network does to a tool call, by the table above."""
    try:
        yield
    except QuicException as e:
        if e.cause == "handshake-timeout":
            why = f"nobody answers: {e} (look at name, port and firewall)"
            raise _made(QuicSocketException, why) from e
        if isinstance(e, QuicSocketException):
            raise
        if isinstance(e, QuicConnectionException) or e.cause == "idle-timeout":
            raise cut_off(str(e)) from e
        raise


def _made(kind: type[QuicException], what: str) -> QuicException:
    exception = kind(what)
    exception.code = CODES[kind]
    return exception
