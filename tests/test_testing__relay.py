"""What befalls a packet, by the thousand, without a network."""

from __future__ import annotations

import random

import pytest

from quicgreen.testing._relay import Half

PACKETS = 20_000


def losses(loss: float, burst: int) -> list[bool]:
    half = Half("to_server", random.Random(1))
    draw = half.random.random
    return [half.lost(draw(), draw(), loss, burst) for _ in range(PACKETS)]


def runs(lost: list[bool]) -> list[int]:
    text = "".join("x" if x else "." for x in lost)
    return [len(run) for run in text.split(".") if run]


@pytest.mark.parametrize("loss", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("burst", [0, 1, 2, 5])
def test_the_rate_is_kept_in_runs_of_any_length(loss: float, burst: int) -> None:
    share = sum(losses(loss, burst)) / PACKETS
    # Four standard deviations of a share whose losses come `burst` at a time.
    deviation = (max(burst, 1) * loss * (1 - loss) / PACKETS) ** 0.5
    assert abs(share - loss) < 4 * deviation


@pytest.mark.parametrize("loss", [0.1, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("burst", [1, 2, 5])
def test_no_run_is_longer_than_burst(loss: float, burst: int) -> None:
    found = runs(losses(loss, burst))
    assert set(found) == set(range(1, burst + 1))
    # Each length as often as any other.
    for length in range(1, burst + 1):
        assert found.count(length) > len(found) / burst * 0.8


@pytest.mark.parametrize("burst", [0, 3])
def test_without_a_rate_nothing_is_lost(burst: int) -> None:
    assert not any(losses(0.0, burst))


def test_a_run_goes_on_when_the_rate_becomes_zero() -> None:
    """... but no new one begins: the packet after it passes, and all others."""
    half = Half("to_server", random.Random(1))
    assert half.lost(0.0, 0.99, 0.5, 3)
    assert [half.lost(0.0, 0.99, 0.0, 3) for _ in range(5)] == [True, True, False, False, False]
