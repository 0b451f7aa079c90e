"""The benchmark measures what it says: real peers, counted on both sides, and no row for one that failed.

How fast anything is, is not asked here: that is what the benchmark is for. Its runs are as short as they go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import statistics
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quicgreen.testing import Certificate, Link, self_signed

LOADTESTS = Path(__file__).resolve().parent.parent / "loadtests"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """The benchmark's modules, by their names; its results go to a folder of the test's."""
    monkeypatch.syspath_prepend(str(LOADTESTS))
    before = set(sys.modules)

    def load(name: str) -> Any:
        module = importlib.import_module(name)
        assert Path(module.__file__).parent == LOADTESTS
        return module

    monkeypatch.setattr(load("bench"), "HERE", tmp_path)
    yield load
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(LOADTESTS)):
            del sys.modules[name]


def watched_plan(bench: Callable[[str], Any], certificate: Certificate) -> Any:
    """A plan of two short runs, which counts what each contestant did, warming up included."""
    samples = bench("samples")

    class Watched(samples.Plan):  # type: ignore[misc]
        done: Counter[str] = Counter()

        def measure(self, *contestants: Any) -> Any:
            return super().measure(*[self._watched(c) for c in contestants])

        def _watched(self, contestant: Any) -> Any:
            def measure(count: int) -> Any:
                self.done[contestant.name] += count
                return contestant.measure(count)

            return dataclasses.replace(contestant, measure=measure, first=min(contestant.first, 200))

    Watched.done = Counter()
    return Watched(2, 0.1, (certificate.certfile, certificate.keyfile))


@pytest.fixture
def own_certificate(tmp_path: Path) -> Certificate:
    """As the benchmark makes it."""
    return self_signed(tmp_path, "localhost", "127.0.0.1")


@contextlib.contextmanager
def noting_totals(
    bench: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, **changed: Any
) -> Iterator[dict[str, int]]:
    """What the server of the rows b says of all requests, when it is over."""
    limit, totals = bench("limit"), {}
    serve = limit.server

    @contextlib.contextmanager
    def server(certificate: Any, role: int, *, body: int) -> Iterator[Any]:
        with serve(certificate, role, **{"body": body, **changed}) as child:
            yield child
            totals.update(child.ask())

    with monkeypatch.context() as patch:
        patch.setattr(limit, "server", server)
        yield totals


# ---------------------------------------------------------------- what is measured


@pytest.mark.parametrize(
    ("script", "how"),
    [("green_client.py", "differing"), *[("curl_client.py", h) for h in ("single", "tasks", "threads")]],
)
def test_clients_of_the_rows_b_speak_http3(
    bench: Callable[[str], Any], own_certificate: Certificate, script: str, how: str
) -> None:
    """Both against one server, which knows nothing else; what crossed the wire is QUIC, and all of it did."""
    limit, processes = bench("limit"), bench("processes")
    count = 300
    files = (own_certificate.certfile, own_certificate.keyfile)
    with limit.server(files, processes.OTHER, body=11) as server:
        with Link(("127.0.0.1", server.port), record=2000) as link:
            with processes.Child.python(
                script, link.port, own_certificate.certfile, role=processes.MEASURED
            ) as client:
                before = server.ask()["requests"]
                answer = client.ask(how=how, count=count)
                assert server.ask()["requests"] - before == answer["requests"] == count
                assert answer["body_received"] == 11 * count
            sent = [p.data for p in link.packets() if p.direction == "to_server"]
        # QUIC version 1 (RFC 9000, section 17.2), in a datagram of the size that a client's first one has to
        # have (section 14.1); then the fixed bit in all of them.
        assert sent[0][0] & 0xC0 == 0xC0
        assert sent[0][1:5] == b"\0\0\0\1"
        assert len(sent[0]) >= 1200
        assert all(datagram[0] & 0x40 for datagram in sent)


def test_rows_b_compare_what_was_counted(
    bench: Callable[[str], Any], own_certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times curl: concurrent against one at a time, and against curl's own hundred at a time."""
    plan = watched_plan(bench, own_certificate)
    with noting_totals(bench, monkeypatch) as totals:
        rows = {row.key: row for row in bench("client_rows").client_speed(plan)}
    # The server met each request that was said to be done; two more are the clients' first ones.
    assert totals["requests"] == plan.done.total() + 2
    assert len(plan.done) == 5

    # Whoever of the two was faster stands for curl's hundred at a time.
    assert {name.rpartition(", ")[2] for name in plan.done if "curl" in name} == {
        "one Session",
        "100 tasks",
        "100 threads",
    }
    assert rows["b3"].other.name.endswith("one Session")
    assert rows["b4"].other.name.endswith(("100 tasks", "100 threads"))
    for row in rows.values():
        assert (row.error, row.ours.name) == ("", "quicgreen")
        for series in (row.ours, row.other):
            assert len(series.samples) == plan.runs
            assert all(s.count > 0 and s.value == s.rate == s.count / s.seconds for s in series.samples)
        assert row.ratio == statistics.median(row.ours.values) / statistics.median(row.other.values)

    # What is asked of them is the claim; whether it holds, `make bench ONLY=b` says.
    bounds = {key: (row.bound.limit, row.bound.at_least) for key, row in rows.items() if row.bound}
    assert bounds == {"b3": (10, True), "b4": (5, True)}
    assert all(rows[key].reached == (rows[key].ratio >= bounds[key][0]) for key in bounds)


def test_what_a_request_costs_a_client_is_measured_beside_the_limit(
    bench: Callable[[str], Any], own_certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = watched_plan(bench, own_certificate)
    with noting_totals(bench, monkeypatch) as totals:
        rows = list(bench("client_rows").client_cost(plan))
    assert totals["requests"] == plan.done.total() + 1
    assert {row.key: (row.bound.limit, row.bound.at_least) for row in rows} == {
        "b1": (4, False),
        "b2": (3, False),
    }
    for row in rows:
        assert row.ratio == row.ours.median / row.other.median
        assert all(s.value > 0 for series in (row.ours, row.other) for s in series.samples)


# ---------------------------------------------------------------- what is not


def measured(bench: Callable[[str], Any], plan: Any, *keys: str) -> list[Any]:
    """The rows with these keys, as the benchmark measures them."""
    program = bench("bench")
    [group] = program._chosen(list(keys))
    found: list[Any] = program._measured(group, plan, list(keys))
    return found


def test_a_peer_that_is_not_there_fails_its_rows_and_the_benchmark(
    bench: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any
) -> None:
    (tmp_path / "curl_cffi.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["bench.py", "--only", "b3,b4", "--quick"])
    assert bench("bench").main() == 1
    said, complaint = capfd.readouterr()
    lines = [line for line in said.splitlines() if line.startswith(("| b3", "| b4"))]
    assert len(lines) == 2
    assert all("**error**: curl_client ended with status 1" in line and "| no |" in line for line in lines)
    assert "errors: b3, b4" in complaint


def test_answers_that_are_others_fail_their_rows(
    bench: Callable[[str], Any], own_certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte too many in each."""
    with noting_totals(bench, monkeypatch, body=12):
        rows = measured(bench, watched_plan(bench, own_certificate), "b1", "b2")
    assert [row.key for row in rows] == ["b1", "b2"]
    assert all("client: body bytes" in row.error and row.reached is False for row in rows)


def test_requests_that_nobody_saw_fail_their_rows(
    bench: Callable[[str], Any],
    own_certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A client that says how many it sent, and sent none."""
    liar = tmp_path / "liar.py"
    liar.write_text(
        "import json, sys\n"
        "print(json.dumps({'version': '1'}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    n = json.loads(line)['count']\n"
        "    print(json.dumps({'requests': n, 'body_received': 11 * n, 'seconds': n / 1e4}), flush=True)\n"
    )
    rows_b, processes = bench("client_rows"), bench("processes")

    def curl_client(plan: Any, server: Any, role: int) -> Any:
        return processes.Child("curl_client", [sys.executable, str(liar)], role)

    monkeypatch.setattr(rows_b, "curl_client", curl_client)
    rows = measured(bench, watched_plan(bench, own_certificate), "b3", "b4")
    assert [row.key for row in rows] == ["b3", "b4"]
    assert all("limit server: requests: 0 counted" in row.error and not row.reached for row in rows)


def test_without_go_its_rows_say_so(
    bench: Callable[[str], Any], own_certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are built when they are measured, and only then."""
    monkeypatch.setattr(bench("quicgo").shutil, "which", lambda name: None)
    plan = watched_plan(bench, own_certificate)
    found = [*measured(bench, plan, "i1", "i2"), *measured(bench, plan, "i3")]
    assert [row.key for row in found] == ["i1", "i2", "i3"]
    assert all("install Go" in row.error and row.reached is False for row in found)
    assert plan.done.total() == 0


def test_an_answer_over_another_version_of_http_is_none(bench: Callable[[str], Any]) -> None:
    curl = bench("curl_client")
    answer = types.SimpleNamespace(status_code=200, http_version=curl.CurlHttpVersion.V3, content=b"x")
    assert curl.checked(answer) == 1
    for changed in ({"http_version": curl.CurlHttpVersion.V2_0}, {"status_code": 500}):
        with pytest.raises(ValueError, match="status"):
            curl.checked(types.SimpleNamespace(**{**vars(answer), **changed}))
