"""What runs in threads is not cut in two by a fork.

A child has the thread that forked, and the others' locks as they were. glibc's resolver has locks that fork
does not know: a child that was forked while another thread held one never gets it, and every name that it
looks up hangs, for as long as it lives. Seen with glibc 2.36, each with its stack: the lock around the copy
of resolv.conf, held while the file is looked at (`get_locked_global` in resolv/resolv_conf.c), and that of
the list of modules, when the first lookup fills it (`__nss_module_allocate` in nss/nss_module.c). The child
can neither see nor undo that (docs/decisions/025).

So the parent takes care. From the moment that it is about to fork no such piece of work begins, and those
that have begun may end: lookups take a few hundred microseconds when they ask files, and a round trip when
they ask a server. One that waits for a slow server holds none of those locks then, and is not waited for
longer than `_PATIENCE_S`; one that would run if the machine were less busy may hold one, and is.

This is the one place of the core that blocks a thread: those that are there for that, and the one that forks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from gevent import monkey

_PATIENCE_S = 0.05
"""How long a fork waits for what sleeps. A lookup that asks no server takes a hundredth of it."""

_LONGEST_S = 2.0
"""And for what runs, or is ready to: on a machine with ten times the work that it can do a thread comes back
to what it was doing after tenths of a second."""

_LOOK_S = 0.0002
"""Between two looks at whether all have ended."""

_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
_gate: Any = monkey.get_original("_thread", "RLock")()
"""Held by who forks, from before to after, and by who begins something, for that moment. Of the kind that its
holder may take again: a signal's handler may fork in the middle of a fork."""

_thread_id: Callable[[], int] = monkey.get_original("_thread", "get_native_id")
_inside: dict[object, int] = {}
"""What has begun, each a thing of its own, and the system's number of its thread."""

_forked = False


def whole(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Call it, in a thread that is there for what blocks, with no fork in the middle."""
    me = object()
    with _gate:
        _inside[me] = _thread_id()
    try:
        return function(*args, **kwargs or {})
    finally:
        _inside.pop(me, None)


def forked() -> bool:
    """Was this process forked after quicgreen was imported?"""
    return _forked


def _before() -> None:
    _gate.acquire()
    began = time.monotonic()
    while _inside and _is_worth_it(time.monotonic() - began):
        _sleep(_LOOK_S)


def _is_worth_it(waited_s: float) -> bool:
    if waited_s > _PATIENCE_S:
        return waited_s < _LONGEST_S and any(map(_runs, list(_inside.values())))
    return True


def _runs(thread: int) -> bool:
    """Is it running, or would it, or does it wait for a disk? proc(5)."""
    try:
        with open(f"/proc/self/task/{thread}/stat", "rb") as file:
            return file.read().rpartition(b")")[2][1:2] in b"RD"
    except OSError:  # it has ended, or there is no /proc
        return False


def _after_in_child() -> None:
    global _forked
    _forked = True
    _inside.clear()  # their threads are the parent's
    _gate.release()


os.register_at_fork(before=_before, after_in_parent=_gate.release, after_in_child=_after_in_child)
