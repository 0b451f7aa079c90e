"""Connections' stories, read: `quicgreen qlog`. What writes them is the engine (cext/src/qlog.c)."""

from .reader import Event, Trace, read

__all__ = ["Event", "Trace", "read"]
