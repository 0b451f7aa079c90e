"""`quicgreen qlog` on files of ours and of aioquic, and what is said of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.commands import complaint, run
from helpers.qlogs import event, of_aioquic, sent, write
from support import connect, echo, serving

from quicgreen import QuicConfiguration
from quicgreen.qlog import read


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    with serving(echo, config=QuicConfiguration(qlog_dir=folder)) as server, connect(server) as connection:
        connection.post("/", b"x" * 20_000)
    (file,) = folder.iterdir()
    return file


def test_show(ours: Path) -> None:
    result = run("qlog", "show", str(ours))
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("quicgreen, server, ")
    assert any("stream 0 ends after 20." in line for line in lines)
    assert "packets sent" in lines[-1]
    more = run("qlog", "show", "--packets", str(ours)).stdout.splitlines()
    assert len(more) > len(lines)


def test_plot(ours: Path, tmp_path: Path) -> None:
    result = run("qlog", "plot", str(ours))
    assert result.stdout.startswith("<svg ")
    file = tmp_path / "a.svg"
    assert run("qlog", "plot", str(ours), "-o", str(file)).stdout == ""
    assert file.read_text() == result.stdout


def test_convert_there_and_back(ours: Path, tmp_path: Path) -> None:
    whole, back = tmp_path / "a.qlog", tmp_path / "b.sqlog"
    assert run("qlog", "convert", str(ours), "-o", str(whole)).returncode == 0
    assert json.loads(whole.read_text())["qlog_version"] == "0.3"
    assert run("qlog", "convert", str(whole), "-o", str(back)).returncode == 0
    assert back.read_text().startswith("\x1e")
    assert [e.data.keys() for t in read(back) for e in t.events if e.name == "metrics_updated"] == [
        e.data.keys() for t in read(ours) for e in t.events if e.name == "metrics_updated"
    ]
    assert run("qlog", "convert", "--to", "json", str(whole)).stdout == whole.read_text()


def test_aioquic_s(tmp_path: Path) -> None:
    with serving(echo) as server:
        file = str(of_aioquic(server.server_port, tmp_path))
    assert "> stream 0: POST /aio" in run("qlog", "show", file).stdout
    assert run("qlog", "plot", file).stdout.startswith("<svg ")
    assert run("qlog", "convert", file).stdout.startswith("\x1e")


def test_several_traces(tmp_path: Path) -> None:
    file = tmp_path / "a.qlog"
    file.write_text(json.dumps({"traces": [{"title": name, "events": [event(1, "a")]} for name in "xy"]}))
    assert [line[:1] for line in run("qlog", "show", str(file)).stdout.splitlines()[::2]] == ["x", "y"]
    assert ">y</text>" in run("qlog", "plot", str(file), "-t", "2").stdout
    for arguments in (["plot", "-t", "3"], ["plot", "-t", "0"], ["convert"]):
        result = run("qlog", *arguments, str(file))
        assert (result.returncode, "2" in complaint(result)) == (3, True)


def test_what_is_no_qlog(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("{}")
    for verb in ("show", "plot", "convert"):
        result = run("qlog", verb, str(file))
        assert (result.returncode, result.stdout) == (26, "")
        assert "no qlog that can be read" in complaint(result)
        assert run("qlog", verb, str(tmp_path / "b")).returncode == 26
    write(file, sent(1, {"frame_type": "stream", "stream_id": "x"}))
    result = run("qlog", "show", str(file))
    assert result.returncode == 26
    assert "no qlog that can be read" in complaint(result)
    file.write_text('{"traces": []}')
    assert "no trace" in complaint(run("qlog", "show", str(file)))


def test_an_output_that_cannot_be_written(ours: Path) -> None:
    for verb in ("plot", "convert"):
        result = run("qlog", verb, str(ours), "-o", "/nowhere/a")
        assert result.returncode == 23
        assert "cannot write" in complaint(result)


def test_usage() -> None:
    for arguments in ([], ["look", "a"], ["show"]):
        assert run("qlog", *arguments).returncode == 2
