"""The last error is a greenlet's own, and goes with it."""

from __future__ import annotations

import gc

import gevent
import pytest
from support import wait_until

from quicgreen.exceptions import error
from quicgreen.quicpro import QUIC_ERROR_INTERNAL, QUIC_ERROR_OK, QUIC_ERROR_TIMEOUT, quicpro_get_last_error
from quicgreen.quicpro.last_error import failed, noted


@noted
def call(e: BaseException | None = None) -> str:
    """Says nothing much."""
    if e is not None:
        raise e
    return "well"


def test_success_sets_it_too() -> None:
    assert quicpro_get_last_error() == QUIC_ERROR_OK
    with pytest.raises(TimeoutError):
        call(error("deadline"))
    assert quicpro_get_last_error() == QUIC_ERROR_TIMEOUT
    assert call() == "well"
    assert quicpro_get_last_error() == QUIC_ERROR_OK


@pytest.mark.parametrize(
    ("e", "code"), [(TimeoutError(), QUIC_ERROR_TIMEOUT), (ValueError(), QUIC_ERROR_INTERNAL)]
)
def test_others_errors_have_a_code(e: Exception, code: int) -> None:
    with pytest.raises(type(e)):
        call(e)
    assert quicpro_get_last_error() == code
    call()


def test_greenlets_do_not_meet() -> None:
    def fail() -> tuple[int, int]:
        with pytest.raises(TimeoutError):
            call(error("deadline"))
        first = quicpro_get_last_error()
        gevent.sleep(0.01)
        return first, quicpro_get_last_error()

    def succeed() -> int:
        call()
        return quicpro_get_last_error()

    failing, well = gevent.spawn(fail), gevent.spawn(succeed)
    assert (failing.get(), well.get()) == ((QUIC_ERROR_TIMEOUT,) * 2, QUIC_ERROR_OK)


def test_nothing_is_kept_of_greenlets_that_are_gone() -> None:
    def fail() -> None:
        with pytest.raises(TimeoutError):
            call(error("deadline"))

    def run() -> None:
        gevent.joinall([gevent.spawn(fail) for _ in range(10)])

    run()
    gc.collect()
    assert wait_until(lambda: failed == {})


def test_the_function_is_the_same_otherwise() -> None:
    assert (call.__name__, call.__doc__) == ("call", "Says nothing much.")
