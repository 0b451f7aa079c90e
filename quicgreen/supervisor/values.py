"""What settings may be. Each check takes what a file, a variable or a program gave, and returns it as it is
used, or raises ValueError with what it should have been."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from gevent.baseserver import parse_address

_CPUS_MAX = 8192
"""As many as Linux counts on x86-64; beyond it a range is a slip."""


def number(least: int, most: int) -> Callable[[Any], int]:
    """A whole number in a range."""

    def check(value: Any) -> int:
        text = str(value).strip()
        if isinstance(value, bool) or not text.isascii() or not text.isdecimal():
            raise ValueError(f"a number from {least} to {most}")
        if not least <= int(text) <= most:
            raise ValueError(f"a number from {least} to {most}")
        return int(text)

    check.is_number = True  # type: ignore[attr-defined]
    return check


def seconds(value: Any) -> float:
    """A length of time."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if isinstance(value, bool) or not 0 <= found <= 1e9:
        raise ValueError("a number of seconds")
    return found


seconds.is_number = True  # type: ignore[attr-defined]


def text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("text")
    return value


def flag(value: Any) -> bool:
    """True or false; in the environment 1, yes, on, true and their opposites."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("1", "yes", "on", "true"):
        return True
    if word in ("0", "no", "off", "false"):
        return False
    raise ValueError("true or false")


def choice(*words: str) -> Callable[[Any], str]:
    """One of these words."""

    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(" or ".join(words))
        return str(value)

    check.choices = words  # type: ignore[attr-defined]
    return check


def spawn(value: Any) -> str | int:
    """`Server`'s spawn, as far as it can be written down."""
    if value in ("default", "raw"):
        return str(value)
    try:
        return number(1, 1 << 24)(value)
    except ValueError:
        raise ValueError("default, raw, or a number of at least 1") from None


def address(value: Any) -> str:
    """HOST:PORT; a port alone is every address of this machine."""
    try:
        _, (host, port, *_) = parse_address(int(value) if str(value).isdecimal() else value)
        if isinstance(host, str) and 0 <= int(port) <= 65535:
            return str(value)
    except (TypeError, ValueError):
        pass
    raise ValueError("of the form HOST:PORT")


def cpus(value: Any) -> str:
    """none, auto, or a list of CPUs that this process may use."""
    if value in ("none", "auto"):
        return str(value)
    allowed = os.sched_getaffinity(0)
    try:
        listed = cpu_list(str(value))
    except ValueError:
        listed = []
    if not listed or not set(listed) <= allowed:
        raise ValueError(f"none, auto, or a list of CPUs among {', '.join(map(str, sorted(allowed)))}")
    return str(value)


def cpu_list(value: str) -> list[int]:
    """The CPUs of "auto" or "0,2-3", in order; none of "none"."""
    if value == "none":
        return []
    if value == "auto":
        return sorted(os.sched_getaffinity(0))
    found: list[int] = []
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        found += range(int(first), min(int(last if dash else first), _CPUS_MAX) + 1)
    return found
