from __future__ import annotations

import os
import socket
from collections import Counter

import pytest
from support import check_python

from quicgreen import QuicServerException
from quicgreen.supervisor.sockets import SocketGroup, inherited_descriptors


def send(address: tuple[str, int], count: int, family: int = socket.AF_INET) -> None:
    for _ in range(count):
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.sendto(b"x", address)


def received(s: socket.socket) -> int:
    count = 0
    try:
        while s.recv(10):
            count += 1
    except BlockingIOError:
        pass
    return count


def test_members_share_a_port() -> None:
    group = SocketGroup("127.0.0.1:0")
    group.member(3)
    send(group.address, 400)
    counts = Counter({slot: received(group.member(slot)) for slot in range(4)})
    assert counts.total() == 400
    assert all(counts[slot] > 10 for slot in range(4))
    group.drop(1)
    send(group.address, 100)
    assert sum(received(group.member(slot)) for slot in (0, 2, 3)) == 100
    assert group.any() is group.member(0)
    group.close()


@pytest.mark.parametrize("sharing", [True, False])
def test_a_port_that_somebody_holds(sharing: bool) -> None:
    """Also when they would share it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        if sharing:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        with pytest.raises(QuicServerException, match=f"{port}.*in use") as caught:
            SocketGroup(f"127.0.0.1:{port}")
        assert caught.value.cause == "bind"


def test_two_groups_do_not_share() -> None:
    group = SocketGroup("127.0.0.1:0")
    group.member(2)
    with pytest.raises(QuicServerException, match="in use"):
        SocketGroup(str(group))
    group.close()
    again = SocketGroup(f"127.0.0.1:{group.address[1]}")  # nothing is left
    again.close()


def test_every_address_is_both_families() -> None:
    group = SocketGroup(":0")
    port = group.address[1]
    send(("127.0.0.1", port), 1)
    send(("::1", port), 1, socket.AF_INET6)
    assert received(group.member(0)) == 2
    assert str(group) == f"[::]:{port}"
    group.close()


@pytest.mark.parametrize("bind", ["192.0.2.1:0", "no.such.host.invalid:1"])
def test_addresses_that_are_not_ours(bind: str) -> None:
    with pytest.raises(QuicServerException, match=bind.partition(":")[0]):
        SocketGroup(bind)


@pytest.mark.parametrize("sharing", [True, False])
def test_sockets_that_are_inherited(sharing: bool) -> None:
    first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if sharing:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.bind(("127.0.0.1", 0))
    address = first.getsockname()
    group = SocketGroup("ignored:1", [first.detach()])
    assert group.address == address
    group.member(1)
    send(address, 100)
    assert received(group.member(0)) + received(group.member(1)) == 100
    group.close()


def test_a_socket_of_another_user_cannot_be_joined() -> None:
    """As one of systemd's, which is root's, by a supervisor that is not."""
    check_python(
        """
        import os, socket
        from quicgreen import QuicServerException
        from quicgreen.supervisor.sockets import SocketGroup

        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 0))
        group = SocketGroup("ignored:1", [s.detach()])
        group.member(1)
        if os.geteuid() == 0:  # who is not has no way to be somebody else
            os.setresuid(65534, 65534, 65534)
            try:
                group.member(2)
            except QuicServerException as e:
                assert "must be of the user of this process: that is root where systemd" in str(e), e
            else:
                raise AssertionError
        """
    )


@pytest.mark.parametrize("kind", ["stream", "unbound", "pipe", "two"])
def test_what_is_inherited_must_suit(kind: str) -> None:
    first = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM)
    fds = [first.detach()]
    if kind == "pipe":
        os.close(fds[0])
        fds = [os.pipe()[0]]
    if kind == "two":
        fds = []
        for _ in range(2):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.bind(("127.0.0.1", 0))
            fds.append(s.detach())
    with pytest.raises(QuicServerException, match="inherited"):
        SocketGroup("ignored:1", fds)


def test_what_systemd_says_is_taken_out_of_the_environment() -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "X": "1"}
    assert inherited_descriptors(environ) == [3, 4]
    assert environ == {"X": "1"}
    assert inherited_descriptors({"LISTEN_PID": "1", "LISTEN_FDS": "2"}) == []
    assert inherited_descriptors({}) == []
