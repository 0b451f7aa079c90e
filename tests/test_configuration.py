from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from quicgreen import ClientTls, Limits, QuicClientException, QuicConfiguration, ServerTls, Timeout
from quicgreen.configuration import busy_poll_us, microseconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, (5, 5, 5, 5)),
        (0.25, (0.25, 0.25, 0.25, 0.25)),
        (0, (0, 0, 0, 0)),
        ((1, 2), (1, 2, 2, 2)),
        ((None, 2), (None, 2, 2, 2)),
        ((1, None), (1, None, None, None)),
        (None, (None, None, None, None)),
    ],
)
def test_a_timeout_is_made_from_what_requests_takes(value: Any, expected: tuple[float | None, ...]) -> None:
    made = Timeout.of(value)
    assert (made.connect, made.read, made.write, made.pool) == expected


def test_a_timeout_is_taken_as_it_is() -> None:
    timeout = Timeout(connect=1, read=2, write=3, pool=4)
    assert Timeout.of(timeout) is timeout


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, "5", (1, -2), ("1", 2), (1, 2, 3), (1,), [1, 2]])
def test_what_is_no_timeout_is_refused(value: Any) -> None:
    with pytest.raises(QuicClientException, match="wrong argument"):
        Timeout.of(value)


def test_no_limit_can_be_asked_for_with_infinity() -> None:
    assert Timeout(math.inf).connect is None
    assert Timeout(read=math.inf).read_us == 0


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, 0), (0, 1), (1e-9, 1), (0.000002, 2), (1, 1_000_000), (60.5, 60_500_000)]
)
def test_the_engine_takes_microseconds_and_0_for_none(seconds: float | None, expected: int) -> None:
    assert microseconds(seconds) == expected


@pytest.mark.parametrize("seconds", [1e9 + 1, 1e300, math.inf])
def test_a_timeout_that_does_not_fit_the_engine_is_none(seconds: float) -> None:
    assert microseconds(seconds) == Timeout(read=seconds).read_us == 0
    assert microseconds(1e9) * 1000 < 1 << 63


def test_the_read_timeout_is_kept_in_microseconds() -> None:
    assert Timeout(read=1.5).read_us == 1_500_000
    assert Timeout(read=None).read_us == 0


@pytest.mark.parametrize("cls", [Timeout, Limits, QuicConfiguration, ClientTls, ServerTls])
def test_settings_are_not_changed_once_made(cls: type) -> None:
    made = cls()
    name = dataclasses.fields(cls)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, 1)
    with pytest.raises((AttributeError, TypeError)):
        made.no_such_setting = 1
    assert made == cls()


@pytest.mark.parametrize("cls", [Timeout, Limits, QuicConfiguration, ClientTls, ServerTls])
def test_every_setting_is_described(cls: type) -> None:
    import ast
    import inspect

    (tree,) = ast.parse(inspect.getsource(cls)).body
    body = tree.body
    for at, node in enumerate(body):
        if isinstance(node, ast.AnnAssign):
            after = body[at + 1]
            assert isinstance(after, ast.Expr), node.target.id
            assert isinstance(after.value, ast.Constant), node.target.id


def test_the_key_log_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", "/somewhere/keys")
    assert ClientTls().keylog_file == ServerTls().keylog_file == "/somewhere/keys"
    monkeypatch.delenv("SSLKEYLOGFILE")
    assert ClientTls().keylog_file is None


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0), (" ", 0), ("0", 0), ("50", 50), (" 50 ", 50), ("1000000", 1000000)]
)
def test_the_spin_is_set_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: int
) -> None:
    monkeypatch.setenv("QUICPRO_BUSY_POLL", text)
    assert busy_poll_us() == expected


def test_without_the_variable_nothing_spins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUICPRO_BUSY_POLL", raising=False)
    assert busy_poll_us() == 0


@pytest.mark.parametrize("text", ["-1", "1.5", "yes", "1000001", "50us", "0x10", "\u00b2", "\u0665"])
def test_a_spin_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("QUICPRO_BUSY_POLL", text)
    with pytest.raises(QuicClientException, match="QUICPRO_BUSY_POLL"):
        busy_poll_us()
