"""Session tickets in one file that a command names: `quicgreen fetch --ssl-sessions FILE`.

As in curl: the tickets are read at the start and saved at the end. The file is text, so that it can be pasted
elsewhere:

    # quicgreen session tickets, version 1: secrets, keep them to yourself
    KEY TICKET             for each one: its key's fingerprint, and its bytes (`Ticket.to_bytes`) in base64

What other commands put into the file or took out of it meanwhile stays so. Two that read it at the same time
may use the same ticket, which is no harm but lets others see that they come from one client.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable

from ..exceptions import NO_SPACE, QuicException, error
from ..tickets import MemoryTicketStore, Ticket, TicketStore

HEADER = "# quicgreen session tickets, version 1: secrets, keep them to yourself\n"

_LINE = re.compile(r"([0-9a-f]{32}) ([A-Za-z0-9+/]+=*)")

_FILE_MAX = 64 << 20
"""More than 1,024 tickets of the largest size have as text."""


def to_line(key: str, ticket: Ticket) -> str:
    return f"{key} {base64.b64encode(ticket.to_bytes()).decode()}\n"


def from_line(line: str) -> tuple[str, Ticket] | None:
    """(key, ticket); None for what is not one, or not one of this version."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return None
    try:
        return match[1], Ticket.from_bytes(base64.b64decode(match[2]))
    except (binascii.Error, QuicException):
        return None


def _fill(store: TicketStore, lines: Iterable[str]) -> None:
    found = [entry for line in lines if (entry := from_line(line)) is not None]
    for key, ticket in sorted(found, key=lambda entry: entry[1].issued_at):
        store.put(key, ticket)


def write_privately(path: str, data: bytes) -> None:
    """The whole file or none of it, for its owner only.

    Raises:
        OSError: it cannot be written.
    """
    path = os.path.realpath(path)  # a link stays one
    unfinished = f"{path}.{secrets.token_hex(4)}.tmp"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.rename(unfinished, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise


class SessionFile(MemoryTicketStore):
    """A store that is the file's content; `close` saves what has changed.

    Args:
        path: need not exist yet.

    Raises:
        QuicClientException: it cannot be read, or is something else; it is left as it is then. By `close`: it
            cannot be written.
    """

    def __init__(self, path: str, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock=clock)
        self.path = path
        self._was = self._read()
        _fill(self, self._was)
        self._was = self._lines()  # those of them that live

    def _lines(self) -> set[str]:
        return {to_line(key, ticket) for key, ticket in self.items()}

    def _read(self) -> set[str]:
        try:
            with open(self.path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
                info = os.fstat(file.fileno())
                data = file.read(_FILE_MAX) if stat.S_ISREG(info.st_mode) else b"?"
        except FileNotFoundError:
            return set()
        except OSError as e:
            raise error("ticket-folder", f"{self.path}: {e.strerror}", errno=e.errno) from None
        if data and not data.startswith(HEADER[:26].encode()):
            raise error("ticket", f"{self.path} is no file of session tickets")
        if info.st_uid != os.geteuid():
            raise error("ticket-folder", f"{self.path} belongs to another user")
        if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise error("ticket-folder", f"others may write to {self.path}")
        return set(data.decode("ascii", "replace").splitlines(keepends=True)[1:])

    def close(self) -> None:
        """Save. Idempotent."""
        mine = self._lines()
        if mine == self._was:
            return
        lines = (self._read() - (self._was - mine)) | (mine - self._was)
        self._was = mine
        merged = MemoryTicketStore(clock=self._clock)
        _fill(merged, lines)
        ordered = sorted(merged.items(), key=lambda entry: entry[1].issued_at)
        text = HEADER + "".join(to_line(key, ticket) for key, ticket in ordered)
        try:
            write_privately(self.path, text.encode())
        except OSError as e:
            cause = "ticket-disk" if e.errno in NO_SPACE else "ticket-folder"
            raise error(cause, f"{self.path}: {e.strerror}", errno=e.errno) from None
