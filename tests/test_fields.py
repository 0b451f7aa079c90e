from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pylsqpack
import pytest
from hpack.huffman_table import decode_huffman
from support import connect, serving

from quicgreen import QuicClientException, fields
from quicgreen.configuration import Timeout
from quicgreen.h3 import exchange, head_prefix

PREFIX = b"\0\0"  # of a field section that refers to no dynamic table (RFC 9204, section 4.5.1)


def decode(lines: bytes) -> list[tuple[bytes, bytes]]:
    """By an independent decoder that has no dynamic table."""
    _, found = pylsqpack.Decoder(0, 0).feed_header(0, PREFIX + lines)
    return found


def line_of(name: str, value: fields.FieldValue) -> bytes:
    """By the way that such a name has."""
    return (fields.pseudo_line if name.startswith(":") else fields.line)(name, value)


def static_table() -> list[tuple[bytes, bytes]]:
    """RFC 9204, appendix A, as that decoder knows it."""
    return [decode(bytes([0xC0 | i]) if i < 63 else bytes([0xFF, i - 63]))[0] for i in range(99)]


@pytest.fixture(autouse=True)
def _fresh_tables() -> None:
    for table in (fields.lines, fields._once, fields._names, fields.statuses, fields.lengths):
        table.clear()


# ---------------------------------------------------------------- one line


@pytest.mark.parametrize("name", ["x-a", "X-A", "content-type", "Content-Type", "set-cookie", "te"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        "text/plain",
        "a b\tc",
        "h\xe9llo",
        "\xff" * 50,
        "x" * 126,
        "x" * 127,
        "x" * 128,
        "~" * 300,
        "{}" * 2000,
        7,
        b"raw",
    ],
    ids=lambda v: repr(v)[:12],
)
def test_a_line_means_what_was_said_each_time_it_is_asked_for(name: str, value: Any) -> None:
    expected = value if isinstance(value, bytes) else str(value).encode("latin-1")
    # The first is coded by the engine, the second from the name's prefix, the third is to be kept.
    for _ in range(4):
        assert decode(fields.line(name, value)) == [(name.lower().encode(), expected)]


def test_random_lines_are_decoded_by_others() -> None:
    rng = random.Random(9204)
    names = [n.decode() for n, _ in static_table()] + [
        "x-" + "".join(rng.choices("abcxyz-19", k=k)) for k in range(60)
    ]
    values = "".join(chr(c) for c in [*range(0x21, 0x7F), *range(0x80, 0x100)])
    for _ in range(2000):
        name = rng.choice(names)
        value = "".join(rng.choices(values, k=rng.randrange(40)))
        assert decode(line_of(name, value)) == [(name.encode(), value.encode("latin-1"))]


def test_every_entry_of_the_static_table_is_one_index() -> None:
    for at, (name, value) in enumerate(static_table()):
        if name != b"connection":
            encoded = line_of(name.decode(), value)
            assert decode(encoded) == [(name, value)]
            assert len(encoded) == (1 if at < 63 else 2), name


def test_names_of_the_static_table_are_referred_to() -> None:
    for name, _ in static_table():
        assert len(line_of(name.decode(), "some other value")) <= 2 + 1 + 16


def strings(line: bytes) -> Iterator[tuple[bool, bytes]]:
    """(Huffman coded, bytes) of name and value of a literal line with a literal name (section 4.5.6)."""
    bits, at = 3, 0
    assert line[0] & 0xE0 == 0x20
    while at < len(line):
        coded = bool(line[at] >> bits & 1)
        length, limit = line[at] & (1 << bits) - 1, (1 << bits) - 1
        at += 1
        if length == limit:
            shift = 0
            while True:
                length += (line[at] & 0x7F) << shift
                shift += 7
                at += 1
                if not line[at - 1] & 0x80:
                    break
        yield coded, line[at : at + length]
        at += length
        bits = 7


def test_huffman_code_is_used_where_it_is_shorter_and_others_read_it() -> None:
    rng = random.Random(7541)
    for _ in range(500):
        name = "zq-" + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(1, 30)))
        value = bytes(rng.choices([*range(0x21, 0x7F), *range(0x80, 0x100)], k=rng.randrange(1, 60)))
        parts = list(strings(fields._encode(name, value)))
        read = [decode_huffman(raw) if coded else raw for coded, raw in parts]
        assert read == [name.encode(), value]
        for (_, raw), plain in zip(parts, read, strict=True):
            assert len(raw) <= len(plain)


@pytest.mark.parametrize(
    "name", ["connection", "Connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]
)
def test_what_belongs_to_a_tcp_connection_is_left_out(name: str) -> None:
    for _ in range(3):
        assert fields.line(name, "close") == b""
    assert decode(fields.encode([("a", "1"), (name, "x"), ("b", "2")])) == [(b"a", b"1"), (b"b", b"2")]


BAD_VALUES = [
    "a\r\nb: c",
    "a\nb",
    "a\rb",
    "a\0b",
    "\x7f",
    "\x1b[0m",
    " a",
    "a ",
    "\ta",
    "\u20ac",
    "\n",
    "a\n",
]


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("known", [False, True])
def test_values_that_would_be_read_as_more_than_one_field_are_refused(value: str, known: bool) -> None:
    if known:
        fields.line("x-known", "fine")
    for form in (value, value.encode("utf-8")) if "\u20ac" not in value else (value,):
        with pytest.raises(QuicClientException, match="is not a field"):
            fields.line("x-known", form)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "a:",
        "a\r\nb",
        "a\0",
        "a\n",
        "\xe9",
        "\u20ac",
        "(a)",
        ":",
        "::a",
        ":path",
        ":status",
        ":x",
        "a" * 257,
    ],
)
def test_names_that_are_none_are_refused(name: str) -> None:
    for _ in range(2):
        with pytest.raises(QuicClientException, match="is not a field"):
            fields.line(name, "1")


@pytest.mark.parametrize("value", [None, 1.5, object(), ["a"], {"a": 1}])
def test_values_of_other_types_are_refused(value: Any) -> None:
    for name in ("x-new", "x-known"):
        fields.line("x-known", "1")
        with pytest.raises((QuicClientException, TypeError)):
            fields.line(name, value)


@pytest.mark.parametrize("name", [None, 1, b"x-a", ("x",)])
def test_names_of_other_types_are_refused(name: Any) -> None:
    with pytest.raises(QuicClientException, match="is not a field"):
        fields.line(name, "1")


# ---------------------------------------------------------------- many


def test_fields_come_in_a_mapping_or_in_pairs() -> None:
    assert decode(fields.encode({"A": "1", "b": 2})) == [(b"a", b"1"), (b"b", b"2")]
    pairs = [("set-cookie", "a"), ("set-cookie", "b")]
    assert (
        decode(fields.encode(pairs))
        == decode(fields.encode(iter(pairs)))
        == [
            (b"set-cookie", b"a"),
            (b"set-cookie", b"b"),
        ]
    )
    assert fields.encode({}) == fields.encode(()) == b""


@pytest.mark.parametrize("bad", ["ab", [("a",)], [("a", "b", "c")], 5, [5]])
def test_what_is_no_list_of_fields_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError):
        fields.encode(bad)


def test_the_tables_do_not_grow_without_end() -> None:
    for i in range(fields._KEPT_MAX + 100):
        fields.line(f"x-{i}", "v")
        fields.line("x-v", f"value {i}")
        fields.line("x-v", f"value {i}")
        fields.length_line(i)
    for table in (fields.lines, fields._once, fields._names, fields.lengths):
        assert len(table) <= fields._KEPT_MAX


def test_a_full_table_goes_on_giving_right_lines() -> None:
    fields.line("x-v", "first")
    for i in range(fields._KEPT_MAX + 10):
        fields.line(f"x-{i}", "v")
    assert decode(fields.line("x-v", "second")) == [(b"x-v", b"second")]


def test_long_values_are_not_kept() -> None:
    for _ in range(3):
        fields.line("authorization", "~" * 5000)
    assert sum(map(len, fields.lines.values())) < 5000
    assert not any(len(str(value)) > 1000 for _, value in fields._once)


# ---------------------------------------------------------------- lines with a meaning


@pytest.mark.parametrize("status", [100, 103, 200, 204, 304, 404, 418, 500, 599, 999])
def test_a_status_is_encoded(status: int) -> None:
    for _ in range(2):
        assert decode(fields.status_line(status)) == [(b":status", str(status).encode())]


@pytest.mark.parametrize("status", [99, 1000, 0, -200, 101, "200", None, True, 2000, 200.5])
def test_what_is_no_status_is_refused(status: Any) -> None:
    fields.status_line(200)
    with pytest.raises(QuicClientException, match="status code"):
        fields.status_line(status)


def test_enumerated_statuses_are_numbers() -> None:
    from http import HTTPStatus

    assert fields.status_line(HTTPStatus.NOT_FOUND) == fields.status_line(404)


@pytest.mark.parametrize("length", [0, 1, 9, 10, 65536, 1 << 40])
def test_a_length_is_encoded(length: int) -> None:
    for _ in range(2):
        assert decode(fields.length_line(length)) == [(b"content-length", str(length).encode())]


@pytest.mark.parametrize(
    "path", ["/", "/index.html", "/a?b=c", "*", "/" + "a" * 125, "/" + "a" * 126, "/" + "a" * 5000, "/~"]
)
def test_a_path_is_encoded(path: str) -> None:
    for _ in range(3):
        assert decode(fields.path_line(path)) == [(b":path", path.encode())]


@pytest.mark.parametrize(
    "path", ["/a\r\nb", "/a\nb", "/a\0", "/\x7f", "/\u20ac", "/\xe9", "/a b", "/a#b", "", "a"]
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(QuicClientException, match="is not a path"):
        fields.path_line(path)


def test_the_first_bytes_tell_length_and_date_from_all_others() -> None:
    names = [name.decode() for name, _ in static_table()] + ["x-a", "zz", "datex", "content-lengthx"]
    for name in {*names} - {"connection"}:
        for value in ("0", "1", "xyz", "\xe9" * 200, 0, 10):
            for _ in range(3):
                first = line_of(name, value)[0]
                assert (first in fields.CONTENT_LENGTH_FIRST) == (name == "content-length"), (name, value)
                assert (first == fields.DATE_FIRST) == (name == "date"), (name, value)


# ---------------------------------------------------------------- the engine's decoder


def test_the_engine_reads_what_another_encoder_writes() -> None:
    """Heads of an independent encoder without a dynamic table, sent as they are."""
    rng = random.Random(9114)
    seen: list[Any] = []

    def handle(request: Any) -> None:
        seen.append(request.headers.multi_items())
        request.respond(200)

    letters = [*range(0x21, 0x7F), *range(0x80, 0x100)]
    entries = [
        (n, v) for n, v in static_table() if n[:1] != b":" and n not in (b"connection", b"content-length")
    ]
    with serving(handle) as server, connect(server) as connection:
        head = head_prefix("GET", connection._authority) + fields.path_line("/")
        for _ in range(60):
            sent = rng.sample(entries, 20)
            sent += [
                (b"x-%d" % i, bytes(rng.choices(letters, k=rng.randrange(60))))
                for i in range(rng.randrange(30))
            ]
            _, section = pylsqpack.Encoder().encode(0, sent)
            assert section[:2] == PREFIX
            response = exchange(connection, "GET", "/", head + section[2:], None, Timeout(5.0), None)
            assert response.status_code == 200
            received = [(n.encode(), v.encode("latin-1")) for n, v in seen.pop() if n != "host"]
            assert received == sent


def test_the_engine_reads_pseudo_fields_of_another_encoder() -> None:
    seen: list[Any] = []

    def handle(request: Any) -> None:
        seen.append((request.method, request.scheme, request.authority, request.path))
        request.respond(200)

    with serving(handle) as server, connect(server) as connection:
        for method in ("GET", "POST", "PUT", "PATCH", "HEAD", "DELETE", "OPTIONS", "PROPFIND", "get"):
            sent = [
                (b":method", method.encode()),
                (b":scheme", b"https"),
                (b":authority", b"a.test"),
                (b":path", b"/p?q=%20"),
            ]
            _, section = pylsqpack.Encoder().encode(0, sent)
            exchange(connection, method, "/", section[2:], None, Timeout(5.0), None)
            assert seen.pop() == (method, "https", "a.test", "/p?q=%20")
