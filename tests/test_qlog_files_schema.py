"""What connections write is qlog: each record of many kinds of lives, by a strict reader and by quiche's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers.qlog_schema import SchemaError, validate
from support import connect, connect_raw, hello, serving, serving_raw, wait_until

import quicgreen
from quicgreen import QuicConfiguration
from quicgreen.testing.link import Link

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "cext"))

import toolchain  # noqa: E402


def counts(tmp_path: Path) -> Counter[str]:
    """Over both sides."""
    files = list(tmp_path.iterdir())
    assert {p.name.split("_")[1] for p in files} == {"client.sqlog", "server.sqlog"}
    return sum((validate(p) for p in files), Counter())


def events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(record) for record in file.read_text()[1:].split("\x1e")[1:]]


def test_requests_both_ways(tmp_path: Path) -> None:
    config = QuicConfiguration(qlog_dir=tmp_path)
    with (
        serving(lambda r: r.respond(200, None, r.read()), config=config) as server,
        connect(server, config=config) as connection,
    ):
        connection.post("/", os.urandom(3 << 20))
        connection.get("/")
    found = counts(tmp_path)
    assert found["quic:packet_sent"] > 2000
    assert found["quic:parameters_set"] == 4
    assert {"quic:stream_data_moved", "quic:recovery_metrics_updated", "quic:mtu_updated"} <= found.keys()


def test_streams_that_end_early(tmp_path: Path) -> None:
    config = QuicConfiguration(qlog_dir=tmp_path)

    def handle(connection: Any) -> None:
        while (stream := connection.accept_stream()) is not None:
            stream.stop(7)
            stream.reset(8)

    with serving_raw(handle, config=config) as server, connect_raw(server, config=config) as connection:
        for _ in range(3):
            stream = connection.open_stream()
            stream.write(b"x" * 5000)
            with pytest.raises(quicgreen.QuicStreamException):
                stream.read(1)
        connection.close(9, "enough of it \u20ac \x1e")
        assert wait_until(lambda: "connection_close" in "".join(p.read_text() for p in tmp_path.iterdir()))
    counts(tmp_path)
    text = "".join(p.read_text() for p in tmp_path.iterdir())
    assert '"frame_type":"reset_stream"' in text
    assert '"frame_type":"stop_sending"' in text
    assert "enough of it \u20ac \\u001e" in text


def test_a_bad_network(tmp_path: Path) -> None:
    config = QuicConfiguration(qlog_dir=tmp_path)
    body = os.urandom(2 << 20)
    with (
        serving(lambda r: r.respond(200, None, body), config=config) as server,
        Link(server.address, seed=5, loss=0.02, reorder=0.02, duplicate=0.02, delay_ms=2) as link,
        quicgreen.connect("127.0.0.1", link.port, verify=False, config=config) as connection,
    ):
        assert connection.get("/", timeout=60).content == body
        link.rebind()
        assert connection.get("/", timeout=60).content == body
    found = counts(tmp_path)
    assert found["quic:congestion_state_updated"] > 4
    assert "cf_lost_packets" in "".join(p.read_text() for p in tmp_path.glob("*_server.sqlog"))


def test_a_handshake_that_fails(tmp_path: Path) -> None:
    config = QuicConfiguration(qlog_dir=tmp_path)
    with serving(hello, config=config) as server:
        with pytest.raises(quicgreen.QuicTlsHandshakeException):
            quicgreen.connect(*server.address, verify=True, config=config).get("/")
        assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        gevent.sleep(0.1)
    counts(tmp_path)


def test_a_peer_that_is_silent(tmp_path: Path) -> None:
    config = QuicConfiguration(qlog_dir=tmp_path, max_idle_ms=200)
    with serving(hello) as server, Link(server.address) as link:
        connection = quicgreen.connect("127.0.0.1", link.port, verify=False, config=config)
        connection.get("/")
        link.blackhole()
        assert wait_until(lambda: connection.closed)
        (file,) = tmp_path.iterdir()
        assert wait_until(lambda: validate(file)["quic:connection_closed"] == 1)
    found = events(file)
    (closed,) = [e["time"] for e in found if e["name"] == "quic:connection_closed"]
    assert closed - max(e["time"] for e in found if e["name"] == "quic:packet_received") > 190


def test_quiche_reads_it(tmp_path: Path) -> None:
    """By the `qlog` crate's own reader, whose types must fit each record."""
    logs = tmp_path / "logs"
    logs.mkdir()
    config = QuicConfiguration(qlog_dir=logs)
    with (
        serving(lambda r: r.respond(200, None, r.read()), config=config) as server,
        connect(server, config=config) as connection,
    ):
        connection.post("/", os.urandom(100_000))
    for file in logs.iterdir():
        run = subprocess.run([str(reader()), str(file)], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")
        assert int(run.stdout) == sum(validate(file).values())


def reader() -> Path:
    """tests/qlog_reader, built beside the engine's library from the same sources."""
    target = toolchain.folder().parent / "qlog-reader"
    run = subprocess.run(
        ["cargo", "build", "--locked", "-q", f"--manifest-path={TESTS / 'qlog_reader' / 'Cargo.toml'}"],
        env=os.environ | {"CARGO_TARGET_DIR": str(target)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return target / "debug" / "qlog-reader"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"packet_type":"1RTT"', '"packet_type":"2RTT"'),
        ('"frame_type":"ping"', '"frame_type":"pong"'),
        ('"name":"quic:packet_sent"', '"name":"quic:packet_posted"'),
        ('"raw":{"length":', '"raw":{"size":'),
        ('"packet_number":1', '"packet_number":-1'),
        ('"time":0.0', '"time":"0.0"'),
        ("JSON-SEQ", "JSON"),
        ('"type":"client"', '"type":"clown"'),
        ('"fin":true', '"fin":"true"'),
        ('"initiator":"local"', '"initiator":"local","initiator":"local"'),
        ("}\n\x1e", "}\n"),
        ("\n\x1e", "\x1e"),
    ],
)
def test_the_strict_reader_is_strict(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "a.sqlog"
    with serving(hello) as server, quicgreen.connect(*server.address, verify=False) as connection:
        connection.qlog(file)
        connection.get("/")
        gevent.sleep(0.05)
    text = file.read_text()
    validate(file)
    if old not in text:
        text = text.replace("}\n", f',"x":{{{old}}}}}\n', 1)
    file.write_text(text.replace(old, new))
    with pytest.raises((SchemaError, ValueError)):
        validate(file)
