"""Tickets in files.

One file for each ticket, named KEY-STAMP-EXPIRES-RANDOM.ticket: the key's fingerprint, when it was put
(nanoseconds, later than all others of the key), the second at which it expires, and something that makes
the name unlike any other, all in hexadecimal. It is written under a name that begins with a dot and then
renamed, so it is there whole or not at all; only after a crash of the machine it may be torn, which its own
sum finds. Who unlinks it has taken it: the system lets one of several succeed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..exceptions import NO_SPACE, QuicException, error
from .store import KEEP, fingerprint
from .ticket import Ticket

_NAME = re.compile(r"([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{10})-[0-9a-f]{8}\.ticket")
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.tmp")

_UNFINISHED_S = 3600
"""A file that nobody has finished in an hour is a dead process's."""

_FILE_MAX = 1 << 17
"""More than any ticket has."""


class _File(NamedTuple):
    key: str
    stamp: int
    expires: int
    name: str


def default_folder() -> str:
    """In the user's cache folder (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(
        base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "quicgreen", "tickets"
    )


class FileTicketStore:
    """Tickets that survive a restart, for all processes of a user.

    The folder is made with mode 0700, the files with 0600. A folder or a file that belongs to somebody else,
    or that others may write to, is refused: who can place a ticket there can choose who is talked to.

    Args:
        folder: where; None: `default_folder()`.
        max_tickets: in all; more drop the oldest.
        clock: gives wall-clock seconds.

    Raises:
        QuicClientException: with cause "ticket-folder" when the folder cannot be made or used. Any method
            raises it, or "ticket-disk" when there is no space.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        max_tickets: int = 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_tickets < 1:
            raise error("argument", "max_tickets is at least 1")
        self.folder = os.fspath(folder) if folder is not None else default_folder()
        self._max = max_tickets
        self._clock = clock
        with self._opened():
            pass

    # ---------------------------------------------------------------- the folder

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the folder, which is made if it is not there. Whatever fails is a typed error."""
        descriptor = -1
        try:
            try:
                descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                os.makedirs(self.folder, 0o700, exist_ok=True)
                descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._check(os.fstat(descriptor), self.folder)
            yield descriptor
        except QuicException:
            raise
        except OSError as e:
            cause = "ticket-disk" if e.errno in NO_SPACE else "ticket-folder"
            raise error(cause, f"{self.folder}: {e.strerror}", errno=e.errno) from e
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    @staticmethod
    def _check(info: os.stat_result, path: str) -> None:
        if info.st_uid != os.geteuid():
            raise error("ticket-folder", f"{path} belongs to another user")
        if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise error("ticket-folder", f"others may write to {path}")

    @staticmethod
    def _files(folder: int, key: str | None = None) -> list[_File]:
        """Those of one key, or all; newest first."""
        found = []
        for name in os.listdir(folder):
            match = _NAME.fullmatch(name)
            if match is not None and (key is None or match[1] == key):
                found.append(_File(match[1], int(match[2], 16), int(match[3], 16), name))
        return sorted(found, key=lambda f: (f.stamp, f.name), reverse=True)

    @staticmethod
    def _remove(folder: int, name: str) -> bool:
        """Whether it was there: of several who remove it one is told so."""
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return False
        return True

    # ---------------------------------------------------------------- reading

    def _read(self, folder: int, file: _File) -> Ticket | None:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(file.name, flags, dir_fd=folder)
        except FileNotFoundError:
            return None  # taken just now
        try:
            self._check(os.fstat(descriptor), os.path.join(self.folder, file.name))
            with open(descriptor, "rb", closefd=False) as stream:
                data = stream.read(_FILE_MAX)
        finally:
            os.close(descriptor)
        try:
            return Ticket.from_bytes(data)
        except QuicException:
            self._remove(folder, file.name)
            return None

    def _live(self, folder: int, key: str | None) -> Iterator[tuple[_File, Ticket]]:
        now = self._clock()
        for file in self._files(folder, key):
            ticket = self._read(folder, file) if now < file.expires else None
            if ticket is not None and not ticket.expired(now):
                yield file, ticket

    def get(self, key: str) -> Ticket | None:
        with self._opened() as folder:
            for _, ticket in self._live(folder, fingerprint(key)):
                return ticket
        return None

    def pop(self, key: str) -> Ticket | None:
        with self._opened() as folder:
            for file, ticket in self._live(folder, fingerprint(key)):
                if self._remove(folder, file.name):
                    return ticket
        return None

    def items(self) -> Iterator[tuple[str, Ticket]]:
        with self._opened() as folder:
            found = [(file.key, ticket) for file, ticket in self._live(folder, None)]
        yield from found

    # ---------------------------------------------------------------- writing

    def put(self, key: str, ticket: Ticket) -> None:
        now = self._clock()
        if ticket.expired(now):
            return
        name = fingerprint(key)
        with self._opened() as folder:
            newest = self._sweep(folder, name, now)
            stamp = max(int(now * 1e9), newest + 1)
            expires = min(max(0, int(ticket.ends_at)), 0xFF_FFFF_FFFF)
            final = f"{name}-{stamp:016x}-{expires:010x}-{secrets.token_hex(4)}.ticket"
            self._write(folder, final, ticket.to_bytes())

    def _sweep(self, folder: int, key: str, now: float) -> int:
        """Make room for one more ticket of `key`. Returns the stamp of its newest one, or 0."""
        files = self._files(folder)
        gone = {f for f in files if now >= f.expires}
        same = [f for f in files if f.key == key and f not in gone]
        gone.update(same[KEEP - 1 :])
        gone.update([f for f in files if f not in gone][self._max - 1 :])
        for file in gone:
            self._remove(folder, file.name)
        for name in os.listdir(folder):
            if _UNFINISHED.fullmatch(name):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - os.stat(name, dir_fd=folder).st_mtime > _UNFINISHED_S:
                        os.unlink(name, dir_fd=folder)
        return same[0].stamp if same else 0

    def _write(self, folder: int, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        unfinished = f".{secrets.token_hex(8)}.tmp"
        descriptor = os.open(unfinished, flags, 0o600, dir_fd=folder)
        try:
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            finally:
                os.close(descriptor)
            os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            self._remove(folder, unfinished)
            raise

    def delete(self, key: str) -> None:
        with self._opened() as folder:
            for file in self._files(folder, fingerprint(key)):
                self._remove(folder, file.name)

    def clear(self) -> None:
        with self._opened() as folder:
            for file in self._files(folder):
                self._remove(folder, file.name)

    def close(self) -> None:
        """Nothing to let go of: the folder is opened for each operation."""
