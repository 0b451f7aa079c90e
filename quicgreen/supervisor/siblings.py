"""Workers that a program forks by itself, in a loop of its own, as the documentation does: each makes a
server on the same port. What they share is made before the fork; there is nobody who steers, so a packet that
comes to the wrong one is handed over (cext/src/handover.h).

    siblings = Siblings()
    for i in range(4):
        if os.fork() == 0:
            Server(siblings.join("0.0.0.0", 4433), handle, certfile=..., keyfile=...).serve_forever()
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import Any

from .. import hub
from .._group import ACCEPTING, DRAINING, FREE, STARTING, WorkerGroup
from ..exceptions import QuicException
from .sockets import SocketGroup, resolve, share
from .unpatched import sleep

_PATIENCE_S = 1.0
"""Between the moment that the first one has the port, and the one that it shares it, pass microseconds; on a
busy machine more."""

_LIVING = (STARTING, ACCEPTING, DRAINING)


class Siblings:
    """What they share. To be made before the fork.

    Args:
        options: of the `WorkerGroup`.
    """

    def __init__(self, **options: Any) -> None:
        self.group = WorkerGroup(**options)
        self._slot = self._life = -1
        self._pid = 0

    def join(self, host: str, port: int) -> Any:
        """Make this process one of them: its engine gets a slot. Returns a socket of the port, which it may
        share with the others only.

        Raises:
            QuicServerException: somebody else holds the port; all slots are taken.
            QuicClientException: something uses the network in this thread already.
        """
        is_new = self._pid != os.getpid()
        if is_new:
            self._slot, self._life = self.group.claim()
        try:
            s = self._bind(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            if is_new:
                hub.join(self.group, self._slot, self._life)
        except BaseException:
            if is_new:
                self.group.set_state(self._slot, self._life, FREE)
            raise
        self._pid = os.getpid()
        self.group.set_state(self._slot, self._life, ACCEPTING)
        return s

    def leave(self) -> None:
        """It serves no longer. In another process than the one that joined nothing happens."""
        if self._pid == os.getpid():
            self.group.set_state(self._slot, self._life, FREE)

    def _bind(self, bind: str) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return SocketGroup(bind).any()
            except QuicException as e:
                if e.errno != errno.EADDRINUSE or not self._others() or time.monotonic() > deadline:
                    raise
            with contextlib.suppress(OSError):  # the first has not shared it yet, or it is a stranger's
                return share(*resolve(bind)[0])
            # Not of gevent: its hub may still be the one of the process that was forked.
            sleep(0.005)

    def _others(self) -> bool:
        slots = set(range(self.group.info()["slots"])) - {self._slot}
        return any(self.group.worker(slot).state in _LIVING for slot in slots)
