"""Locust's users in this process, which stays unpatched, and what they report."""

from __future__ import annotations

import os
from typing import Any

os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
import locust

del os.environ["LOCUST_SKIP_MONKEY_PATCH"]  # programs that are started here are patched, as anywhere

from locust.env import Environment
from support import url_of

import quicgreen
from quicgreen.locust import QuicUser

__all__ = ["Reports", "make_user"]


class Reports:
    """What is reported to locust."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self.environment = Environment(events=locust.event.Events())
        self.environment.events.request.add_listener(self._take)

    def _take(self, **report: Any) -> None:
        self.all.append(report)

    @property
    def last(self) -> dict[str, Any]:
        return self.all[-1]

    @property
    def lines(self) -> list[tuple[str, str, str | None]]:
        """(type, name, class of the exception) of each."""
        return [
            (r["request_type"], r["name"], type(r["exception"]).__name__ if r["exception"] else None)
            for r in self.all
        ]


def make_user(
    reports: Reports, server: quicgreen.Server | str, kind: type[QuicUser] = QuicUser, **settings: Any
) -> QuicUser:
    """Of a class with these settings, for a server of this process."""
    host = server if isinstance(server, str) else url_of(server, "")
    return type("Tested", (kind,), {"host": host, **settings})(reports.environment)
