"""Fields of a message, decoded when somebody asks.

The engine hands over checked text (cext/src/head.h): LF, then `name NUL value LF` for each field, with
pseudo-fields first. Neither separator occurs in a name or value, so one field is found by a search in the
bytes; the whole is only taken apart to be iterated over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from .exceptions import error

_NEEDLES_MAX = 1024

_SEPARATORS = re.compile("[\\0\\r\\n]")

_needles: dict[str, bytes] = {}
"""`\\nname\\0` for names that were asked for. Bounded, since names may come from outside."""


_NOTHING = b"\n\0"
"""Found nowhere: no name is empty."""

_HOST = b"\n:authority\0"
"""What a Host field would say stands there (RFC 9114, section 4.3.1)."""


def _needle(name: str) -> bytes:
    lower = name.lower()
    if lower == "host":
        needle = _HOST
    elif lower.isprintable() and lower.isascii():
        needle = b"\n%s\0" % lower.encode()
    else:
        needle = _NOTHING
    if len(_needles) >= _NEEDLES_MAX:
        _needles.clear()
    _needles[name] = needle
    return needle


def _join(name: str, values: list[str]) -> str:
    # Cookies are the exception (RFC 9114, section 4.2.1).
    return ("; " if name == "cookie" else ", ").join(values)


def _list(text: bytes, needle: bytes) -> list[str]:
    values = []
    at = text.find(needle)
    while at >= 0:
        start = at + len(needle)
        end = text.find(b"\n", start)
        values.append(text[start:end].decode("latin-1"))
        at = text.find(needle, end)
    return values


class Headers(Mapping[str, str]):
    """An immutable, case-insensitive mapping from field names to values.

    Several fields of one name are joined with ", " (cookie with "; "); `get_list` gives them apart, which
    is what `set-cookie` needs. Names are lower case; values are decoded as latin-1, which loses nothing.
    """

    __slots__ = ("_pairs", "_text")

    def __init__(self, text: bytes = b"\n") -> None:
        self._text = text
        self._pairs: list[tuple[str, str]] | None = None

    @classmethod
    def of(cls, items: Mapping[str, str] | Iterable[tuple[str, str]]) -> Headers:
        """From a mapping or pairs, as a test or an application writes them."""
        lines = []
        for name, value in items.items() if isinstance(items, Mapping) else items:
            if not name or _SEPARATORS.search(name) or _SEPARATORS.search(value):
                raise error("argument", f"{name!r}: {value!r} is not a field (RFC 9110, section 5)")
            lower = name.lower()
            lines.append(f"{':authority' if lower == 'host' else lower}\0{value}\n")
        return cls(b"\n" + "".join(lines).encode("latin-1"))

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """The value of the field, or `default`."""
        needle = _needles.get(name) or _needle(name)
        text = self._text
        at = text.find(needle)
        if at < 0:
            # A response may have a Host field, which means nothing but is listed.
            return ", ".join(_list(text, b"\nhost\0")) or default if needle is _HOST else default
        start = at + len(needle)
        end = text.find(b"\n", start)
        if text.find(needle, end) < 0:
            return text[start:end].decode("latin-1")
        return _join(name.lower(), self.get_list(name))

    def get_list(self, name: str) -> list[str]:
        """The values of all fields of this name, in order."""
        needle = _needles.get(name) or _needle(name)
        values = _list(self._text, needle)
        return _list(self._text, b"\nhost\0") if needle is _HOST and not values else values

    def multi_items(self) -> list[tuple[str, str]]:
        """All fields in order, repeated names and all, without the pseudo-fields."""
        if self._pairs is None:
            parts = self._text.decode("latin-1").replace("\0", "\n").split("\n")[1:-1]
            pairs = zip(parts[::2], parts[1::2], strict=True)
            self._pairs = [
                ("host" if name == ":authority" else name, value)
                for name, value in pairs
                if name[0] != ":" or name == ":authority"
            ]
        return self._pairs

    @property
    def raw(self) -> bytes:
        """The text as the engine gave it."""
        return self._text

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self.multi_items()))

    def __len__(self) -> int:
        return len({name for name, _ in self.multi_items()})

    def __repr__(self) -> str:
        return f"Headers({self.multi_items()!r})"
