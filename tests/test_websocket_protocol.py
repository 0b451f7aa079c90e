"""A WebSocket's state machine without I/O: two of them, or one and bytes that no well-behaved peer sends."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from quicgreen._frames import BINARY, TEXT, build_frame
from quicgreen.exceptions import QuicClientException
from quicgreen.websocket import deflate
from quicgreen.websocket.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
)
from quicgreen.websocket.protocol import Protocol, State, close_payload


def feed(protocol: Protocol, data: bytes, step: int = 0) -> list[tuple[int, bytes, bool]]:
    """Its pieces, when `data` comes at once or `step` bytes at a time."""
    pieces = []
    for at in range(0, len(data), step or max(len(data), 1)):
        part = bytearray(data[at : at + (step or len(data))])
        pieces += protocol.receive(part, len(part))
    return pieces


def said(protocol: Protocol) -> bytes:
    """What it has to say, taken away."""
    out = b"".join(protocol.out)
    protocol.out.clear()
    return out


def raw(first: int, payload: bytes = b"", *, mask: bool = True, second: int | None = None) -> bytes:
    """A frame as given, right or wrong."""
    length = len(payload) if second is None else second
    head = bytes([first, length | (0x80 if mask else 0)])
    return head + (b"\0\0\0\0" if mask else b"") + payload


def close_frame(code: int | None, reason: bytes = b"") -> bytes:
    return raw(0x88, b"" if code is None else struct.pack("!H", code) + reason)


def sent_close(frame: bytes) -> tuple[int, str]:
    """(code, reason) of a server's close frame."""
    assert (frame[0], frame[1]) == (0x88, len(frame) - 2)
    return (struct.unpack("!H", frame[2:4])[0], frame[4:].decode()) if frame[1] else (1005, "")


def ended(protocol: Protocol) -> ConnectionClosed:
    return protocol.exception()


def pair(**options: Any) -> tuple[Protocol, Protocol]:
    return Protocol(is_server=False, **options), Protocol(is_server=True, **options)


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
@pytest.mark.parametrize("to_server", [True, False])
def test_a_message_arrives_as_it_was_sent(size: int, to_server: bool, step: int) -> None:
    client, server = pair()
    sender, receiver = (client, server) if to_server else (server, client)
    data = bytes(i * 7 & 0xFF for i in range(size))
    if step and size > 1000:
        step *= 1000
    pieces = feed(receiver, sender.message(BINARY, data), step)
    assert b"".join(p for _, p, _ in pieces) == data
    assert [end for _, _, end in pieces] == [False] * (len(pieces) - 1) + [True]
    assert {opcode for opcode, _, _ in pieces} == {BINARY}
    assert receiver.state is State.OPEN
    assert not receiver.out


def test_fragments_are_one_message_and_control_frames_may_stand_between() -> None:
    client, server = pair()
    data = (
        client.fragment(TEXT, b"one ", fin=False, compress=False)
        + client.ping(b"now")
        + client.fragment(0, b"two ", fin=False, first=False, compress=False)
        + client.fragment(0, b"", fin=True, first=False, compress=False)
    )
    pieces = feed(server, data)
    assert b"".join(p for _, p, _ in pieces) == b"one two "
    assert [p[2] for p in pieces].count(True) == 1
    assert pieces[-1][2]
    assert said(server) == raw(0x8A, b"now", mask=False)


def test_a_character_may_be_split_over_frames() -> None:
    client, server = pair()
    text = "κόσμε".encode()
    data = client.fragment(TEXT, text[:3], fin=False, compress=False)
    data += client.fragment(0, text[3:], fin=True, first=False, compress=False)
    pieces = feed(server, data)
    assert b"".join(p for _, p, _ in pieces).decode() == "κόσμε"


def test_pongs_are_told_and_change_nothing() -> None:
    client, server = pair()
    assert feed(server, client.pong(b"a") + client.pong(b"")) == []
    assert server.pongs == [b"a", b""]
    assert not server.out
    assert server.state is State.OPEN


def test_every_ping_has_its_pong() -> None:
    client, server = pair()
    feed(server, b"".join(client.ping(bytes([i])) for i in range(20)))
    feed(client, said(server))
    assert client.pongs == [bytes([i]) for i in range(20)]


def deflaters() -> tuple[Any, Any]:
    value, server = deflate.accept(deflate.offer())  # type: ignore[misc]
    return deflate.agreed(value), server


@pytest.mark.parametrize("step", [0, 1])
def test_compressed_messages_arrive_as_they_were_sent(step: int) -> None:
    codecs = deflaters()
    client = Protocol(is_server=False, deflate=codecs[0])
    server = Protocol(is_server=True, deflate=codecs[1])
    text = "zwölf Boxkämpfer " * 50
    frame = client.message(TEXT, text.encode())
    assert len(frame) < 200
    frame += client.fragment(TEXT, "zwölf".encode()[:3], fin=False, compress=True)
    frame += client.fragment(0, "zwölf".encode()[3:], fin=True, first=False, compress=True)
    pieces = feed(server, frame, step)
    assert b"".join(p for _, p, _ in pieces).decode() == text + "zwölf"
    assert sum(end for _, _, end in pieces) == 2


# ---------------------------------------------------------------- what is wrong

BREACHES = {
    "unmasked": (raw(0x81, b"hi", mask=False), 1002),
    "rsv1": (raw(0xC1, b"hi"), 1002),
    "rsv2": (raw(0xA1, b"hi"), 1002),
    "rsv3": (raw(0x91, b"hi"), 1002),
    "reserved opcode": (raw(0x83, b"hi"), 1002),
    "reserved control opcode": (raw(0x8B, b"hi"), 1002),
    "fragmented ping": (raw(0x09, b"hi"), 1002),
    "long ping": (raw(0x89, b"\0\x7e" + b"x" * 126, second=126), 1002),
    "continuation of nothing": (raw(0x80, b"hi"), 1002),
    "a message inside another": (raw(0x01, b"hi") + raw(0x81, b"hi"), 1002),
    "close with one byte": (raw(0x88, b"x"), 1002),
    "close with 999": (close_frame(999), 1002),
    "close with 1005": (close_frame(1005), 1002),
    "close with 1006": (close_frame(1006), 1002),
    "close with 1015": (close_frame(1015), 1002),
    "close with 5000": (close_frame(5000), 1002),
    "a reason that is no text": (close_frame(1000, b"\xff"), 1007),
    "no text": (raw(0x81, b"\xc0\xaf"), 1007),
    "half a character at the end": (raw(0x81, b"\xce"), 1007),
    "a surrogate": (raw(0x81, b"\xed\xa0\x80"), 1007),
    "half a character over frames": (raw(0x01, b"\xce") + raw(0x80, b"x"), 1007),
}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_answered_with_its_code_and_what_came_before_counts(name: str, step: int) -> None:
    data, code = BREACHES[name]
    server = Protocol(is_server=True)
    good = raw(0x82, b"good")
    pieces = feed(server, good + data, step)
    assert b"".join(p for _, p, _ in pieces).startswith(b"good")
    assert sent_close(said(server))[0] == code
    assert (server.state, server.code, server.failure) == (State.CLOSING, code, code)
    assert feed(server, good) == []  # what follows is dropped
    assert not server.out
    e = ended(server)
    assert isinstance(e, ConnectionClosedError)
    assert (e.code, e.received) == (code, None)
    assert e.sent is not None
    assert e.sent[0] == code


def test_a_client_is_told_of_masked_frames() -> None:
    client = Protocol(is_server=False)
    feed(client, raw(0x81, b"hi"))
    assert client.failure == 1002
    assert said(client)[1] & 0x80, "its own are masked"


@pytest.mark.parametrize(("size", "fits"), [(99, True), (100, True), (101, False)])
@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_message_may_be_as_large_as_the_limit(size: int, fits: bool, frames: int, compressed: bool) -> None:
    codecs = deflaters() if compressed else (None, None)
    client = Protocol(is_server=False, deflate=codecs[0])
    server = Protocol(is_server=True, max_size=100, deflate=codecs[1])
    half = size // 2 if frames == 2 else size
    data = client.fragment(BINARY, b"x" * half, fin=frames == 1, compress=compressed)
    if frames == 2:
        data += client.fragment(0, b"x" * (size - half), fin=True, first=False, compress=compressed)
    pieces = feed(server, data)
    assert (pieces != [] and pieces[-1][2]) == fits
    if not fits:
        assert sent_close(said(server))[0] == 1009
        e = ended(server)
        assert e.code == 1009
        assert isinstance(e.__cause__, PayloadTooBig)


def test_without_a_limit_any_size_passes() -> None:
    client = Protocol(is_server=False)
    server = Protocol(is_server=True, max_size=None)
    pieces = feed(server, client.message(BINARY, bytes(3 << 20)))
    assert sum(len(p) for _, p, _ in pieces) == 3 << 20


def test_the_limit_is_for_each_message() -> None:
    client, server = pair(max_size=10)
    for _ in range(5):
        assert feed(server, client.message(BINARY, b"0123456789")) == [(BINARY, b"0123456789", True)]


def test_compressed_text_must_be_text_too() -> None:
    codecs = deflaters()
    client = Protocol(is_server=False, deflate=codecs[0])
    server = Protocol(is_server=True, deflate=codecs[1])
    feed(server, client.message(TEXT, b"\xc0\xaf"))
    assert sent_close(said(server))[0] == 1007


def test_what_is_no_deflate_is_a_breach() -> None:
    server = Protocol(is_server=True, deflate=deflaters()[1])
    feed(server, raw(0xC1, b"\xff\xff\xff\xff"))
    assert sent_close(said(server))[0] == 1002


# ---------------------------------------------------------------- closing


@pytest.mark.parametrize(
    ("code", "reason", "ok"),
    [
        (1000, "", True),
        (1000, "so long", True),
        (1001, "", True),
        (1005, "", True),
        (1002, "", False),
        (1011, "oh", False),
        (3000, "registered", False),
        (4999, "mine", False),
    ],
)
def test_a_close_is_echoed_and_both_sides_know_why(code: int, reason: str, ok: bool) -> None:
    client, server = pair()
    client.close(code, reason)
    assert client.state is State.CLOSING
    assert client.code is None
    feed(server, said(client))
    assert server.received == server.sent == (code, reason)
    feed(client, said(server))
    kind = ConnectionClosedOK if ok else ConnectionClosedError
    for side in (client, server):
        e = ended(side)
        assert type(e) is kind
        assert (e.code, e.reason) == (side.code, side.reason) == (code, reason)
        assert e.received == e.sent == (code, reason)
        assert e.__cause__ is None


def test_two_who_close_at_once_hear_each_other() -> None:
    client, server = pair()
    client.close(1000, "me")
    server.close(1001, "no, me")
    ours, theirs = said(client), said(server)
    feed(server, ours)
    feed(client, theirs)
    assert client.out == server.out == [], "a close frame is sent once"
    assert (client.sent, client.received) == ((1000, "me"), (1001, "no, me"))
    assert (server.sent, server.received) == ((1001, "no, me"), (1000, "me"))
    assert client.code == 1001
    assert server.code == 1000
    assert type(ended(client)) is ConnectionClosedOK


def test_messages_that_were_on_their_way_are_heard_after_our_close() -> None:
    client, server = pair()
    client.close(1000, "")
    assert feed(client, server.message(TEXT, b"late")) == [(TEXT, b"late", True)]
    feed(client, server.ping(b"still there?"))
    assert said(client).count(b"\x8a") == 0, "nothing follows a close frame"


def test_what_follows_a_close_is_dropped() -> None:
    client, server = pair()
    client.close(1000, "")
    data = said(client) + raw(0x81, b"late") + raw(0x83, b"wrong") + raw(0x89, b"ping")
    assert feed(server, data) == []
    assert feed(server, raw(0x81, b"later")) == []
    assert sent_close(said(server)) == (1000, "")
    assert server.failure is None
    assert type(ended(server)) is ConnectionClosedOK


def test_closing_twice_says_it_once() -> None:
    client, _ = pair()
    client.close(1000, "first")
    frame = said(client)
    client.close(1001, "second")
    assert frame
    assert not client.out
    assert client.sent == (1000, "first")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, "1000", None, 1000.5])
def test_codes_that_must_not_be_sent(code: Any) -> None:
    client, _ = pair()
    with pytest.raises(QuicClientException, match="not a code to close with"):
        client.close(code, "x")
    assert client.state is State.OPEN
    assert not client.out


def test_a_reason_fits_its_frame() -> None:
    assert len(close_payload(1000, "ä" * 61 + "x")) == 125
    with pytest.raises(QuicClientException, match="123 bytes, not 124"):
        close_payload(1000, "ä" * 62)


@pytest.mark.parametrize("cause", [None, OSError("gone")])
def test_an_end_without_a_close_is_abnormal(cause: Any) -> None:
    client, _ = pair()
    client.lost(cause)
    e = ended(client)
    assert (client.state, client.code, e.code, e.reason) == (State.CLOSED, 1006, 1006, "")
    assert isinstance(e, ConnectionClosedError)
    assert e.__cause__ is cause
    assert (e.received, e.sent) == (None, None)


def test_an_end_after_our_close_alone_is_abnormal() -> None:
    client, _ = pair()
    client.close(1000, "")
    client.lost()
    e = ended(client)
    assert (e.code, e.sent, type(e)) == (1006, (1000, ""), ConnectionClosedError)


def test_an_end_after_both_closes_is_in_order() -> None:
    client, server = pair()
    client.close(1000, "")
    feed(server, said(client))
    server.lost(OSError("too late to matter"))
    assert (server.state, server.code, type(ended(server))) == (State.CLOSED, 1000, ConnectionClosedOK)


def test_a_breach_after_our_close_says_nothing_more() -> None:
    server = Protocol(is_server=True)
    server.close(1000, "")
    said(server)
    feed(server, raw(0x83))
    assert not server.out
    e = ended(server)
    assert (e.code, e.sent) == (1002, (1000, ""))


def test_a_long_explanation_is_cut() -> None:
    server = Protocol(is_server=True)
    server.fail(1011, "ä" * 100)
    assert sent_close(said(server)) == (1011, "ä" * 61)


def test_the_exception_says_it_in_words() -> None:
    client, server = pair()
    client.close(4321, "enough")
    feed(server, said(client))
    text = str(ended(server))
    assert "received 4321 (private use) enough" in text
    assert "sent 4321 (private use) enough" in text
    assert build_frame(BINARY, b"") == b"\x82\x00"
