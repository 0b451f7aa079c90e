"""The file that names the supervisor's process, for those who send it signals."""

from __future__ import annotations

import contextlib
import os

from ..exceptions import error


class PidFile:
    """Written by `create`, and removed by `remove` while it is still ours."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def create(self) -> None:
        """Raises:
        QuicServerException: a process that lives holds it, or it cannot be written."""
        if (pid := read(self.path)) not in (None, os.getpid()) and _alive(pid):
            raise error("configuration", f"pidfile: {self.path} is of process {pid}, which runs")
        # Under another name first: who reads it finds all of it, or the last one.
        draft = f"{self.path}.{os.getpid()}"
        try:
            with open(draft, "w") as file:
                file.write(f"{os.getpid()}\n")
            os.chmod(draft, 0o644)
            os.replace(draft, self.path)
        except OSError as e:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise error("configuration", f"pidfile: {self.path}: {e.strerror}", errno=e.errno) from None

    def remove(self) -> None:
        if read(self.path) == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def read(path: str) -> int | None:
    """The process that a file names; None when there is no such file, or it names none."""
    try:
        with open(path) as file:
            text = file.read(32).strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 31 else None


def _alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
