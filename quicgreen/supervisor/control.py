"""The control socket: `quicgreen ctl` and `top` ask here, one datagram a question and one an answer.

An abstract UNIX socket that is named by the supervisor's process: there is no file that could stay behind.
The kernel says who sent what (SCM_CREDENTIALS): the supervisor answers its own user and root, and who asks
believes none but the process of the pid file.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

from ..exceptions import error
from .unpatched import Socket, poll

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_LARGEST = 1 << 20
_A_TURN = 16
"""Questions a turn; the supervisor has other work too."""

Answer = Callable[[str], dict[str, Any]]


def _name(pid: int) -> str:
    return f"\0quicgreen.supervisor.{pid}"


def _new() -> Any:
    s = Socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return s


def _receive(s: Any) -> tuple[bytes, int, int, Any]:
    """(what, the sender's pid, its user, its address)."""
    data, ancillary, _, address = s.recvmsg(_LARGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
    for level, kind, what in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid, uid, _ = _CREDENTIALS.unpack(what)
            return data, pid, uid, address
    return data, -1, -1, address


class Control:
    """The supervisor's end."""

    def __init__(self, pid: int, answer: Answer) -> None:
        self._answer = answer
        self._socket = _new()
        # Some 2 kB of counters for each worker, before they are packed.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        try:
            self._socket.bind(_name(pid))
        except OSError as e:
            self._socket.close()
            raise error("supervisor", f"its control socket: {e.strerror}", errno=e.errno) from None

    @property
    def fd(self) -> int:
        return int(self._socket.fileno())

    def serve(self) -> None:
        """Answer who has asked. Nobody is waited for: one that does not read loses its answer."""
        for _ in range(_A_TURN):
            try:
                data, _, uid, address = _receive(self._socket)
            except OSError:
                return
            if address is None:
                continue
            if uid in (0, os.geteuid()):
                told = self._answer(data.decode(errors="replace"))
            else:
                told = {"error": "only the supervisor's user and root are answered"}
            with contextlib.suppress(OSError):
                self._socket.sendto(zlib.compress(json.dumps(told).encode(), 1), address)

    def close(self) -> None:
        self._socket.close()


def _wait(s: Any, event: int, deadline: float) -> bool:
    waiting = poll()
    waiting.register(s.fileno(), event)
    return bool(waiting.poll(max(0.0, deadline - time.monotonic()) * 1000))


def ask(pid: int, question: str, timeout_s: float = 5.0) -> dict[str, Any]:
    """The supervisor's answer.

    Raises:
        QuicServerException: it is not there, does not answer in time, or says no.
    """
    s = _new()
    try:
        s.bind("")  # a name of its own, for the answer
        deadline = time.monotonic() + timeout_s
        try:
            s.connect(_name(pid))
            _wait(s, select.POLLOUT, deadline)  # others may be asking
            s.send(question.encode())
        except OSError as e:
            raise error("control", f"process {pid}: {e.strerror}", errno=e.errno) from None
        while _wait(s, select.POLLIN, deadline):
            data, sender, _, _ = _receive(s)
            if sender != pid:
                raise error("control", f"process {sender} answers in the place of {pid}")
            told: dict[str, Any] = json.loads(zlib.decompress(data))
            if set(told) == {"error"}:
                raise error("control", told["error"])
            return told
        raise error("control", f"process {pid}: no answer within {timeout_s:g} s")
    finally:
        s.close()
