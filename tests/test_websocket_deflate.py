"""permessage-deflate against `websockets` and wsproto: what is agreed on, and each other's messages."""

from __future__ import annotations

import gc
import itertools
import random
import tracemalloc
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import NegotiationError as TheirNegotiationError
from websockets.extensions import permessage_deflate as theirs
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension, parse_extension
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate
from wsproto.frame_protocol import Opcode as WsprotoOpcode
from wsproto.frame_protocol import RsvBits

from quicgreen.websocket import deflate
from quicgreen.websocket.deflate import DeflateError, NegotiationError, Parameters, PerMessageDeflate

BITS = [None, 9, 10, 12, 15]
"""Not 8, for which `websockets` cannot make its deflater."""

WANTED = [Parameters(*v) for v in itertools.product([False, True], [False, True], BITS, BITS)]
OFFERS = [Parameters(*v) for v in itertools.product([False, True], [False, True], BITS, [*BITS, True])]

MALFORMED = [
    "permessage-deflate;",
    "permessage-deflate; =1",
    "permessage-deflate; a=",
    "permessage-deflate other",
    "permessage-deflate; a b",
    'permessage-deflate; a="b',
    "; a",
    "p@d",
]

CANNOT_BE = [
    "permessage-deflate; server_no_context_takeover=1",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits=08",
    "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
    "permessage-deflate; client_max_window_bits=x",
    "permessage-deflate; client_max_window_bits=9; client_max_window_bits",
    "permessage-deflate; max_window_bits=9",
    "permessage-deflate; level",
]


# ---------------------------------------------------------------- what is agreed on


def told(extension: PerMessageDeflate | None, *, is_server: bool) -> tuple[bool, bool, int, int] | None:
    """(remote forgets, local forgets, remote bits, local bits), the order of theirs."""
    if extension is None:
        return None
    p = extension.parameters
    server = p.server_no_context_takeover, p.server_max_window_bits or 15
    client = p.client_no_context_takeover, p.client_max_window_bits or 15
    local, remote = (server, client) if is_server else (client, server)
    return remote[0], local[0], remote[1], local[1]


def told_by(extension: theirs.PerMessageDeflate) -> tuple[bool, bool, int, int]:
    e = extension
    return (
        e.remote_no_context_takeover,
        e.local_no_context_takeover,
        e.remote_max_window_bits,
        e.local_max_window_bits,
    )


@pytest.mark.parametrize("wanted", OFFERS, ids=str)
def test_an_offer_is_theirs(wanted: Parameters) -> None:
    factory = theirs.ClientPerMessageDeflateFactory(**vars(wanted))
    assert deflate.offer(wanted) == build_extension([(factory.name, factory.get_request_params())])


def test_the_first_words_are_theirs() -> None:
    (factory,) = theirs.enable_client_permessage_deflate(None)
    assert deflate.offer() == build_extension([(factory.name, factory.get_request_params())])
    (server,) = theirs.enable_server_permessage_deflate(None)
    answer, _ = server.process_request_params(factory.get_request_params(), [])
    accepted = deflate.accept(deflate.offer())
    assert accepted is not None
    assert accepted[0] == build_extension([(server.name, answer)])


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_a_server_chooses_as_theirs(wanted: Parameters) -> None:
    factory = theirs.ServerPerMessageDeflateFactory(**vars(wanted))
    for offered in OFFERS:
        ((_, pairs),) = parse_extension(str(offered))
        answer, extension = factory.process_request_params(pairs, [])
        accepted = deflate.accept(str(offered), wanted)
        assert accepted is not None
        assert accepted[0] == build_extension([(factory.name, answer)])
        assert told(accepted[1], is_server=True) == told_by(extension)


@pytest.mark.parametrize("wanted", OFFERS, ids=str)
def test_a_client_agrees_as_theirs(wanted: Parameters) -> None:
    factory = theirs.ClientPerMessageDeflateFactory(**vars(wanted))
    for answer in WANTED:
        ((_, pairs),) = parse_extension(str(answer))
        try:
            expected = told_by(factory.process_response_params(pairs, []))
        except TheirNegotiationError:
            with pytest.raises(NegotiationError):
                deflate.agreed(str(answer), wanted)
        else:
            assert told(deflate.agreed(str(answer), wanted), is_server=False) == expected


@pytest.mark.parametrize("field", MALFORMED)
def test_a_malformed_field(field: str) -> None:
    with pytest.raises(NegotiationError, match="malformed"):
        deflate.accept(field)
    with pytest.raises(NegotiationError, match="malformed"):
        deflate.agreed(field)


@pytest.mark.parametrize("field", CANNOT_BE)
def test_an_offer_that_cannot_be_is_passed_over(field: str) -> None:
    assert deflate.accept(field) is None
    accepted = deflate.accept(f"{field}, permessage-deflate; server_no_context_takeover", Parameters())
    assert accepted is not None
    assert accepted[0] == "permessage-deflate; server_no_context_takeover"


@pytest.mark.parametrize(
    "field",
    [
        *CANNOT_BE,
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate, permessage-deflate",
        "x-other",
    ],
)
def test_an_answer_that_cannot_be(field: str) -> None:
    with pytest.raises(NegotiationError):
        deflate.agreed(field)


@pytest.mark.parametrize("field", ["", " ", ",", "x-webkit-frame, bbf-usp-protocol; a=1"])
def test_nothing_that_is_known_is_offered(field: str) -> None:
    assert deflate.accept(field) is None


def test_no_answer_means_no_compression() -> None:
    assert deflate.agreed("") is None


def test_a_field_may_look_like_this() -> None:
    field = ' , x-a ;b="c\\"d"; e , permessage-deflate;server_max_window_bits="10";client_max_window_bits ,'
    assert deflate.parse(field)[0] == ("x-a", [("b", 'c"d'), ("e", None)])
    accepted = deflate.accept(field, Parameters())
    assert accepted is not None
    assert accepted[0] == "permessage-deflate; server_max_window_bits=10"


def test_the_smallest_window_is_agreed_on() -> None:
    accepted = deflate.accept("permessage-deflate; server_max_window_bits=8; client_max_window_bits=8")
    assert accepted is not None
    assert accepted[0] == "permessage-deflate; server_max_window_bits=8; client_max_window_bits=8"
    assert told(accepted[1], is_server=True) == (False, False, 8, 8)


@pytest.mark.parametrize(
    "bad", [{"server_max_window_bits": 7}, {"server_max_window_bits": True}, {"client_max_window_bits": 16}]
)
def test_parameters_that_cannot_be(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="from 8 to 15"):
        Parameters(**bad)


# ---------------------------------------------------------------- messages


def text(size: int, seed: int = 1) -> bytes:
    """It can be compressed, and refers far back."""
    dice = random.Random(seed)
    words = [bytes(dice.choices(b"abcdefgh ", k=9)) for _ in range(200)]
    return b"".join(dice.choices(words, k=size // 9 + 1))[:size]


NOISE = random.Random(2).randbytes(5000)
MESSAGES = [b"", b"a", b"", b"", text(100), text(100), text(20_000), NOISE, b"", b"z"]


class WebsocketsPeer:
    """One of `websockets`, which speaks and hears whole messages."""

    def __init__(self, p: Parameters, *, is_server: bool) -> None:
        server = p.server_no_context_takeover, p.server_max_window_bits or 15
        client = p.client_no_context_takeover, p.client_max_window_bits or 15
        (local_forgets, local_bits), (forgets, bits) = (server, client) if is_server else (client, server)
        self.extension = theirs.PerMessageDeflate(forgets, local_forgets, bits, local_bits)

    def encode(self, message: bytes, *, end: bool = True, first: bool = True) -> bytes:
        opcode = Opcode.BINARY if first else Opcode.CONT
        return bytes(self.extension.encode(Frame(opcode, message, fin=end)).data)

    def decode(self, data: bytes, *, end: bool = True, first: bool = True) -> bytes:
        opcode = Opcode.BINARY if first else Opcode.CONT
        return bytes(self.extension.decode(Frame(opcode, data, fin=end, rsv1=first)).data)


class WsprotoPeer:
    """One of wsproto."""

    def __init__(self, p: Parameters, *, is_server: bool) -> None:
        self.extension = WsprotoDeflate()
        self.extension.finalize(str(p))
        self.protocol: Any = SimpleNamespace(client=not is_server)

    def encode(self, message: bytes, *, end: bool = True, first: bool = True) -> bytes:
        opcode = WsprotoOpcode.BINARY if first else WsprotoOpcode.CONTINUATION
        rsv = RsvBits(False, False, False)
        _, data = self.extension.frame_outbound(self.protocol, opcode, rsv, message, end)
        return bytes(data)

    def decode(self, data: bytes, *, end: bool = True, first: bool = True) -> bytes:
        opcode = WsprotoOpcode.BINARY if first else WsprotoOpcode.CONTINUATION
        rsv = RsvBits(first, False, False)
        self.extension.frame_inbound_header(self.protocol, opcode, rsv, len(data))
        piece = self.extension.frame_inbound_payload_data(self.protocol, data)
        rest = self.extension.frame_inbound_complete(self.protocol, end)
        assert isinstance(piece, bytes)
        assert rest is None or isinstance(rest, bytes)
        return piece + (rest or b"")


PEERS = [WebsocketsPeer, WsprotoPeer]

AGREED = [
    Parameters(),
    Parameters(server_max_window_bits=12, client_max_window_bits=12),
    Parameters(server_max_window_bits=9, client_max_window_bits=10),
    Parameters(server_no_context_takeover=True),
    Parameters(client_no_context_takeover=True),
    Parameters(True, True, 10, 9),
]


@pytest.mark.parametrize("agreed", AGREED, ids=str)
@pytest.mark.parametrize("is_server", [False, True], ids=["as client", "as server"])
@pytest.mark.parametrize("peer", PEERS)
def test_messages_of_and_for_others(peer: Callable[..., Any], is_server: bool, agreed: Parameters) -> None:
    mine = PerMessageDeflate(agreed, is_server=is_server)
    other = peer(agreed, is_server=not is_server)
    for message in MESSAGES:
        assert other.decode(mine.encode(message)) == message
        assert mine.decode(other.encode(message), end=True) == message


@pytest.mark.parametrize("agreed", AGREED, ids=str)
@pytest.mark.parametrize("peer", PEERS)
def test_messages_in_frames(peer: Callable[..., Any], agreed: Parameters) -> None:
    mine = PerMessageDeflate(agreed, is_server=False)
    other = peer(agreed, is_server=True)
    frames = [b"one ", b"", text(5000), b"one ", b""]
    for _ in range(3):
        got = back = b""
        for i, frame in enumerate(frames):
            end, first = i == len(frames) - 1, i == 0
            got += other.decode(mine.encode(frame, end=end), end=end, first=first)
            back += mine.decode(other.encode(frame, end=end, first=first), end=end)
        assert got == back == b"".join(frames)


def test_each_frame_can_be_read_when_it_arrives() -> None:
    mine, other = pair(Parameters())
    for frame in (b"first ", b"second ", b"third"):
        assert other.decode(mine.encode(frame, end=False), end=False) == frame


def test_pieces_may_be_cut_anywhere() -> None:
    mine, other = pair(Parameters())
    message = text(3000)
    for _ in range(2):
        compressed = mine.encode(message)
        pieces = [compressed[i : i + 1] for i in range(len(compressed))]
        got = [other.decode(memoryview(p), end=False) for p in pieces]
        assert b"".join(got) + other.decode(b"", end=True) == message


def pair(agreed: Parameters) -> tuple[PerMessageDeflate, PerMessageDeflate]:
    return PerMessageDeflate(agreed, is_server=False), PerMessageDeflate(agreed, is_server=True)


@pytest.mark.parametrize("bits", range(8, 16))
def test_nothing_refers_further_back_than_agreed(bits: int) -> None:
    # zlib makes its window no smaller than it was told when it inflates; so the distances are looked at:
    # what repeats beyond the window must not be shorter the second time.
    block = random.Random(3).randbytes(1 << bits)
    mine, other = pair(Parameters(client_max_window_bits=bits))
    message = block + block
    compressed = mine.encode(message)
    assert len(compressed) > len(message)
    assert other.decode(compressed, end=True) == message
    near = random.Random(4).randbytes((1 << bits) // 4)
    if bits > 8:  # within the window it is
        assert len(mine.encode(near + near)) < 1.8 * len(near)
    assert zlib.decompressobj(-bits).decompress(compressed) == message


def test_context_is_taken_over_or_not() -> None:
    message = text(400)
    keeps, _ = pair(Parameters())
    assert len(keeps.encode(message)) > 3 * len(keeps.encode(message))
    forgets, _ = pair(Parameters(client_no_context_takeover=True))
    assert forgets.encode(message) == forgets.encode(message)


def memory_of(agreed: Parameters, sockets: int = 50) -> float:
    """Bytes that each of so many pairs keeps after a message both ways."""
    message = text(2000)
    gc.collect()
    tracemalloc.start()
    try:
        pairs = [pair(agreed) for _ in range(sockets)]
        for client, server in pairs:
            server.decode(client.encode(message), end=True)
            client.decode(server.encode(message), end=True)
        return tracemalloc.get_traced_memory()[0] / sockets
    finally:
        tracemalloc.stop()


def test_memory_goes_with_the_message_when_no_context_is_kept() -> None:
    assert memory_of(Parameters(True, True, 12, 12)) < 1500
    assert memory_of(Parameters(False, False, 12, 12)) > 40_000  # else it was not measured
    assert memory_of(Parameters(True, False, 12, 12)) < 60_000


def test_silent_sockets_cost_nothing() -> None:
    tracemalloc.start()
    try:
        silent = [pair(Parameters()) for _ in range(100)]
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert len(silent) == 100


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize("cut", [1, 7, 1 << 20])
@pytest.mark.parametrize("room", [0, 1, 999, 1000, 4096])
def test_a_limit_is_exact(room: int, cut: int) -> None:
    def receive(size: int) -> int:
        mine, other = pair(Parameters())
        compressed = mine.encode(b"x" * size)
        got = 0
        for at in range(0, len(compressed), cut):
            got += len(other.decode(compressed[at : at + cut], end=False, room=room - got))
        return got + len(other.decode(b"", end=True, room=room - got))

    assert receive(room) == room
    with pytest.raises(DeflateError) as caught:
        receive(room + 1)
    assert caught.value.code == 1009


def test_a_bomb_is_not_inflated() -> None:
    mine, other = pair(Parameters())
    bomb = b"".join(mine.encode(bytes(1 << 20), end=False) for _ in range(50))
    assert len(bomb) < 300_000
    tracemalloc.start()
    try:
        with pytest.raises(DeflateError) as caught:
            other.decode(bomb, end=True, room=100_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.code == 1009


@pytest.mark.parametrize("bad", [b"\xff\xff\xff", b"\x06", b"\x01\x00\x00\x00\x00"])
def test_what_is_not_compressed(bad: bytes) -> None:
    _, other = pair(Parameters())
    with pytest.raises(DeflateError) as caught:
        other.decode(bad + b"\x00" * 8, end=True)
    assert caught.value.code == 1002


def test_a_message_that_ends_its_stream() -> None:
    # Section 7.2.3.4: a block with BFINAL, then a byte that makes the tail which is added an empty block.
    _, other = pair(Parameters())
    for message in (b"Hello", text(3000)):
        deflater = zlib.compressobj(wbits=-15)
        compressed = deflater.compress(message) + deflater.flush(zlib.Z_FINISH) + b"\x00"
        assert other.decode(compressed, end=True) == message
    assert other.decode(bytes.fromhex("f248cdc9c90700"), end=True) == b"Hello"  # section 7.2.3.1


def test_ends_without_end_are_refused() -> None:
    # Each would cost a copy of all that follows.
    _, other = pair(Parameters())
    with pytest.raises(DeflateError) as caught:
        other.decode(b"\x03\x00" * 100_000, end=True)
    assert caught.value.code == 1002
