"""A trace as a picture: congestion window, bytes in flight, losses, and round trips over time, as SVG.

Two panels share the axis of time. A series of more points than the picture has columns is drawn by the least
and the most of each column, so that no peak is lost and a file of any length makes a small picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from html import escape

from .reader import Trace
from .series import Points, Series, series_of
from .story import size

_WIDTH, _LEFT, _RIGHT = 960, 84, 24
_TOP, _PANEL_HEIGHTS, _GAP, _BOTTOM = 58, (250, 190), 56, 46
_COLUMNS = _WIDTH - _LEFT - _RIGHT

_HEADROOM = 1.06
"""Above the highest point."""

# Wong's colours: told apart also by those who do not see red and green as two.
_BLUE, _ORANGE, _GREEN, _GREY, _RED = "#0072b2", "#e69f00", "#009e73", "#7f7f7f", "#d55e00"

_FILLED = "bytes in flight"
"""The curve that is an area."""

_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-size:15px;font-weight:600}"
    ".about{fill:#555}.grid{stroke:#e4e4e4}.axis{stroke:#888}"
    "path{fill:none;stroke-width:1.5;stroke-linejoin:round}"
)


class _Axis:
    """From 0 to `top` over `length` pixels, with a mark at each `step`, some `marks` in all."""

    def __init__(self, top: float, length: float, marks: int) -> None:
        rough = top / marks
        power = 10.0 ** math.floor(math.log10(rough))
        self.step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
        self.top = top
        self._scale = length / top

    def marks(self) -> Iterator[float]:
        for n in range(int(self.top / self.step * (1 + 1e-9)) + 1):
            yield n * self.step

    def pixels(self, value: float) -> float:
        return value * self._scale


def svg(trace: Trace) -> str:
    """The picture, as the text of a file."""
    series = series_of(trace)
    time = _Axis(max(series.end_ms, 0.001), _COLUMNS, 8)
    height = _TOP + sum(_PANEL_HEIGHTS) + _GAP + _BOTTOM
    title = trace.title or "qlog"
    about = trace.description or trace.side
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}">',
        f"<title>{escape(title)}: {escape(about)}</title><style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="{_LEFT}" y="22">{escape(title)}</text>',
        f'<text class="about" x="{_LEFT + 9 * len(title) + 12}" y="22">{escape(about)}</text>',
        *_sizes_panel(series, time),
        *_round_trips_panel(series, time),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


# ------------------------------------------------------------------ panels


def _sizes_panel(series: Series, time: _Axis) -> Iterator[str]:
    most = max((v for points in (series.window, series.in_flight) for _, v in points), default=1)
    axis = _Axis(max(most, 1) * _HEADROOM, _PANEL_HEIGHTS[0], 5)
    lost = round(sum(count for _, count in series.lost))
    curves = [
        (f"lost packets: {lost}", _RED, []),
        ("slow start threshold", _GREY, [p for p in series.threshold if p[1] <= axis.top]),
        (_FILLED, _ORANGE, series.in_flight),
        ("congestion window", _BLUE, series.window),
    ]
    yield from _panel(0, axis, time, [size(v) for v in axis.marks()], curves, series.end_ms)
    bottom = _TOP + _PANEL_HEIGHTS[0]
    columns = {round(time.pixels(at)) for at, _ in series.lost}
    for x in sorted(columns):
        yield (
            f'<line x1="{_LEFT + x}" x2="{_LEFT + x}" y1="{_TOP}" y2="{bottom}" '
            f'stroke="{_RED}" stroke-opacity=".35"/>'
            f'<path d="M{_LEFT + x - 4},{bottom + 8}l4,-7 4,7z" style="fill:{_RED};stroke:none"/>'
        )


def _round_trips_panel(series: Series, time: _Axis) -> Iterator[str]:
    most = max((v for points in (series.latest_rtt, series.smoothed_rtt) for _, v in points), default=1)
    axis = _Axis(max(most, 0.001) * _HEADROOM, _PANEL_HEIGHTS[1], 4)
    curves = [
        ("least", _GREEN, series.min_rtt),
        ("latest", _ORANGE, series.latest_rtt),
        ("round trip, smoothed", _BLUE, series.smoothed_rtt),
    ]
    yield from _panel(
        1, axis, time, [_milliseconds(v, axis.step) for v in axis.marks()], curves, series.end_ms
    )


def _panel(
    number: int,
    axis: _Axis,
    time: _Axis,
    labels: list[str],
    curves: list[tuple[str, str, Points]],
    end_ms: float,
) -> Iterator[str]:
    height = _PANEL_HEIGHTS[number]
    bottom = _TOP + sum(_PANEL_HEIGHTS[:number]) + number * _GAP + height
    for value, label in zip(axis.marks(), labels, strict=True):
        y = bottom - axis.pixels(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    for value in time.marks():
        x = _LEFT + time.pixels(value)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom - height}" y2="{bottom}"/>'
        yield (
            f'<text x="{x:.1f}" y="{bottom + 22}" text-anchor="middle">'
            f"{_milliseconds(value, time.step)}</text>"
        )
    yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{bottom - height}" y2="{bottom}"/>'
    x = float(_LEFT)
    for name, colour, _ in reversed(curves):
        yield f'<rect x="{x:.0f}" y="{bottom - height - 16}" width="14" height="4" fill="{colour}"/>'
        yield f'<text x="{x + 19:.0f}" y="{bottom - height - 10}">{escape(name)}</text>'
        x += 19 + 7 * len(name) + 22
    for name, colour, points in curves:
        if points:
            steps = _steps(points, axis, time, bottom, end_ms)
            if name == _FILLED:  # it falls to nothing with each acknowledgement: lines would hide the rest
                start = _LEFT + time.pixels(points[0][0])
                fill = f"fill:{colour};fill-opacity:.45;stroke:none"
                yield f'<path style="{fill}" d="{steps}V{bottom}H{start:.1f}z"/>'
            else:
                yield f'<path stroke="{colour}" d="{steps}"/>'


def _milliseconds(value: float, step: float) -> str:
    return f"{value / 1000:g} s" if step >= 200 else f"{value:.10g} ms"


# ------------------------------------------------------------------ curves


def _steps(points: Points, axis: _Axis, time: _Axis, bottom: float, end_ms: float) -> str:
    """A value holds until the next one."""
    text = []
    y = None
    for x, value in _thinned(points, time):
        px, py = f"{_LEFT + x:.1f}", f"{bottom - axis.pixels(value):.1f}"
        text.append(f"M{px},{py}" if y is None else f"H{px}V{py}")
        y = py
    text.append(f"H{_LEFT + time.pixels(end_ms):.1f}")
    return "".join(text)


def _thinned(points: Points, time: _Axis) -> Iterable[tuple[float, float]]:
    """(pixel, value): all, or of each column the first, the least, the most and the last."""
    if len(points) <= 2 * _COLUMNS:
        return [(time.pixels(at), value) for at, value in points]
    columns: dict[int, list[float]] = {}
    for at, value in points:
        columns.setdefault(int(time.pixels(at)), []).append(value)
    return [
        (float(x), value)
        for x, values in columns.items()
        for value in dict.fromkeys((values[0], min(values), max(values), values[-1]))
    ]
