"""`quicpro_get_last_error`: how the calling greenlet's last call of this package ended.

As C's errno is a thread's, this is a greenlet's: what fails in one says nothing to another. Unlike errno it
is set by success too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from greenlet import getcurrent

from ..exceptions import QUIC_ERROR_INTERNAL, QUIC_ERROR_OK, QUIC_ERROR_TIMEOUT, QuicException

_KEY = "quicpro_last_error"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def noted(function: _Function) -> _Function:
    """The function, whose end is noted as the calling greenlet's last error."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            result = function(*arguments, **options)
        except BaseException as e:
            note(e)
            raise
        getcurrent().__dict__[_KEY] = QUIC_ERROR_OK
        return result

    return cast(_Function, call)


def note(e: BaseException) -> None:
    """This is how it ended."""
    code = QUIC_ERROR_TIMEOUT if isinstance(e, TimeoutError) else QUIC_ERROR_INTERNAL
    getcurrent().__dict__[_KEY] = e.code if isinstance(e, QuicException) else code


def quicpro_get_last_error() -> int:
    """One of the `QUIC_ERROR_*` constants: `QUIC_ERROR_OK` when the calling greenlet's last call of this
    package succeeded, or there was none."""
    code: int = getcurrent().__dict__.get(_KEY, QUIC_ERROR_OK)
    return code
