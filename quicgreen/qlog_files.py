"""The files that connections write their qlog to, as far as Python has to do with them: the engine writes."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import gevent

from . import _engine
from ._engine import CODE, VALUE
from .exceptions import error

if TYPE_CHECKING:
    from ._engine import Engine, Record

_log = logging.getLogger("quicgreen")


def begin(engine: Engine, conn: int, path: str | os.PathLike[str]) -> None:
    """`BaseConnection.qlog`."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise error("argument", f"{path!r} contains a NUL character")
    rc, number = engine.conn_qlog(conn, name)
    if rc in (_engine.GONE, _engine.CLOSED):
        raise error("closed-here")
    if rc < 0:
        why = (
            os.strerror(number) if number else "no memory" if rc == _engine.NOMEM else "the name is too long"
        )
        raise error("qlog-file", f"{os.fsdecode(name)}: {why}", errno=number or None)


def report(engine: Engine, record: Record) -> None:
    """Of a file that failed (`QG_EVENT_QLOG`). Called in the hub, where nothing may be logged."""
    gevent.spawn(
        _log.warning,
        "the qlog %s ended: %s; %d of its records were lost before",
        os.fsdecode(engine.take(record)),
        os.strerror(record[CODE]),
        record[VALUE],
    )
