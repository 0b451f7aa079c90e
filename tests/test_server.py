"""A server's life, after gevent's BaseServer: start and stop, addresses, certificates. What it does with
connections and handlers is in test_server_handlers.py."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import GreenletExit
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from support import (
    PATIENCE_S,
    Gate,
    OnPurposeError,
    check_python,
    connect,
    echo,
    hello,
    make_server,
    new_session,
    nothing_left_behind,
    outcome,
    serving,
    spawn_gets,
    turn_loop,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import (
    QuicClientException,
    QuicException,
    QuicServerException,
)
from quicgreen._contexts import self_signed
from quicgreen.configuration import ServerTls

# ---------------------------------------------------------------- start and stop


def test_a_life() -> None:
    with nothing_left_behind():
        server = make_server(hello)
        states = [(server.started, server.closed, server.address, server.server_host, server.server_port)]
        assert repr(server) == "<Server not started>"
        server.start()
        states.append((server.started, server.closed))
        assert server.address == (server.server_host, server.server_port)
        assert (server.server_host, server.server_port > 0) == ("127.0.0.1", True)
        assert repr(server) == f"<Server 127.0.0.1:{server.server_port}>"
        with new_session() as session:
            assert session.get(url_of(server)).text == "hello"
        server.stop()
        states.append((server.started, server.closed))
    assert states == [(False, True, None, "", 0), (True, False), (False, True)]


def test_it_has_the_names_of_gevents_servers() -> None:
    server = make_server(hello)
    plain = StreamServer(("127.0.0.1", 0), hello)
    for name in ("start", "stop", "close", "serve_forever", "set_spawn", "started", "closed", "address",
                 "server_host", "server_port", "stop_timeout", "pool"):  # fmt: skip
        assert hasattr(plain, name) or name in ("server_host", "server_port"), name
        assert hasattr(server, name), name
    assert server.stop_timeout == plain.stop_timeout


def test_start_and_stop_may_be_repeated() -> None:
    with nothing_left_behind():
        server = make_server(hello)
        server.stop()
        server.close()
        server.start()
        first = server.address
        server.start()
        assert server.address == first
        server.stop()
        server.stop()
        assert server.closed


def test_it_can_be_started_again() -> None:
    with nothing_left_behind():
        server = make_server(hello)
        with new_session() as session:
            for _ in range(3):
                server.start()
                assert session.get(url_of(server)).text == "hello"
                server.stop()


def test_it_can_be_started_again_on_its_port() -> None:
    with serving(hello) as server:
        address = server.address
    again = make_server(hello, address)
    for _ in range(2):
        again.start()
        assert again.address == address
        with connect(again) as connection:
            assert connection.get().text == "hello"
        again.stop()


@pytest.mark.parametrize("connected", [False, True])
def test_an_idle_server_stops_without_waiting(connected: bool) -> None:
    with nothing_left_behind(), gevent.Timeout(PATIENCE_S):
        server = make_server(hello)
        server.start()
        if connected:
            with connect(server) as connection:
                connection.get()
            turn_loop()
        server.stop(timeout=60)


def test_as_a_context() -> None:
    with nothing_left_behind():
        with make_server(hello) as server, connect(server) as connection:
            assert server.started
            assert connection.get().text == "hello"
        assert server.closed
        with pytest.raises(OnPurposeError), make_server(hello) as other:
            raise OnPurposeError
        assert other.closed


def test_serve_forever_ends_when_it_is_stopped() -> None:
    with nothing_left_behind():
        server = make_server(hello)
        serving_it = gevent.spawn(server.serve_forever)
        assert wait_until(lambda: server.started)
        with connect(server) as connection:
            assert connection.get().text == "hello"
        assert not serving_it.ready()
        server.stop()
        serving_it.get(timeout=PATIENCE_S)


def test_serve_forever_stops_when_it_is_killed() -> None:
    with nothing_left_behind():
        server = make_server(hello)
        serving_it = gevent.spawn(server.serve_forever, stop_timeout=0)
        assert wait_until(lambda: server.started)
        serving_it.kill(timeout=PATIENCE_S)
        assert server.closed


def test_serve_forever_of_a_started_one() -> None:
    server = make_server(hello)
    server.start()
    address = server.address
    serving_it = gevent.spawn(server.serve_forever)
    turn_loop()
    assert server.address == address
    server.stop()
    serving_it.get(timeout=PATIENCE_S)


@pytest.mark.parametrize("loop", ["libev-cext", "libuv"])
def test_a_server_keeps_the_program_alive_until_it_is_stopped(loop: str) -> None:
    code = """
        import gevent
        from support import *
        server = make_server(hello)
        server.start()
        gevent.spawn_later(0.05, server.stop)
        gevent.wait()
        print("stopped", server.closed)
    """
    assert check_python(code, GEVENT_LOOP=loop).split() == ["stopped", "True"]


@pytest.mark.parametrize("spawn", ["default", "raw", 10, "pool", "spawn"])
def test_stop_lets_requests_finish_and_takes_no_more(spawn: Any) -> None:
    gate = Gate()
    given = {"pool": Pool(10), "spawn": gevent.spawn}.get(spawn, spawn) if isinstance(spawn, str) else spawn
    with nothing_left_behind():
        server = make_server(gate, spawn=given)
        server.start()
        connection = connect(server)
        gets = spawn_gets(connection, 5)
        assert wait_until(lambda: len(gate.paths) == 5)
        stopping = gevent.spawn(server.stop, timeout=PATIENCE_S)
        assert wait_until(lambda: connection.draining)
        assert server.started
        late = gevent.spawn(connection.get, "/late")
        stranger = gevent.spawn(connect, server, timeout=0.3)
        assert outcome(late) == "refused"
        assert not late.exception.request_sent
        assert outcome(stranger) in ("handshake-timeout", "unreachable")
        assert not stopping.ready()
        gate.event.set()
        assert [outcome(g) for g in gets] == ["/0", "/1", "/2", "/3", "/4"]
        stopping.get(timeout=PATIENCE_S)
        assert server.closed
        assert wait_until(lambda: connection.closed)
        assert connection.closing_error().cause == "closed-by-peer"
        assert "/late" not in gate.paths


def test_a_session_repeats_elsewhere_what_was_refused() -> None:
    """By the same address: the successor is there when the old one has gone."""
    gate = Gate()
    server = make_server(gate)
    server.start()
    with new_session() as session:
        url = url_of(server, "/first")
        first = gevent.spawn(session.get, url)
        assert wait_until(lambda: gate.paths)
        stopping = gevent.spawn(server.stop, timeout=PATIENCE_S)
        turn_loop(5)
        gate.event.set()
        stopping.get(timeout=PATIENCE_S)
        with serving(hello, server.address):
            assert session.get(url).text == "hello"
        assert outcome(first) == "/first"


def test_requests_that_are_under_way_when_it_stops_are_answered() -> None:
    """GOAWAY is said twice, so that what a client sent before it heard the first is not refused."""
    with serving(hello) as server, connect(server) as connection:
        connection.get()
        gets = spawn_gets(connection, 50)
        stopping = gevent.spawn(server.stop, timeout=PATIENCE_S)
        assert [outcome(g) for g in gets] == ["hello"] * 50
        stopping.get(timeout=PATIENCE_S)


def test_the_end_is_announced_to_one_after_the_other() -> None:
    with serving(hello) as server:
        connections = [connect(server) for _ in range(20)]
        stopping = gevent.spawn(server.stop, timeout=PATIENCE_S, spread=PATIENCE_S)
        told: dict[int, float] = {}
        while len(told) < len(connections):
            gevent.sleep(0.001)
            for i, connection in enumerate(connections):
                if connection.draining and i not in told:
                    told[i] = time.monotonic()
                    assert all(c.get().status_code == 200 for c in connections if not c.draining)
        stopping.get(timeout=PATIENCE_S)
        assert max(told.values()) - min(told.values()) >= 0.15  # 10 ms between two


@pytest.mark.parametrize("spawn", ["default", "raw", 10])
@pytest.mark.parametrize("how", ["stop", "close", "stop_timeout"])
def test_handlers_that_take_too_long_are_killed(spawn: Any, how: str) -> None:
    gate = Gate()
    with nothing_left_behind():
        server = make_server(gate, spawn=spawn)
        server.start()
        gets = spawn_gets(connect(server), 3)
        assert wait_until(lambda: gate.running == 3)
        if how == "stop":
            server.stop(timeout=0.05)
        elif how == "close":
            server.close()
        else:
            server.stop_timeout = 0.05
            server.stop()
        assert server.closed
        assert sorted(gate.ended) == [(f"/{i}", "GreenletExit") for i in range(3)]
        assert {outcome(g) for g in gets} <= {"reset", "closed-by-peer"}


def leave_behind(server: quicgreen.Server, gate: Gate) -> None:
    """Two handlers that run, and whose client is gone."""
    connection = connect(server)
    gets = spawn_gets(connection, 2)
    assert wait_until(lambda: gate.running == 2)
    gevent.killall(gets)
    connection.close()


@pytest.mark.parametrize("spawn", ["default", "raw", 10])
def test_handlers_whose_clients_are_gone_are_waited_for_and_then_killed(spawn: Any) -> None:
    gate = Gate()
    with nothing_left_behind():
        server = make_server(gate, spawn=spawn)
        server.start()
        leave_behind(server, gate)
        stopping = gevent.spawn(server.stop, timeout=PATIENCE_S)
        assert wait_until(lambda: server._idle.is_set())
        turn_loop(5)
        assert gate.running == 2
        gate.event.set()
        stopping.get(timeout=PATIENCE_S)
        assert [end for _, end in gate.ended] == ["finished"] * 2

        gate.event.clear()
        server.start()
        leave_behind(server, gate)
        server.stop(timeout=0.05)
        assert [end for _, end in gate.ended[2:]] == ["GreenletExit"] * 2


@pytest.mark.parametrize("spawn", ["default", "raw", 10])
def test_a_handler_that_resists_is_left_alone(spawn: Any) -> None:
    release, log = Event(), []

    def handle(request: quicgreen.Request) -> None:
        log.append("running")
        try:
            gevent.sleep(600)
        except GreenletExit:
            log.append("killed")
        release.wait()
        request.respond(200)
        log.append("done")

    with nothing_left_behind():
        server = make_server(handle, spawn=spawn)
        server.start()
        get = gevent.spawn(connect(server).get)
        assert wait_until(lambda: log)
        server.stop(timeout=0)
        assert server.closed
        assert log == ["running", "killed"]
        assert outcome(get) == "closed-by-peer"
        release.set()
        assert wait_until(lambda: "done" in log)


@pytest.mark.parametrize("spawn", ["default", "raw", 10])
@pytest.mark.parametrize("answer_first", [True, False])
def test_a_handler_may_stop_its_server(spawn: Any, answer_first: bool) -> None:
    done = Event()

    def handle(request: quicgreen.Request) -> None:
        if answer_first:
            request.respond(200, None, b"bye")
        server.stop(timeout=0.05)
        done.set()
        if not answer_first:
            request.respond(200, None, b"bye")

    with nothing_left_behind():
        server = make_server(handle, spawn=spawn)
        forever = gevent.spawn(server.serve_forever)
        assert wait_until(lambda: server.started)
        get = gevent.spawn(connect(server).get)
        assert outcome(get) == ("bye" if answer_first else "closed-by-peer")
        forever.get(timeout=PATIENCE_S)
        assert done.is_set()
        assert server.closed


def test_two_may_stop_it_at_once() -> None:
    gate = Gate()
    with nothing_left_behind():
        server = make_server(gate)
        server.start()
        get = gevent.spawn(connect(server).get)
        assert wait_until(lambda: gate.running)
        patient = [gevent.spawn(server.stop, timeout=60) for _ in range(2)]
        gevent.sleep(0.01)
        server.stop(timeout=0)
        assert server.closed
        gevent.joinall(patient, timeout=PATIENCE_S, raise_error=True)
        assert all(p.ready() for p in patient)
        server.start()
        turn_loop()
        assert server.started
        server.stop()
        assert outcome(get) in ("reset", "closed-by-peer")


def test_a_stop_that_is_interrupted_closes_at_once() -> None:
    gate = Gate()
    with nothing_left_behind():
        server = make_server(gate)
        server.start()
        connection = connect(server)
        get = gevent.spawn(connection.get)
        assert wait_until(lambda: gate.running)
        with gevent.Timeout(0.05, False):
            server.stop(timeout=60)
        assert server.closed
        assert outcome(get) == "closed-by-peer"
        gate.event.set()


def test_a_forked_child_is_told() -> None:
    code = """
        import os, gevent
        from support import *
        with serving(hello) as server:
            pid = os.fork()
            if pid == 0:
                causes = []
                for use in (server.start, server.stop):
                    try:
                        use()
                    except quicgreen.QuicClientException as e:
                        causes.append(e.cause)
                os._exit(0 if causes == ["fork", "fork"] else 1)
            assert os.waitpid(pid, 0)[1] == 0
            with new_session() as session:
                print(session.get(url_of(server)).text)
    """
    assert check_python(code).strip() == "hello"


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("listener", "expected", "reached_by"),
    [
        (("127.0.0.1", 0), "127.0.0.1", ["127.0.0.1"]),
        ("127.0.0.1:0", "127.0.0.1", ["127.0.0.1"]),
        (("localhost", 0), "127.0.0.1", ["127.0.0.1"]),
        ("localhost:0", "127.0.0.1", ["127.0.0.1"]),
        ("[::1]:0", "::1", ["::1"]),
        (("::1", 0), "::1", ["::1"]),
        (0, "::", ["127.0.0.1", "::1"]),
        ("0", "::", ["127.0.0.1", "::1"]),
        (":0", "::", ["127.0.0.1", "::1"]),
        (("", 0), "::", ["127.0.0.1", "::1"]),
        ("[::]:0", "::", ["127.0.0.1", "::1"]),
        ("0.0.0.0:0", "0.0.0.0", ["127.0.0.1"]),
    ],
)
def test_forms_of_an_address(listener: Any, expected: str, reached_by: list[str]) -> None:
    def handle(request: quicgreen.Request) -> None:
        request.respond(200, None, request.remote_address[0])

    with serving(handle, listener) as server:
        assert server.server_host == expected
        shown = f"[{expected}]" if ":" in expected else expected
        assert repr(server) == f"<Server {shown}:{server.server_port}>"
        for ip in reached_by:
            with quicgreen.connect(ip, server.server_port, verify=False) as connection:
                assert connection.get().text.removeprefix("::ffff:") == ip


def test_a_socket_of_the_callers() -> None:
    with (
        nothing_left_behind(),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given,
    ):
        given.bind(("127.0.0.1", 0))
        server = make_server(hello, given)
        for _ in range(2):
            with server:
                assert server.address == given.getsockname()
                with connect(server) as connection:
                    assert connection.get().text == "hello"
        assert given.fileno() >= 0  # still the caller's


@pytest.mark.parametrize("kind", ["stream", "unbound", "closed"])
def test_a_socket_that_does_not_fit(kind: str) -> None:
    with socket.socket(
        socket.AF_INET, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM
    ) as given:
        if kind == "closed":
            given.close()
        with nothing_left_behind(), pytest.raises(QuicServerException, match="the socket given") as caught:
            make_server(hello, given).start()
        assert caught.value.cause == "bind"


@pytest.mark.parametrize(
    "listener",
    [
        "127.0.0.1:99999",
        "127.0.0.1:http3",
        "127.0.0.1",
        "",
        -1,
        65536,
        None,
        1.5,
        ("127.0.0.1",),
        ("127.0.0.1", 70000),
        ("127.0.0.1", "x"),
        (5, 0),
        b"127.0.0.1:0",
        object(),
    ],
)
def test_what_is_no_address(listener: Any) -> None:
    with nothing_left_behind():
        server = make_server(hello, listener)
        with pytest.raises(QuicClientException) as caught:
            server.start()
        assert caught.value.cause == "argument"
        assert server.closed


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-host.invalid", "x" * 70])
def test_an_address_of_somebody_else(host: str) -> None:
    with nothing_left_behind():
        server = make_server(hello, (host, 0))
        with pytest.raises(QuicServerException, match="cannot be bound") as caught:
            server.start()
        assert host in str(caught.value)
        assert server.closed


def test_a_port_that_somebody_holds() -> None:
    with serving(hello) as server, nothing_left_behind():
        second = make_server(echo, server.address)
        with pytest.raises(QuicServerException, match="in use") as caught:
            second.start()
        assert str(server.server_port) in str(caught.value)
        assert caught.value.errno == 98
        with connect(server) as connection:
            assert connection.get().text == "hello"
    second.start()  # now it is free
    second.stop()


def test_a_port_that_somebody_else_holds() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(QuicServerException, match="in use"):
            make_server(hello, other.getsockname()).start()


def test_a_privileged_port() -> None:
    """As nobody, in a process of its own: the tests may be run by root."""
    code = """
        import os, pathlib
        from support import *
        low = pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
        with serving(hello):
            pass  # what is imported late may not be readable for nobody
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        if int(low) <= 9:
            print("Permission denied: cannot be tried here, the system has no privileged ports")
        else:
            try:
                make_server(hello, ("127.0.0.1", 9)).start()
            except quicgreen.QuicServerException as e:
                print(e)
    """
    assert "Permission denied" in check_python(code)


# ---------------------------------------------------------------- certificates


def test_certificate_files(tmp_path: Path) -> None:
    cert, key = self_signed("localhost,127.0.0.1")
    files = {"cert.pem": cert, "key.pem": key, "both.pem": cert + key}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    path = {name: str(tmp_path / name) for name in files}
    for options in (
        {"certfile": path["cert.pem"], "keyfile": path["key.pem"]},
        {"certfile": path["both.pem"]},
        {"tls": ServerTls(cert_pem=cert, key_pem=key)},
    ):
        with serving(hello, **options) as server, new_session(verify=path["cert.pem"]) as session:
            assert session.get(url_of(server)).text == "hello"


def _cannot_be_used(
    tmp_path: Path, certfile: str | None, keyfile: str | None, **options: Any
) -> QuicServerException:
    cert, key = self_signed("localhost")
    _, other_key = self_signed("localhost")
    texts = {"cert": cert, "key": key, "other-key": other_key, "empty": "", "noise": "no PEM\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    server = quicgreen.Server(
        ("127.0.0.1", 0),
        hello,
        certfile=certfile and str(tmp_path / certfile),
        keyfile=keyfile and str(tmp_path / keyfile),
        **{name: str(tmp_path / value) for name, value in options.items()},
    )
    with nothing_left_behind():
        with pytest.raises(QuicException) as caught:
            server.start()
        assert server.closed
    return caught.value


@pytest.mark.parametrize(
    ("certfile", "keyfile", "words"),
    [
        (None, None, ["a server needs a certificate"]),
        (None, "key", ["a server needs a certificate"]),
        ("missing", "key", ["missing", "No such file"]),
        ("cert", "missing", ["missing", "No such file"]),
        ("cert", None, ["key"]),
        ("cert", "other-key", ["key", "belongs to another certificate"]),
        ("cert", "cert", ["key"]),
        ("key", "key", ["certificate"]),
        ("empty", "key", ["empty"]),
        ("noise", "key", ["noise"]),
        ("cert", "noise", ["noise"]),
        (".", "key", ["certificate"]),
    ],
)
def test_certificates_that_cannot_be_used(
    tmp_path: Path, certfile: str | None, keyfile: str | None, words: list[str]
) -> None:
    e = _cannot_be_used(tmp_path, certfile, keyfile)
    assert isinstance(e, QuicServerException)
    assert e.cause == "certificate-file"
    for word in words:
        assert word in str(e)


@pytest.mark.parametrize("ca_certs", ["missing", "noise", "empty"])
def test_trusted_certificates_that_cannot_be_used(tmp_path: Path, ca_certs: str) -> None:
    e = _cannot_be_used(tmp_path, "cert", "key", ca_certs=ca_certs)
    assert e.cause == "trust-file"
    assert ca_certs in str(e)


def test_a_client_certificate_is_demanded(tmp_path: Path) -> None:
    files = {}
    for who in ("server", "client", "stranger"):
        cert, key = self_signed("127.0.0.1")
        files[who] = tmp_path / who
        files[who].write_text(cert + key)
    with serving(hello, certfile=str(files["server"]), ca_certs=str(files["client"])) as server:
        with new_session(cert=str(files["client"])) as session:
            assert session.get(url_of(server)).text == "hello"
        for cert in (None, str(files["stranger"])):
            with new_session(cert=cert) as session, pytest.raises(QuicException) as caught:
                session.get(url_of(server))
            assert caught.value.cause in ("alert", "closed-by-peer")
            assert caught.value.remote
