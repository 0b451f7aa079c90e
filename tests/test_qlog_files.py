"""Connections write their qlog: where to, since when, and what becomes of files that fail."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from support import (
    check_python_in_thread,
    connect,
    hello,
    make_server,
    new_session,
    serving,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import QuicClientException, QuicConfiguration


def records(path: Path) -> list[dict[str, Any]]:
    """Each must be whole (RFC 7464)."""
    text = path.read_text()
    assert text.startswith("\x1e")
    assert text.endswith("\n")
    return [json.loads(record) for record in text[1:].split("\x1e")]


def names(path: Path) -> set[str]:
    return {event["name"] for event in records(path)[1:]}


def closes(path: Path) -> int:
    """Packets that closed the connection."""
    return path.read_text().count('"frame_type":"connection_close"')


@contextmanager
def refused(cause: str, number: int | None = None) -> Iterator[None]:
    with pytest.raises(QuicClientException) as caught:
        yield
    assert (caught.value.cause, caught.value.errno) == (cause, number)


def test_it_begins_at_the_call_and_ends_with_the_connection(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlog"
    with serving(lambda r: r.respond(200, None, r.read())) as server, connect(server) as connection:
        connection.get("/")
        connection.qlog(file)
        connection.post("/", b"x" * 20_000)
        assert wait_until(lambda: "quic:packet_received" in names(file))
        head, *events = records(file)
        assert head["file_schema"] == "urn:ietf:params:qlog:file:sequential"
        assert head["trace"]["vantage_point"] == {"type": "client"}
        assert f"port {server.server_port}" in head["description"]
        types = [e["data"]["header"]["packet_type"] for e in events if e["name"].startswith("quic:packet_")]
        assert set(types) == {"1RTT"}  # the handshake was before
        sent = sum(
            frame["raw"]["payload_length"]
            for e in events
            if e["name"] == "quic:packet_sent"
            for frame in e["data"]["frames"]
            if frame["frame_type"] == "stream"
        )
        assert sent > 20_000
    assert wait_until(lambda: "quic:connection_closed" in names(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_numbers_are_those_of_the_connection(tmp_path: Path) -> None:
    with serving(hello, config=QuicConfiguration(qlog_dir=tmp_path)) as server:
        with connect(server) as connection:
            for _ in range(20):
                connection.get("/")
            stats = connection.stats()
        (file,) = tmp_path.iterdir()
        assert file.name.endswith("_server.sqlog")
        assert wait_until(lambda: "quic:connection_closed" in names(file))
        received = [e for e in records(file)[1:] if e["name"] == "quic:packet_received"]
        assert stats["sent"] - stats["lost"] <= len(received) <= stats["sent"] + 20
        assert {"initial", "handshake", "1RTT"} <= {e["data"]["header"]["packet_type"] for e in received}


@pytest.mark.parametrize("by", ["configuration", "environment"])
def test_a_folder_gets_a_file_of_each_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    config = None
    if by == "environment":
        monkeypatch.setenv("QLOGDIR", str(tmp_path))
    else:
        config = QuicConfiguration(qlog_dir=str(tmp_path))
    with serving(hello, config=config) as server, new_session(config=config) as session:
        session.get(url_of(server))
        session.get(url_of(server))
    with serving(hello, config=config) as server, connect(server, config=config) as connection:
        connection.get("/")
    assert wait_until(lambda: len(list(tmp_path.iterdir())) == 4)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert [name.split("_")[1] for name in files].count("client.sqlog") == 2
    assert all(name.split("_")[0].isalnum() for name in files)


def test_an_empty_folder_is_none_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QLOGDIR", str(tmp_path))
    config = QuicConfiguration(qlog_dir="")
    with serving(hello, config=config) as server, connect(server, config=config) as connection:
        assert connection.get("/").text == "hello"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_to_qlog(tmp_path: Path) -> None:
    with serving(hello) as server, connect(server) as connection:
        connection.qlog(tmp_path)
        connection.get("/")
        assert wait_until(lambda: [p.name.endswith("_client.sqlog") for p in tmp_path.iterdir()] == [True])
        with refused("qlog-file", 17):
            connection.qlog(tmp_path)  # it has that name already


@pytest.mark.parametrize(
    ("path", "number"), [("/nowhere/at/all", 2), ("/proc/version", 13), ("a" * 5000, None), ("", 2)]
)
def test_a_path_that_cannot_be_written(path: str, number: int | None) -> None:
    if path == "/proc/version" and os.geteuid() == 0:
        path, number = "/proc/self/mem/x", 20
    with serving(hello) as server, connect(server) as connection:
        with refused("qlog-file", number):
            connection.qlog(path)
        with pytest.raises(TypeError):
            connection.qlog(None)  # type: ignore[arg-type]
        with refused("argument"):
            connection.qlog("a\0b")
        assert connection.get("/").text == "hello"
    with pytest.raises(quicgreen.QuicConnectionException):
        connection.qlog("/tmp/x")


@pytest.mark.parametrize("folder", ["/nowhere", "/etc/passwd"])
def test_a_folder_that_cannot_be_written_is_said_at_the_start(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QLOGDIR", folder)
    with refused("qlog-file"):
        quicgreen.connect("127.0.0.1", 1)
    server = make_server(hello)
    with refused("qlog-file"):
        server.start()
    with refused("argument"):
        quicgreen.connect("127.0.0.1", 1, config=QuicConfiguration(qlog_dir=5))  # type: ignore[arg-type]


def test_a_full_disk_ends_the_qlog_and_not_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "quicgreen")
    with serving(hello) as server, connect(server) as connection:
        connection.qlog("/dev/full")
        assert connection.get("/").text == "hello"
        assert wait_until(lambda: caplog.messages)
        assert connection.get("/").text == "hello"
        gevent.sleep(0.05)
    assert caplog.messages == [
        "the qlog /dev/full ended: No space left on device; 0 of its records were lost before"
    ]


@pytest.mark.parametrize("sessions", [False, True])
def test_a_server_tells_of_a_folder_that_went_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sessions: bool
) -> None:
    caplog.set_level(logging.WARNING, "quicgreen")
    folder = tmp_path / "logs"
    folder.mkdir()

    def handle_session(session: quicgreen.server.ServerConnection) -> None:
        while (request := session.accept_request()) is not None:
            request.respond(200, None, b"hello")

    handle = handle_session if sessions else hello
    with serving(handle, config=QuicConfiguration(qlog_dir=folder), sessions=sessions) as server:
        folder.rmdir()
        with connect(server) as connection:
            assert connection.get("/").text == "hello"
            assert wait_until(lambda: caplog.messages)
    assert "_server.sqlog ended: No such file or directory" in caplog.messages[0]
    assert len(caplog.messages) == 1


def test_a_large_download_loses_no_record(tmp_path: Path) -> None:
    body = os.urandom(8 << 20)
    config = QuicConfiguration(qlog_dir=tmp_path)
    with serving(lambda r: r.respond(200, None, body), config=config) as server:
        with connect(server, config=config) as connection:
            assert connection.get("/").content == body
            engine = connection._engine
        assert wait_until(lambda: all(closes(p) for p in tmp_path.iterdir()))
    assert engine.counters()["qlog_records_lost"] == 0
    (ours,) = tmp_path.glob("*_server.sqlog")
    sent = [
        e["data"]["header"]["packet_number"] for e in records(ours)[1:] if e["name"] == "quic:packet_sent"
    ]
    assert len(sent) > 5000
    assert sent[-1] == max(sent)


def test_a_program_that_ends_leaves_whole_records(tmp_path: Path) -> None:
    with serving(hello) as server:
        check_python_in_thread(
            f"""
            import quicgreen
            print(quicgreen.get("https://127.0.0.1:{server.server_port}/", verify=False).text)
            """,
            QLOGDIR=str(tmp_path),
        )
    (file,) = tmp_path.iterdir()
    assert {"quic:packet_sent", "quic:packet_received"} <= names(file)
    assert closes(file) == 1
