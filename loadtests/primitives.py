"""Row f2: the pieces of a request, in ns, with the arena cache and without."""

from __future__ import annotations

from collections.abc import Iterable

from processes import MEASURED, Child, PeerError
from samples import Plan, Row, Sample, Series, rows


def _measured(cache: bool) -> dict[str, float]:
    environment = {"QUICGREEN_ARENA_CACHE": "1" if cache else "0"}
    with Child.python("primitives_child.py", role=MEASURED, **environment) as child:
        answer = child.about
    if (answer.pop("cache hits") > 0) != cache:
        raise PeerError(f"the arena cache is not {'on' if cache else 'off'}")
    return answer


@rows("f2")
def primitives(plan: Plan) -> Iterable[Row]:
    taken: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for _ in range(plan.runs):
        for cache, answers in taken.items():
            answers.append(_measured(cache))
    for name in taken[True][0]:
        ours, without = (
            Series(label, [Sample(a[name], 1e9 / a[name], 1, 0) for a in taken[cache]])
            for label, cache in (("with the arena cache", True), ("without", False))
        )
        yield Row("f2", name, "none", "ns", ours, without)
