"""WebSocket frames as bytes, good and bad ones, and the cases of the Autobahn suite as a table of them.

Knows nothing of quicgreen. The numbers in the names are Autobahn's: what it asks of whoever echoes messages.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

_KEY = b"\x37\xfa\x21\x3d"
"""RFC 6455's own, section 5.7."""


@dataclass(frozen=True)
class Frame:
    """What RFC 6455 allows in a frame, and what not."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    def wire(self, *, masked: bool, length_bytes: int | None = None) -> bytes:
        """`length_bytes`: 1, 3 or 9, also when fewer would do."""
        n = len(self.payload)
        size = length_bytes or (1 if n < 126 else 3 if n < 65536 else 9)
        bit = 0x80 if masked else 0
        first = self.fin << 7 | self.rsv << 4 | self.opcode
        if size == 1:
            head = struct.pack("!BB", first, bit | n)
        elif size == 3:
            head = struct.pack("!BBH", first, bit | 126, n)
        else:
            head = struct.pack("!BBQ", first, bit | 127, n)
        return head + _KEY + mask(self.payload) if masked else head + self.payload


def mask(payload: bytes) -> bytes:
    key = (_KEY * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def close(code: int | None = None, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


@dataclass(frozen=True)
class Case:
    """Frames that are sent, and what an endpoint that echoes does with them.

    Attributes:
        messages: what it echoes. Where it must fail, it may do so before it has echoed the first ones.
        pongs: the payloads of its pongs.
        code: of its Close frame; 1005: a frame without one.
        chop: the bytes leave so many at a time; 0 for all at once.
    """

    name: str
    frames: list[Frame]
    messages: list[str | bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    code: int = 1000
    chop: int = 0

    @property
    def fails(self) -> bool:
        return self.code in (1002, 1007)

    @property
    def closes(self) -> bool:
        """The frames end it; else whoever runs the case closes."""
        return self.fails or any(f.opcode == CLOSE for f in self.frames)

    def wire(self, *, masked: bool) -> bytes:
        return b"".join(f.wire(masked=masked) for f in self.frames)


def _parts(data: bytes, size: int, opcode: int = TEXT) -> list[Frame]:
    """A message in frames of that size."""
    cut = [data[i : i + size] for i in range(0, len(data), size)]
    last = len(cut) - 1
    return [Frame(CONT if i else opcode, part, fin=i == last) for i, part in enumerate(cut)]


_SIZES = [0, 125, 126, 127, 128, 65535, 65536]

VALID_UTF8 = [
    "\u03ba\u1f79\u03c3\u03bc\u03b5",
    "Hello-\xb5@\xdf\xf6\xe4\xfc\xe0\xe1-UTF-8!!",
    "\0",
    "\x7f\x80\u07ff\u0800\uffff",  # the ends of each length
    "\ud7ff\ue000\ufffd\U00010000\U0010ffff",
    "\U0001fffe\U0010fffe",  # not characters, and allowed
]
INVALID_UTF8 = [
    "cebae1bdb9cf83cebcceb5eda080656469746564",  # a surrogate
    "cebae1bdb9cf83cebcceb5f4908080656469746564",  # beyond U+10FFFF
    "ce",  # cut off
    "cebae1",
    "f8888080 80",  # five bytes
    "fc8480808080",
    "f7bfbfbf",
    "80",  # continuation bytes alone
    "bf",
    "8080",
    "c020",
    "e0e1",
    "fe",
    "ff",
    "c0af",  # longer than need be
    "e080af",
    "f08080af",
    "c1bf",
    "e09fbf",
    "f08fbfbf",
    "eda080",  # surrogates
    "edbfbf",
    "eda080edb080",
]

_GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
_BAD_CODES = [0, 999, 1004, 1005, 1006, 1015, 1100, 2000, 2999, 5000, 65535]


def _echoes() -> list[Case]:
    cases = []
    for n in _SIZES:
        cases.append(Case(f"1.1 text of {n}", [Frame(TEXT, b"*" * n)], ["*" * n]))
        cases.append(Case(f"1.2 binary of {n}", [Frame(BINARY, b"\xfe" * n)], [b"\xfe" * n]))
    return [*cases, Case("1.1.8 chopped", [Frame(TEXT, b"*" * 6553)], ["*" * 6553], chop=997)]


def _pings() -> list[Case]:
    ten = [b"payload-%d" % i for i in range(10)]
    odd = bytes.fromhex("00fffefdfcfb00ff")
    return [
        Case("2.1 ping", [Frame(PING)], pongs=[b""]),
        Case("2.2 ping with text", [Frame(PING, b"Hello, world!")], pongs=[b"Hello, world!"]),
        Case("2.3 ping with bytes", [Frame(PING, odd)], pongs=[odd]),
        Case("2.4 ping of 125", [Frame(PING, b"\xfe" * 125)], pongs=[b"\xfe" * 125]),
        Case("2.5 ping of 126", [Frame(PING, b"\xfe" * 126)], code=1002),
        Case("2.6 ping of 125, chopped", [Frame(PING, b"\xfe" * 125)], pongs=[b"\xfe" * 125], chop=1),
        Case("2.7 pong unasked", [Frame(PONG)]),
        Case("2.8 pong unasked, with payload", [Frame(PONG, b"unsolicited")]),
        Case("2.9 pong unasked, then ping", [Frame(PONG, b"u"), Frame(PING, b"asked")], pongs=[b"asked"]),
        Case("2.10 ten pings", [Frame(PING, p) for p in ten], pongs=ten),
        Case("2.11 ten pings, chopped", [Frame(PING, p) for p in ten], pongs=ten, chop=1),
    ]


def _reserved() -> list[Case]:
    hello, ping = Frame(TEXT, b"Hello, world!"), Frame(PING)
    cases = [
        Case("3.1 RSV=1", [Frame(TEXT, b"Hello, world!", rsv=1)], code=1002),
        Case("3.2 RSV=2 after a text", [hello, Frame(TEXT, b"x", rsv=2), ping], ["Hello, world!"], code=1002),
        Case("3.3 RSV=3, chopped by frame", [hello, Frame(TEXT, b"x", rsv=3)], ["Hello, world!"], code=1002),
        Case("3.5 RSV=5, binary", [Frame(BINARY, b"\x00\xff", rsv=5)], code=1002),
        Case("3.6 RSV=6, ping", [Frame(PING, b"x", rsv=6)], code=1002),
        Case("3.7 RSV=7, close", [Frame(CLOSE, rsv=7)], code=1002),
        Case("3 RSV=4, continuation", [Frame(TEXT, b"a", fin=False), Frame(CONT, b"b", rsv=4)], code=1002),
    ]
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        cases.append(Case(f"4 opcode {opcode}", [Frame(opcode)], code=1002))
        after = [hello, Frame(opcode, b"x"), ping]
        cases.append(Case(f"4 opcode {opcode} after a text", after, ["Hello, world!"], code=1002))
    return cases


def _fragments() -> list[Case]:
    one, two = Frame(TEXT, b"fragment1", fin=False), Frame(CONT, b"fragment2")
    both = "fragment1fragment2"
    ping = Frame(PING, b"in between")
    five = [Frame(TEXT if i == 0 else CONT, b"f%d" % i, fin=i == 4) for i in range(5)]
    between = [f for part in five for f in (part, ping)]
    orphan = Frame(CONT, b"non-continuation payload")
    return [
        Case("5.1 ping in fragments", [Frame(PING, b"1", fin=False), Frame(CONT, b"2")], code=1002),
        Case("5.2 pong in fragments", [Frame(PONG, b"1", fin=False), Frame(CONT, b"2")], code=1002),
        Case("5.3 text in two", [one, two], [both]),
        Case("5.5 text in two, chopped", [one, two], [both], chop=1),
        Case("5.6 ping in between", [one, ping, two], [both], [b"in between"]),
        Case("5.8 ping in between, chopped", [one, ping, two], [both], [b"in between"], chop=1),
        Case("5.9 nothing to continue", [orphan, Frame(TEXT, b"Hello")], code=1002),
        Case("5.12 nothing to continue, not the end", [Frame(CONT, b"x", fin=False)], code=1002),
        Case("5.15 text, then nothing to continue", [one, two, orphan], [both], code=1002),
        Case("5.18 a text within a text", [one, Frame(TEXT, b"fragment2")], code=1002),
        Case("5 a binary within a text", [one, Frame(BINARY, b"fragment2")], code=1002),
        Case("5.19 pings between five", between, ["f0f1f2f3f4"], [b"in between"] * 5),
        Case("5 binary in frames of one", _parts(b"\x00\xff\x80", 1, BINARY), [b"\x00\xff\x80"]),
        Case("6.1.2 text without a byte, in three", _three(b""), [""]),
        Case("6.1.3 text with empty ends", _three(b"middle"), ["middle"]),
    ]


def _three(middle: bytes) -> list[Frame]:
    return [Frame(TEXT, fin=False), Frame(CONT, middle, fin=False), Frame(CONT)]


def _utf8() -> list[Case]:
    cases = []
    for i, text in enumerate(VALID_UTF8):
        data = text.encode()
        cases.append(Case(f"6.2 valid {i}", [Frame(TEXT, data)], [text]))
        cases.append(Case(f"6.2 valid {i}, a frame each byte", _parts(data, 1), [text]))
        cases.append(Case(f"6.2 valid {i}, chopped", [Frame(TEXT, data)], [text], chop=1))
    for i, digits in enumerate(INVALID_UTF8):
        data = bytes.fromhex(digits)
        cases.append(Case(f"6.3 invalid {i}", [Frame(TEXT, data)], code=1007))
        cases.append(Case(f"6.3 invalid {i}, a frame each byte", _parts(data, 1), code=1007))
        # Binary has no characters.
        cases.append(Case(f"6.3 invalid {i}, binary", [Frame(BINARY, data)], [data]))
    start = bytes.fromhex("cebae1bdb9cf83cebcceb5f4908080")
    cases.append(Case("6.4 told before the message ends", [Frame(TEXT, start, fin=False)], code=1007))
    return cases


def _closes() -> list[Case]:
    hello = Frame(TEXT, b"Hello World!")
    fragment = Frame(TEXT, b"fragment1", fin=False)
    cases = [
        Case("7.1.1 message, close", [hello, close(1000)], ["Hello World!"]),
        Case("7.1.2 two closes", [close(1000), close(1000)]),
        Case("7.1.3 ping after close", [close(1000), Frame(PING)]),
        Case("7.1.4 text after close", [close(1000), hello]),
        Case("7.1.5 close within a message", [fragment, close(1000), Frame(CONT, b"fragment2")]),
        Case("7.3.1 nothing in it", [close()], code=1005),
        Case("7.3.2 one byte in it", [Frame(CLOSE, b"a")], code=1002),
        Case("7.3.3 two bytes in it", [close(1000)]),
        Case("7.3.4 a reason", [close(1000, b"Hello World!")]),
        Case("7.3.5 a reason of 123", [close(1000, b"*" * 123)]),
        Case("7.3.6 a reason of 124", [close(1000, b"*" * 124)], code=1002),
        Case("7.5.1 a reason that is no UTF-8", [close(1000, bytes.fromhex(INVALID_UTF8[0]))], code=1007),
    ]
    cases += [Case(f"7.7 code {code}", [close(code)], code=code) for code in _GOOD_CODES]
    return cases + [Case(f"7.9 code {code}", [close(code)], code=1002) for code in _BAD_CODES]


CASES = [*_echoes(), *_pings(), *_reserved(), *_fragments(), *_utf8(), *_closes()]
