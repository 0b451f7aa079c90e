"""The engine's settings and secrets as objects: TLS and transport, key rings, registers, segments.

With `_engine`, `_group` and `_frames` the only modules that import the C module, under the same rules.
"""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

from ._core import ffi, lib
from .configuration import ClientTls, QuicConfiguration, ServerTls, qlog_folder
from .exceptions import NO_SPACE, error


def self_signed(names: str, days: int = 30) -> tuple[str, str]:
    """A new P-256 certificate for `names` (comma-separated) and its key, as PEM."""
    cert, key = ffi.new("char[]", 8192), ffi.new("char[]", 4096)
    rc = lib.qg_tls_self_signed(names.encode("ascii", "replace"), days, cert, 8192, key, 4096)
    if rc < 0:
        raise error("argument", f"no certificate can be made for {names!r}")
    return ffi.string(cert).decode(), ffi.string(key).decode()


class _Strings:
    """Keeps alive the C strings that an options struct points to."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def __call__(self, text: str | None) -> Any:
        if text is None:
            return ffi.NULL
        if "\0" in text:
            raise error("argument", f"{text!r} contains a NUL character")
        self._kept.append(ffi.new("char[]", os.fsencode(text)))
        return self._kept[-1]


def _alpn(protocols: tuple[str, ...]) -> bytes:
    names = [p.encode() for p in protocols]
    if not names or any(not 0 < len(n) < 256 for n in names):
        raise error("argument", f"{protocols!r} is not a list of application protocols")
    return b"".join(bytes([len(n)]) + n for n in names)


class Keys:
    """The secrets that session tickets, Retry tokens and stateless resets are sealed with
    (cext/src/keys.h). Servers that share a ring, or its secret and times, serve each other's clients.

    Args:
        secret: 32 bytes, the same in every process that shares the ring; None: random ones.
        period_s: seconds after which new tickets are sealed with a new key, derived from the old one.
        window: how many of the last keys still open what they sealed; a ticket lives (window - 1) periods.
        origin_s: the wall-clock second at which `secret` was made, the same in every process.
    """

    def __init__(
        self,
        secret: bytes | None = None,
        *,
        period_s: int = 3600,
        window: int = 25,
        origin_s: int | None = None,
    ) -> None:
        if secret is not None and len(secret) != 32:
            raise error("argument", "a key ring's secret is 32 bytes")
        if origin_s is None:
            origin_s = int(time.time())
        pointer = lib.qg_keys_new(secret or ffi.NULL, period_s, window, origin_s)
        if pointer == ffi.NULL:
            raise error("argument", "period_s must be positive and window 1 to 64")
        self.pointer = ffi.gc(pointer, lib.qg_keys_free)

    @classmethod
    def of(cls, pointer: Any) -> Keys:
        """A ring that was made elsewhere, whose reference becomes this object's."""
        if pointer == ffi.NULL:
            raise error("engine", "no memory for a key ring")
        keys = cls.__new__(cls)
        keys.pointer = ffi.gc(pointer, lib.qg_keys_free)
        return keys

    def rotate(self, now_s: int) -> int:
        """Move to the epoch of wall-clock second `now_s`; returns the epoch."""
        return int(lib.qg_keys_rotate(self.pointer, now_s))


class ReplayRegister:
    """Whose early data was taken already (RFC 8446, section 8.2; cext/src/replay.h). Servers that share
    keys share a register, or take no early data.

    Args:
        capacity: ClientHellos with early data in two minutes; more are served without.
        quiet: take no early data for the first two minutes: for keys that were in use before.
    """

    def __init__(self, capacity: int = 100_000, *, quiet: bool = False) -> None:
        pointer = lib.qg_replay_new(capacity, lib.QG_REPLAY_PERIOD_S if quiet else 0)
        if pointer == ffi.NULL:
            raise error("engine", "no memory for a replay register")
        self.pointer = ffi.gc(pointer, lib.qg_replay_free)

    @classmethod
    def of(cls, pointer: Any) -> ReplayRegister:
        """A register that was made elsewhere, whose reference becomes this object's."""
        if pointer == ffi.NULL:
            raise error("engine", "no memory for a replay register")
        register = cls.__new__(cls)
        register.pointer = ffi.gc(pointer, lib.qg_replay_free)
        return register

    def counts(self) -> dict[str, int]:
        """What became of early data: `first` let through; refused as `repeated`, `full` or `quiet`."""
        counts = ffi.new("qg_replay_counts *")
        lib.qg_replay_counts_of(self.pointer, counts)
        return {name: getattr(counts, name) for name, _ in ffi.typeof("qg_replay_counts").fields}


_OURS: dict[str, Any] = {"slow_handshake_ms": 1000, "qlog_dir": "what QLOGDIR says"}
"""Settings that are not simply the engine's, with their defaults. A second: a handshake is one round trip,
and few of these are longer than 300 ms."""


def _tls_cause(detail: str, is_server: bool) -> str:
    """What is wrong, by the engine's words (tls.c)."""
    if "trusted" in detail:
        return "trust-file"
    if "certificate" in detail or "private key" in detail:
        return "certificate-file" if is_server else "client-certificate"
    return "argument"


def _slow_handshake_s(transport: QuicConfiguration) -> float:
    """Infinity when nothing is too slow."""
    value = transport.slow_handshake_ms
    if value is None:
        value = _OURS["slow_handshake_ms"]
    if not isinstance(value, int) or value < 0:
        raise error("argument", f"slow_handshake_ms is a number of milliseconds, or 0, not {value!r}")
    return value / 1000 if value else float("inf")


class Configuration:
    """TLS and transport settings, in the engine's form. Shared by any number of connections."""

    def __init__(
        self,
        tls: ClientTls | ServerTls,
        transport: QuicConfiguration,
        *,
        keys: Keys | None = None,
        replay: ReplayRegister | None = None,
        tickets: bool = False,
        extended_connect: bool = False,
        ca_file: str | None = None,
        ca_dir: str | None = None,
    ) -> None:
        """`keys`, `replay`: a server's, for tickets and early data. `tickets`: a client wants them.
        `extended_connect`: a server takes RFC 9220's requests, and says so."""
        is_server = isinstance(tls, ServerTls)
        problem = ffi.new("char[]", 512)
        alpn = _alpn(tls.alpn)
        raw = "h3" not in tls.alpn
        tls_options = self._tls_options(tls, alpn, ca_file, ca_dir)
        tls_options.keys = keys.pointer if keys is not None else ffi.NULL
        tls_options.replay = replay.pointer if replay is not None else ffi.NULL
        tls_options.tickets = tickets
        pointer = lib.qg_tls_new(tls_options, problem, 512)
        if pointer == ffi.NULL:
            detail = ffi.string(problem).decode(errors="replace")
            raise error(_tls_cause(detail, is_server), detail)
        tls_context = ffi.gc(pointer, lib.qg_tls_free)
        options = ffi.new("qg_config_options *")
        lib.qg_config_defaults(options, is_server)
        options.raw = raw
        options.extended_connect = extended_connect
        options.qlog_dir = self._strings(qlog_folder(transport))
        kept = self._fill(options, transport)
        pointer = lib.qg_config_new(options, tls_context, problem, 512)
        del kept
        if pointer == ffi.NULL:
            raise error("argument", ffi.string(problem).decode(errors="replace"))
        self.raw = raw
        self.slow_handshake_s = _slow_handshake_s(transport)
        self.alpn = tls.alpn
        self.is_server = is_server
        self.pointer = ffi.gc(pointer, lib.qg_config_free)

    def _tls_options(
        self,
        tls: ClientTls | ServerTls,
        alpn: bytes,
        ca_file: str | None,
        ca_dir: str | None,
    ) -> Any:
        strings = self._strings = _Strings()
        options = ffi.new("qg_tls_options *")
        options.abi = lib.QG_ABI
        self._alpn = ffi.from_buffer(alpn)
        options.alpn, options.alpn_len = self._alpn, len(alpn)
        options.keylog_file = strings(tls.keylog_file)
        options.ca_file, options.ca_dir = strings(ca_file), strings(ca_dir)
        if isinstance(tls, ServerTls):
            options.is_server = 1
            options.cert_file, options.key_file = strings(tls.certfile), strings(tls.keyfile)
            options.cert_pem, options.key_pem = strings(tls.cert_pem), strings(tls.key_pem)
            options.verify_peer = options.require_peer = tls.ca_certs is not None
        else:
            options.cert_file, options.key_file = strings(tls.cert), strings(tls.key)
            options.verify_peer = tls.verify is not False
        return options

    @staticmethod
    def _fill(options: Any, transport: QuicConfiguration) -> Any:
        kept = None
        for item in dataclasses.fields(transport):
            value = getattr(transport, item.name)
            if value is None or item.name in _OURS:
                continue
            if item.name == "cc_algorithm":
                value = kept = ffi.new("char[]", str(value).encode("ascii", "replace"))
            try:
                setattr(options, item.name, value)
            except TypeError:
                raise error("argument", f"{item.name} is a number, not {value!r}") from None
            except OverflowError:
                raise error("argument", f"{item.name} cannot be {value!r}: too large, or negative") from None
        return kept


def config_defaults(is_server: bool) -> dict[str, Any]:
    """The engine's transport defaults, by name."""
    options = ffi.new("qg_config_options *")
    lib.qg_config_defaults(options, is_server)
    values = {
        f.name: _OURS[f.name] if f.name in _OURS else getattr(options, f.name)
        for f in dataclasses.fields(QuicConfiguration)
    }
    values["cc_algorithm"] = ffi.string(options.cc_algorithm).decode()
    return values


class TicketSegment:
    """Client tickets in shared memory (cext/src/ticket_shm.h).

    Exempt from rule 1: any thread may call any method at any time, `close` too. Methods that return a pair
    return (result code or length, bytes).
    """

    SIZE_MIN: int = lib.QG_TICKET_SHM_MIN
    SIZE_MAX: int = lib.QG_TICKET_SHM_MAX
    TICKET_MAX: int = lib.QG_TICKET_MAX

    def __init__(self, path: str, size: int) -> None:
        result, text = ffi.new("int *"), ffi.new("char[]", 512)
        if not self.SIZE_MIN <= size <= self.SIZE_MAX:
            raise error("argument", f"a segment has {self.SIZE_MIN} to {self.SIZE_MAX} bytes, not {size}")
        pointer = lib.qg_ticket_shm_open(_Strings()(path), size, result, text, 512)
        if pointer == ffi.NULL:
            number = ffi.errno if result[0] == lib.QG_SYSTEM else None
            detail = ffi.string(text).decode(errors="replace")
            raise error("ticket-disk" if number in NO_SPACE else "ticket-segment", detail, errno=number)
        # A call that is under way in another thread keeps the mapping through its own reference.
        self._pointer = ffi.gc(pointer, lib.qg_ticket_shm_close)

    def close(self) -> None:
        self._pointer = None

    def _open(self) -> Any:
        pointer = self._pointer
        if pointer is None:
            raise error("state", "the ticket store is closed")
        return pointer

    def put(self, key: bytes, ticket: bytes, issued_s: int, expires_s: int, now_s: int) -> int:
        pointer = self._open()
        return int(lib.qg_ticket_shm_put(pointer, key, ticket, len(ticket), issued_s, expires_s, now_s))

    def get(self, key: bytes, now_s: int) -> tuple[int, bytes]:
        return self._read(lib.qg_ticket_shm_get, key, now_s)

    def take(self, key: bytes, now_s: int) -> tuple[int, bytes]:
        return self._read(lib.qg_ticket_shm_take, key, now_s)

    def _read(self, function: Any, key: bytes, now_s: int) -> tuple[int, bytes]:
        pointer, out = self._open(), ffi.new("uint8_t[]", self.TICKET_MAX)
        n = int(function(pointer, key, now_s, out, self.TICKET_MAX))
        return n, bytes(ffi.buffer(out, max(n, 0)))

    def at(self, index: int, now_s: int) -> tuple[int, bytes, bytes]:
        """(code or length, key, ticket) of the ticket that begins in slot `index`."""
        pointer, out = self._open(), ffi.new("uint8_t[]", self.TICKET_MAX)
        key = ffi.new("uint8_t[]", lib.QG_TICKET_KEY)
        n = int(lib.qg_ticket_shm_at(pointer, index, now_s, key, out, self.TICKET_MAX))
        return n, bytes(key), bytes(ffi.buffer(out, max(n, 0)))

    def delete(self, key: bytes) -> int:
        return int(lib.qg_ticket_shm_delete(self._open(), key))

    def clear(self) -> int:
        return int(lib.qg_ticket_shm_clear(self._open()))

    def info(self) -> tuple[int, dict[str, int]]:
        """(code, size slots slot_room max_ticket tickets)."""
        info = ffi.new("qg_ticket_shm_info *")
        rc = int(lib.qg_ticket_shm_info_of(self._open(), info))
        return rc, {name: getattr(info, name) for name, _ in ffi.typeof("qg_ticket_shm_info").fields}
