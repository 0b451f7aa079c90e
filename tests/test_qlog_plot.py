from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from helpers.qlogs import HEAD, event, of_aioquic, write
from support import connect, echo, serving

from quicgreen import QuicConfiguration
from quicgreen.qlog import read
from quicgreen.qlog.plot import svg

SVG = "{http://www.w3.org/2000/svg}"


def picture(path: Path) -> ElementTree.Element:
    (trace,) = read(path)
    return ElementTree.fromstring(svg(trace))


def texts(root: ElementTree.Element) -> list[str]:
    return [t.text or "" for t in root.iter(f"{SVG}text")]


def metrics(time: float, **data: float) -> dict:
    return event(time, "quic:recovery_metrics_updated", **data)


def curves(root: ElementTree.Element) -> dict[str, list[tuple[float, float]]]:
    """Corners of each line, by its colour."""
    found = {}
    for path in root.iter(f"{SVG}path"):
        if colour := path.get("stroke"):
            x = y = 0.0
            corners = []
            for kind, first, second in re.findall(r"([MHV])([\d.]+)(?:,([\d.]+))?", path.get("d", "")):
                x = float(first) if kind in "MH" else x
                y = float(second) if kind == "M" else float(first) if kind == "V" else y
                corners.append((x, y))
            found.setdefault(colour, []).extend(corners)
    return found


def test_of_a_connection(tmp_path: Path) -> None:
    config = QuicConfiguration(qlog_dir=tmp_path)
    with serving(echo, config=config) as server, connect(server) as connection:
        connection.post("/", b"x" * 1_000_000)
    (file,) = tmp_path.iterdir()
    root = picture(file)
    words = texts(root)
    assert {"congestion window", "bytes in flight", "round trip, smoothed", "latest", "0 B"} <= set(words)
    assert any(w.startswith("lost packets: ") for w in words)
    assert f"server, 127.0.0.1 port {server.server_port} to" in " ".join(words)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for corners in curves(root).values():
        assert all(0 <= x <= width and 0 <= y <= height for x, y in corners)


def test_points_are_where_their_values_are(tmp_path: Path) -> None:
    events = [metrics(0, congestion_window=10_000), metrics(50, congestion_window=40_000), metrics(100)]
    root = picture(write(tmp_path / "a", *events))
    corners = curves(root)["#0072b2"]
    (left, low), (middle, _), (_, high), (right, _) = corners
    assert middle == pytest.approx((left + right) / 2, abs=0.2)
    marks = {t.text: float(t.get("y", 0)) - 4 for t in root.iter(f"{SVG}text")}
    assert low == pytest.approx(marks["10.0 kB"], abs=0.2)
    assert high == pytest.approx(marks["40.0 kB"], abs=0.2)


def test_losses_are_marked(tmp_path: Path) -> None:
    events = [metrics(0, congestion_window=10_000)]
    events += [event(t, "recovery:packet_lost") for t in (10, 10, 60)] + [metrics(100)]
    root = picture(write(tmp_path / "a", *events))
    assert "lost packets: 3" in texts(root)
    assert sum("#d55e00" in (p.get("style") or "") for p in root.iter(f"{SVG}path")) == 2


def test_a_long_file_makes_a_small_picture_without_losing_peaks(tmp_path: Path) -> None:
    events = [metrics(t, congestion_window=10_000 + t % 7, bytes_in_flight=t % 5000) for t in range(50_000)]
    events[33_333]["data"]["congestion_window"] = 90_000
    (trace,) = read(write(tmp_path / "a", *events))
    text = svg(trace)
    assert len(text) < 200_000
    highest = min(y for _, y in curves(ElementTree.fromstring(text))["#0072b2"])
    assert highest < 80


@pytest.mark.parametrize("end", [0, 0.001, 3, 999, 1e4, 3.6e6])
def test_axes_of_any_length(tmp_path: Path, end: float) -> None:
    root = picture(write(tmp_path / "a", metrics(0, congestion_window=1), metrics(end, latest_rtt=end)))
    marks = [w for w in texts(root) if re.fullmatch(r"[\d.]+(e-\d+)? (ms|s)", w)]
    assert 8 <= len(marks) <= 40


def test_a_title_is_text_and_no_markup(tmp_path: Path) -> None:
    head = {**HEAD, "title": "<script>&", "description": "\"<b>'"}
    root = picture(write(tmp_path / "a", head=head))
    assert {"<script>&", "\"<b>'"} <= set(texts(root))
    assert not list(root.iter(f"{SVG}script"))


def test_of_aioquic(tmp_path: Path) -> None:
    with serving(echo) as server:
        root = picture(of_aioquic(server.server_port, tmp_path))
    assert "#0072b2" in curves(root)
