"""What the workers of one server share, as an object, and how they end with who forked them
(cext/include/quicgreen_group.h).

One of the modules that import the C module, under the rules of `_engine`. Exempt from rule 1: any thread of
any process of the group may call any method at any time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ._contexts import Keys, ReplayRegister
from ._core import ffi, lib
from .exceptions import error

FREE: int = lib.QG_WORKER_FREE
STARTING: int = lib.QG_WORKER_STARTING
ACCEPTING: int = lib.QG_WORKER_ACCEPTING
DRAINING: int = lib.QG_WORKER_DRAINING
DEAD: int = lib.QG_WORKER_DEAD

STATES = ["free", "starting", "accepting", "draining", "dead"]
"""By `QG_WORKER_*`."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A slot at one moment."""

    state: int
    """FREE, STARTING, ACCEPTING, DRAINING or DEAD."""
    pid: int
    generation: int
    """Which life of the slot: 0 to 255."""
    connections: int
    """Listed, for resets should it die."""
    claimed_ns: int
    """CLOCK_MONOTONIC, as `time.monotonic_ns`."""
    heartbeat_ns: int
    """The same: the last beat."""


class WorkerGroup:
    """Secrets, replay register, counters and connections of the workers of one server: made before they are
    forked, and inherited; or in a file, for processes that do not descend from each other.

    Args:
        path: of the file, which who comes first makes, for its user alone and with the options given; all
            others take it as it is. A folder in memory (/dev/shm) is right: the file holds secrets, and is
            good until the system's next start only. None: no file.
        slots: workers at one time, draining ones included: 1 to 255.
        connections: of each worker, that can be told of its death.
        early_data_capacity: ClientHellos with early data in two minutes.
        quiet: take no early data for the first two minutes: for a `secret` that was in use before.
        key_period_s, key_window, key_origin_s, secret: as in `Keys`.
        host_id: in connection ids; None: one at random. Servers behind one address have different ones.

    Raises:
        QuicClientException: with cause "argument", when an option is out of range.
        QuicServerException: with cause "group", when the system gives no memory, or the file is not such a
            one, another user's, open to others, or of an earlier start of the system.
    """

    SLOTS_MAX: int = lib.QG_GROUP_SLOTS_MAX

    def __init__(
        self,
        path: str | None = None,
        *,
        slots: int = 64,
        connections: int = 16384,
        early_data_capacity: int = 100_000,
        quiet: bool = False,
        key_period_s: int = 3600,
        key_window: int = 25,
        key_origin_s: int | None = None,
        secret: bytes | None = None,
        host_id: int | None = None,
    ) -> None:
        if secret is not None and len(secret) != 32:
            raise error("argument", "a key ring's secret is 32 bytes")
        options = ffi.new("qg_group_options *")
        lib.qg_group_defaults(options)
        kept = ffi.new("uint8_t[]", secret) if secret is not None else ffi.NULL
        try:
            options.slots, options.connections = slots, connections
            options.early_data_capacity = early_data_capacity
            options.quiet_s = lib.QG_REPLAY_PERIOD_S if quiet else 0
            options.key_period_s, options.key_window = key_period_s, key_window
            if key_origin_s is not None:
                options.key_origin_s = key_origin_s
            if host_id is not None:
                options.host_id = host_id
        except (TypeError, OverflowError) as e:
            raise error("argument", f"a group's option: {e}") from None
        options.secret = kept
        result, text = ffi.new("int *"), ffi.new("char[]", 512)
        if path is None:
            pointer = lib.qg_group_new(options, result, text, 512)
        elif "\0" in path:
            raise error("argument", f"{path!r} contains a NUL character")
        else:
            pointer = lib.qg_group_open(os.fsencode(path), options, result, text, 512)
        if pointer == ffi.NULL:
            number = ffi.errno if result[0] == lib.QG_SYSTEM else None
            cause = "argument" if result[0] == lib.QG_INVALID else "group"
            raise error(cause, ffi.string(text).decode(errors="replace"), errno=number)
        self.pointer = ffi.gc(pointer, lib.qg_group_free)

    def info(self) -> dict[str, int]:
        """size, slots, connections, host_id, key_period_s, key_window, key_epoch, key_origin_s."""
        info = ffi.new("qg_group_info *")
        lib.qg_group_info_of(self.pointer, info)
        return {name: getattr(info, name) for name, _ in ffi.typeof("qg_group_info").fields}

    def keys(self) -> Keys:
        """The group's key ring, as this process sees it: to be made after the fork."""
        return Keys.of(lib.qg_group_keys(self.pointer))

    def replay(self) -> ReplayRegister:
        """The group's replay register: the same. Its counts are the whole group's."""
        return ReplayRegister.of(lib.qg_group_replay(self.pointer))

    # ---------------------------------------------------------------- workers

    def claim(self, slot: int | None = None, pid: int | None = None) -> tuple[int, int]:
        """Take a slot, `slot` or any, for process `pid` (this one). Returns it and its generation.

        Raises:
            QuicServerException: with cause "slots", when all are taken, or the one asked for is.
        """
        generation = ffi.new("uint32_t *")
        pid = os.getpid() if pid is None else pid
        if slot is not None and slot < 0:
            raise error("argument", f"there is no slot {slot}")
        got = self._call(lib.qg_group_claim, -1 if slot is None else slot, pid, generation)
        if got == lib.QG_INVALID:
            raise error("argument", f"there is no slot {slot} for process {pid}")
        if got < 0:
            raise error("slots", "all are taken" if slot is None else f"slot {slot} is taken")
        return int(got), generation[0]

    def bury(self) -> list[int]:
        """Mark the slots DEAD whose process is gone without a word. Returns all that are DEAD."""
        dead = ffi.new("uint8_t[]", self.SLOTS_MAX)
        return list(dead[0 : lib.qg_group_bury(self.pointer, dead)])

    def set_state(self, slot: int, generation: int, state: int) -> bool:
        """False when the slot has begun another life."""
        return self._known(self._call(lib.qg_group_set_state, slot, generation, state), slot)

    def beat(self, slot: int, generation: int) -> bool:
        """This worker is well, now. False when its slot has begun another life."""
        return self._known(self._call(lib.qg_group_beat, slot, generation), slot)

    def worker(self, slot: int) -> WorkerInfo:
        """What is known of a slot."""
        info = ffi.new("qg_worker_info *")
        self._known(self._call(lib.qg_group_worker, slot, info), slot)
        return WorkerInfo(*(getattr(info, name) for name, _ in ffi.typeof("qg_worker_info").fields))

    def counters(self, slot: int) -> dict[str, int]:
        """The counters of a slot's engine; they stay after its death until the slot is claimed again."""
        counters = self._call(lib.qg_group_counters, slot)
        self._known(lib.QG_INVALID if counters == ffi.NULL else 0, slot)
        return {name: getattr(counters, name) for name, _ in ffi.typeof("qg_counters").fields}

    # ---------------------------------------------------------------- steering

    def steer(self, fd: int) -> int:
        """Have the kernel send packets to their workers, as the states are now: a packet of a connection to
        its worker's socket, all others to those that accept. To be called again when a state changed.

        Args:
            fd: any socket of a SO_REUSEPORT group, whose n-th member is the socket of slot n; none of them
                may be closed while the others are used.

        Returns:
            0, or the errno: then the kernel goes by addresses, and workers hand packets over.
        """
        return 0 if self._call(lib.qg_group_steer, fd) == 0 else int(ffi.errno)

    def steers_to(self, packet: bytes) -> int:
        """The slot whose socket a packet goes to when it is steered; -1: the kernel decides."""
        return int(lib.qg_group_steers_to(self.pointer, packet, len(packet)))

    # ---------------------------------------------------------------- the dead

    def reset(self, slot: int, fd: int) -> int | None:
        """Tell the peers of a slot's connections whose worker is gone that these are gone (RFC 9000, section
        10.3), from the UDP socket `fd`: those who know its port. Never waits; call it until it returns 0.

        Returns:
            How many resets were sent, 1,100 at most; 0: all have been told; None: the socket is full now.

        Raises:
            QuicServerException: with cause "group", when the socket cannot be used.
        """
        sent = int(self._call(lib.qg_group_reset, slot, fd))
        number = ffi.errno
        if sent >= 0 or sent == lib.QG_AGAIN:
            return sent if sent >= 0 else None
        if sent == lib.QG_SYSTEM:
            raise error("group", f"descriptor {fd}: {os.strerror(number)}", errno=number)
        raise error("argument", f"slot {slot}, descriptor {fd}")

    def answer(self, packet: bytes) -> bytes:
        """The stateless reset that answers a packet for a connection whose worker is gone, for who reads a
        dead slot's socket; b"" when there is nothing to answer."""
        out = ffi.new("uint8_t[64]")
        n = lib.qg_group_answer(self.pointer, packet, len(packet), out)
        return bytes(ffi.buffer(out, n))

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(self.pointer, *arguments)
        except (TypeError, OverflowError) as e:
            raise error("argument", f"{arguments!r}: {e}") from None

    @staticmethod
    def _known(result: Any, slot: int) -> bool:
        if result == lib.QG_INVALID:
            raise error("argument", f"slot {slot}")
        return bool(result != lib.QG_GONE)


def end_with(parent: int, number: int, patience_s: int) -> bool:
    """From now on this process ends when its parent does: signal `number` comes, whose handler in Python is
    there already and may say goodbye, and `patience_s` seconds later an alarm, which also ends one that
    runs no Python any more. To be called again when the user was changed. False: the parent is dead already.
    """
    result = lib.qg_orphan_ends(parent, number, patience_s)
    if result == lib.QG_INVALID:
        raise error("argument", f"signal {number}, {patience_s} s")
    return bool(result == lib.QG_OK)
