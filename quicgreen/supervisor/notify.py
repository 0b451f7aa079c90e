"""What systemd is told, and asks for (sd_notify(3)): one datagram a message, to the socket that it names."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

from .unpatched import Socket


class Notifier:
    """Says nothing where nobody named a socket.

    Args:
        environ: loses NOTIFY_SOCKET and its like, so that workers do not speak for the service.
    """

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._path = environ.pop("NOTIFY_SOCKET", "")
        usec = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        self.interval_s: float | None = None
        """How often `alive` is to be said, half of what the watchdog waits; None: it does not."""
        if self._path and usec.isdecimal() and pid in ("", str(os.getpid())):
            self.interval_s = int(usec) / 2e6
        self._alive_at = 0.0

    def ready(self, status: str) -> None:
        """Started, or reloaded."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        """To be called whenever the supervisor comes round; speaks as often as is wanted."""
        now = time.monotonic()
        if self.interval_s is not None and now - self._alive_at >= self.interval_s / 2:
            self._alive_at = now
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._path:
            return
        path = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        # Nothing that systemd does may hold up or end the service.
        with contextlib.suppress(OSError):
            s = Socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            try:
                s.sendto("\n".join(lines).encode(), path)
            finally:
                s.close()
