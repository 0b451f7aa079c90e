"""WebSocket's frames, against two implementations that share no code with ours: wsproto and `websockets`."""

from __future__ import annotations

import codecs
import itertools
import random
from collections.abc import Callable, Iterator

import pytest
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode as TheirOpcode
from websockets.protocol import Protocol, Side
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from quicgreen import _frames
from quicgreen._frames import FrameError, FrameReader, Utf8, build_frame
from quicgreen.exceptions import QuicClientException

Event = tuple[int, bytes]
"""A whole message or control frame: opcode, payload."""

Frame = tuple[int, bytes, bool]
"""opcode (0 for a continuation frame), payload, fin."""

BOTH = pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
ALPHABET = "abc xyz\0\n" * 3 + "µßäé" * 2 + "κόσμε中文" + "\U0001f600\U0010ffff\ud7ff\ue000"
SIZES = [0, 1, 2, 7, 16, 100, 125, 126, 127, 1000, 4000]


# ---------------------------------------------------------------- what is sent


def some_text(rng: random.Random, size: int) -> bytes:
    text = "".join(rng.choices(ALPHABET, k=size))
    return text.encode()


def message(rng: random.Random) -> tuple[Event, list[Frame]]:
    """One, and the frames it is sent in, cut anywhere: also within a character."""
    opcode = rng.choice([_frames.TEXT, _frames.BINARY])
    size = rng.choice([*SIZES, 66_000] if rng.random() < 0.05 else SIZES)
    payload = some_text(rng, size) if opcode == _frames.TEXT else rng.randbytes(size)
    cuts = sorted(rng.randint(0, len(payload)) for _ in range(rng.choice([0, 0, 1, 2, 6])))
    bounds = [0, *cuts, len(payload)]
    parts = [payload[a:b] for a, b in itertools.pairwise(bounds)]
    frames = [
        (opcode if i == 0 else _frames.CONTINUATION, part, i == len(parts) - 1)
        for i, part in enumerate(parts)
    ]
    return (opcode, payload), frames


def sequence(rng: random.Random, count: int, close: bool) -> tuple[list[Event], list[Frame]]:
    """Messages with control frames before, between and within them."""
    events: list[Event] = []
    frames: list[Frame] = []
    for _ in range(count):
        event, parts = message(rng)
        for part in parts:
            while rng.random() < 0.3:
                control = rng.choice([_frames.PING, _frames.PONG])
                payload = rng.randbytes(rng.choice([0, 4, 125]))
                events.append((control, payload))
                frames.append((control, payload, True))
            frames.append(part)
        events.append(event)
    if close:
        # Not 1010 or 1012: a bit beside them is 1014, which wsproto does not know.
        payload = rng.choice([1000, 1001, 1003, 1008, 1011, 3000, 4999]).to_bytes(2, "big")
        payload = rng.choice([b"", payload, payload + some_text(rng, 20)])
        events.append((_frames.CLOSE, payload))
        frames.append((_frames.CLOSE, payload, True))
    return events, frames


def ours(frames: list[Frame], mask: bool) -> bytes:
    return b"".join(build_frame(opcode, payload, fin=fin, mask=mask) for opcode, payload, fin in frames)


def theirs(frames: list[Frame], mask: bool) -> bytes:
    return b"".join(TheirFrame(TheirOpcode(o), p, fin).serialize(mask=mask) for o, p, fin in frames)


def cut(rng: random.Random, wire: bytes) -> Iterator[bytes]:
    """In runs of bytes as a network may make them."""
    longest = max(rng.choice([1, 3, 20, 300, 5000, len(wire) + 1]), len(wire) // 2000)
    at = 0
    while at < len(wire):
        n = rng.randint(1, longest)
        yield wire[at : at + n]
        at += n


# ---------------------------------------------------------------- what is heard


class Ours:
    """Puts pieces together, and checks that they fit."""

    def __init__(self, is_server: bool, rsv1: bool = False) -> None:
        self.reader = FrameReader(is_server=is_server, rsv1=rsv1)
        self.events: list[Event] = []
        self.code = 0
        self._message: list[bytes] | None = None

    def feed(self, data: bytes) -> None:
        try:
            pieces = self.reader.feed(bytearray(data), len(data))
        except FrameError as e:
            self.code, pieces = e.code, e.pieces
        for opcode, flags, payload in pieces:
            assert type(payload) is bytes
            if opcode >= _frames.CLOSE:
                assert flags == _frames.WHOLE
                self.events.append((opcode, payload))
                continue
            assert (self._message is None) == bool(flags & _frames.MESSAGE_START)
            self._message = [*(self._message or []), payload]
            if flags & _frames.MESSAGE_END:
                assert flags & _frames.FRAME_END
                self.events.append((opcode, b"".join(self._message)))
                self._message = None


class Wsproto:
    def __init__(self, is_server: bool) -> None:
        self._protocol = FrameProtocol(client=not is_server, extensions=[])
        self.events: list[Event] = []
        self.code = 0
        self._message: list[bytes] = []

    def feed(self, data: bytes) -> None:
        if self.code:
            return
        self._protocol.receive_bytes(data)
        try:
            for frame in self._protocol.received_frames():
                self._take(frame.opcode, frame.payload, frame.frame_finished and frame.message_finished)
        except ParseFailed as e:
            self.code = int(e.code)

    def _take(self, opcode: Opcode, payload: str | bytes | tuple[int, str], finished: bool) -> None:
        if isinstance(payload, tuple):
            code, reason = payload
            payload = b"" if code == 1005 else int(code).to_bytes(2, "big") + reason.encode()
        self._message.append(payload.encode() if isinstance(payload, str) else bytes(payload))
        if opcode.iscontrol():
            self.events.append((int(opcode), self._message.pop()))
        elif finished:
            self.events.append((int(opcode), b"".join(self._message)))
            self._message.clear()


class Websockets:
    def __init__(self, is_server: bool) -> None:
        self._protocol = Protocol(Side.SERVER if is_server else Side.CLIENT, max_size=None)
        self.events: list[Event] = []
        self._message: list[bytes] = []
        self._opcode = 0

    def feed(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            assert isinstance(frame, TheirFrame)
            payload = bytes(frame.data)
            if frame.opcode >= _frames.CLOSE:
                self.events.append((int(frame.opcode), payload))
                continue
            self._opcode = int(frame.opcode) or self._opcode
            self._message.append(payload)
            if frame.fin:
                self.events.append((self._opcode, b"".join(self._message)))
                self._message.clear()

    @property
    def code(self) -> int:
        """Of the close frame with which it failed the connection."""
        sent = self._protocol.close_sent
        return int(sent.code) if self._protocol.parser_exc is not None and sent is not None else 0


THEIRS = pytest.mark.parametrize("peer", [Wsproto, Websockets])


# ---------------------------------------------------------------- both directions


@BOTH
@pytest.mark.parametrize("seed", range(12))
def test_what_others_send_is_heard(is_server: bool, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        events, frames = sequence(rng, 8, close=True)
        hearer = Ours(is_server)
        for data in cut(rng, theirs(frames, mask=is_server)):
            hearer.feed(data)
        assert hearer.code == 0
        assert hearer.events == events


@BOTH
def test_what_wsproto_sends_is_heard(is_server: bool) -> None:
    rng = random.Random(21)
    for _ in range(40):
        peer = FrameProtocol(client=is_server, extensions=[])
        hearer, events, wire = Ours(is_server), [], b""
        for _ in range(5):
            text = "".join(rng.choices(ALPHABET, k=rng.choice(SIZES)))
            half = len(text) // 2
            wire += peer.send_data(text[:half], fin=False) + peer.ping(b"within")
            wire += peer.send_data(text[half:]) + peer.send_data(b"binary")
            events += [(9, b"within"), (1, text.encode()), (2, b"binary")]
        wire += peer.close(1000, "done")
        for data in cut(rng, wire):
            hearer.feed(data)
        assert (hearer.events, hearer.code) == ([*events, (8, b"\x03\xe8done")], 0)


@BOTH
@THEIRS
@pytest.mark.parametrize("seed", range(6))
def test_what_we_send_others_hear(is_server: bool, peer: Callable[[bool], Ours], seed: int) -> None:
    rng = random.Random(100 + seed)
    for _ in range(10):
        events, frames = sequence(rng, 8, close=True)
        hearer = peer(is_server)
        for data in cut(rng, ours(frames, mask=is_server)):
            hearer.feed(data)
        assert hearer.code == 0
        assert hearer.events == events


# ---------------------------------------------------------------- errors


def raw(first: int, payload: bytes, masked: bool, length: bytes = b"") -> bytes:
    """A frame that no library would make; `length`: how it is written."""
    if not length:
        n = len(payload)
        length = bytes([n]) if n < 126 else b"\x7e" + n.to_bytes(2, "big")
    key = b"\x37\xfa\x21\x3d" if masked else b""
    payload = bytes(c ^ key[i % 4] for i, c in enumerate(payload)) if masked else payload
    return bytes([first, length[0] | (0x80 if masked else 0)]) + length[1:] + key + payload


ERRORS = {
    "rsv1": (0xC1, b"x", 1002),
    "rsv2": (0xA1, b"x", 1002),
    "rsv3": (0x92, b"x", 1002),
    "rsv-ping": (0xC9, b"x", 1002),
    "opcode-3": (0x83, b"x", 1002),
    "opcode-7": (0x87, b"", 1002),
    "opcode-11": (0x8B, b"", 1002),
    "opcode-15": (0x8F, b"x", 1002),
    "fragmented-ping": (0x09, b"x", 1002),
    "fragmented-close": (0x08, b"", 1002),
    "long-ping": (0x89, bytes(126), 1002),
    "continues-nothing": (0x80, b"x", 1002),
    "close-half-a-code": (0x88, b"\x03", 1002),
    "close-code-0": (0x88, b"\0\0", 1002),
    "close-code-1005": (0x88, b"\x03\xed", 1002),
    "close-code-2999": (0x88, b"\x0b\xb7", 1002),
    "close-code-5000": (0x88, b"\x13\x88", 1002),
    "close-not-utf8": (0x88, b"\x03\xe8\xff", 1007),
    "text-not-utf8": (0x81, b"\xed\xa0\x80", 1007),
    "text-cut": (0x81, b"abc\xe2\x82", 1007),
}


@BOTH
@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, is_server: bool) -> None:
    """After what is good, however the bytes are cut, and with what others make of it."""
    first, payload, code = ERRORS[name]
    rng = random.Random(name)
    for _ in range(20):
        events, frames = sequence(rng, 2, close=False)
        good = theirs(frames, mask=is_server)
        wire = good + raw(first, payload, is_server) + raw(0x89, b"late", is_server)
        hearer, wsproto, websockets = Ours(is_server), Wsproto(is_server), Websockets(is_server)
        for data in cut(rng, wire):
            for one in (hearer, wsproto, websockets):
                one.feed(data)
        assert (hearer.events, hearer.code) == (events, code)
        assert (wsproto.events, wsproto.code) == (events, code)
        if not name.startswith("text-"):  # `websockets` looks at text when it is asked for it
            assert (websockets.events, websockets.code) == (events, code)


@BOTH
def test_errors_within_a_message(is_server: bool) -> None:
    for second, payload, code in [(0x81, b"x", 1002), (0x02, b"x", 1002), (0x80, b"\xc3", 1007)]:
        wire = raw(0x01, b"first\xc3", is_server) + raw(second, payload, is_server)
        hearer, wsproto = Ours(is_server), Wsproto(is_server)
        hearer.feed(wire)
        wsproto.feed(wire)
        assert hearer.code == wsproto.code == code
        assert hearer.events == []


@BOTH
def test_frames_of_the_wrong_side_are_refused(is_server: bool) -> None:
    wire = raw(0x81, b"hello", masked=not is_server)
    hearer, wsproto, websockets = Ours(is_server), Wsproto(is_server), Websockets(is_server)
    for one in (hearer, wsproto, websockets):
        one.feed(wire)
        assert (one.events, one.code) == ([], 1002)


def test_lengths_that_are_longer_than_needed_are_refused() -> None:
    for length in (b"\x7e\x00\x01", b"\x7f" + (1).to_bytes(8, "big"), b"\x7f" + (1 << 63).to_bytes(8, "big")):
        wire = raw(0x82, b"x", False, length)
        hearer, wsproto = Ours(False), Wsproto(False)
        hearer.feed(wire)
        wsproto.feed(wire)
        assert hearer.code == wsproto.code == 1002


@BOTH
@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_means_the_same_to_others(is_server: bool, seed: int) -> None:
    """Anywhere in the bytes: heads, keys, lengths, characters."""
    rng = random.Random(200 + seed)
    codes = set()
    for _ in range(150):
        _, frames = sequence(rng, 2, close=True)
        small = [f for f in frames if len(f[1]) <= 300]
        wire = bytearray(theirs(small, mask=is_server))
        heads = rng.random() < 0.7  # most often where it matters
        wire[rng.randrange(min(8, len(wire)) if heads else len(wire))] ^= 1 << rng.randrange(8)
        hearer, wsproto = Ours(is_server), Wsproto(is_server)
        for data in cut(rng, bytes(wire)):
            hearer.feed(data)
            wsproto.feed(data)
        if hearer.code and not wsproto.code:  # it waits for the end of a head before it looks
            wsproto.feed(bytes(14))
        assert (hearer.events, hearer.code) == (wsproto.events, wsproto.code), bytes(wire)
        codes.add(hearer.code)
    assert codes == {0, 1002, 1007}


def test_an_error_stays() -> None:
    reader = FrameReader(is_server=False)
    wire = bytearray(raw(0x81, b"good", False) + raw(0x83, b"", False))
    with pytest.raises(FrameError) as first:
        reader.feed(wire, len(wire))
    assert first.value.pieces == [(1, _frames.WHOLE, b"good")]
    wire.clear()  # the error does not hold the buffer, though its traceback is here
    with pytest.raises(FrameError) as second:
        reader.feed(bytearray(raw(0x81, b"good", False)), 6)
    assert (second.value.code, second.value.text) == (first.value.code, first.value.text)
    assert second.value.pieces == []


# ---------------------------------------------------------------- the binding's own


def test_pieces_come_as_the_bytes_do() -> None:
    reader = FrameReader(is_server=False)
    wire = raw(0x01, b"abcd", False) + raw(0x89, b"ping", False) + raw(0x80, "ß".encode(), False)
    got = [(i, *piece) for i in range(len(wire)) for piece in reader.feed(bytearray(wire[i : i + 1]), 1)]
    start, end = _frames.MESSAGE_START, _frames.FRAME_END
    assert got == [
        (2, 1, start, b"a"),
        (3, 1, 0, b"b"),
        (4, 1, 0, b"c"),
        (5, 1, end, b"d"),
        (11, 9, _frames.WHOLE, b"ping"),
        (14, 1, 0, b"\xc3"),
        (15, 1, end | _frames.MESSAGE_END, b"\x9f"),
    ]


def test_compressed_messages_are_passed_on_unread() -> None:
    reader = FrameReader(is_server=False, rsv1=True)
    wire = bytearray(raw(0x41, b"\xff\xfe", False) + raw(0x80, b"\x80", False) + raw(0x81, b"plain", False))
    assert reader.feed(wire, len(wire)) == [
        (1, _frames.RSV1 | _frames.MESSAGE_START | _frames.FRAME_END, b"\xff\xfe"),
        (1, _frames.RSV1 | _frames.MESSAGE_END | _frames.FRAME_END, b"\x80"),
        (1, _frames.WHOLE, b"plain"),
    ]
    hearer = Ours(False, rsv1=True)
    hearer.feed(raw(0x41, b"", False) + raw(0xC0, b"", False))
    assert hearer.code == 1002


def test_more_frames_than_one_call_says() -> None:
    hearer = Ours(True)
    hearer.feed(ours([(2, bytes([i]), True) for i in range(200)], mask=True))
    assert hearer.events == [(2, bytes([i])) for i in range(200)]


def test_control_frames_that_were_cut() -> None:
    """Each is kept until its end, which comes with the next one's beginning."""
    pings = [(9, bytes([i]) * 125, True) for i in range(10)]
    wire = ours(pings, mask=True)
    hearer = Ours(True)
    hearer.feed(wire[:50])
    for at in range(50, len(wire), 131):
        hearer.feed(wire[at : at + 131])
    assert hearer.events == [(9, payload) for _, payload, _ in pings]


def test_only_the_first_bytes_of_a_buffer_are_looked_at() -> None:
    reader = FrameReader(is_server=True)
    wire = ours([(1, b"hello", True)], mask=True)
    buffer = bytearray(wire + b"\xff" * 100)
    assert reader.feed(buffer, len(wire)) == [(1, _frames.WHOLE, b"hello")]
    assert buffer.endswith(b"hello" + b"\xff" * 100)  # unmasked where it lay
    view = memoryview(bytearray(b"\xff\xff" + ours([(2, b"again", True)], mask=True)))
    assert reader.feed(view[2:], len(wire)) == [(2, _frames.WHOLE, b"again")]
    assert reader.feed(buffer, 0) == []


def test_buffers_that_will_not_do() -> None:
    reader = FrameReader(is_server=True)
    with pytest.raises(QuicClientException, match="7 bytes of a buffer of 6"):
        reader.feed(bytearray(6), 7)
    with pytest.raises((BufferError, ValueError, TypeError)):
        reader.feed(b"\x81\x80\0\0\0\0", 6)  # type: ignore[arg-type]  # could not be unmasked
    with pytest.raises(QuicClientException, match="-1 bytes of a buffer of 6"):
        reader.feed(bytearray(6), -1)
    for n in (7, -1):
        with pytest.raises(ValueError, match=f"{n} bytes of a buffer of 6"):
            reader.take(bytearray(6), n)
    for arguments in ((), (bytearray(6),), (bytearray(6), "6"), ("text", 1)):
        with pytest.raises(TypeError):
            reader.take(*arguments)


def test_frames_are_objects_of_their_own() -> None:
    first = build_frame(2, b"a" * 50)
    kept = bytes(bytearray(first))
    others = [build_frame(2, bytes([i]) * 50) for i in range(50)]
    assert first == kept
    assert len(set(others)) == 50
    assert build_frame(9, b"") == b"\x89\x00"
    assert build_frame(9, b"", mask=True)[:2] == b"\x89\x80"


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 200_000])
def test_payloads_of_any_kind(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    expected = TheirFrame(TheirOpcode.BINARY, payload).serialize(mask=False)
    for data in (payload, bytearray(payload), memoryview(payload), memoryview(b"xx" + payload)[2:]):
        assert build_frame(2, data) == expected
        hearer = Ours(True)
        hearer.feed(build_frame(2, data, mask=True))
        assert hearer.events == [(2, payload)]


def test_keys_are_random() -> None:
    keys = [build_frame(2, b"same", mask=True)[2:6] for _ in range(200)]
    assert len(set(keys)) >= 199
    assert len({byte for key in keys for byte in key}) > 200  # of 256, in 800 bytes


@pytest.mark.parametrize(
    ("opcode", "payload", "options"),
    [
        (3, b"", {}),
        (7, b"", {}),
        (11, b"", {}),
        (257, b"", {}),
        (8, bytes(126), {}),
        (9, b"", {"fin": False}),
        (10, b"", {"rsv1": True}),
        (0, b"", {"rsv1": True}),
    ],
)
def test_frames_that_may_not_be(opcode: int, payload: bytes, options: dict[str, bool]) -> None:
    with pytest.raises(QuicClientException, match=f"no frame has opcode {opcode}"):
        build_frame(opcode, payload, **options)


# ---------------------------------------------------------------- text in parts


def test_utf8_is_what_python_takes_for_it() -> None:
    rng = random.Random(5)
    found = set()
    for _ in range(4000):
        text = bytearray(some_text(rng, rng.randint(0, 20)))
        if text and rng.random() < 0.5:
            text[rng.randrange(len(text))] = rng.choice([rng.randrange(256), 0x80, 0xED, 0xF4, 0xC0])
        checker, decoder, ok = Utf8(), codecs.getincrementaldecoder("utf-8")(), True
        parts = [*cut(rng, bytes(text)), b""]
        for i, part in enumerate(parts):
            end = i == len(parts) - 1
            try:
                decoder.decode(part, end)
                waits = decoder.getstate()[0]
                # Of a surrogate, for which there is an error handler, it waits for the last byte.
                ok = not (waits[:1] == b"\xed" and waits[1:] >= b"\xa0")
            except UnicodeDecodeError:
                ok = False
            assert checker.feed(part, end) == ok
            if not ok:
                break
        found.add(ok)
    assert found == {True, False}


def test_utf8_begins_anew_and_false_is_final() -> None:
    checker = Utf8()
    assert checker.feed("ß".encode(), True)
    assert checker.feed(b"\xc3", False)
    assert checker.feed(memoryview(b"\x9f"), True)
    assert checker.feed(bytearray(b"abc"), True)
    assert not checker.feed(b"\xc3", True)
    assert not checker.feed(b"\x9f", True)
    assert not checker.feed(b"", True)
