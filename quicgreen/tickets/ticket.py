"""One session ticket, and its form as bytes.

Bytes, version 1 (numbers big-endian)

    "QGT" 1   CRC-32 of all that follows (4)   flags (1)   port (2)   length of host (1) and alpn (1)
    issued_at (8, double)   expires_at (8, double)   length of data (4)   host   alpn   data

The sum finds a file of which a crash left zeros, or a part; it is no protection against anybody.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass, field

from ..exceptions import QuicException, error

LIFETIME_MAX_S = 604_800
"""Seven days (RFC 8446, section 4.6.1): no ticket is used for longer, whatever its server said."""

DATA_MAX = 65_535
"""Bytes of `data`: some 600 for most, and what the server chose to put into its ticket."""

_STEP_S = 1.0
"""How far the clock may be before `issued_at`: TLS counts whole seconds."""

_MAGIC = b"QGT\x01"
_HEAD = struct.Struct(">BHBBddI")
_EARLY = 1


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a client needs to resume a session (RFC 8446, section 2.2; RFC 9000, section 7.4.1; RFC 9114,
    section 7.2.4.2). It is a secret: who has it can pretend to be this client towards the server.

    Raises:
        QuicClientException: a value is out of its range.
    """

    host: str
    """The server's name or address, as it was connected to. For people: the key decides who gets it."""

    port: int
    """Its UDP port."""

    alpn: str
    """The application protocol that was agreed on (RFC 7301)."""

    issued_at: float
    """When it came, in wall-clock seconds."""

    expires_at: float
    """From when on it is not used, in wall-clock seconds."""

    early_data: bool
    """It may carry early data (0-RTT; RFC 8446, section 4.2.10)."""

    data: bytes = field(repr=False)
    """What it is bound to (`TicketKeys.binding`), then the engine's: TLS session, the peer's transport
    parameters, HTTP/3 settings."""

    def __post_init__(self) -> None:
        problem = None
        if len(_text(self.host)) > 255 or len(_text(self.alpn)) > 255:
            problem = "host and alpn have at most 255 bytes"
        elif not 0 <= self.port <= 65_535:
            problem = f"{self.port} is not a port"
        elif not (math.isfinite(self.issued_at) and math.isfinite(self.expires_at)):
            problem = "times are finite numbers of seconds"
        elif not 0 < len(self.data) <= DATA_MAX:
            problem = f"data has 1 to {DATA_MAX} bytes, not {len(self.data)}"
        if problem is not None:
            raise error("argument", problem)

    @property
    def ends_at(self) -> float:
        """`expires_at`, or seven days after `issued_at` if that comes first."""
        return min(self.expires_at, self.issued_at + LIFETIME_MAX_S)

    def expired(self, now: float) -> bool:
        """Whether it may not be used at the wall-clock second `now`.

        A clock that was set back to before `issued_at` counts as well: the ticket's age (RFC 8446, section
        4.2.11.1) cannot be told then, and it would live for as long as the clock is wrong. It is good
        again when the clock is.
        """
        return not self.issued_at - _STEP_S <= now < self.ends_at

    def to_bytes(self) -> bytes:
        host, alpn = _text(self.host), _text(self.alpn)
        head = _HEAD.pack(
            _EARLY if self.early_data else 0,
            self.port,
            len(host),
            len(alpn),
            self.issued_at,
            self.expires_at,
            len(self.data),
        )
        body = b"".join((head, host, alpn, self.data))
        return _MAGIC + zlib.crc32(body).to_bytes(4, "big") + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Ticket:
        """The ticket of which `to_bytes` made these.

        Raises:
            QuicClientException: with cause "ticket" when they are not whole, or not of this version.
        """
        if data[:3] != _MAGIC[:3]:
            raise error("ticket", "this is not one")
        if data[3:4] != _MAGIC[3:]:
            raise error("ticket", f"it is of version {data[3]}, not {_MAGIC[3]}" if data[3:] else "it is cut")
        body = data[8:]
        if len(body) < _HEAD.size:
            raise error("ticket", "it is cut")
        flags, port, host_len, alpn_len, issued_at, expires_at, data_len = _HEAD.unpack_from(body)
        if len(body) != _HEAD.size + host_len + alpn_len + data_len:
            raise error("ticket", f"{len(data)} bytes are too few or too many")
        if zlib.crc32(body).to_bytes(4, "big") != data[4:8] or flags & ~_EARLY:
            raise error("ticket", "its bytes are damaged")
        at = _HEAD.size + host_len
        try:
            host = body[_HEAD.size : at].decode("utf-8", "surrogatepass")
            alpn = body[at : at + alpn_len].decode("utf-8", "surrogatepass")
            early = bool(flags & _EARLY)
            return cls(host, port, alpn, issued_at, expires_at, early, body[at + alpn_len :])
        except (UnicodeDecodeError, QuicException) as e:
            raise error("ticket", str(e)) from None
