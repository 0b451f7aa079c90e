"""A greenlet as a session knows it: what it asked for, and what it sleeps with."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from .exchange import Exchange


class Asker:
    """A greenlet that uses a session.

    Attributes:
        requests: how many it asked for that are not over.
        news: something came of them since it was told last.
        token: what it sleeps with; 0 while it does not.
        held: a request that it sent, and that is not on its way yet since it may get a body.
    """

    __slots__ = ("_home", "held", "news", "requests", "token")

    def __init__(self, home: weakref.ref[greenlet] | None = None) -> None:
        self._home = home
        self.requests = 0
        self.news = False
        self.token = 0
        self.held: Exchange | None = None

    @property
    def dead(self) -> bool:
        """The greenlet will ask no more."""
        current = None if self._home is None else self._home()
        return current is None or current.dead


class Askers(dict[int, Asker]):
    """Those of one session, by their greenlets' `id`. An entry goes with its greenlet."""

    def new(self) -> Asker:
        """The calling greenlet's, which has none."""
        current = getcurrent()
        key = id(current)
        asker = self[key] = Asker(weakref.ref(current, lambda _: self.pop(key, None)))
        return asker
