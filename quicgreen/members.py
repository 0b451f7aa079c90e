"""Servers in processes that nobody supervises: whoever starts one on the same address, with the same group,
takes a slot of it. They find their slots, share the port, and notice each other's deaths, by themselves.

A supervisor does all of this for its workers; these are for a program's own loop that forks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from errno import EADDRINUSE
from typing import Any

import gevent

from . import hub
from ._engine import Engine
from ._group import ACCEPTING, DEAD, DRAINING, FREE, STARTING, WorkerGroup

_BIND_S = 2.0
"""How long another member's look at the port may be in the way."""

_LOOK_S = 1.0
"""How often each member looks whether others have died. Who has a packet for one of them sees it at once."""


class Member:
    """A server's place in a group.

    Args:
        group: made before the fork, or of a file that all of them name.
    """

    def __init__(self, group: WorkerGroup) -> None:
        self._group = group
        self._slot = self._generation = self._fd = 0
        self._runtime: Any = None
        self._look_entry: Any = None

    def enter(self) -> hub.Runtime:
        """The runtime of this thread, which has a slot of the group.

        Raises:
            QuicClientException: the thread has one already that is not of this group.
            QuicServerException: with cause "slots", all are taken.
        """
        runtime = hub.existing()
        if runtime is None or runtime.group is not self._group:
            runtime = hub.join(self._group, *self._group.claim())
        self._slot, self._generation = runtime.slot, runtime.generation
        self._runtime = runtime
        return runtime

    def bind(self, engine: Engine, ip: str, port: int) -> tuple[int, int]:
        """A socket of the port that all members share; as `Engine.endpoint_udp`. A port that somebody else
        has is refused, also if he would share it."""
        deadline = time.monotonic() + _BIND_S
        while True:
            alone, number = engine.endpoint_udp(ip, port)
            others = self._others()  # now: whoever looked at the port meanwhile has a slot
            if alone >= 0:
                engine.endpoint_close(alone)
            elif number != EADDRINUSE or not others or time.monotonic() > deadline:
                return alone, number
            elif not others & {ACCEPTING, DRAINING}:  # none of them says that it has the port: a stranger may
                gevent.sleep(0.01)
                continue
            endpoint, number = engine.endpoint_udp(ip, port, shared=True)
            if endpoint >= 0 or number != EADDRINUSE or time.monotonic() > deadline:
                return endpoint, number
            gevent.sleep(0.01)

    def _others(self) -> set[int]:
        """States of those that live."""
        workers = [self._group.worker(slot) for slot in range(self._group.info()["slots"])]
        del workers[self._slot]
        return {worker.state for worker in workers} - {FREE, DEAD}

    def accept(self, fd: int) -> None:
        """New connections may come, by the socket `fd`. Through it the clients of members are told that have
        died, and of those that will."""
        self._fd = fd
        self._mourn({*self._group.bury(), self._slot})  # this one had another owner, perhaps
        self._group.set_state(self._slot, self._generation, ACCEPTING)
        self._plan_look()

    def _plan_look(self) -> None:
        self._look_entry = self._runtime.deadlines.add(_LOOK_S, self._look)

    def _look(self) -> None:
        """In the hub."""
        if not self._runtime.forked and self._look_entry is not None:
            self._plan_look()
            self._mourn(self._group.bury())

    def _mourn(self, slots: Iterable[int]) -> None:
        """Tell the clients of the dead who had these slots."""
        group = self._group
        for slot in slots:
            while group.reset(slot, self._fd):
                pass
            worker = group.worker(slot)
            if worker.state == DEAD and worker.connections == 0:  # none that know another port
                group.set_state(slot, worker.generation, FREE)

    def leave(self) -> None:
        """No new connections; they go to other members."""
        self._group.set_state(self._slot, self._generation, DRAINING)

    def rest(self) -> None:
        """The server has ended. The slot is kept as long as the process, whose engine has it."""
        if self._look_entry is not None:
            self._runtime.deadlines.cancel(self._look_entry)
            self._look_entry = None
        self._group.set_state(self._slot, self._generation, STARTING)
