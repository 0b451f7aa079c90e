"""Looking up names: what takes a thread, what a fork waits for, and what happens when there is no answer."""

from __future__ import annotations

import textwrap

import pytest
from support import check_python

# The system's resolver is slow, and has a lock that no fork knows.
SLOW = """
import _socket, os, time, _thread
import gevent
from gevent import socket
import quicgreen
from quicgreen import forks, hub, lookups

lock = _thread.allocate_lock()
patience, forks._PATIENCE_S = forks._PATIENCE_S, 20  # the machine may be busy
really = _socket.getaddrinfo
seconds = 0.1

def getaddrinfo(host, *rest):
    if not rest[-1] & _socket.AI_NUMERICHOST:
        with lock:
            time.sleep(seconds)
        host = "127.0.0.1"
    return really(host, *rest)

_socket.getaddrinfo = getaddrinfo
"""


def check(code: str, *arguments: str, **environment: str | None) -> None:
    check_python(SLOW + textwrap.dedent(code), *arguments, **environment)


@pytest.mark.parametrize("patched", [False, True])
def test_a_child_can_look_up_what_its_parent_was_looking_up(patched: bool) -> None:
    check(
        f"""
        if {patched}:
            from gevent import monkey
            monkey.patch_all()
            import socket
        hub.current()
        for _ in range(3):
            jobs = [gevent.spawn(socket.getaddrinfo, "x.test", 1) for _ in range(3)]
            while not lock.locked():
                gevent.sleep(0.0005)
            if (pid := os.fork()) == 0:
                hub.current()  # where gevent did not see the fork
                with gevent.Timeout(20):
                    socket.getaddrinfo("x.test", 1)
                    quicgreen.pool.resolve("x.test", 1, 20)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            gevent.joinall(jobs, raise_error=True)
        """
    )


def test_the_answers_are_those_of_gevent() -> None:
    check_python(
        """
        import _socket
        from gevent import socket, resolver
        from gevent.resolver.thread import Resolver
        import gevent
        from quicgreen import lookups

        theirs = Resolver(gevent.get_hub())
        ours = lookups.Resolver(gevent.get_hub())

        def outcome(call, *a):
            try:
                return call(*a)
            except Exception as e:
                return type(e), e.args

        wrong = "1.2.3.4.5", "", "::1%nothing", "1.2.3", "0x7f.1", "no such name", "a" * 300, b"1.2.3.4", None
        rests = (), (0, 2), (2,), (10,), (10, 2, 17), (0, 0, 0, 4), (0, 0, 0, 0x20), (99,), (0, 99)
        for host in ("127.0.0.1", "::1", "fe80::1%lo", "localhost", "::ffff:1.2.3.4", *wrong):
            for port in (443, "443", "https", None, b"443", "nothing", -1, 70000, 1.5):
                for rest in rests:
                    if rest[:1] == (0,) and host in wrong and port != 443:
                        continue  # enough of those
                    a = (host, port, *rest)
                    assert outcome(ours.getaddrinfo, *a) == outcome(theirs.getaddrinfo, *a), a
        for a in (("localhost",), ("127.0.0.1",), ("no such name",)):
            for name in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
                assert outcome(getattr(ours, name), *a) == outcome(getattr(theirs, name), *a), (name, a)
        a = (("127.0.0.1", 80), 0)
        assert outcome(ours.getnameinfo, *a) == outcome(theirs.getnameinfo, *a)
        """
    )


def test_an_address_takes_no_thread() -> None:
    """Neither the client, nor the one over TCP, nor a server, nor what the program does itself."""
    check_python(
        """
        import gevent
        from gevent import socket
        import quicgreen
        from quicgreen import _contexts
        from quicgreen.configuration import ServerTls
        from quicgreen.websocket import fallback

        cert, key = _contexts.self_signed("localhost")
        listener = socket.create_server(("127.0.0.1", 0))
        for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
            tls = ServerTls(cert_pem=cert, key_pem=key)
            server = quicgreen.Server((host, 0), lambda r: r.respond(200), tls=tls)
            server.start()
            with quicgreen.Session(verify=False) as session:
                port = server.address[1]
                at = f"[{host}]" if ":" in host else host
                assert session.get(f"https://{at}:{port}/").status_code == 200
                quicgreen.connect(host, port, verify=False).close()
            server.close()
        fallback._dial("127.0.0.1", listener.getsockname()[1], None).close()
        socket.create_connection(listener.getsockname()).close()
        assert socket.getaddrinfo("127.0.0.1", 1)
        assert gevent.get_hub().threadpool.size == 0
        assert socket.getaddrinfo("localhost", 1)
        assert gevent.get_hub().threadpool.size == 1
        """
    )


def test_a_program_may_choose_its_own_resolver() -> None:
    for chosen in ("block", "ares"):
        check(
            """
            import sys
            hub.current()
            assert gevent.get_hub()._resolver is None  # nor is it made before it is needed
            assert sys.argv[1] in type(gevent.get_hub().resolver).__module__, gevent.get_hub().resolver
            """,
            chosen,
            GEVENT_RESOLVER=chosen,
        )
    check(
        """
        from gevent.resolver.thread import Resolver

        class Own(Resolver):
            pass

        gevent.get_hub().resolver = own = Own()
        hub.current()
        assert gevent.get_hub().resolver is own
        del gevent.get_hub().resolver
        """
    )


NEVER = """
seconds = 10**6
cert, key = quicgreen._contexts.self_signed("x.test")
tls = quicgreen.configuration.ServerTls(cert_pem=cert, key_pem=key)
server = quicgreen.Server(("x.test", 0), lambda r: None, tls=tls)
quicgreen.server._LOOKUP_S = 0.1
from quicgreen.websocket import fallback

def looks_up(call):
    with gevent.Timeout(20):
        try:
            call()
        except quicgreen.QuicException as e:
            assert "no answer in" in str(e), str(e)
            return e

def all_of_them():
    session = quicgreen.Session(verify=False, timeout=0.1)
    for call in (
        lambda: quicgreen.connect("x.test", 1, verify=False, timeout=0.1),
        lambda: session.get("https://x.test/"),
        lambda: fallback._dial("x.test", 1, time.monotonic() + 0.1),
    ):
        e = looks_up(call)
        assert isinstance(e, quicgreen.QuicTimeoutException) and e.request_sent is False, e
        yield str(e)
    e = looks_up(server.start)
    assert e.cause == "bind", e
    yield str(e)
"""


def test_what_never_answers_is_a_typed_error_in_time() -> None:
    """More often than gevent has threads, each of which is lost."""
    check(
        NEVER
        + textwrap.dedent("""
        for _ in range(4):
            assert not any("fork" in text for text in all_of_them())
        os._exit(0)
        """)
    )


def test_in_a_child_it_says_why_that_may_be() -> None:
    """It was forked while a slow lookup had the resolver's lock, which is all that cannot be helped."""
    check(
        NEVER
        + textwrap.dedent("""
        hub.current()
        gevent.spawn(socket.getaddrinfo, "x.test", 1)
        while not lock.locked():
            gevent.sleep(0.0005)
        forks._PATIENCE_S = patience
        if (pid := os.fork()) == 0:
            assert lock.locked()
            assert all("forked in the middle of another thread's lookup" in text for text in all_of_them())
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        os._exit(status != 0)
        """)
    )


def test_another_timeout_comes_through() -> None:
    check(
        """
        seconds = 0.3
        hub.current()
        with gevent.Timeout(0.05) as outer:
            try:
                lookups.look_up("x.test", 1, 2, 20)
            except gevent.Timeout as e:
                assert e is outer
            else:
                raise AssertionError
        assert lookups.look_up("x.test", 1, 2, None)[0][4] == ("127.0.0.1", 1)
        """
    )
