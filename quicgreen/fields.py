"""Field lines to send, encoded once.

Without a dynamic table an encoded line (RFC 9204, section 4.5) means the same on every connection, so the
lines of an application's few hundred distinct fields are kept, and a head is a join of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ._engine import encode_field
from .exceptions import error

FieldValue = str | bytes | int
Fields = Mapping[str, FieldValue] | Iterable[tuple[str, FieldValue]]

_KEPT_MAX = 4096
"""Entries of each of the tables below; a full one is emptied, which costs its users one encoding each."""

_VALUE_MAX = 256
"""Longer values (tokens, cookies) are seldom sent twice, and should not be kept in memory."""

_PLAIN_MAX = 126
"""A length that fits the first byte of a string (RFC 7541, section 5.2)."""

lines: dict[tuple[str, FieldValue], bytes] = {}
"""(name, value) -> encoded line, for those that were sent before."""

_once: set[tuple[str, FieldValue]] = set()
"""Those that were sent once: ids and times differ each time, and are not worth more."""

_names: dict[str, bytes] = {}
"""name -> the encoded line up to its value."""

statuses: dict[int, bytes] = {}
lengths: dict[int, bytes] = {}

# First bytes of encoded lines that a response looks for (RFC 9204, appendix A): content-length is entry 4
# of the static table, with "0" as its value; date is entry 6.
CONTENT_LENGTH_FIRST = (0x54, 0xC4)
DATE_FIRST = 0x56


def line(name: str, value: FieldValue) -> bytes:
    """Encode one field; b"" when HTTP/3 does not carry it (`connection` and its like).

    Raises:
        QuicClientException: the name or the value is not allowed in a field.
    """
    key = (name, value)
    if key not in _once:
        prefix = _names.get(name)
        if (
            prefix is not None
            and isinstance(value, str)
            and value.isascii()
            and value.isprintable()
            and len(value) <= _PLAIN_MAX
            and value.strip() == value
        ):
            if len(_once) >= _KEPT_MAX:
                _once.clear()
            _once.add(key)
            return b"%b%c%b" % (prefix, len(value), value.encode())
    encoded = _encode(name, value)
    if len(encoded) <= _VALUE_MAX:
        if len(lines) >= _KEPT_MAX:
            lines.clear()
        lines[key] = encoded
        _once.discard(key)
    return encoded


def pseudo_line(name: str, value: FieldValue) -> bytes:
    """Encode a pseudo-field (RFC 9114, section 4.3). Only the layers that make a head's beginning use it: an
    application's fields are not to change who is asked for what."""
    return _encode(name, value, pseudo=True)


def _encode(name: str, value: FieldValue, pseudo: bool = False) -> bytes:
    """By the engine: with its checks, and coded where that is shorter."""
    try:
        if not isinstance(value, (str, bytes, int)):
            raise AttributeError  # "None" or "1.50000001" is hardly what was meant
        if isinstance(name, str) and name.startswith(":") and not pseudo:
            raise AttributeError
        raw = value if isinstance(value, bytes) else str(value).encode("latin-1")
        encoded = encode_field(name.encode("latin-1"), raw)
        # "~" is in no entry of the static table and shorter uncoded: two bytes, after the name.
        prefix = None if pseudo else encode_field(name.encode("latin-1"), b"~")
    except (UnicodeEncodeError, AttributeError):
        encoded = prefix = None
    if encoded is None:
        raise error("argument", f"{name!r}: {value!r} is not a field (RFC 9110, section 5)")
    if prefix:
        if len(_names) >= _KEPT_MAX:
            _names.clear()
        _names[name] = prefix[:-2]
    return encoded


def pairs(fields: Fields) -> Iterable[tuple[str, FieldValue]]:
    """Names and values, in order."""
    items = getattr(fields, "items", None)
    return items() if items is not None else fields  # type: ignore[return-value]


def encode(fields: Fields) -> bytes:
    """Encode all fields, in order."""
    known = lines.get
    items = fields.items() if isinstance(fields, Mapping) else fields
    return b"".join([known(item) or line(*item) for item in items])


def status_line(status: int) -> bytes:
    """The :status of a response."""
    encoded = statuses.get(status)
    if encoded is None:
        if not isinstance(status, int) or not 100 <= status <= 999 or status == 101:
            raise error("argument", f"{status!r} is not an HTTP/3 status code")
        encoded = statuses[int(status)] = pseudo_line(":status", int(status))
    return encoded


def length_line(length: int) -> bytes:
    """content-length."""
    encoded = lengths.get(length)
    if encoded is None:
        if len(lengths) >= _KEPT_MAX:
            lengths.clear()
        encoded = lengths[length] = line("content-length", length)
    return encoded


def length_of(value: FieldValue) -> int:
    """The value of a content-length field.

    Raises:
        QuicClientException: it is not a number.
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    if not (text.isascii() and text.isdecimal()):
        raise error("argument", f"{value!r} is not a content-length (RFC 9110, section 8.6)")
    return int(text)


def path_line(path: str) -> bytes:
    """:path. Paths differ more than they repeat, so a short one is sent as it is, not in Huffman's code."""
    if not (path.isascii() and path.isprintable()) or " " in path or "#" in path:
        raise error("argument", f"{path!r} is not a path: quote what is not allowed in one (RFC 3986)")
    if path[:1] != "/" and path != "*":
        raise error("argument", f"{path!r} is not a path: it begins with a slash")
    return plain_path_line(path)


def plain_path_line(path: str) -> bytes:
    """The same for what is known to be a path."""
    if len(path) <= _PLAIN_MAX:
        return b"\x51%c%b" % (len(path), path.encode())
    return pseudo_line(":path", path)
