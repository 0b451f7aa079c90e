from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.qlogs import event, of_aioquic, sent, write
from support import connect, echo, serving, wait_until

import quicgreen
from quicgreen import QuicConfiguration
from quicgreen.qlog import read
from quicgreen.qlog.story import Story, size
from quicgreen.testing.link import Link


def story(path: Path, **options: bool) -> list[str]:
    (trace,) = read(path)
    return list(Story(trace, **options).lines())


def told(tmp_path: Path, *events: dict[str, Any], **options: bool) -> list[str]:
    """Without what comes first and last, and without times."""
    return [line.split("ms  ")[1] for line in story(write(tmp_path / "a", *events), **options)[1:-1]]


def test_of_a_connection(tmp_path: Path) -> None:
    config = QuicConfiguration(qlog_dir=tmp_path)
    with serving(echo, config=config) as server, connect(server) as connection:
        connection.post("/", b"x" * 70_000)
        connection.close(0x10C, "enough")
        (file,) = tmp_path.iterdir()
        assert wait_until(lambda: any("the connection is over" in line for line in story(file)))
        lines = story(file)
    text = "\n".join(lines)
    assert lines[0].startswith(f"quicgreen, server, 127.0.0.1 port {server.server_port} to 127.0.0.1 port ")
    assert lines[0].endswith(" UTC")
    assert "< one-way stream 2 is opened by the client" in text
    order = [
        "> initial 0, 1.2 kB: ack 0",
        "> handshake 2, ",
        "remote parameters: max_idle_timeout 30000",
        "> the handshake is confirmed",
        "< stream 0 ends after 70.",
        "> stream 0 ends after 70.",
        "< the connection is closed: H3_REQUEST_CANCELLED (enough)",
        "the connection is over, by remote: enough",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert " packets sent (" in lines[-1]
    assert "0 lost; round trip " in lines[-1]
    assert len(lines) < 40


def test_each_packet(tmp_path: Path) -> None:
    config = QuicConfiguration(qlog_dir=tmp_path)
    with serving(echo, config=config) as server, connect(server) as connection:
        connection.post("/", b"x" * 70_000)
        stats = connection.stats()
    (file,) = tmp_path.iterdir()
    packets = [
        line for line in story(file, packets=True) if " ms  < " in line and ", " in line and "RTT" in line
    ]
    assert len(packets) > stats["sent"] / 2
    assert any("stream 0 " in line and line.endswith("fin") for line in packets)


def test_losses(tmp_path: Path) -> None:
    config = QuicConfiguration(qlog_dir=tmp_path)
    body = b"x" * (1 << 20)
    with (
        serving(lambda r: r.respond(200, None, body), config=config) as server,
        Link(server.address, seed=1, loss=0.03) as link,
        quicgreen.connect("127.0.0.1", link.port, verify=False) as connection,
    ):
        assert connection.get("/", timeout=60).content == body
        (file,) = tmp_path.iterdir()
        lines = story(file)
    lost = [line for line in lines if "! packets lost: " in line]
    assert len(lost) > 3
    total = int(lost[-1].split(", ")[1].split()[0])
    assert f", {total} lost;" in lines[-1]
    assert any("congestion control: recovery" in line for line in lines)


def test_of_aioquic(tmp_path: Path) -> None:
    with serving(echo) as server:
        lines = story(of_aioquic(server.server_port, tmp_path))
    text = "\n".join(lines)
    for words in (
        "local parameters: max_idle_timeout",
        "> initial 0, ",
        "< the handshake is confirmed",
        "> stream 0: POST /aio",
        "< stream 0: status 200",
        "> stream 0 ends after 50.",
        "> the connection is closed: ",
    ):
        assert words in text, words


FRAMES: list[tuple[dict[str, Any], str]] = [
    (
        {"frame_type": "reset_stream", "stream_id": 4, "error_code": 0x10C},
        "stream 4 is reset after 0 B: H3_REQUEST_CANCELLED",
    ),
    ({"frame_type": "stop_sending", "stream_id": 4, "error_code": 9}, "stream 4: send no more: 0x9"),
    ({"frame_type": "stop_sending", "stream_id": 4, "error": "unknown"}, "stream 4: send no more: unknown"),
    ({"frame_type": "data_blocked", "limit": 1500}, "blocked by the connection's limit of 1.5 kB"),
    (
        {"frame_type": "stream_data_blocked", "stream_id": 0, "limit": 9},
        "stream 0 is blocked by its limit of 9 B",
    ),
    ({"frame_type": "streams_blocked", "limit": 100}, "blocked by the limit of 100 streams"),
    ({"frame_type": "path_challenge"}, "a path is tried"),
    ({"frame_type": "new_token"}, "a token for the next connection"),
    (
        {"frame_type": "connection_close", "error_space": "transport", "error_code": 7, "reason": "why"},
        "the connection is closed: FRAME_ENCODING_ERROR (why)",
    ),
    (
        {"frame_type": "connection_close", "error_space": "application", "raw_error_code": 256},
        "the connection is closed: H3_NO_ERROR",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "words"), FRAMES, ids=[words for _, words in FRAMES])
def test_what_frames_bring(tmp_path: Path, frame: dict[str, Any], words: str) -> None:
    assert f"> {words}" in told(tmp_path, sent(1, frame))
    assert f"< {words}" in told(tmp_path, sent(1, frame, name="transport:packet_received"))


def test_streams_are_told_once(tmp_path: Path) -> None:
    data = {"frame_type": "stream", "stream_id": 3, "offset": 0, "raw": {"payload_length": 1000}}
    last = {**data, "offset": 1000, "fin": True}
    lines = told(tmp_path, sent(1, data), sent(2, last), sent(3, last), sent(4, data))
    assert lines[1:] == ["> one-way stream 3 is opened by the server", "> stream 3 ends after 2.0 kB"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (event(1, "recovery:packet_lost", type="1RTT", packet_number=5), "! packet 1RTT 5 lost, 1 in all"),
        (event(1, "quic:packet_lost", header={"packet_number": 5}), "! packet  5 lost, 1 in all"),
        (event(1, "recovery:metrics_updated", pto_count=2), "! nothing was acknowledged for long: probe 2"),
        (event(1, "recovery:congestion_state_updated", old="a", new="b"), "congestion control: a to b"),
        (event(1, "quic:mtu_updated", new=1400), "the path carries datagrams of 1400 bytes"),
        (event(1, "quic:connection_closed", trigger="idle_timeout"), "the connection is over: idle_timeout"),
        (event(9, "quic:connection_closed"), "the connection is over: nothing came for 9 ms"),
    ],
)  # fmt: skip
def test_other_events(tmp_path: Path, what: dict[str, Any], words: str) -> None:
    assert told(tmp_path, what) == [words]


def test_a_close_that_was_said_needs_no_reason_at_the_end(tmp_path: Path) -> None:
    close = sent(1, {"frame_type": "connection_close", "error_code": 0})
    assert told(tmp_path, close, event(9, "quic:connection_closed"))[-1] == "the connection is over"


def test_names_that_mean_nothing_are_left_out(tmp_path: Path) -> None:
    frames = [{"frame_type": name} for name in ("lines", "sum", "trace", "__init__")] + [{}]
    lines = told(tmp_path, event(1, "quic:sum"), event(2, "__init__"), event(3, "packets"), sent(4, *frames))
    assert lines == ["> 1RTT 1, 100 B: lines, sum, trace, __init__, ?"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2.5e6, "2.5 MB"), (7.25e9, "7250.0 MB")],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text
