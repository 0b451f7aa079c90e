from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from quicgreen.supervisor import values

CPU = min(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("check", "given", "found"),
    [
        (values.number(1, 8), "8", 8),
        (values.number(1, 8), 1, 1),
        (values.seconds, "2.5", 2.5),
        (values.seconds, 0, 0.0),
        (values.text, "a", "a"),
        (values.flag, "Yes", True),
        (values.flag, "0", False),
        (values.flag, True, True),
        (values.choice("a", "b"), "b", "b"),
        (values.spawn, "raw", "raw"),
        (values.spawn, "12", 12),
        (values.address, "127.0.0.1:0", "127.0.0.1:0"),
        (values.address, "[::1]:4433", "[::1]:4433"),
        (values.address, 4433, "4433"),
        (values.address, ":4433", ":4433"),
        (values.cpus, "none", "none"),
        (values.cpus, "auto", "auto"),
        (values.cpus, str(CPU), str(CPU)),
    ],
)
def test_what_is_right_is_taken(check: Callable[[Any], Any], given: Any, found: Any) -> None:
    assert check(given) == found


@pytest.mark.parametrize(
    ("check", "given", "words"),
    [
        (values.number(1, 8), "9", "from 1 to 8"),
        (values.number(1, 8), "-1", "from 1 to 8"),
        (values.number(0, 8), True, "number"),
        (values.number(0, 8), "1.5", "number"),
        (values.number(0, 8), "٣", "number"),
        (values.seconds, "long", "seconds"),
        (values.seconds, "nan", "seconds"),
        (values.seconds, -1, "seconds"),
        (values.seconds, None, "seconds"),
        (values.text, "", "text"),
        (values.text, 5, "text"),
        (values.text, "a\0", "text"),
        (values.flag, "perhaps", "true or false"),
        (values.choice("a", "b"), "c", "a or b"),
        (values.spawn, "0", "at least 1"),
        (values.address, "nonsense", "HOST:PORT"),
        (values.address, "127.0.0.1:99999", "HOST:PORT"),
        (values.address, None, "HOST:PORT"),
        (values.cpus, "0-999999999999", "CPUs"),
        (values.cpus, "x", "CPUs"),
        (values.cpus, "8191", "CPUs"),
    ],
)
def test_what_is_wrong_is_refused_with_what_is_right(
    check: Callable[[Any], Any], given: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        check(given)


def test_a_list_of_cpus() -> None:
    assert values.cpu_list("0,2-4") == [0, 2, 3, 4]
    assert values.cpu_list("none") == []
    assert values.cpu_list("auto") == sorted(os.sched_getaffinity(0))
