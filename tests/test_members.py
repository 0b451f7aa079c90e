from __future__ import annotations

import socket

import pytest
from support import certificate, check_python, hello, make_server, serving

import quicgreen
from quicgreen import QuicClientException, WorkerGroup
from quicgreen.exceptions import QuicServerException

CERT, KEY = certificate()

PROLOGUE = f"""
    import os, socket, time
    import quicgreen
    from quicgreen import WorkerGroup, hub
    from quicgreen._group import ACCEPTING, DEAD, FREE, STARTING
    tls = quicgreen.ServerTls(cert_pem={CERT!r}, key_pem={KEY!r})
    def hello(request):
        request.respond(200, {{}}, str(os.getpid()))
    def free_port():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]
    group = WorkerGroup(slots=4, connections=8, early_data_capacity=16)
"""


def alone(code: str) -> str:
    """In a process of its own, whose runtime is not made yet."""
    return check_python(PROLOGUE + code)


def test_a_server_takes_a_slot_and_keeps_it() -> None:
    alone(
        """
    server = quicgreen.Server(("127.0.0.1", 0), hello, tls=tls, group=group)
    for _ in range(3):
        server.start()
        worker = group.worker(0)
        assert (worker.state, worker.pid, worker.generation) == (ACCEPTING, os.getpid(), 1)
        host, port = server.address
        with quicgreen.Session(verify=False) as session:
            assert session.get(f"https://{host}:{port}/").text == str(os.getpid())
        server.stop()
        assert group.worker(0).state == STARTING
    assert [group.worker(slot).state for slot in (1, 2, 3)] == [FREE] * 3
    assert group.counters(0)["requests_received"] == 3
    """
    )


def test_two_servers_of_a_process_are_one_worker() -> None:
    alone(
        """
    with (
        quicgreen.Server(("127.0.0.1", 0), hello, tls=tls, group=group) as a,
        quicgreen.Server(("127.0.0.1", 0), hello, tls=tls, group=group) as b,
    ):
        assert a.address != b.address
        assert [group.worker(slot).state for slot in range(2)] == [ACCEPTING, FREE]
    """
    )


def test_a_port_that_somebody_else_has_is_refused() -> None:
    """Also when he would share it."""
    alone(
        """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        server = quicgreen.Server(other.getsockname(), hello, tls=tls, group=group)
        try:
            server.start()
        except quicgreen.QuicServerException as e:
            assert e.cause == "bind" and "in use" in str(e), e
        else:
            raise AssertionError(server)
    """
    )


def test_another_member_s_look_at_the_port_is_no_stranger() -> None:
    """It came between this one's reading of the slots and its own look."""
    alone(
        """
    from quicgreen._engine import Engine
    ways = Engine.endpoint_udp
    def first(engine, ip, port, **options):
        Engine.endpoint_udp = ways
        group.claim(pid=os.getppid())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as look:
            look.bind((ip, port))
            return ways(engine, ip, port, **options)
    Engine.endpoint_udp = first
    with quicgreen.Server(("127.0.0.1", free_port()), hello, tls=tls, group=group):
        assert [group.worker(slot).state for slot in range(3)] == [ACCEPTING, STARTING, FREE]
    """
    )


def test_a_fifth_process_finds_no_slot() -> None:
    alone(
        """
    for _ in range(4):
        group.claim(pid=os.getppid())
    try:
        quicgreen.Server(("127.0.0.1", 0), hello, tls=tls, group=group).start()
    except quicgreen.QuicServerException as e:
        assert e.cause == "slots", e
    else:
        raise AssertionError
    """
    )


def test_children_take_the_slots_of_those_that_died() -> None:
    alone(
        """
    port = free_port()
    for life in range(1, 7):
        pid = os.fork()
        if pid == 0:
            quicgreen.Server(("127.0.0.1", port), hello, tls=tls, group=group).start()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert [group.worker(slot).pid for slot in range(4)].count(pid) == 1
    assert len(group.bury()) >= 1
    """
    )


def test_a_member_s_death_is_noticed_without_any_packet() -> None:
    """Also one that its parent has not waited for: its clients are told by those that live."""
    alone(
        """
    import gevent, signal
    port = free_port()
    pids = []
    for _ in range(2):
        pids.append(os.fork())
        if pids[-1] == 0:
            quicgreen.Server(("127.0.0.1", port), hello, tls=tls, group=group).serve_forever()
    while [group.worker(slot).state for slot in (0, 1)] != [ACCEPTING] * 2:
        time.sleep(0.01)
    try:
        idle = quicgreen.connect("127.0.0.1", port, verify=False, timeout=20)
        victim = int(idle.get("/").text)
        slot = [group.worker(slot).pid for slot in (0, 1)].index(victim)
        os.kill(victim, signal.SIGKILL)
        with gevent.Timeout(10):
            while not idle.closed:
                gevent.sleep(0.01)
            assert idle.closing_error().cause == "lost"
            while group.worker(slot).state != FREE:
                gevent.sleep(0.01)
        with quicgreen.Session(verify=False) as session:
            assert session.get(f"https://127.0.0.1:{port}/").text != str(victim)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    """
    )


def test_a_thread_that_has_a_runtime_cannot_join() -> None:
    """This one has."""
    group = WorkerGroup(slots=2, connections=2, early_data_capacity=2)
    with serving(hello):
        server = make_server(hello, group=group)
        with pytest.raises(QuicClientException, match="joins its group before"):
            server.start()
    assert not server.started


def test_without_a_group_a_port_is_not_shared() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        with pytest.raises(QuicServerException, match="in use"):
            make_server(hello, other.getsockname()).start()
    assert quicgreen.WorkerGroup is WorkerGroup
