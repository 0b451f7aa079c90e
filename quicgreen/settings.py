"""Settings by the documentation's names: `quicpro.session_mode`, `quicpro.shm_size` and their kin.

Each comes from the first place that has it: the call (`Session(session_mode=...)`), the environment
(`QUICPRO_SESSION_MODE`), the file that `QUICPRO_CONFIG` names, the default. The file is TOML:

    [quicpro]
    session_mode = "ticket"      # or 2
    ticket_store = "redis://127.0.0.1:6379/0"

They are looked up where they are needed first, which is when a session begins, and not at import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from .exceptions import QuicWarningInvalidParameters, error, warn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODES = ("auto", "live", "ticket", "warm", "shm_lru")
"""Names of the session modes, by their number (`session_modes.SessionMode`)."""

_SHM_SIZE_MIN, _SHM_SIZE_MAX = 16 << 10, 8 << 20


class Setting(NamedTuple):
    """A value, and where it is from: "default", the environment variable, the file, or "given"."""

    value: Any
    source: str


def mode_number(value: Any) -> int:
    """Of a mode that is said by its name or its number.

    Raises:
        ValueError: there is none; says what there is.
    """
    text = str(int(value) if isinstance(value, IntEnum) else value).strip().lower().replace("-", "_")
    if text in MODES:
        return MODES.index(text)
    if not isinstance(value, bool) and text.isascii() and text.isdecimal() and int(text) < len(MODES):
        return int(text)
    raise ValueError(f"one of {', '.join(MODES)}, or 0 to {len(MODES) - 1}")


def _shm_size(value: Any) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.isdecimal() and _SHM_SIZE_MIN <= int(text) <= _SHM_SIZE_MAX):
        raise ValueError(f"a number of bytes, {_SHM_SIZE_MIN} to {_SHM_SIZE_MAX}")
    return int(text)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("text")
    return value


_KNOWN: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "session_mode": (0, mode_number),
    "shm_size": (65536, _shm_size),
    "shm_path": ("", _text),
    "ticket_store": ("", _text),
}
"""Name -> (default, check). `shm_path`: the file of the shared-memory LRU, "" for one of the user's.
`ticket_store`: a folder, or a Redis URL; "" for the user's cache folder."""


def check(name: str) -> Callable[[Any], Any]:
    """What gives a setting's value in its kind, or raises ValueError which says the kind."""
    return _KNOWN[name][1]


def load(
    environ: Mapping[str, str] | None = None, given: Mapping[str, Any] | None = None
) -> dict[str, Setting]:
    """All settings, by their names without "quicpro.". `given`: those that the program itself says.

    Raises:
        QuicClientException: the file cannot be read, or a value is not of its kind. A name that is not known
            is only warned of (`QuicWarningInvalidParameters`).
    """
    environ = os.environ if environ is None else environ
    path = environ.get("QUICPRO_CONFIG", "")
    table = _read(path) if path else {}
    for name in table.keys() - _KNOWN.keys():
        known = ", ".join(_KNOWN)
        warn(f"{path}: quicpro.{name} is not a setting; there are {known}", QuicWarningInvalidParameters)
    found = {}
    for name, (default, check) in _KNOWN.items():
        variable = f"QUICPRO_{name.upper()}"
        if given and name in given:
            value, source = given[name], "given"
        elif environ.get(variable):
            value, source = environ[variable], variable
        elif name in table:
            value, source = table[name], path
        else:
            value, source = default, "default"
        try:
            found[name] = Setting(check(value), source)
        except ValueError as e:
            raise error("argument", f"{source}: quicpro.{name} is {e}, not {value!r}") from None
    return found


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file).get("quicpro", {})
    except OSError as e:
        raise error("argument", f"QUICPRO_CONFIG: {path}: {e.strerror}", errno=e.errno) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise error("argument", f"QUICPRO_CONFIG: {path}: {e}") from None
    if not isinstance(table, dict):
        raise error("argument", f"QUICPRO_CONFIG: {path}: [quicpro] is a table")
    return table
