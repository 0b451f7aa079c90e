"""Slots: each has a socket of the port, and at most one worker. The kernel is told which of them take new
connections, and where packets of the others go."""

from __future__ import annotations

import logging
import os

from .._group import ACCEPTING, DEAD, DRAINING, FREE, WorkerGroup, WorkerInfo
from ..exceptions import QuicException, error
from .children import Child
from .sockets import SocketGroup

_log = logging.getLogger("quicgreen")

_RESETS_A_TURN = 64
"""Calls, each of up to 1024 resets: the supervisor has other work too."""


class Slots:
    """Args:
        group: what the workers share.
        sockets: of the port.
        steering: "auto", "bpf" or "handover", as the setting.

    Raises:
        QuicServerException: "bpf" is wanted, or needed since sockets are inherited, and the kernel takes no
            program.
    """

    def __init__(self, group: WorkerGroup, sockets: SocketGroup, steering: str) -> None:
        self.group, self.sockets = group, sockets
        self._register = group.replay()
        self.count: int = group.info()["slots"]
        self.is_steered = steering != "handover"
        self._mourned: set[int] = set()  # dead, and not all of their clients know
        if self.is_steered:
            # The first was bound alone, and makes no group that takes a program until there is a second.
            sockets.member(1)
            self._steer()
        if self.is_steered:
            return
        if steering == "bpf":
            raise error("configuration", "steering=bpf: this kernel takes no program (see the log)")
        if sockets.are_inherited:
            raise error(
                "configuration",
                "a socket that was inherited stays open with whoever opened it, also while no worker reads "
                "it; so it takes a steering program, which this kernel or steering=handover forbids: bind "
                "the port here instead",
            )
        if steering != "handover":
            sockets.drop(1)

    def choose(self, taken: set[int]) -> int | None:
        """The first that is free, with its socket made; None: there is none."""
        for slot in range(self.count):
            if slot not in taken and slot not in self._mourned:
                self.sockets.member(slot)
                return slot
        return None

    def accept(self, child: Child) -> None:
        """It takes new connections from now on."""
        self._set(child, ACCEPTING)

    def leave(self, child: Child) -> None:
        """It takes none any more, and keeps those that it has."""
        self._set(child, DRAINING)

    def bury(self, child: Child) -> int:
        """The worker has ended. Returns how many connections it left behind; their clients are told."""
        info = self.group.worker(child.slot)
        if info.pid != child.pid:
            return 0  # it ended before it began
        if info.connections:
            self._set(child, DEAD)
            self._mourned.add(child.slot)
            self.mourn()
        else:
            self._release(child.slot)
        return info.connections

    def mourn(self) -> bool:
        """Tell clients of the dead, as many as the socket takes. True: there are more to tell."""
        for slot in list(self._mourned):
            for _ in range(_RESETS_A_TURN):
                try:
                    told = self.group.reset(slot, self.sockets.any().fileno())
                except QuicException as e:
                    _log.error("clients of the dead worker %d are not told: %s", slot, e)
                    told = 0
                if told is None:
                    break
                if told == 0:
                    self._mourned.discard(slot)
                    self._release(slot)
                    break
        return bool(self._mourned)

    def information(self, slot: int) -> WorkerInfo:
        """State, pid, heartbeat and the rest, as the group has them."""
        return self.group.worker(slot)

    def first_flights(self) -> dict[str, int]:
        """What became of early data, of all workers together (`ReplayRegister.counts`)."""
        return self._register.counts()

    def _set(self, child: Child, state: int) -> None:
        info = self.group.worker(child.slot)
        if info.pid == child.pid:
            self.group.set_state(child.slot, info.generation, state)
            self._steer()

    def _release(self, slot: int) -> None:
        self.group.set_state(slot, self.group.worker(slot).generation, FREE)
        self._steer()
        if not self.is_steered:
            self.sockets.drop(slot)

    def _steer(self) -> None:
        """By the states of now."""
        if not self.is_steered:
            return
        if number := self.group.steer(self.sockets.any().fileno()):
            self.is_steered = False
            _log.warning(
                "no steering program (%s): packets are handed from worker to worker, which costs CPU",
                os.strerror(number),
            )
