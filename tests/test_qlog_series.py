from __future__ import annotations

from pathlib import Path

from helpers.qlogs import event, of_aioquic, write
from support import connect, echo, serving

from quicgreen.qlog import read
from quicgreen.qlog.series import Series, series_of


def of(path: Path) -> Series:
    (trace,) = read(path)
    return series_of(trace)


def test_metrics_as_they_change(tmp_path: Path) -> None:
    found = of(
        write(
            tmp_path / "a",
            event(0, "quic:recovery_metrics_updated", smoothed_rtt=333, congestion_window=12000),
            event(0, "quic:recovery_metrics_updated", ssthresh=2**64 - 1),
            event(1, "quic:recovery_metrics_updated", smoothed_rtt=20, latest_rtt=21, min_rtt=19),
            event(2, "recovery:metrics_updated", cwnd=9000, bytes_in_flight=5, ssthresh=6000),
            event(3, "quic:recovery_metrics_updated", cf_lost_packets={"total": 2, "delta": 2}),
            event(4, "recovery:packet_lost"),
            event(9, "quic:packet_sent"),
        )
    )  # fmt: skip
    assert found == Series(
        window=[(0, 12000), (2, 9000)],
        in_flight=[(2, 5)],
        threshold=[(2, 6000)],
        latest_rtt=[(1, 21)],
        smoothed_rtt=[(1, 20)],
        min_rtt=[(1, 19)],
        lost=[(3, 2), (4, 1)],
        end_ms=9,
    )


def test_nothing_of_nothing(tmp_path: Path) -> None:
    assert of(write(tmp_path / "a")) == Series()


def test_it_ends_as_the_connection_s_own_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a"
    with serving(echo) as server, connect(server) as connection:
        connection.qlog(file)
        connection.post("/", b"x" * 500_000)
        connection.get("/")
        stats = connection.stats()
        found = of(file)
    assert found.window[-1][1] == stats["cwnd"]
    assert abs(found.smoothed_rtt[-1][1] - stats["rtt"] / 1e6) < 5
    assert found.lost == [] or stats["lost"] > 0


def test_of_aioquic(tmp_path: Path) -> None:
    with serving(echo) as server:
        found = of(of_aioquic(server.server_port, tmp_path))
    assert found.window
    assert found.in_flight
    assert found.smoothed_rtt
