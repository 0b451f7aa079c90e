from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.qlogs import HEAD, event, of_aioquic, sent, write
from support import connect, echo, hello, serving, wait_until

from quicgreen import QuicClientException
from quicgreen.qlog import read


def test_ours(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlog"
    with serving(hello) as server, connect(server) as connection:
        connection.qlog(file)
        connection.get("/")
        assert wait_until(lambda: "packet_received" in file.read_text())
        (trace,) = read(file)
    assert (trace.title, trace.side, trace.torn) == ("quicgreen", "client", 0)
    assert {"packet_sent", "packet_received", "metrics_updated"} <= {e.name for e in trace.events}
    assert trace.began_ms is not None
    times = [e.time_ms for e in trace.events]
    assert times == sorted(times)
    assert times[0] == 0


def test_aioquic_s(tmp_path: Path) -> None:
    with serving(echo) as server:
        (trace,) = read(of_aioquic(server.server_port, tmp_path))
    assert trace.side == "client"
    assert trace.events[0].time_ms == 0
    assert 0 < trace.events[-1].time_ms < 60_000
    assert trace.began_ms is not None
    assert trace.began_ms > 1.7e12
    assert {"packet_sent", "packet_received", "metrics_updated", "frame_created"} <= {
        e.name for e in trace.events
    }


def test_one_that_is_torn(tmp_path: Path) -> None:
    file = write(tmp_path / "a", sent(1), sent(2))
    file.write_text(file.read_text()[:-20])
    (trace,) = read(file)
    assert len(trace.events) == 1
    assert trace.torn == 1


def test_names_of_all_drafts(tmp_path: Path) -> None:
    names = ["recovery:metrics_updated", "quic:recovery_metrics_updated", "metrics_updated"]
    (trace,) = read(write(tmp_path / "a", *(event(n, name) for n, name in enumerate(names))))
    assert [e.name for e in trace.events] == ["metrics_updated"] * 3
    assert [e.full_name for e in trace.events] == names


@pytest.mark.parametrize(
    ("common", "times", "began"),
    [
        ({"time_format": "relative", "reference_time": 1.7e12}, [0, 5, 12], 1.7e12),
        ({"time_format": "relative", "reference_time": "1700000000000.5"}, [0, 5, 12], 1.7e12 + 0.5),
        ({"time_format": "delta", "reference_time": 1.7e12}, [0, 5, 17], 1.7e12),
        ({"time_format": "relative_to_previous_event"}, [0, 5, 17], None),
        ({"time_format": "absolute"}, [0, 5, 12], None),
        ({}, [0, 5, 12], None),
        ({"reference_time": {"clock_type": "system", "epoch": "1970-01-01T00:00:00.000Z"}}, [0, 5, 12], 0.0),
        ({"reference_time": {"clock_type": "monotonic", "epoch": "unknown"}}, [0, 5, 12], None),
    ],
)
def test_times(tmp_path: Path, common: dict, times: list[float], began: float | None) -> None:
    head = {**HEAD, "trace": {**HEAD["trace"], "common_fields": common}}
    events = [event(0, "a"), event(5, "b"), event(12, "c")]
    (trace,) = read(write(tmp_path / "a", *events, head=head))
    assert [e.time_ms for e in trace.events] == times
    assert trace.began_ms == began


def test_the_wall_clock(tmp_path: Path) -> None:
    (trace,) = read(write(tmp_path / "a"))
    assert trace.began_ms == 1795626000500.0


def test_other_forms(tmp_path: Path) -> None:
    file = tmp_path / "a"
    head = {"qlog_version": "0.3", "qlog_format": "NDJSON", "trace": {"vantage_point": {"type": "network"}}}
    file.write_text("\n".join(json.dumps(x) for x in (head, event(1, "a"), event(2, "b"))) + "\n")
    (trace,) = read(file)
    assert (trace.side, [e.name for e in trace.events]) == ("network", ["a", "b"])
    several = {"traces": [{"events": [event(1, "a"), {}]}, {"error_description": "gone"}, {"events": []}]}
    file.write_text(json.dumps(several))
    assert [len(t.events) for t in read(file)] == [1, 0]
    file.write_text(json.dumps({"trace": {}}))
    assert [len(t.events) for t in read(file)] == [0]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "5", "null", "\x1e", "\x1e{}\n", '{"traces": 5}', '{"traces": [5]}', "not at all\n",
        '{"traces": [{"events": [5]}]}', '{"traces": [{"events": [{"time": 1}]}]}',
        '{"traces": [{"events": [{"name": "a"}]}]}', '{"traces": [{"events": [{"name": "a", "time": "x"}]}]}',
        '{"traces": [{"event_fields": ["time"], "events": [[1]]}]}',
        '{"traces": [{"common_fields": 5, "events": []}]}',
        '{"trace": []}', "\x1e[]\n\x1e{}\n", "\x00\x01\xff",
    ],
)  # fmt: skip
def test_what_is_no_qlog(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a"
    file.write_text(text)
    with pytest.raises(QuicClientException) as caught:
        read(file)
    assert caught.value.cause == "qlog-format"
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "a")
