"""The corpus that fuzzing begins with: `write(folder)`. In words of the targets' own input formats, so that
it says what it is, and changes with them."""

from __future__ import annotations

from pathlib import Path


def piece(data: bytes) -> bytes:
    """With its length before it, as fuzz_bytes reads it."""
    return bytes([len(data)]) + data


def frame(kind: int, payload: bytes) -> bytes:
    """An HTTP/3 frame; both numbers are below 64."""
    return bytes([kind, len(payload)]) + payload


# ---------------------------------------------------------------- fields

GET = b"\x00\x00\xd1\xd7\xc1\x50\x06a.test"
"""GET / of https://a.test: three lines of the static table, and one with a name of it."""

LITERAL = b"\x27\x03x-first\x05hello"
CODED = b"\x2f\x01\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf"
OK = b"\x00\x00\xd9\x54\x015"
"""Status 200, and a content-length of 5."""

FIELDS = {
    "huffman": b"\x00\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    "lines": b"\x01" + GET + LITERAL + CODED,
    "request": b"\x02" + GET + LITERAL,
    "request-priority": b"\x02" + GET + b"\x27\x01priority\x06u=1, i",
    "request-connect": b"\x03\x00\x00\xcf\x50\x06a.test\x27\x02:protocol\x09websocket\xd7\xc1",
    "response": b"\x04" + OK + LITERAL,
    "trailers": b"\x05\x00\x00" + LITERAL + CODED,
    "encode": b"\x06" + piece(b"Content-Type") + piece(b"text/plain; charset=utf-8"),
    "encode-pseudo": b"\x06" + piece(b":path") + piece(b"/index.html?a=b"),
    "priority": b"\x07u=5, i=?1, x;y=z",
}

# ---------------------------------------------------------------- ids

IDS = {
    "token": b"\x00" + piece(bytes(12)) + piece(bytes(64)),
    "token-altered": b"\x01" + piece(bytes(12)) + piece(b"original") + b"\x20\x01\x00",
    "token-whole": b"\x01" + piece(bytes(12)) + piece(b"original") + b"\x00\x00\x05",
    "cids": b"\x02\x07" + piece(b"\x0b\x00\x07\x08\x09\x00\x00\x00rand"),
    "reset": b"\x03\x04\xb0\x40\x01",
    "address": b"\x04" + piece(b"fe80::1%lo"),
    "address-4": b"\x04" + piece(b"192.0.2.1"),
}

# ---------------------------------------------------------------- streams

SERVER, CLIENT, SMALL_RING, EXTENDED, LITTLE_CREDIT = 1, 0, 2, 4, 8
UNI, BIDI, WRITE, SHUTDOWN, TURN, ACT = 0, 1, 2, 5, 6, 7
FIN = 8


def on(op: int, stream: int) -> int:
    """The operation on the stream opened as number `stream`."""
    return op | stream << 4


def opened(op: int, data: bytes) -> bytes:
    return bytes([op]) + piece(data)


def wrote(stream: int, data: bytes, flags: int = 0) -> bytes:
    return bytes([on(WRITE, stream) | flags]) + piece(data)


def act(what: int, argument: int = 0) -> bytes:
    return bytes([ACT, what, argument])


NEXT = bytes([TURN])
CONTROL = opened(UNI, b"\x00" + frame(4, b"\x06\x40\x64\x01\x00\x07\x00"))
HEADERS = frame(1, GET)
DATA = frame(0, b"hello")
TRAILERS = frame(1, b"\x00\x00" + LITERAL)
RESPONSE = frame(1, OK)

STREAMS = {
    "get": bytes([SERVER]) + CONTROL + opened(BIDI | FIN, HEADERS) + NEXT + act(0, 0x70) + NEXT,
    "post": bytes([SERVER])
    + CONTROL
    + opened(BIDI, HEADERS[:4])
    + NEXT
    + wrote(1, HEADERS[4:] + DATA[:3])
    + NEXT
    + act(2, 16)
    + wrote(1, DATA[3:] + DATA + TRAILERS, FIN)
    + NEXT
    + act(2, 0xF0)
    + act(0, 0x10)
    + act(4, 0x41)
    + act(5)
    + NEXT,
    "qpack": bytes([SERVER]) + CONTROL + opened(UNI, b"\x02\x20") + opened(UNI, b"\x03\x44") + NEXT,
    "grease": bytes([SERVER]) + opened(UNI, b"\x21hello") + opened(BIDI, frame(0x21, b"x") + HEADERS) + NEXT,
    "priority": bytes([SERVER])
    + CONTROL
    + opened(BIDI, HEADERS)
    + wrote(0, b"\x80\x0f\x07\x00\x04\x00u=1")
    + NEXT,
    "push": bytes([SERVER]) + opened(UNI, b"\x01\x00") + NEXT,
    "too-large": bytes([SERVER]) + opened(BIDI, b"\x01\x50\x00" + GET + bytes(60)) + NEXT,
    "reset": bytes([SERVER | LITTLE_CREDIT])
    + opened(BIDI, HEADERS)
    + opened(BIDI, HEADERS)
    + NEXT
    + bytes([on(SHUTDOWN, 0), 7])
    + NEXT
    + act(9, 5)
    + NEXT
    + act(6, 1)
    + act(7)
    + NEXT,
    "many": bytes([SERVER | SMALL_RING]) + opened(BIDI | FIN, HEADERS) * 7 + NEXT + act(0, 0x70) * 4 + NEXT,
    "connect": bytes([SERVER | EXTENDED])
    + CONTROL
    + opened(BIDI, frame(1, FIELDS["request-connect"][1:]))
    + NEXT
    + act(0, 0x10)
    + NEXT,
    "stop": bytes([SERVER]) + opened(BIDI | FIN, HEADERS) + NEXT + act(11, 0xFE) + NEXT + act(0, 0x70) + NEXT,
    "response": bytes([CLIENT])
    + NEXT
    + CONTROL
    + wrote(1, RESPONSE + DATA, FIN)
    + wrote(2, RESPONSE, FIN)
    + NEXT
    + act(2, 0xF0)
    + NEXT,
    "interim": bytes([CLIENT])
    + NEXT
    + wrote(1, frame(1, b"\x00\x00\xd8") + RESPONSE[:3])
    + NEXT
    + wrote(1, RESPONSE[3:] + DATA + TRAILERS, FIN)
    + NEXT
    + act(2, 0xF0)
    + act(9, 1)
    + NEXT,
    "goaway": bytes([CLIENT]) + CONTROL + wrote(4, frame(7, b"\x04")) + NEXT + act(9, 1) + NEXT,
}

# ---------------------------------------------------------------- datagrams

RETRY, FEW, CLOSE = 1, 2, 4
RAW, PADDED, LONG, INITIAL, SHORT, TO_SERVER, TO_CLIENT, REQUEST, STEP = range(9)


def do(op: int, *pieces: bytes, origin: int = 0, extra: bytes = b"") -> bytes:
    return bytes([op, origin]) + extra + b"".join(map(piece, pieces))


GO = do(STEP) * 6
ID = b"client-id"

DATAGRAMS = {
    "handshake": bytes([0]) + GO + do(REQUEST) + GO,
    "handshake-retry": bytes([RETRY | CLOSE]) + GO + do(REQUEST) + GO,
    "lossy": bytes([0]) + do(TO_SERVER, extra=b"\x01\0\0") + do(TO_CLIENT, extra=b"\x02\x30\x01") + GO * 2,
    "raw": bytes([0]) + do(RAW, b"\x40" + bytes(60)) + do(RAW | 0x90, bytes(40)) + GO,
    "version": bytes([0]) + do(PADDED, b"\xc0\xba\xba\xba\xba\x08" + ID[:8] + b"\x04scid") + GO,
    "long": bytes([RETRY]) + do(LONG, ID, b"scid", b"token", extra=b"\x00") + GO,
    "handshake-packet": bytes([0]) + do(LONG, ID, b"scid", b"", extra=b"\x20") + GO,
    "initial": bytes([FEW]) + do(INITIAL, ID, b"", b"\x01\x06\x00\x04\x01\x00\x00\x00") + GO,
    "initials": bytes([FEW]) + b"".join(do(INITIAL, ID + bytes([i]), b"", b"\x01") for i in range(5)) + GO,
    "initial-token": bytes([RETRY]) + do(INITIAL, ID, bytes(50), b"\x01") + GO,
    "short": bytes([0]) + GO + do(SHORT, bytes(40)) + do(SHORT, bytes(40), origin=0x15) + GO,
    "close-frame": bytes([0]) + do(INITIAL, ID, b"", b"\x1c\x0a\x00\x00") + GO,
}

# ---------------------------------------------------------------- ws

FRAMES, MASKED, DEFLATED, TEXT_ONLY, BUILD = 0, 1, 2, 0x40, 0x80


def ws(first: int, payload: bytes, key: bytes = b"") -> bytes:
    """A WebSocket frame, masked when there is a key."""
    n = len(payload)
    length = bytes([n]) if n < 126 else b"\x7e" + n.to_bytes(2, "big")
    masked = bytes(c ^ key[i % 4] for i, c in enumerate(payload)) if key else payload
    return bytes([first, length[0] | (0x80 if key else 0)]) + length[1:] + key + masked


KEY = b"\x37\xfa\x21\x3d"
WORDS = "Hello-µ@ßöäüàá-UTF-8!! κόσμε \U0001f600".encode()

WS = {
    "text": bytes([FRAMES, 3]) + ws(0x81, WORDS) * 2 + ws(0x88, b"\x03\xe8bye"),
    "text-masked": bytes([MASKED, 5]) + ws(0x81, WORDS, KEY) * 2 + ws(0x88, b"\x0f\xa0", KEY),
    "fragments": bytes([MASKED, 7])
    + ws(0x01, WORDS[:8], KEY)
    + ws(0x89, b"ping", KEY)
    + ws(0x00, b"", KEY)
    + ws(0x80, WORDS[8:], KEY)
    + ws(0x82, bytes(300), KEY),
    "fragments-plain": bytes([FRAMES, 1]) + ws(0x02, b"ab") + ws(0x8A, b"pong" * 20) + ws(0x80, bytes(130)),
    "deflated": bytes([MASKED | DEFLATED, 2]) + ws(0x41, b"\xf2\x48", KEY) + ws(0x80, b"\xcd\x00", KEY),
    "many": bytes([FRAMES, 40]) + ws(0x89, b"") * 40 + ws(0x82, b"x") * 20,
    "close-empty": bytes([FRAMES, 1]) + ws(0x88, b"") + ws(0x81, b"late"),
    "reserved": bytes([FRAMES, 2]) + ws(0x81, b"hi") + ws(0x83, b"no"),
    "not-utf8": bytes([FRAMES, 4]) + ws(0x81, WORDS + b"\xed\xa0\x80edited"),
    "huge": bytes([FRAMES, 9]) + b"\x82\x7f" + (1 << 40).to_bytes(8, "big") + bytes(40),
    "text-only": bytes([TEXT_ONLY, 3]) + WORDS * 3,
    "text-only-bad": bytes([TEXT_ONLY, 3]) + WORDS + b"\xf4\x90\x80\x80",
    "build": bytes([BUILD, 2 << 3 | 4 | 1]) + bytes(range(140)),
    "build-ping": bytes([BUILD, 9 << 3 | 4]) + b"ping",
}

# ---------------------------------------------------------------- eth

MAPPED, MENDED, CUT = 1, 2, 4
HEADS = bytes.fromhex("0a00000000010a0000000002")
IPV4 = bytes.fromhex("0800450000210000400040114e95c0000201c6336402")
IPV6 = bytes.fromhex("86dd60000000000d1140") + bytes.fromhex(
    "20010db8" + 22 * "0" + "0120010db8" + 22 * "0" + "02"
)
UDP4, UDP6 = (bytes.fromhex("9c401151000d" + checksum) + b"hello" for checksum in ("2239", "b2fb"))

ETH = {
    "ipv4": bytes([0, 0]) + HEADS + IPV4 + UDP4,
    "ipv4-mapped": bytes([MAPPED, 0]) + HEADS + IPV4 + UDP4 + bytes(13),
    "ipv4-mended": bytes([MENDED, 0]) + HEADS + IPV4 + UDP4,
    "ipv4-cut": bytes([CUT | MENDED, 3]) + HEADS + IPV4 + UDP4,
    "ipv6": bytes([0, 0]) + HEADS + IPV6 + UDP6,
    "ipv6-mended": bytes([MENDED, 0]) + HEADS + IPV6 + UDP6,
    "ipv6-cut": bytes([CUT | MENDED, 9]) + HEADS + IPV6 + UDP6,
    "large": bytes([MENDED, 0])
    + HEADS
    + IPV4[:4]
    + b"\x07\x08"
    + IPV4[6:]
    + UDP4[:4]
    + b"\x06\xf4"
    + bytes(1772),
    "arp": bytes([0, 0]) + b"\xff" * 6 + HEADS[6:] + b"\x08\x06" + bytes(28),
    "vlan": bytes([0, 0]) + HEADS + b"\x81\x00\x00\x05" + IPV4 + UDP4,
}

TARGETS = {"eth": ETH, "fields": FIELDS, "ids": IDS, "streams": STREAMS, "datagrams": DATAGRAMS, "ws": WS}


def write(folder: Path) -> dict[str, list[Path]]:
    """The files of each target, in folders of their names."""
    written: dict[str, list[Path]] = {}
    for target, inputs in TARGETS.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            file = folder / target / name
            file.write_bytes(data)
            written.setdefault(target, []).append(file)
    return written
