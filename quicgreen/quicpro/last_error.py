"""`quicpro_get_last_error`: how the calling greenlet's last call of this package ended.

As C's errno is a thread's, this is a greenlet's: what fails in one says nothing to another. Unlike errno it
is set by success too.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, cast

from greenlet import getcurrent

from ..exceptions import QUIC_ERROR_INTERNAL, QUIC_ERROR_OK, QUIC_ERROR_TIMEOUT, QuicException

_Function = TypeVar("_Function", bound=Callable[..., Any])

failed: dict[int, tuple[int, Any]] = {}
"""(code, reference) of greenlets whose last call failed, by their `id`; an entry goes with its greenlet. When
there is none a success has nothing to note."""


def note(e: BaseException) -> None:
    """The calling greenlet's call failed with this."""
    if isinstance(e, QuicException):
        code = e.code
    else:
        code = QUIC_ERROR_TIMEOUT if isinstance(e, TimeoutError) else QUIC_ERROR_INTERNAL
    current = getcurrent()
    key = id(current)
    failed[key] = (code, weakref.ref(current, lambda _: failed.pop(key, None)))


def clear() -> None:
    """The calling greenlet's call succeeded."""
    failed.pop(id(getcurrent()), None)


def noted(function: _Function) -> _Function:
    """The function, whose end is noted."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            result = function(*arguments, **options)
        except BaseException as e:
            note(e)
            raise
        if failed:
            clear()
        return result

    return cast(_Function, call)


def quicpro_get_last_error() -> int:
    """One of the `QUIC_ERROR_*` constants: `QUIC_ERROR_OK` when the calling greenlet's last call of this
    package succeeded, or there was none."""
    return failed.get(id(getcurrent()), (QUIC_ERROR_OK, None))[0]
