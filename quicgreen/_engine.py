"""The binding: the only module that knows cffi.

Rules
1. An `Engine` is one thread's; the layer above (`hub`) sees to that.
2. What the engine returns is a count or a negative result code; nothing here raises for a code that a
   peer or a moment can cause. `hub` and `connection` turn codes into exceptions.
3. Submissions are plain memory, and what is called for each request or message does not go through cffi,
   which drops the GIL (`engine_calls.h`). The engine takes submissions, in order, at every call.
4. Whoever gives C something to do sets `dirty`, so that the turn ends with a flush.
5. Memory: `events`, `arena` and the submission buffers belong to the engine and die with `close`. An
   event's bytes live until the next `drain`; `take` copies them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from errno import ENOMEM
from typing import Any, NoReturn

from ._contexts import Configuration, Keys
from ._core import ffi, lib
from ._group import WorkerGroup
from .exceptions import QuicException, error

Record = tuple[int, int, int, int, int, int, int, int, int, int, int, int]
"""An event: type, flags, status, token, conn, stream, code, offset, path_len, head_len, body_len, value
(`qg_event` in quicgreen.h). The indexes below name them."""

TYPE, FLAGS, STATUS, TOKEN, CONN, STREAM, CODE, OFFSET, PATH_LEN, HEAD_LEN, BODY_LEN, VALUE = range(12)

_EVENT = struct.Struct("<HHIQQQQIIIIQ")
assert _EVENT.size == ffi.sizeof("qg_event")

CONNECTED: int = lib.QG_EVENT_CONNECTED
ACCEPTED: int = lib.QG_EVENT_ACCEPTED
CLOSED_EVENT: int = lib.QG_EVENT_CLOSED
REQUEST: int = lib.QG_EVENT_REQUEST
RESPONSE: int = lib.QG_EVENT_RESPONSE
READABLE: int = lib.QG_EVENT_READABLE
WRITABLE: int = lib.QG_EVENT_WRITABLE
STREAM_ERROR: int = lib.QG_EVENT_STREAM_ERROR
DEADLINE: int = lib.QG_EVENT_DEADLINE
STREAM_OPENED: int = lib.QG_EVENT_STREAM_OPENED
GOAWAY: int = lib.QG_EVENT_GOAWAY
OPENED: int = lib.QG_EVENT_OPENED
IDLE: int = lib.QG_EVENT_IDLE
TICKET: int = lib.QG_EVENT_TICKET
QLOG: int = lib.QG_EVENT_QLOG

FIN: int = lib.QG_FIN
EARLY: int = lib.QG_EARLY
MORE: int = lib.QG_MORE
REMOTE: int = lib.QG_REMOTE
APP: int = lib.QG_APP
TLS_ALERT: int = lib.QG_TLS_ALERT
TIMED_OUT: int = lib.QG_TIMED_OUT
LOST: int = lib.QG_LOST
ICMP: int = lib.QG_ICMP
VERSION: int = lib.QG_VERSION
HEAD: int = lib.QG_HEAD
DATE: int = lib.QG_DATE
INTERIM: int = lib.QG_INTERIM
ESTABLISHED: int = lib.QG_ESTABLISHED
EXTENDED: int = lib.QG_EXTENDED

AGAIN: int = lib.QG_AGAIN
GONE: int = lib.QG_GONE
STATE: int = lib.QG_STATE
INVALID: int = lib.QG_INVALID
NOMEM: int = lib.QG_NOMEM
RESET: int = lib.QG_RESET
STOPPED: int = lib.QG_STOPPED
CLOSED: int = lib.QG_CLOSED
LIMIT: int = lib.QG_LIMIT
SYSTEM: int = lib.QG_SYSTEM
PROTOCOL: int = lib.QG_PROTOCOL
FORKED: int = lib.QG_FORKED
TOO_LARGE: int = lib.QG_TOO_LARGE
REFUSED: int = lib.QG_REFUSED
UNABLE: int = lib.QG_UNABLE
SHORT: int = lib.QG_SHORT

DRAIN_MORE: int = lib.QG_DRAIN_MORE
UNKNOWN_LENGTH: int = lib.QG_UNKNOWN_LENGTH
INLINE_MAX: int = lib.QG_BODY_INLINE_MAX
SIDE_READ: int = lib.QG_SIDE_READ
SIDE_WRITE: int = lib.QG_SIDE_WRITE
ENDPOINT_AUTO: int = lib.QG_ENDPOINT_AUTO
LISTEN_SESSIONS: int = lib.QG_LISTEN_SESSIONS
RETRY_NEVER: int = lib.QG_RETRY_NEVER
RETRY_ALWAYS: int = lib.QG_RETRY_ALWAYS
RETRY_AUTO: int = lib.QG_RETRY_AUTO

METHODS = ["", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT"]
"""By `QG_METHOD_*`."""

CAPABILITIES = {
    "gso": lib.QG_CAP_GSO,
    "gro": lib.QG_CAP_GRO,
    "recverr": lib.QG_CAP_RECVERR,
    "buffers": lib.QG_CAP_BUFFERS,
    "pmtud": lib.QG_CAP_PMTUD,
    "xdp": lib.QG_CAP_XDP,
    "xdp_native": lib.QG_CAP_XDP_NATIVE,
}

OP_RESPOND: int = lib.QG_OP_RESPOND
OP_REQUEST: int = lib.QG_OP_REQUEST
OP_RESET: int = lib.QG_OP_RESET
OP_CANCEL: int = lib.QG_OP_CANCEL
OP_CREDIT: int = lib.QG_OP_CREDIT
OP_ATTACH: int = lib.QG_OP_ATTACH
OP_RELEASE: int = lib.QG_OP_RELEASE

_ARENA_CHUNKS = 1024
"""16 MiB at most: enough that a thousand greenlets that come and go together are born cheaply."""

_REASON_BYTES = 256
"""For a sentence of the engine's."""

ABI: int = lib.qg_abi()
"""Version of the interface between this file and the compiled module."""
if ABI != lib.QG_ABI:  # a stale module beside a newer package
    raise ImportError(f"quicgreen._core is of ABI {ABI}, the package needs {lib.QG_ABI}: rebuild it")


def build_info() -> str:
    """Versions of what is linked in."""
    return str(ffi.string(lib.qg_build()).decode())


def error_text(result: int) -> str:
    """A result code in words."""
    return str(ffi.string(lib.qg_error_text(result)).decode())


def install_arena_cache() -> bool:
    """Make greenlets cheap to create (cext/python/arena_cache.h). `QUICGREEN_ARENA_CACHE=0` forbids it."""
    if os.environ.get("QUICGREEN_ARENA_CACHE", "1") == "0":
        return False
    return bool(lib.qg_arena_cache_install(_ARENA_CHUNKS) == 0)


def arena_cache_stats() -> tuple[int, int]:
    """Chunks that are free now, and births that were served from the cache."""
    return lib.qg_arena_cache_free_chunks(), lib.qg_arena_cache_hits()


def encode_field(name: bytes, value: bytes) -> bytes | None:
    """One QPACK field line; b"" for a field that HTTP/3 does not carry, None for one that is not
    allowed (RFC 9114, section 4.2)."""
    capacity = len(name) + len(value) + 16
    out = ffi.new("uint8_t[]", capacity)
    n = lib.qg_field_encode(name, len(name), value, len(value), out, capacity)
    return None if n < 0 else bytes(ffi.buffer(out, n))


def parse_address(ip: str, port: int) -> Any | None:
    """A numeric address in the engine's form, or None when it is not one."""
    address = ffi.new("qg_addr *")
    try:
        rc = lib.qg_addr_parse(address, ip.encode("ascii"), port)
    except UnicodeEncodeError:
        return None
    except OverflowError:
        raise error("argument", f"{port} is not a port") from None
    return address if rc == 0 else None


def format_address(address: Any) -> tuple[str, int]:
    """(ip, port) of an address in the engine's form."""
    text = ffi.new("char[]", 64)
    port = lib.qg_addr_format(ffi.addressof(address), text, 64)
    return (ffi.string(text).decode(), int(port)) if port >= 0 else ("", 0)


def _closed(*arguments: object) -> NoReturn:
    raise error("closed-here", "its engine was closed")


class Engine:
    """One engine: see the rules above. Methods that return int return the C function's result."""

    __slots__ = (
        "__weakref__", "_conn", "_counters", "_events", "_group", "_mark", "_memory", "_pointer", "_stream",
        "_submit", "arena", "client_endpoint", "closed", "dirty", "fd", "pid", "respond", "stream_read",
        "stream_read_on", "stream_write",
    )  # fmt: skip

    def __init__(
        self,
        on_dirty: Callable[[], None],
        *,
        keys: Keys | None = None,
        trace_fd: int = -1,
        group: WorkerGroup | None = None,
        slot: int = 0,
        generation: int = 0,
    ) -> None:
        """`on_dirty` is called when `dirty` becomes true. `trace_fd`: every datagram is a line there.
        `group`: it is the engine of the worker that has this slot there (`WorkerGroup.claim`)."""
        options = ffi.new("qg_engine_options *")
        lib.qg_engine_defaults(options)
        options.trace_fd = trace_fd
        if keys is not None:
            options.keys = keys.pointer
        self._group = group  # which has the counters then
        if group is not None:
            options.group, options.slot, options.generation = group.pointer, slot, generation
            self._counters = lib.qg_group_counters(group.pointer, slot)
        else:
            # Ours, so that they may be read at any time, from any thread.
            options.counters = self._counters = ffi.new("qg_counters *")
        result = ffi.new("int *")
        pointer = lib.qg_engine_new(options, result)
        if pointer == ffi.NULL:
            number = ffi.errno if result[0] == SYSTEM else None
            detail = os.strerror(number) if number else error_text(result[0])
            raise error("engine", detail, errno=number)
        self._pointer = pointer
        self._mark = on_dirty
        self.dirty = False
        self.client_endpoint: int = lib.QG_ENDPOINT_AUTO  # where connections begin
        self.closed = False
        self.pid = os.getpid()
        self.fd: int = lib.qg_engine_fd(pointer)
        memory = self._memory = ffi.new("qg_engine_memory *")
        lib.qg_engine_memory_of(pointer, memory)
        self._events = ffi.buffer(memory.events, options.events * _EVENT.size)
        self.arena = ffi.buffer(memory.event_arena, options.event_bytes)
        functions: dict[str, Callable[..., Any]] = {}
        if lib.qg_engine_calls(pointer, options, id(functions)) < 0:
            lib.qg_engine_free(pointer)
            raise error("engine", os.strerror(ENOMEM), errno=ENOMEM)
        self._submit = functions["submit"]
        self.respond = functions["respond"]
        self.stream_read = functions["stream_read"]
        self.stream_read_on = functions["stream_read_on"]
        self.stream_write = functions["stream_write"]
        self._conn = ffi.new("uint64_t *")
        self._stream = ffi.new("uint64_t *")

    # ---------------------------------------------------------------- life

    def close(self) -> None:
        """Free everything; connections are dropped without a word. Idempotent."""
        if not self.closed:
            pointer = self._pointer
            self._forget()
            self.stream_read = self.stream_read_on = self.stream_write = _closed
            self._pointer = self._memory = None
            lib.qg_engine_free(pointer)

    def abandon(self) -> None:
        """In a forked child: close our copies of the descriptors, and leave the rest alone."""
        if not self.closed:
            self._forget()
            lib.qg_engine_abandon(self._pointer)

    def _forget(self) -> None:
        self.closed = True
        # A late use is an error of Python's, not a read of freed memory.
        self._submit = self.respond = _closed
        self._events = self.arena = b""

    # ---------------------------------------------------------------- turns

    def drain(self) -> int:
        """Read the network; returns the number of events, `DRAIN_MORE` added."""
        self.touch()
        return int(lib.qg_engine_drain(self._pointer))

    def flush(self) -> int:
        """Send everything; returns the number of events in the ring, those of the last drain included."""
        self.dirty = False
        return int(lib.qg_engine_flush(self._pointer))

    def settle(self) -> int:
        """Take the submissions; returns the number of events in the ring, as `flush`."""
        return int(lib.qg_engine_submit(self._pointer))

    def records(self, start: int, end: int) -> Iterator[Record]:
        """The events from `start` to `end` of the ring."""
        # A copy: an iterator over a memoryview crashes Python before 3.12.3 and 3.11.9 (gh-77894) when the
        # frame that holds it dies in a cycle, as one in a traceback may.
        return _EVENT.iter_unpack(self._events[start * 64 : end * 64])

    def take(self, record: Record) -> bytes:
        """A copy of the event's bytes: path, head and body in one."""
        offset = record[OFFSET]
        taken: bytes = self.arena[offset : offset + record[PATH_LEN] + record[HEAD_LEN] + record[BODY_LEN]]
        return taken

    def touch(self) -> None:
        """There is something to flush."""
        if not self.dirty:
            self.dirty = True
            self._mark()

    def set_spin(self, spin_us: int) -> None:
        lib.qg_engine_set_spin(self._pointer, spin_us)

    # ---------------------------------------------------------------- submissions

    def submit(
        self,
        op: int,
        flags: int,
        conn: int,
        stream: int,
        token: int,
        timeout_us: int,
        code: int,
        head: bytes,
        body: bytes,
    ) -> None:
        """Write one submission (`qg_submission`). A body is at most `INLINE_MAX` bytes.

        Raises:
            QuicClientException: the head is larger than the arena, a megabyte.
        """
        if not self._submit(op, flags, conn, stream, token, timeout_us, code, head, body):
            raise self.head_too_large(head)
        if not self.dirty:
            self.dirty = True
            self._mark()

    def send_head(self, flags: int, conn: int, stream: int, head: bytes) -> None:
        """An answer's head; raises as `submit`."""
        self.submit(OP_RESPOND, flags, conn, stream, 0, 0, 0, head, b"")

    def head_too_large(self, head: bytes) -> QuicException:
        """What to raise when `respond` returns False."""
        return error("argument", f"a head of {len(head)} bytes cannot be sent: a megabyte is the most")

    def reset(self, conn: int, stream: int, code: int) -> None:
        self.submit(OP_RESET, 0, conn, stream, 0, 0, code, b"", b"")

    def release(self, conn: int, stream: int) -> None:
        self.submit(OP_RELEASE, 0, conn, stream, 0, 0, 0, b"", b"")

    def cancel(self, conn: int, token: int, code: int) -> None:
        self.submit(OP_CANCEL, 0, conn, 0, token, 0, code, b"", b"")

    def credit(self, endpoint: int, requests: int) -> None:
        self.submit(OP_CREDIT, 0, endpoint, 0, 0, 0, requests, b"", b"")

    def attach(self, conn: int, token: int) -> None:
        self.submit(OP_ATTACH, 0, conn, 0, token, 0, 0, b"", b"")

    # ---------------------------------------------------------------- endpoints

    def endpoint_udp(
        self, ip: str, port: int, *, v6only: bool = False, shared: bool = False, fd: int = -1
    ) -> tuple[int, int]:
        """(endpoint, 0), or (result code, errno). `shared`: others of this user may have the port too."""
        address = parse_address(ip, port)
        if address is None:
            return INVALID, 0
        flags = (lib.QG_ENDPOINT_V6ONLY if v6only else 0) | (lib.QG_ENDPOINT_SHARED if shared else 0)
        n = int(lib.qg_endpoint_udp(self._pointer, address, flags, fd))
        return n, ffi.errno if n == SYSTEM else 0

    def endpoint_xdp(self, endpoint: int, interface: bytes) -> tuple[int, str]:
        """(0, ""), or (result code, why it cannot be had)."""
        reason = ffi.new("char[]", _REASON_BYTES)
        rc = int(lib.qg_endpoint_xdp(self._pointer, endpoint, interface, reason, _REASON_BYTES))
        return rc, ffi.string(reason).decode()

    def client_xdp(self, interface: bytes) -> tuple[int, str]:
        """As `endpoint_xdp`: the engine's own socket, from which `connect` begins when `client_endpoint` is
        it."""
        reason = ffi.new("char[]", _REASON_BYTES)
        rc = int(lib.qg_endpoint_client_xdp(self._pointer, interface, reason, _REASON_BYTES))
        return rc, ffi.string(reason).decode()

    def endpoint_close(self, endpoint: int) -> int:
        return int(lib.qg_endpoint_close(self._pointer, endpoint))

    def endpoint_info(self, endpoint: int) -> dict[str, Any]:
        info = ffi.new("qg_endpoint_info *")
        if lib.qg_endpoint_info_of(self._pointer, endpoint, info) < 0:
            return {}
        return {
            "address": format_address(info.local),
            "capabilities": {name for name, bit in CAPABILITIES.items() if info.capabilities & bit},
            "receive_buffer": info.receive_buffer,
            "send_buffer": info.send_buffer,
            "connections": info.connections,
            "fd": info.fd,
        }

    def listen(
        self,
        endpoint: int,
        configuration: Configuration,
        *,
        token: int,
        credit: int,
        max_connections: int,
        retry: int,
        sessions: bool,
    ) -> int:
        options = ffi.new("qg_listen_options *")
        options.abi = lib.QG_ABI
        options.flags = LISTEN_SESSIONS if sessions else 0
        options.retry = retry
        options.max_connections = max_connections
        options.token = token
        options.credit = credit
        return int(lib.qg_listen(self._pointer, endpoint, options, configuration.pointer))

    def listen_stop(self, endpoint: int, spread_us: int) -> int:
        self.touch()
        return int(lib.qg_listen_stop(self._pointer, endpoint, spread_us))

    def listen_close(self, endpoint: int, code: int) -> int:
        self.touch()
        return int(lib.qg_listen_close(self._pointer, endpoint, code))

    # ---------------------------------------------------------------- connections

    def connect(
        self,
        address: Any,
        configuration: Configuration,
        server_name: str | None,
        token: int,
        timeout_us: int,
    ) -> tuple[int, int]:
        """(0, connection id), or (result code, errno)."""
        self.touch()
        name = ffi.NULL if server_name is None else server_name.encode("ascii")
        rc = int(
            lib.qg_connect(self._pointer, self.client_endpoint, address, configuration.pointer, name,
                           token, timeout_us, self._conn)
        )  # fmt: skip
        return rc, self._conn[0] if rc == 0 else ffi.errno

    def resume(self, conn: int, ticket: bytes, early: bool) -> int:
        """Before anything was sent: take up a session."""
        return int(lib.qg_conn_resume(self._pointer, conn, ticket, len(ticket), early))

    def session_info(self, conn: int) -> dict[str, Any]:
        """is_resumed, in_early_data, early_data (True: accepted, False: refused, None: none was sent) and
        why it was refused; {} when the connection is gone."""
        info = ffi.new("qg_session_info *")
        if lib.qg_session_info_of(self._pointer, conn, info) < 0:
            return {}
        known = info.early_data != lib.QG_EARLY_NONE
        return {
            "is_resumed": bool(info.is_resumed),
            "in_early_data": bool(info.in_early_data),
            "early_data": info.early_data == lib.QG_EARLY_ACCEPTED if known else None,
            "reason": ffi.string(info.reason).decode(),
        }

    def conn_close(self, conn: int, app: bool, code: int, reason: bytes) -> int:
        self.touch()
        return int(lib.qg_conn_close(self._pointer, conn, app, code, reason, len(reason)))

    def conn_finish(self, conn: int, timeout_us: int) -> int:
        self.touch()
        return int(lib.qg_conn_finish(self._pointer, conn, timeout_us))

    def conn_info(self, conn: int) -> dict[str, Any] | None:
        info = ffi.new("qg_conn_info *")
        if lib.qg_conn_info_of(self._pointer, conn, info) < 0:
            return None
        return {
            "local_address": format_address(info.local),
            "remote_address": format_address(info.peer),
            "alpn": bytes(ffi.buffer(info.alpn, info.alpn_len)).decode("latin-1"),
            "server_name": bytes(ffi.buffer(info.server_name, info.server_name_len)).decode("latin-1"),
            "is_server": bool(info.is_server),
            "is_established": bool(info.is_established),
            "is_resumed": bool(info.is_resumed),
            "is_raw": bool(info.is_raw),
            "endpoint": info.endpoint,
            "extended_connect": bool(info.extended_connect),
            "max_datagram": info.max_datagram,
            "streams_left": info.streams_left,
            "unknown_frame": info.unknown_frame,
        }

    def conn_stats(self, conn: int) -> dict[str, int] | None:
        stats = ffi.new("qg_conn_stats *")
        if lib.qg_conn_stats_of(self._pointer, conn, stats) < 0:
            return None
        return {name: getattr(stats, name) for name, _ in ffi.typeof("qg_conn_stats").fields}

    def conn_qlog(self, conn: int, path: bytes) -> tuple[int, int]:
        """(0 or a result code, errno)."""
        self.touch()
        rc = int(lib.qg_conn_qlog(self._pointer, conn, path))
        return rc, ffi.errno if rc == SYSTEM else 0

    def peer_cert(self, conn: int) -> bytes | None:
        out = ffi.new("uint8_t[]", 65536)
        n = lib.qg_conn_peer_cert(self._pointer, conn, out, 65536)
        return bytes(ffi.buffer(out, n)) if n > 0 else None

    # ---------------------------------------------------------------- streams

    def open_stream(self, conn: int, bidi: bool, token: int, timeout_us: int) -> tuple[int, int]:
        """(0, stream id) or (result code, 0)."""
        self.touch()
        rc = int(lib.qg_stream_open(self._pointer, conn, bidi, token, timeout_us, self._stream))
        return rc, self._stream[0] if rc == 0 else 0

    def open_request(
        self, conn: int, head: bytes, flags: int, token: int, timeout_us: int
    ) -> tuple[int, int]:
        """(0, stream id) or (result code, 0)."""
        self.touch()
        rc = int(
            lib.qg_stream_request(self._pointer, conn, head, len(head), flags, token, timeout_us,
                                  self._stream)
        )  # fmt: skip
        return rc, self._stream[0] if rc == 0 else 0

    def await_response(self, conn: int, stream: int, token: int, timeout_us: int) -> int:
        self.touch()
        return int(lib.qg_stream_await_response(self._pointer, conn, stream, token, timeout_us))

    def read_into(
        self, conn: int, stream: int, buffer: Any, token: int, timeout_us: int
    ) -> tuple[int, int, int]:
        """(bytes or result code, flags, the peer's code)."""
        self.touch()
        result: tuple[int, int, int] = self.stream_read(conn, stream, buffer, token, timeout_us)
        return result

    def write(
        self, conn: int, stream: int, data: Any, flags: int, token: int, timeout_us: int
    ) -> tuple[int, int]:
        """(bytes taken or result code, the peer's code). `data`: bytes, or any contiguous buffer."""
        self.touch()
        result: tuple[int, int] = self.stream_write(conn, stream, data, flags, token, timeout_us)
        return result

    def send_trailers(self, conn: int, stream: int, head: bytes) -> int:
        self.touch()
        return int(lib.qg_stream_send_trailers(self._pointer, conn, stream, head, len(head)))

    def trailers(self, conn: int, stream: int) -> bytes:
        """Field lines as in an event; b"" when there are none."""
        out = ffi.new("uint8_t[]", 1 << 18)
        n = lib.qg_stream_trailers(self._pointer, conn, stream, out, 1 << 18)
        return bytes(ffi.buffer(out, n)) if n > 0 else b""

    def unwait(self, conn: int, stream: int, token: int) -> int:
        return int(lib.qg_stream_unwait(self._pointer, conn, stream, token))

    def shutdown(self, conn: int, stream: int, sides: int, code: int) -> int:
        self.touch()
        return int(lib.qg_stream_shutdown(self._pointer, conn, stream, sides, code))

    # ---------------------------------------------------------------- counters

    def datagrams_cut(self) -> int:
        """How many were longer than the buffer that they were received into."""
        return int(self._memory.counters.datagrams_cut)

    def counters(self) -> dict[str, int]:
        """The engine's counters, by the names of `qg_counters`. For any thread, also once it is closed."""
        counters = self._counters
        return {name: getattr(counters, name) for name, _ in ffi.typeof("qg_counters").fields}
