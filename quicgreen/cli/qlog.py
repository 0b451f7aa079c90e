"""`quicgreen qlog`: read what connections wrote."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import islice

from ..exceptions import error
from ..qlog import Trace, read
from ..qlog.convert import contained, sequence
from ..qlog.plot import svg
from ..qlog.story import Story
from .output import EXIT_READ, OutputError, complain, put

_LINES = 1000
"""Written at a time."""


def add(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    show = verbs.add_parser("show", help="the connection's story in lines")
    show.add_argument("-p", "--packets", action="store_true", help="each packet, with its frames")
    plot = verbs.add_parser("plot", help="congestion window, bytes in flight, losses and round trips, as SVG")
    plot.add_argument(
        "-t", "--trace", type=int, default=1, metavar="N", help="which one, where a file has several (1)"
    )
    convert = verbs.add_parser("convert", help="to JSON for qvis, or to JSON-SEQ")
    convert.add_argument(
        "--to", choices=["json", "json-seq"], help="json for a file in JSON-SEQ, and the other way round"
    )
    for verb, call in ((show, _show), (plot, _plot), (convert, _convert)):
        verb.add_argument("file", metavar="FILE", help="a .sqlog or .qlog")
        if verb is not show:
            verb.add_argument("-o", "--output", metavar="FILE", help="write it there instead of stdout")
        verb.set_defaults(command=_reading, call=call)


def _reading(options: argparse.Namespace) -> int:
    call: Callable[[argparse.Namespace, list[Trace]], None] = options.call
    try:
        traces = read(options.file)
    except OSError as e:
        if getattr(e, "cause", ""):
            raise
        complain(f"cannot read {options.file}: {e.strerror}")
        return EXIT_READ
    if not traces:
        raise error("qlog-format", f"{options.file} has no trace")
    try:
        call(options, traces)
    except (LookupError, TypeError, ValueError, AttributeError) as e:
        raise error("qlog-format", f"{options.file}: {type(e).__name__}: {e}") from None
    return 0


def _show(options: argparse.Namespace, traces: list[Trace]) -> None:
    for trace in traces:
        lines = Story(trace, packets=options.packets).lines()
        while some := list(islice(lines, _LINES)):
            put(sys.stdout.buffer, ("\n".join(some) + "\n").encode())


def _plot(options: argparse.Namespace, traces: list[Trace]) -> None:
    if not 1 <= options.trace <= len(traces):
        raise error("argument", f"{options.file} has {len(traces)} traces, not {options.trace}")
    _write(options, svg(traces[options.trace - 1]))


def _convert(options: argparse.Namespace, traces: list[Trace]) -> None:
    with open(options.file, "rb") as file:
        is_sequence = file.read(1) == b"\x1e"
    if (options.to or ("json" if is_sequence else "json-seq")) == "json":
        _write(options, contained(traces))
    elif len(traces) > 1:
        raise error("argument", f"JSON-SEQ has one trace, {options.file} has {len(traces)}")
    else:
        _write(options, "".join(sequence(traces[0])))


def _write(options: argparse.Namespace, text: str) -> None:
    if not options.output or options.output == "-":
        put(sys.stdout.buffer, text.encode())
        return
    try:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as e:
        raise OutputError(e) from None
