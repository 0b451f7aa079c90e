"""Pings that are under way, and those that are sent by themselves: is the peer still there?"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from gevent.event import Event

from ..exceptions import error
from .protocol import CONTROL_MAX

if TYPE_CHECKING:
    from ..hub import Runtime


class Pong(Event):  # type: ignore[misc]
    """Set when the pong came, or will not come any more. Who waits for it keeps the loop alive."""

    runtime: Any = None

    def wait(self, timeout: float | None = None) -> bool:
        self.runtime.reference()
        try:
            return bool(super().wait(timeout))
        finally:
            self.runtime.unreference()


def control_payload(data: str | bytes) -> bytes:
    """What a ping or pong carries.

    Raises:
        QuicClientException: more than 125 bytes."""
    payload = data.encode() if isinstance(data, str) else bytes(data)
    if len(payload) > CONTROL_MAX:
        raise error("argument", f"a control frame carries at most {CONTROL_MAX} bytes, not {len(payload)}")
    return payload


class Pings:
    """Of one WebSocket.

    Attributes:
        owner: sends (`_send_ping`), and is told when no pong came (`_on_pong_missing`); None once it is over.
        latency: seconds that the last ping took.
    """

    __slots__ = ("_awaited", "_entry", "_interval", "_runtime", "_timeout", "_waiting", "latency", "owner")

    def __init__(self, runtime: Runtime, owner: Any, interval: float | None, timeout: float | None) -> None:
        self._runtime = runtime
        self._interval = interval
        self._timeout = timeout
        self._waiting: dict[bytes, tuple[Pong | None, float]] = {}  # by payload, in order
        self._awaited: bytes | None = None  # the ping that must be answered in time
        self._entry: Any = None
        self.owner = owner
        self.latency = 0.0

    def new(self, data: str | bytes | None) -> tuple[bytes, Pong]:
        """(payload, event) of a ping that is sent next."""
        payload = self._unused() if data is None else control_payload(data)
        if payload in self._waiting:
            raise error("websocket-concurrency", "a ping with these bytes is under way")
        pong = Pong()
        pong.runtime = self._runtime
        self._waiting[payload] = pong, time.monotonic()
        return payload, pong

    def take(self, payload: bytes) -> None:
        """A pong came. It answers its ping and those before it."""
        if payload not in self._waiting:
            return
        for known in list(self._waiting):
            pong, sent_at = self._waiting.pop(known)
            if pong is not None:
                pong.set()
            if known == self._awaited:
                self._awaited = None
                self.plan()
            if known == payload:
                self.latency = time.monotonic() - sent_at
                return

    def plan(self) -> None:
        """The next ping is due in `interval` seconds."""
        self.rest()
        if self._interval is not None:
            self._entry = self._runtime.deadlines.add(self._interval, self._on_due)

    def rest(self) -> None:
        """No ping is due any more."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._runtime.deadlines.cancel(entry)

    def end(self) -> None:
        """Nobody waits any longer."""
        self.rest()
        self.owner = None
        waiting, self._waiting = self._waiting, {}
        for pong, _ in waiting.values():
            if pong is not None:
                pong.set()

    def _unused(self) -> bytes:
        payload = random.getrandbits(32).to_bytes(4, "big")
        return payload if payload not in self._waiting else self._unused()

    def _on_due(self) -> None:
        self._entry = None
        if self.owner is None:
            return
        payload = self._unused()
        if self._timeout is None:
            self.plan()
        else:
            self._waiting[payload] = None, time.monotonic()
            self._awaited = payload
            self.wait_on()
        self.owner._send_ping(payload)

    def wait_on(self) -> None:
        """Give the pong its time once more."""
        self._entry = self._runtime.deadlines.add(self._timeout or 0, self._on_missing)

    def _on_missing(self) -> None:
        self._entry = None
        if self.owner is not None:
            self.owner._on_pong_missing()
