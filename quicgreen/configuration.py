"""Settings. All are dataclasses: made once, shared, not changed afterwards."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from .exceptions import error

_Seconds = float | None


@dataclass(frozen=True, slots=True)
class Timeout:
    """Deadlines in seconds; `None` waits for as long as the connection lives.

    `Timeout(5)` sets all four. The names are httpx's.
    """

    connect: _Seconds = 5.0
    """Until the handshake is complete, names resolved included."""

    read: _Seconds = 60.0
    """Until the response's head, and again for each piece of its body."""

    write: _Seconds = 60.0
    """Until the peer takes the next piece of the request's body."""

    pool: _Seconds = 60.0
    """Until a connection of the pool is free."""

    read_us: int = field(init=False, repr=False, compare=False, default=0)
    """`read` in microseconds, as the engine takes it; 0 for none."""

    def __post_init__(self) -> None:
        for name in ("connect", "read", "write", "pool"):
            object.__setattr__(self, name, _seconds(getattr(self, name)))
        object.__setattr__(self, "read_us", microseconds(self.read))

    @classmethod
    def of(cls, value: Timeout | float | tuple[_Seconds, _Seconds] | None) -> Timeout:
        """A number sets all four, a pair connect and the rest (as in requests), `None` none."""
        if isinstance(value, Timeout):
            return value
        if isinstance(value, tuple):
            if len(value) != 2:
                raise error("argument", f"a pair of timeouts is (connect, rest), not {value!r}")
            connect, rest = value
            return cls(connect, rest, rest, rest)
        return cls(value, value, value, value)


_LONGEST_S = 1e9
"""31 years: more would not fit the engine's nanoseconds."""


def microseconds(seconds: _Seconds) -> int:
    """A timeout as the engine takes it: 0 means none, so what has passed already is 1."""
    if seconds is None or seconds > _LONGEST_S:
        return 0
    return max(1, int(seconds * 1e6))


def _seconds(value: _Seconds) -> _Seconds:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or value != value or value < 0:
        raise error("argument", f"a timeout is a number of seconds or None, not {value!r}")
    return None if value > _LONGEST_S else float(value)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a session's pool. The names are httpx's; `max_streams` is ours."""

    max_connections: int = 100
    """Connections in all."""

    max_streams: int = 100
    """Requests at a time on one connection; more open another one. What the peer allows counts too."""

    keepalive_expiry: float | None = 30.0
    """Seconds after which an unused connection is closed."""

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_streams"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise error("argument", f"{name} is a number of at least 1, not {value!r}")
        object.__setattr__(self, "keepalive_expiry", _seconds(self.keepalive_expiry))


@dataclass(frozen=True, slots=True)
class QuicConfiguration:
    """Transport settings of a connection or a server. `None` leaves the engine's default, which
    `quicgreen info` prints and cext/src/config.c gives the reason for."""

    max_idle_ms: int | None = None
    """The connection ends when nothing came for so long (30,000)."""

    handshake_timeout_ms: int | None = None
    """How long a peer may take for its handshake (10,000)."""

    slow_handshake_ms: int | None = None
    """A client's handshake that takes longer is warned of, and round trips that take four times as long as
    the quickest and more than a tenth of this (1,000; 0: never)."""

    write_timeout_ms: int | None = None
    """How long a response that the engine holds may wait for a client that takes nothing (60,000)."""

    initial_max_data: int | None = None
    """Bytes a peer may send on all streams before any was read (1 MiB). It grows by itself."""

    initial_max_stream_data_bidi_local: int | None = None
    """The same for one stream that we opened (512 KiB)."""

    initial_max_stream_data_bidi_remote: int | None = None
    """The same for one stream that the peer opened (512 KiB)."""

    initial_max_stream_data_uni: int | None = None
    """The same for a unidirectional stream (128 KiB)."""

    initial_max_streams_bidi: int | None = None
    """Requests a peer may have open at a time (100)."""

    initial_max_streams_uni: int | None = None
    """Unidirectional streams a peer may have open (8)."""

    max_connection_window: int | None = None
    """How far `initial_max_data` may grow (24 MiB)."""

    max_stream_window: int | None = None
    """How far a stream's window may grow (16 MiB)."""

    max_field_section_size: int | None = None
    """Names, values and 32 bytes for each field of a head (32 KiB)."""

    max_fields: int | None = None
    """Fields of a head (128)."""

    max_udp_payload_size: int | None = None
    """Largest datagram sent (1,452). Path MTU discovery finds what passes below it."""

    discover_pmtu: bool | None = None
    """Find out the path's largest datagram (true)."""

    grease: bool | None = None
    """Send reserved values, so that peers keep ignoring them (true; RFC 9287)."""

    disable_active_migration: bool | None = None
    """Ask the peer not to change its address on purpose (false)."""

    pacing: bool | None = None
    """Let quiche pace where its congestion control does (false)."""

    hystart: bool | None = None
    """HyStart++ (true; RFC 9406)."""

    initial_congestion_window_packets: int | None = None
    """10 (RFC 9002, section 7.2)."""

    active_connection_id_limit: int | None = None
    """Connection ids of the peer that are kept (4)."""

    send_capacity_factor: float | None = None
    """Stream data taken beyond the congestion window, as a factor of it (1.0)."""

    cc_algorithm: str | None = None
    """'cubic', 'reno' or 'bbr2_gcongestion' ('cubic')."""

    qlog_dir: str | os.PathLike[str] | None = None
    """Each connection's qlog goes to a file of its own in this folder (what QLOGDIR says when it connects,
    or the server starts); "" for none, whatever QLOGDIR says. See docs/tracing.md."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What a client trusts and offers."""

    verify: bool | str = True
    """True: the trust store of `SSL_CERT_FILE`, else certifi's. A path: that PEM file, or a folder in
    OpenSSL's form. False: no check at all; for tests only."""

    cert: str | None = None
    """A client certificate (PEM, chain included)."""

    key: str | None = None
    """Its key; None: it stands in `cert`."""

    alpn: tuple[str, ...] = ("h3",)
    """Application protocols, preferred first."""

    keylog_file: str | None = field(default_factory=lambda: os.environ.get("SSLKEYLOGFILE"))
    """Secrets go there in NSS key log format, for Wireshark. Whoever reads it reads the traffic."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a server shows and demands."""

    certfile: str | None = None
    """PEM chain, leaf first; it may hold the key too."""

    keyfile: str | None = None
    """PEM; None: it stands in `certfile`."""

    cert_pem: str | None = None
    """The same as text, instead of the file."""

    key_pem: str | None = None
    """The same as text, instead of the file."""

    ca_certs: str | None = None
    """Clients must show a certificate that one of these signed."""

    alpn: tuple[str, ...] = ("h3",)
    """Application protocols, preferred first."""

    keylog_file: str | None = field(default_factory=lambda: os.environ.get("SSLKEYLOGFILE"))
    """As in `ClientTls`."""


def trust(verify: bool | str) -> tuple[str | None, str | None]:
    """(file, folder) of trusted certificates."""
    if verify is False:
        return None, None
    if not isinstance(verify, bool):
        try:
            path = os.fspath(verify)
        except TypeError:
            raise error("argument", f"verify is True, False or a path, not {verify!r}") from None
        if not os.path.exists(path):
            raise error("trust-file", f"{path} does not exist")
        return (None, path) if os.path.isdir(path) else (path, None)
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        return file, folder
    import certifi

    return certifi.where(), None


def qlog_folder(transport: QuicConfiguration) -> str | None:
    """Where connections write their qlog; None: nowhere.

    Raises:
        QuicClientException: there is no such folder, or nothing may be written there.
    """
    given = transport.qlog_dir
    try:
        folder = os.fspath(os.environ.get("QLOGDIR", "") if given is None else given)
    except TypeError:
        raise error("argument", f"qlog_dir is a path, not {given!r}") from None
    if not folder:
        return None
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        problem = "nothing may be written there" if os.path.isdir(folder) else "there is no such folder"
        raise error("qlog-file", f"{folder}: {problem}")
    return folder


def busy_poll_us() -> int:
    """QUICPRO_BUSY_POLL: microseconds to watch the network before the loop sleeps."""
    text = os.environ.get("QUICPRO_BUSY_POLL", "").strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()) or int(text) > 1_000_000:
        raise error("argument", f"QUICPRO_BUSY_POLL={text!r} is not a number of microseconds up to 1000000")
    return int(text)
