"""Samples, series of them, and rows of the table."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from processes import PeerError


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    value: float
    """What the row compares, in the row's unit."""

    rate: float
    """Operations, or megabytes, in a second."""

    count: int
    """Operations."""

    seconds: float
    more: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contestant:
    """Somebody who is measured: `measure(count)` does `count` operations; `first` is how many to begin with,
    before their speed is known."""

    name: str
    measure: Callable[[int], Sample]
    first: int


@dataclass
class Series:
    """All samples of one contestant."""

    name: str
    samples: list[Sample]

    @property
    def values(self) -> list[float]:
        return [s.value for s in self.samples]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def rate(self) -> float:
        return statistics.median(s.rate for s in self.samples)

    def more(self, key: str) -> float:
        return statistics.median(s.more[key] for s in self.samples)

    def by_rate(self) -> Series:
        """The same with the rates as values."""
        return Series(self.name, [Sample(s.rate, s.rate, s.count, s.seconds, s.more) for s in self.samples])


@dataclass(frozen=True)
class Bound:
    """What the ratio must be. `inverse`: the ratio is the other's value by ours."""

    limit: float
    at_least: bool = False
    inverse: bool = False

    def holds(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass
class Row:
    """One line of the table."""

    key: str
    title: str
    load: str
    """Who generated the load, and on what."""

    unit: str
    ours: Series | None = None
    other: Series | None = None
    bound: Bound | None = None
    absolute: float | None = None
    """A bound on our own value."""

    error: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        if self.ours is None or self.other is None:
            return None
        a, b = self.ours.median, self.other.median
        return b / a if self.bound is not None and self.bound.inverse else a / b

    @property
    def reached(self) -> bool | None:
        """None where nothing was asked for."""
        if self.error:
            return False
        if self.absolute is not None and self.ours is not None:
            return self.ours.median <= self.absolute
        if self.bound is None or self.ratio is None:
            return None
        return self.bound.holds(self.ratio)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "reached": self.reached}


@dataclass(frozen=True)
class Plan:
    """How to measure: how often, and how long each time."""

    runs: int
    seconds: float
    certificate: tuple[str, str]

    def measure(self, *contestants: Contestant) -> list[Series]:
        """All contestants in turn, `runs` times. What disturbs the machine for a while disturbs all."""
        counts = [self._count(c) for c in contestants]
        samples: list[list[Sample]] = [[] for _ in contestants]
        for _ in range(self.runs):
            for i, contestant in enumerate(contestants):
                samples[i].append(contestant.measure(counts[i]))
        return [Series(c.name, s) for c, s in zip(contestants, samples, strict=True)]

    def _count(self, contestant: Contestant) -> int:
        """Warm up, and find the count that takes as long as planned."""
        count = contestant.first
        for _ in range(2):
            took = contestant.measure(count).seconds
            count = max(1, round(count * self.seconds / max(took, 1e-3)))
        return count


def check(what: str, counted: int, expected: int) -> None:
    """Both sides must have counted the same."""
    if counted != expected:
        raise PeerError(f"{what}: {counted} counted, {expected} expected")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Group:
    """Rows that are measured together."""

    keys: tuple[str, ...]
    measure: Callable[[Plan], Iterable[Row]]


groups: list[Group] = []


def rows(*keys: str) -> Callable[[Callable[[Plan], Iterable[Row]]], Callable[[Plan], Iterable[Row]]]:
    """Decorator: the function measures the rows with these keys."""

    def register(measure: Callable[[Plan], Iterable[Row]]) -> Callable[[Plan], Iterable[Row]]:
        groups.append(Group(keys, measure))
        return measure

    return register
