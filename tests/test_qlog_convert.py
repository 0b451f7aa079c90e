from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.qlogs import event, of_aioquic, write
from support import connect, echo, serving

from quicgreen import QuicConfiguration
from quicgreen.qlog import Trace, read
from quicgreen.qlog.convert import contained, sequence
from quicgreen.qlog.series import series_of
from quicgreen.qlog.story import Story

# What qvis asks of a file, as its loader reads it: a version it knows, a list of traces, and in each event a
# time that never falls and a name of category and type.
CATEGORIES = {"transport", "recovery", "connectivity", "security", "http", "qpack"}


def check_as_qvis(text: str) -> None:
    whole = json.loads(text)
    assert (whole["qlog_version"], whole["qlog_format"]) == ("0.3", "JSON")
    for trace in whole["traces"]:
        assert trace["vantage_point"]["type"] in ("client", "server", "network")
        assert trace["common_fields"]["time_format"] == "relative"
        assert isinstance(trace["common_fields"]["reference_time"], (int, float))
        last = 0.0
        for e in trace["events"]:
            assert e["time"] >= last
            last = e["time"]
            category, _, kind = e["name"].partition(":")
            assert category in CATEGORIES, e["name"]
            if kind.startswith("packet_"):
                assert e["data"]["header"]["packet_type"]
                assert e["data"]["raw"]["length"] > 0
                for frame in e["data"].get("frames", []):
                    if frame["frame_type"] in ("stream", "crypto"):
                        assert frame["length"] >= 0


def told(trace: Trace) -> list[str]:
    return list(Story(trace, packets=True).lines())


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    with serving(echo, config=QuicConfiguration(qlog_dir=folder)) as server, connect(server) as connection:
        connection.post("/", b"x" * 200_000)
    (file,) = folder.iterdir()
    return file


def test_ours_for_qvis_and_back(tmp_path: Path, ours: Path) -> None:
    (before,) = read(ours)
    text = contained([before])
    check_as_qvis(text)
    file = tmp_path / "a.qlog"
    file.write_text(text)
    (there,) = read(file)
    file.write_text("".join(sequence(there)))
    assert file.read_text().startswith("\x1e")
    (back,) = read(file)
    for trace in (there, back):
        assert told(trace) == told(before)
        assert series_of(trace) == series_of(before)
        assert trace.began_ms == pytest.approx(before.began_ms, abs=1)


def test_aioquic_s_into_a_sequence(tmp_path: Path) -> None:
    with serving(echo) as server:
        (before,) = read(of_aioquic(server.server_port, tmp_path))
    file = tmp_path / "a.sqlog"
    file.write_text("".join(sequence(before)))
    (after,) = read(file)
    assert told(after) == told(before)
    assert series_of(after) == series_of(before)


def test_events_that_are_not_known_stay_as_they_are(tmp_path: Path) -> None:
    (trace,) = read(write(tmp_path / "a", event(1, "mine:thing", x=[1, {"y": None}])))
    (found,) = json.loads(contained([trace]))["traces"]
    assert found["events"] == [event(1, "mine:thing", x=[1, {"y": None}])]
