"""The sockets of one UDP address: a member of its SO_REUSEPORT group for each slot.

They belong to the supervisor from the start to the end. A worker uses the one of its slot; when it is gone
its socket stays, since a steering program knows members by their place, and the kernel would move the last
one into a gap. Without a program a socket that nobody reads would swallow what the kernel gives it: there it
is closed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Any

from gevent.baseserver import parse_address

from ..exceptions import error
from .unpatched import Socket, getaddrinfo

FIRST_INHERITED = 3
"""sd_listen_fds(3)."""


class SocketGroup:
    """Args:
        bind: HOST:PORT; port 0 is a free one.
        inherited: bound UDP sockets that systemd opened, instead of `bind`.

    Raises:
        QuicServerException: somebody else holds the port, or it may not be bound.
    """

    def __init__(self, bind: str, inherited: list[int] | None = None) -> None:
        self._members: list[Any] = []  # by slot; None: closed
        self.are_inherited = bool(inherited)
        """Somebody else has them too, and may go on having them."""
        try:
            if inherited:
                self._adopt(inherited)
            else:
                self._bind_first(bind)
        except BaseException:
            self.close()
            raise
        self.address: Any = self._members[0].getsockname()
        self._family: int = self._members[0].family

    def member(self, slot: int) -> Any:
        """The socket of a slot, made when it is not there, as are those of the slots before. To be asked for
        before a worker that needs it is forked."""
        while len(self._members) <= slot:
            self._members.append(self._bind_another(len(self._members)))
        if self._members[slot] is None:
            self._members[slot] = self._bind_another(slot)
        return self._members[slot]

    def any(self) -> Any:
        """A socket that has the port."""
        return next((s for s in self._members if s is not None), None) or self.member(0)

    def drop(self, slot: int) -> None:
        """Close a member, where nobody counts them: what the kernel gave it would be read by nobody."""
        if self._members[slot] is not None:
            self._members[slot].close()
            self._members[slot] = None

    def close(self) -> None:
        for slot in range(len(self._members)):
            self.drop(slot)

    def close_but(self, slot: int) -> None:
        """In a worker: the others are not its own."""
        for other in range(len(self._members)):
            if other != slot:
                self.drop(other)

    def _bind_another(self, slot: int) -> Any:
        try:
            return share(self._family, self.address)
        except OSError as e:
            raise error(
                "bind",
                f"socket {slot} on {self}: {e.strerror}; one that was inherited must be of the user of this "
                "process: that is root where systemd opened it",
                errno=e.errno,
            ) from None

    def __str__(self) -> str:
        return _text(self.address)

    def _bind_first(self, bind: str) -> None:
        failure: OSError | UnicodeError | None = None
        try:
            for family, address in resolve(bind):
                s = None
                try:
                    s = _new(family)
                    s.bind(address)
                    # Only now: a port that somebody holds, sharing or not, was an error until here.
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                except OSError as e:
                    failure = failure or e
                    if s is not None:
                        s.close()
                    continue
                self._members.append(s)
                return
        except (OSError, UnicodeError) as e:
            failure = e
        number = None if isinstance(failure, (UnicodeError, socket.gaierror)) else failure.errno  # type: ignore[union-attr]
        raise error("bind", f"{bind}: {failure}", errno=number) from None

    def _adopt(self, inherited: list[int]) -> None:
        for fd in inherited:
            try:
                os.set_inheritable(fd, False)
                s = Socket(fileno=fd)
            except OSError as e:
                raise error("bind", f"descriptor {fd}, which was inherited: {e.strerror}") from None
            self._members.append(s)
            suits = s.type == socket.SOCK_DGRAM and s.family in (socket.AF_INET, socket.AF_INET6)
            if not suits or not s.getsockname()[1]:
                raise error("bind", f"descriptor {fd}, which was inherited, is not a bound UDP socket")
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # also without ReusePort=yes
            s.setblocking(False)
        addresses = {s.getsockname() for s in self._members}
        if len(addresses) > 1:
            raise error("bind", f"the sockets that were inherited have several addresses: {addresses}")


def resolve(bind: str) -> list[tuple[int, Any]]:
    """(family, address) of HOST:PORT, and what to try when there is none of that family here."""
    _, (host, port, *_) = parse_address(int(bind) if bind.isdecimal() else bind)
    first = getaddrinfo(host or "::", int(port), type=socket.SOCK_DGRAM)[0]
    found = [(int(first[0]), first[4])]
    return found if host else [*found, (int(socket.AF_INET), ("0.0.0.0", int(port)))]


def share(family: int, address: Any) -> Any:
    """One more socket on an address that others share already.

    Raises:
        OSError: nobody does, or another user.
    """
    s = _new(family)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(address)
    except OSError:
        s.close()
        raise
    return s


def inherited_descriptors(environ: MutableMapping[str, str] | None = None) -> list[int]:
    """What systemd passed to this process (LISTEN_FDS); the variables are taken out, as they are not for
    children."""
    environ = os.environ if environ is None else environ
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    return list(range(FIRST_INHERITED, FIRST_INHERITED + int(count)))


def _new(family: int) -> Any:
    s = Socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return s


def _text(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
