"""permessage-deflate (RFC 7692): what both sides agree on, and messages to and from compressed bytes. No I/O.

A client: `offer()` makes the field's value, `agreed(field)` reads the answer. A server: `accept(field)` gives
the answer's value and what was agreed. Both stand on the same `Parameters`, and choose as `websockets` does.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any

NAME = "permessage-deflate"

MESSAGE_TOO_BIG = 1009
PROTOCOL_ERROR = 1002

_MEMORY_LEVEL = 5
"""Half of zlib's memory for its hash tables: for messages, which are short, it costs next to nothing."""

_LEVEL = 1
"""Of zlib's nine. With it 1 KiB of prose takes 11 µs and leaves 345 bytes; with 3 it is 16 µs and 301 bytes,
with 6, zlib's own choice, 34 µs and 272 bytes (window of 4 KiB)."""

_TAIL = b"\x00\x00\xff\xff"
"""The end of a flush, which a message is sent without (section 7.2.1)."""

_EMPTY = b"\x00"
"""A message, or the last frame of one, without a byte (section 7.2.3.6). zlib need not be asked for it."""

_MAX_STREAMS = 8
"""In one piece: each end costs a copy of what follows, and a sender needs one for a message."""

_BITS = {str(bits): bits for bits in range(8, 16)}

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME = re.compile(rf"[ \t]*({_TOKEN})[ \t]*")
_PARAMETER = re.compile(rf';[ \t]*({_TOKEN})[ \t]*(?:=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")[ \t]*)?')


class NegotiationError(ValueError):
    """The field is malformed, or says what cannot be agreed to."""


class DeflateError(Exception):
    """A message that cannot be inflated, or is larger than it may be.

    Attributes:
        code: the close code for it, 1002 or 1009.
        text: what was wrong.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


# ---------------------------------------------------------------- what is agreed on


@dataclass(frozen=True)
class Parameters:
    """The extension's parameters (section 7.1): those of an offer, of an answer, or those one wants.

    Attributes:
        server_no_context_takeover, client_no_context_takeover:
            each message of that side stands for itself: worse compression, and no memory between messages.
        server_max_window_bits, client_max_window_bits:
            how far back that side's messages may refer, as a power of two from 8 to 15; None says nothing,
            which is 15. In an offer the client's may be True: "tell me".
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    def __post_init__(self) -> None:
        for name in ("server_max_window_bits", "client_max_window_bits"):
            bits = getattr(self, name)
            if bits is None or (bits is True and name.startswith("client")):
                continue
            if bits not in range(8, 16):
                raise ValueError(f"{name} is a number from 8 to 15, not {bits!r}")

    def __str__(self) -> str:
        """The field's value."""
        said = [NAME]
        for name, value in vars(self).items():
            if value is True:
                said.append(name)
            elif value:
                said.append(f"{name}={value}")
        return "; ".join(said)


CLIENT = Parameters(client_max_window_bits=True)
"""The server may choose."""

SERVER = Parameters(server_max_window_bits=12, client_max_window_bits=12)
"""A window of 4 KiB holds what chat and JSON repeat. A socket that sends and receives then costs some 43 kB;
with zlib's 32 KiB it would be 183 (the sums are zlib's: zconf.h)."""


def offer(wanted: Parameters = CLIENT) -> str:
    """A client's Sec-WebSocket-Extensions."""
    return str(wanted)


def accept(field: str, wanted: Parameters = SERVER) -> tuple[str, PerMessageDeflate] | None:
    """A server's choice: the first offer that it can take. None: no compression.

    Args:
        field: the client's Sec-WebSocket-Extensions; several lines joined by commas.
    Raises:
        NegotiationError: the field is malformed. Offers that cannot be taken are passed over.
    """
    for name, pairs in parse(field):
        if name != NAME:
            continue
        try:
            offered = _read(pairs, in_offer=True)
        except NegotiationError:
            continue
        client_bits = offered.client_max_window_bits
        if client_bits is not None:  # else the client does not know the parameter
            client_bits = None if client_bits is True else client_bits
            client_bits = _smaller(client_bits, wanted.client_max_window_bits)
        chosen = Parameters(
            offered.server_no_context_takeover or wanted.server_no_context_takeover,
            offered.client_no_context_takeover or wanted.client_no_context_takeover,
            _smaller(offered.server_max_window_bits, wanted.server_max_window_bits),
            client_bits,
        )
        return str(chosen), PerMessageDeflate(chosen, is_server=True)
    return None


def agreed(field: str, wanted: Parameters = CLIENT) -> PerMessageDeflate | None:
    """What a server answered to `offer(wanted)`. None: no compression.

    Args:
        field: the server's Sec-WebSocket-Extensions; several lines joined by commas.
    Raises:
        NegotiationError: it is malformed, or not an answer to the offer.
    """
    found = parse(field)
    if not found:
        return None
    if len(found) > 1 or found[0][0] != NAME:
        raise NegotiationError(f"the server chose extensions that were not offered: {field}")
    answer = _read(found[0][1], in_offer=False)
    server_bits, client_bits = answer.server_max_window_bits, answer.client_max_window_bits
    if wanted.server_no_context_takeover and not answer.server_no_context_takeover:
        raise NegotiationError("the server did not agree to server_no_context_takeover")
    if wanted.server_max_window_bits and (server_bits or 16) > wanted.server_max_window_bits:  # 16: not said
        raise NegotiationError("the server did not agree to server_max_window_bits")
    limit = wanted.client_max_window_bits
    if client_bits is not None and limit is None:
        raise NegotiationError("the server sent client_max_window_bits, which was not offered")
    if limit is not None and limit is not True:
        client_bits = client_bits or limit
        if client_bits > limit:
            raise NegotiationError("the server sent a larger client_max_window_bits than was offered")
    chosen = Parameters(
        answer.server_no_context_takeover,
        answer.client_no_context_takeover or wanted.client_no_context_takeover,
        server_bits,
        client_bits,
    )
    return PerMessageDeflate(chosen, is_server=False)


def parse(field: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """Extensions of a field, each with its parameters (RFC 6455, section 9.1).

    Raises:
        NegotiationError: the field is malformed.
    """
    found = []
    at = 0
    while at < len(field):
        if field[at] in ", \t":  # elements of a list may be empty (RFC 9110, section 5.6.1)
            at += 1
            continue
        match = _NAME.match(field, at)
        pairs: list[tuple[str, str | None]] = []
        name = match[1] if match else ""
        while match:
            at = match.end()
            if match := _PARAMETER.match(field, at):
                quoted = match[3]
                pairs.append((match[1], match[2] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)))
        if not name or field[at : at + 1] not in ("", ","):
            raise NegotiationError(f"Sec-WebSocket-Extensions is malformed: {field}")
        found.append((name, pairs))
    return found


def _read(pairs: list[tuple[str, str | None]], *, in_offer: bool) -> Parameters:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise NegotiationError(f"{name} is there twice")
        if name.endswith("_no_context_takeover") and value is None:
            values[name] = True
        elif name.endswith("_max_window_bits") and value in _BITS:
            values[name] = _BITS[value]
        elif name == "client_max_window_bits" and value is None and in_offer:
            values[name] = True
        else:
            raise NegotiationError(f"{name}={value} means nothing")
    try:
        return Parameters(**values)
    except TypeError:
        raise NegotiationError(f"one of {', '.join(values)} is not known") from None


def _smaller(one: int | None, other: int | None) -> int | None:
    return min((bits for bits in (one, other) if bits is not None), default=None)


# ---------------------------------------------------------------- messages


class PerMessageDeflate:
    """Compresses one side's messages, and inflates the other's.

    zlib's memory is taken with the first message, and given back after each one where the context is not
    taken over: a socket that is silent costs nothing.

    Attributes:
        parameters: what was agreed on.
    """

    __slots__ = (
        "_deflater", "_forget", "_inflater", "_local_bits", "_remote_bits", "_remote_forgets", "parameters",
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, is_server: bool) -> None:
        self.parameters = parameters
        server = parameters.server_no_context_takeover, parameters.server_max_window_bits or 15
        client = parameters.client_no_context_takeover, parameters.client_max_window_bits or 15
        local, remote = (server, client) if is_server else (client, server)
        self._forget, self._local_bits = local
        self._remote_forgets, self._remote_bits = remote
        self._deflater: Any = None
        self._inflater: Any = None

    def encode(self, data: bytes | bytearray | memoryview, *, end: bool = True) -> bytes:
        """Compress a message, or its next frame's part of it; all of a part can be inflated when it arrives.

        Args:
            end: the message ends with it.
        """
        if not len(data):
            compressed: bytes = _EMPTY if end else b""
        else:
            if self._deflater is None:
                self._deflater = _new_deflater(self._local_bits)
            compressed = self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
            if end:
                compressed = compressed[: -len(_TAIL)]
        if end and self._forget:
            self._deflater = None
        return compressed

    def decode(self, data: bytes | bytearray | memoryview, *, end: bool, room: int | None = None) -> bytes:
        """Inflate the next piece of a message.

        Args:
            end: the message ends with it.
            room: how many bytes the message may still get; None for any.
        Raises:
            DeflateError: it is no compressed data (1002), or there was more than `room` (1009). Nothing can
                be decoded any more then.
        """
        try:
            inflated = self._inflate(data, room)
            if end:
                inflated += self._inflate(_TAIL, None if room is None else room - len(inflated))
        except zlib.error as e:
            raise DeflateError(PROTOCOL_ERROR, f"the compressed data is damaged: {e}") from None
        if end and self._remote_forgets:
            self._inflater = None
        return inflated

    def _inflate(self, data: bytes | bytearray | memoryview, room: int | None) -> bytes:
        """All that is in `data`; at most one byte more than there is room for, however much that would be."""
        inflated: bytes = b""
        for _ in range(_MAX_STREAMS):
            if not len(data):
                return inflated
            if self._inflater is None:
                self._inflater = zlib.decompressobj(-self._remote_bits)
            # 0 would be no limit.
            piece = self._inflater.decompress(data, 0 if room is None else room - len(inflated) + 1)
            inflated = inflated + piece if inflated else piece
            if room is not None and len(inflated) > room:
                raise DeflateError(MESSAGE_TOO_BIG, "the message inflates to more than it may have")
            if not self._inflater.eof:
                return inflated
            # A sender may end zlib's stream with a message, and begin another (section 7.2.3.4).
            data = self._inflater.unused_data
            self._inflater = None
        raise DeflateError(PROTOCOL_ERROR, "the compressed data ends again and again")


def _new_deflater(bits: int) -> Any:
    if bits == 8:
        # zlib has no window of 256 bytes, and without any reference back none is needed.
        return zlib.compressobj(wbits=-9, memLevel=_MEMORY_LEVEL, strategy=zlib.Z_HUFFMAN_ONLY)
    return zlib.compressobj(_LEVEL, wbits=-bits, memLevel=_MEMORY_LEVEL)
