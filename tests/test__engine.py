from __future__ import annotations

import os
import re
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import ROOT, check_python, descriptors, server_tls

from quicgreen import (
    ClientTls,
    QuicClientException,
    QuicConfiguration,
    QuicConnectionException,
    _engine,
)
from quicgreen import fields as field_lines
from quicgreen._contexts import Configuration, Keys
from quicgreen._engine import Engine, Record, ffi, lib

HEADER = (ROOT / "cext" / "include" / "quicgreen.h").read_text()
TOKEN, LISTENER = 7, 9


class Side:
    """An engine driven by hand."""

    def __init__(self, **options: Any) -> None:
        self.marks = 0
        self.engine = Engine(self._mark, **options)
        self.events: list[tuple[Record, bytes]] = []

    def _mark(self) -> None:
        self.marks += 1

    def turn(self) -> None:
        n = self.engine.drain()
        assert n >= 0
        count = n & ~_engine.DRAIN_MORE
        self._read(0, count)
        total = self.engine.flush()
        self._read(count, total)

    def _read(self, start: int, end: int) -> None:
        for record in self.engine.records(start, end):
            self.events.append((record, self.engine.take(record)))

    def of_type(self, kind: int) -> list[tuple[Record, bytes]]:
        return [e for e in self.events if e[0][_engine.TYPE] == kind]


class Pair:
    """A client's and a server's engine with one connection, or none yet."""

    def __init__(self, *, keys: Keys | None = None, credit: int = 1 << 40, **transport: Any) -> None:
        self.client, self.server = Side(), Side()
        self.sides = (self.client, self.server)
        self.endpoint, number = self.server.engine.endpoint_udp("127.0.0.1", 0)
        assert (self.endpoint, number) == (0, 0)
        self.address = self.server.engine.endpoint_info(self.endpoint)["address"]
        self.config = Configuration(server_tls(), QuicConfiguration(**transport), keys=keys or Keys())
        rc = self.server.engine.listen(
            self.endpoint,
            self.config,
            token=LISTENER,
            credit=credit,
            max_connections=10,
            retry=_engine.RETRY_NEVER,
            sessions=False,
        )
        assert rc == 0
        self.client_config = Configuration(ClientTls(verify=False), QuicConfiguration())

    def connect(self) -> int:
        address = _engine.parse_address(*self.address)
        rc, conn = self.client.engine.connect(address, self.client_config, "localhost", TOKEN, 5_000_000)
        assert rc == 0
        self.until(lambda: self.client.of_type(_engine.CONNECTED))
        return conn

    def until(self, condition: Callable[[], Any], seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, [e[0] for s in self.sides for e in s.events[-5:]]
            for side in self.sides:
                side.turn()
            if not condition():
                select.select([s.engine.fd for s in self.sides], [], [], 0.02)

    def close(self) -> None:
        for side in self.sides:
            side.engine.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def head(path: str = "/", method: str = "GET") -> bytes:
    return (
        field_lines.pseudo_line(":method", method)
        + field_lines.pseudo_line(":scheme", "https")
        + field_lines.pseudo_line(":authority", "localhost")
        + field_lines.path_line(path)
    )


OK = field_lines.status_line(200)


# ---------------------------------------------------------------- the interface


def test_the_package_and_the_module_are_of_the_headers_abi() -> None:
    (number,) = re.findall(r"^#define QG_ABI (\d+)$", HEADER, re.M)
    assert int(number) == _engine.ABI == lib.qg_abi() == lib.QG_ABI


def test_a_stale_module_is_an_import_error_that_says_what_to_do() -> None:
    out = check_python("""
        import sys, types
        import quicgreen._core as real
        class Stale:
            def __getattr__(self, name):
                return (lambda: 0) if name == "qg_abi" else getattr(real.lib, name)
        for name in [n for n in sys.modules if n.startswith("quicgreen")]:
            del sys.modules[name]
        fake = types.ModuleType("quicgreen._core")
        fake.ffi, fake.lib = real.ffi, Stale()
        sys.modules["quicgreen._core"] = fake
        try:
            import quicgreen
        except ImportError as e:
            print(e)
    """)
    assert re.search(r"is of ABI 0, the package needs \d+: rebuild it", out)


def test_events_are_64_bytes_and_laid_out_as_in_c() -> None:
    assert _engine._EVENT.size == ffi.sizeof("qg_event") == 64
    sizes = [struct.calcsize(c) for c in _engine._EVENT.format.lstrip("<")]
    fields = ffi.typeof("qg_event").fields
    assert [f.offset for _, f in fields] == [sum(sizes[:i]) for i in range(len(sizes))]
    assert [ffi.sizeof(f.type) for _, f in fields] == sizes


def test_the_indexes_name_the_fields_of_an_event() -> None:
    for at, (name, _) in enumerate(ffi.typeof("qg_event").fields):
        assert getattr(_engine, name.upper()) == at


@pytest.mark.parametrize(
    ("prefix", "renamed"),
    [("QG_EVENT_", {"CLOSED": "CLOSED_EVENT"}), ("QG_OP_", {}), ("QG_METHOD_", {}), ("QG_CAP_", {})],
)
def test_every_number_of_the_header_has_its_name_here(prefix: str, renamed: dict[str, str]) -> None:
    found = dict(re.findall(rf"^#define {prefix}(\w+)\s+(\d+)", HEADER, re.M))
    assert found
    for name, value in found.items():
        if prefix == "QG_METHOD_":
            assert _engine.METHODS[int(value)] == ("" if name == "OTHER" else name)
        elif prefix == "QG_CAP_":
            assert _engine.CAPABILITIES[name.lower()] == int(value)
        else:
            ours = f"OP_{name}" if prefix == "QG_OP_" else renamed.get(name, name)
            assert getattr(_engine, ours) == int(value)


def test_the_flags_and_results_are_the_headers() -> None:
    results = re.findall(r"^#define QG_([A-Z_]+)\s+(-\d+)\s", HEADER, re.M)
    assert len(results) >= 15
    for name, value in results:
        if hasattr(_engine, name):
            assert getattr(_engine, name) == int(value), name
        assert ffi.string(lib.qg_error_text(int(value))).decode() != "unknown code"
    assert ffi.string(lib.qg_error_text(-99)) == ffi.string(lib.qg_error_text(1)) == b"unknown code"
    block = HEADER[HEADER.index("#define QG_FIN") : HEADER.index("#define QG_UNKNOWN_LENGTH")]
    flags = re.findall(r"^#define QG_([A-Z_]+)\s+(\d+)", block, re.M)
    assert [int(v) for _, v in flags] == [1 << i for i in range(len(flags))]
    for name, value in flags:
        assert getattr(_engine, name) == int(value)


def test_it_says_what_is_linked_in() -> None:
    assert re.match(r"quiche 0\.30\.\d+, BoringSSL", _engine.build_info())


# ---------------------------------------------------------------- life


def test_an_engine_that_is_closed_leaves_no_descriptor() -> None:
    before = descriptors()
    pair = Pair()
    pair.connect()
    assert descriptors() > before
    pair.close()
    assert descriptors() == before
    pair.close()
    assert descriptors() == before


def late_uses(pair: Pair, conn: int) -> dict[str, Callable[[], Any]]:
    e = pair.client.engine
    return {
        "drain": e.drain,
        "flush": e.flush,
        "submit": lambda: e.submit(_engine.OP_RESET, 0, conn, 0, 0, 0, 0, b"", b""),
        "endpoint_udp": lambda: e.endpoint_udp("127.0.0.1", 0),
        "endpoint_info": lambda: e.endpoint_info(0),
        "endpoint_xdp": lambda: e.endpoint_xdp(0, b"lo"),
        "client_xdp": lambda: e.client_xdp(b"lo"),
        "conn_info": lambda: e.conn_info(conn),
        "conn_stats": lambda: e.conn_stats(conn),
        "conn_close": lambda: e.conn_close(conn, True, 0, b""),
        "open_request": lambda: e.open_request(conn, head(), 0, 1, 0),
        "read_into": lambda: e.read_into(conn, 0, bytearray(9), 1, 0),
        "write": lambda: e.write(conn, 0, b"x", 0, 1, 0),
        "set_spin": lambda: e.set_spin(1),
    }


def test_a_late_use_is_an_error_and_not_a_read_of_freed_memory() -> None:
    pair = Pair()
    conn = pair.connect()
    uses = late_uses(pair, conn)
    pair.close()
    for name, use in uses.items():
        try:
            use()
        except (TypeError, AttributeError, QuicConnectionException):
            continue
        pytest.fail(name)
    assert list(pair.client.engine.records(0, 5)) == []


def test_an_engine_left_behind_by_a_fork_closes_its_descriptors_and_says_so() -> None:
    before = descriptors()
    pair = Pair()
    conn = pair.connect()
    engine = pair.client.engine
    uses = late_uses(pair, conn)
    engine.abandon()
    engine.abandon()
    pair.server.engine.abandon()
    assert descriptors() == before
    assert engine.drain() == engine.flush() == _engine.FORKED
    assert uses["open_request"]()[0] == uses["read_into"]()[0] == uses["write"]()[0] == _engine.FORKED
    assert uses["endpoint_udp"]()[0] == uses["endpoint_xdp"]()[0] == _engine.FORKED
    assert uses["client_xdp"]()[0] == _engine.FORKED
    assert uses["conn_info"]() is None
    assert uses["conn_stats"]() is None
    assert engine.counters()["connections"] == 1
    with pytest.raises(QuicConnectionException, match="its engine was closed"):
        uses["submit"]()


def test_running_out_of_descriptors_is_one_exception_with_errno() -> None:
    check_python("""
        import errno, resource, os
        from quicgreen import QuicException, _contexts, _engine
        limit = len(os.listdir("/proc/self/fd")) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        try:
            for _ in range(3):
                _engine.Engine(lambda: None)
        except QuicException as e:
            assert (e.cause, e.errno) == ("engine", errno.EMFILE), (e.cause, e.errno)
        else:
            raise SystemExit("no exception")
    """)


# ---------------------------------------------------------------- turns


def test_the_first_thing_to_send_marks_the_engine_once_until_it_is_flushed() -> None:
    side = Side()
    assert (side.engine.dirty, side.marks) == (False, 0)
    side.engine.touch()
    side.engine.touch()
    assert (side.engine.dirty, side.marks) == (True, 1)
    side.engine.flush()
    assert side.engine.dirty is False
    side.engine.touch()
    assert side.marks == 2
    side.engine.close()


def test_the_descriptor_is_readable_when_there_is_something_to_do(pair: Pair) -> None:
    def readable(side: Side, seconds: float = 0) -> bool:
        return bool(select.select([side.engine.fd], [], [], seconds)[0])

    pair.connect()
    for _ in range(50):
        for side in pair.sides:
            side.turn()
        if not readable(pair.server, 0.05) and not readable(pair.client, 0.05):
            break
    assert not readable(pair.server)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"x" * 30, pair.address)
    assert readable(pair.server, 2)
    sender.close()


def test_a_request_and_its_response_are_one_event_each(pair: Pair) -> None:
    conn = pair.connect()
    line = field_lines.line("x-a", "1")
    pair.client.engine.submit(
        _engine.OP_REQUEST, _engine.FIN, conn, 0, 21, 5_000_000, 0, head("/p?q", "POST") + line, b"question"
    )
    pair.until(lambda: pair.server.of_type(_engine.REQUEST))
    ((record, data),) = pair.server.of_type(_engine.REQUEST)
    assert record[_engine.TOKEN] == LISTENER
    assert record[_engine.STATUS] == _engine.METHODS.index("POST")
    assert record[_engine.FLAGS] == _engine.FIN
    assert data[: record[_engine.PATH_LEN]] == b"/p?q"
    assert data.endswith(b"\nx-a\x001\nquestion")
    assert record[_engine.BODY_LEN] == 8
    assert record[_engine.VALUE] == _engine.UNKNOWN_LENGTH
    pair.server.engine.submit(
        _engine.OP_RESPOND,
        _engine.FIN,
        record[_engine.CONN],
        record[_engine.STREAM],
        0,
        0,
        0,
        OK + field_lines.length_line(6),
        b"answer",
    )
    pair.until(lambda: pair.client.of_type(_engine.RESPONSE))
    ((record, data),) = pair.client.of_type(_engine.RESPONSE)
    assert (record[_engine.TOKEN], record[_engine.STATUS], record[_engine.VALUE]) == (21, 200, 6)
    assert data.endswith(b"answer")


def serve_all(pair: Pair, tokens: set[int], body: bytes = b"") -> None:
    """Answer every request until each token had its response."""
    answered = 0
    got: set[int] = set()

    def step() -> bool:
        nonlocal answered
        requests = pair.server.of_type(_engine.REQUEST)
        for record, data in requests[answered:]:
            sent = data[record[_engine.PATH_LEN] + record[_engine.HEAD_LEN] :]
            pair.server.engine.submit(
                _engine.OP_RESPOND,
                _engine.FIN,
                record[_engine.CONN],
                record[_engine.STREAM],
                0,
                0,
                0,
                OK,
                sent,
            )
        answered = len(requests)
        got.update(r[_engine.TOKEN] for r, _ in pair.client.of_type(_engine.RESPONSE))
        return got >= tokens

    pair.until(step, 20)


def test_the_submission_ring_goes_round_within_one_turn() -> None:
    pair = Pair(initial_max_streams_bidi=4000)
    conn = pair.connect()
    tokens = set(range(100, 100 + 2600))  # the ring has 1,024 records
    for token in tokens:
        pair.client.engine.submit(
            _engine.OP_REQUEST, _engine.FIN, conn, 0, token, 0, 0, head(f"/{token}"), b""
        )
    serve_all(pair, tokens)
    paths = [d[: r[_engine.PATH_LEN]] for r, d in pair.server.of_type(_engine.REQUEST)]
    assert sorted(paths) == sorted(b"/%d" % t for t in tokens)
    assert paths[:50] == [b"/%d" % t for t in range(100, 150)]
    assert pair.client.engine.counters()["streams"] == pair.server.engine.counters()["streams"]
    pair.close()


def test_the_submission_arena_is_emptied_when_it_is_full() -> None:
    pair = Pair(initial_max_data=8 << 20)
    conn = pair.connect()
    tokens = set(range(100, 150))
    bodies = {t: bytes([t]) * 60_000 for t in tokens}  # 3 MB, the arena has one
    for token in tokens:
        pair.client.engine.submit(
            _engine.OP_REQUEST, _engine.FIN, conn, 0, token, 0, 0, head(f"/{token}", "POST"), bodies[token]
        )
    pair.until(lambda: len(pair.server.of_type(_engine.REQUEST)) == len(tokens))
    for record, data in pair.server.of_type(_engine.REQUEST):
        token = int(data[1 : record[_engine.PATH_LEN]])
        body = data[record[_engine.PATH_LEN] + record[_engine.HEAD_LEN] :]
        if not record[_engine.FLAGS] & _engine.FIN:
            chunk = bytearray(65536)
            flags = 0
            while not flags & _engine.FIN:
                n, flags, _ = pair.server.engine.read_into(
                    record[_engine.CONN], record[_engine.STREAM], chunk, 0, 0
                )
                if n > 0:
                    body += chunk[:n]
                elif n == _engine.AGAIN:
                    for side in pair.sides:
                        side.turn()
        assert body == bodies[token]
    pair.close()


def test_a_body_of_the_largest_size_goes_in_one_submission(pair: Pair) -> None:
    conn = pair.connect()
    body = os.urandom(_engine.INLINE_MAX)
    pair.client.engine.submit(_engine.OP_REQUEST, _engine.FIN, conn, 0, 1, 0, 0, head("/", "POST"), body)
    pair.until(lambda: pair.server.of_type(_engine.REQUEST))
    ((record, data),) = pair.server.of_type(_engine.REQUEST)
    assert record[_engine.BODY_LEN] > 0
    assert body.startswith(data[record[_engine.PATH_LEN] + record[_engine.HEAD_LEN] :])


def test_a_head_beyond_the_arena_is_refused_and_the_next_one_goes(pair: Pair) -> None:
    conn = pair.connect()
    with pytest.raises(QuicClientException, match=r"head of \d+ bytes"):
        pair.client.engine.submit(_engine.OP_REQUEST, _engine.FIN, conn, 0, 1, 0, 0, bytes(2 << 20), b"")
    pair.client.engine.submit(_engine.OP_REQUEST, _engine.FIN, conn, 0, 2, 0, 0, head(), b"")
    serve_all(pair, {2})


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ((), TypeError),
        ((1, 2, 3, b"", b"", 0), TypeError),
        (("1", 2, 3, b"", b""), TypeError),
        ((1, -2, 3, b"", b""), OverflowError),
        ((1, 1 << 64, 3, b"", b""), OverflowError),
        ((1, 2, 3, "text", b""), TypeError),
        ((1, 2, 3, b"", bytearray(1)), TypeError),
    ],
)
def test_what_is_no_answer_is_not_submitted(
    pair: Pair, arguments: tuple[Any, ...], wrong: type[Exception]
) -> None:
    with pytest.raises(wrong):
        pair.server.engine.respond(*arguments)
    with pytest.raises(wrong):
        pair.server.engine._submit(1, *arguments[:3], 0, 0, 0, *arguments[3:])
    pair.connect()  # the ring is as it was


def test_what_is_no_buffer_is_not_read_or_written(pair: Pair) -> None:
    conn = pair.connect()
    engine = pair.client.engine
    for read in (engine.stream_read, engine.stream_read_on):
        for buffer in (b"", "text", memoryview(b"read-only"), memoryview(bytearray(8))[::2]):
            with pytest.raises((TypeError, BufferError)):
                read(conn, 0, buffer, 1, 0)
        with pytest.raises(OverflowError):
            read(-1, 0, bytearray(1), 1, 0)
        with pytest.raises(TypeError, match="wrong number of arguments"):
            read(conn, 0, bytearray(1), 1)
    for data in ("text", 5, memoryview(bytes(8))[::2]):
        with pytest.raises((TypeError, BufferError)):
            engine.stream_write(conn, 0, data, 0, 1, 0)
    with pytest.raises(TypeError, match="wrong number of arguments"):
        engine.stream_write(conn, 0, b"")


def test_an_answer_beyond_the_arena_is_not_taken(pair: Pair) -> None:
    assert pair.server.engine.respond(0, 1, 0, bytes(1 << 20), b"")
    assert not pair.server.engine.respond(0, 1, 0, bytes(1 << 20), b"x")
    pair.connect()


def test_a_submission_for_what_is_gone_is_dropped_or_answered(pair: Pair) -> None:
    conn = pair.connect()
    engine = pair.client.engine
    for stale in (0, conn + 1, conn | 1 << 40, (1 << 64) - 1):
        engine.reset(stale, 0, 0)
        engine.release(stale, 0)
        engine.cancel(stale, 99, 0)
        engine.attach(stale, 5)
        engine.credit(77, 1)
        engine.submit(_engine.OP_RESPOND, _engine.FIN, stale, 0, 0, 0, 0, OK, b"")
        engine.submit(_engine.OP_REQUEST, _engine.FIN, stale, 0, stale | 1, 0, 0, head(), b"")
        engine.submit(60000, 0, stale, 0, 0, 0, 0, b"", b"")
    pair.until(lambda: len(pair.client.of_type(_engine.STREAM_ERROR)) == 4)
    assert {r[_engine.STATUS] for r, _ in pair.client.of_type(_engine.STREAM_ERROR)} == {-_engine.GONE}


def test_ids_that_name_nothing_are_answered_gone(pair: Pair) -> None:
    conn = pair.connect()
    engine = pair.client.engine
    for stale in (0, conn + 1, conn | 1 << 40, (1 << 64) - 1):
        assert engine.open_request(stale, head(), 0, 1, 0)[0] == _engine.GONE
        assert engine.open_stream(stale, True, 1, 0)[0] == _engine.GONE
        assert engine.read_into(stale, 0, bytearray(1), 1, 0)[0] == _engine.GONE
        assert engine.write(stale, 0, b"", 0, 1, 0)[0] == _engine.GONE
        assert engine.shutdown(stale, 0, 3, 0) == engine.unwait(stale, 0, 1) == _engine.GONE
        assert engine.conn_close(stale, True, 0, b"") == engine.conn_finish(stale, 1) == _engine.GONE
        assert engine.conn_info(stale) is engine.conn_stats(stale) is engine.peer_cert(stale) is None
        assert engine.trailers(stale, 0) == b""
        assert engine.send_trailers(stale, 0, b"") == _engine.GONE
    for stream in (0, 4, 1 << 61, (1 << 64) - 1, 2, 3):
        assert engine.read_into(conn, stream, bytearray(1), 1, 0)[0] == _engine.GONE
    assert engine.open_stream(conn, True, 1, 0)[0] == _engine.STATE


def test_a_full_event_ring_stops_the_drain_and_drops_nothing() -> None:
    pair = Pair(initial_max_streams_bidi=9000, initial_max_data=16 << 20)
    conn = pair.connect()
    tokens = set(range(100, 100 + 6000))  # the ring has 4,096 records
    for token in tokens:
        pair.client.engine.submit(_engine.OP_REQUEST, _engine.FIN, conn, 0, token, 0, 0, head(), b"")
    serve_all(pair, tokens)
    assert len(pair.client.of_type(_engine.RESPONSE)) == len(tokens)
    pair.close()


def test_big_heads_fill_the_event_arena_and_all_arrive() -> None:
    pair = Pair(initial_max_data=16 << 20)
    conn = pair.connect()
    lines = b"".join(field_lines._encode(f"x-{i}", "~" * 1000) for i in range(28))
    tokens = set(range(100, 190))
    for token in tokens:
        pair.client.engine.submit(_engine.OP_REQUEST, _engine.FIN, conn, 0, token, 0, 0, head() + lines, b"")
    serve_all(pair, tokens)
    for record, data in pair.server.of_type(_engine.REQUEST):
        assert record[_engine.HEAD_LEN] > 28_000
        assert data.count(b"~" * 1000) == 28
    pair.close()


def test_requests_wait_for_credit() -> None:
    pair = Pair(credit=2)
    conn = pair.connect()
    for token in range(100, 105):
        pair.client.engine.submit(_engine.OP_REQUEST, _engine.FIN, conn, 0, token, 0, 0, head(), b"")
    pair.until(lambda: len(pair.server.of_type(_engine.REQUEST)) == 2)
    for _ in range(20):
        for side in pair.sides:
            side.turn()
    assert len(pair.server.of_type(_engine.REQUEST)) == 2
    pair.server.engine.credit(pair.endpoint, 1)
    pair.until(lambda: len(pair.server.of_type(_engine.REQUEST)) == 3)
    pair.server.engine.credit(pair.endpoint, 10)
    pair.until(lambda: len(pair.server.of_type(_engine.REQUEST)) == 5)
    pair.close()


def test_a_wait_has_its_deadline(pair: Pair) -> None:
    conn = pair.connect()
    started = time.monotonic()
    pair.client.engine.submit(_engine.OP_REQUEST, _engine.FIN, conn, 0, 55, 100_000, 0, head(), b"")
    pair.until(lambda: pair.client.of_type(_engine.DEADLINE))
    assert time.monotonic() - started >= 0.095
    ((record, _),) = pair.client.of_type(_engine.DEADLINE)
    assert record[_engine.TOKEN] == 55


def test_a_cancelled_request_has_no_event(pair: Pair) -> None:
    conn = pair.connect()
    pair.client.engine.submit(_engine.OP_REQUEST, _engine.FIN, conn, 0, 55, 0, 0, head(), b"")
    pair.client.engine.submit(_engine.OP_REQUEST, _engine.FIN, conn, 0, 56, 0, 0, head(), b"")
    pair.client.engine.cancel(conn, 55, 0x10C)
    serve_all(pair, {56})
    assert not [r for r, _ in pair.client.events if r[_engine.TOKEN] == 55]


def test_connections_are_described(pair: Pair) -> None:
    conn = pair.connect()
    info = pair.client.engine.conn_info(conn)
    assert info["remote_address"] == pair.address
    assert info["local_address"][1] > 0
    assert (info["alpn"], info["server_name"], info["is_server"]) == ("h3", "localhost", False)
    assert info["is_established"]
    assert not info["is_raw"]
    assert info["streams_left"] == 100
    assert 1200 <= info["max_datagram"] <= 1452
    assert pair.client.engine.peer_cert(conn)[:1] == b"\x30"
    assert set(pair.client.engine.conn_stats(conn)) >= {"rtt", "cwnd", "sent"}


# ---------------------------------------------------------------- endpoints and addresses


@pytest.mark.parametrize(
    ("ip", "port"),
    [("127.0.0.1", 1), ("::1", 65535), ("0.0.0.0", 0), ("2001:db8::1", 443), ("::ffff:1.2.3.4", 5)],
)
def test_addresses_go_in_and_out(ip: str, port: int) -> None:
    assert _engine.format_address(_engine.parse_address(ip, port)[0]) == (ip, port)


@pytest.mark.parametrize(
    "ip", ["", "localhost", "127.0.0.1.", "1.2.3", "[::1]", "::1%none", "a" * 100, "\xe9", "1.2.3.4 "]
)
def test_what_is_no_address_is_none(ip: str) -> None:
    assert _engine.parse_address(ip, 1) is None


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(QuicClientException, match="is not a port"):
        _engine.parse_address("127.0.0.1", port)


def test_an_endpoint_tells_what_the_system_offers() -> None:
    side = Side()
    endpoint, _ = side.engine.endpoint_udp("127.0.0.1", 0)
    info = side.engine.endpoint_info(endpoint)
    assert info["address"][0] == "127.0.0.1"
    assert info["capabilities"] <= set(_engine.CAPABILITIES)
    assert "recverr" in info["capabilities"]
    assert info["receive_buffer"] > 0 < info["send_buffer"]
    assert info["fd"] >= 0
    assert side.engine.endpoint_close(endpoint) == 0
    assert side.engine.endpoint_close(endpoint) == _engine.GONE
    assert side.engine.endpoint_info(endpoint) == {}
    side.engine.close()


def test_a_port_that_is_taken_is_told_with_errno() -> None:
    import errno

    side = Side()
    endpoint, _ = side.engine.endpoint_udp("127.0.0.1", 0)
    port = side.engine.endpoint_info(endpoint)["address"][1]
    before = descriptors()
    assert side.engine.endpoint_udp("127.0.0.1", port) == (_engine.SYSTEM, errno.EADDRINUSE)
    assert side.engine.endpoint_udp("nowhere", port) == (_engine.INVALID, 0)
    assert descriptors() == before
    side.engine.close()


def test_a_descriptor_that_was_given_is_the_engines_or_closed() -> None:
    side = Side()
    before = descriptors()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        endpoint, _ = side.engine.endpoint_udp("0.0.0.0", 0, fd=os.dup(bound.fileno()))
        assert side.engine.endpoint_info(endpoint)["address"] == bound.getsockname()
    side.engine.endpoint_close(endpoint)
    assert descriptors() == before
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as wrong:
        assert side.engine.endpoint_udp("0.0.0.0", 0, fd=os.dup(wrong.fileno()))[0] < 0
    assert descriptors() == before
    side.engine.close()


# ---------------------------------------------------------------- the arena cache


def test_the_arena_cache_serves_greenlets_and_can_be_forbidden() -> None:
    code = """
        import sys
        import gevent
        from quicgreen import _engine, hub
        hub.current()
        for _ in range(3):
            gevent.joinall([gevent.spawn(gevent.sleep, 0) for _ in range(200)])
        free, hits = _engine.arena_cache_stats()
        print(_engine.install_arena_cache(), free > 0, hits > 0)
    """
    if lib.qg_arena_cache_install(1024) == 0 and os.sys.version_info >= (3, 11):
        assert check_python(code, QUICGREEN_ARENA_CACHE=None).split() == ["True", "True", "True"]
    assert check_python(code, QUICGREEN_ARENA_CACHE="0").split() == ["False", "False", "False"]
