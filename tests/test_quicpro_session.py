"""What both sides' sessions share."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import gevent
import pytest
from helpers.quicpro import answer_all, ask, connected, echo, serving
from support import check_python_in_thread, counters, nothing_left_behind, wait_until

from quicgreen.quicpro import QuicClientException, Session
from quicgreen.quicpro.session import milliseconds, milliseconds_or_none
from quicgreen.testing import Certificate


def test_what_it_is(certificate: Certificate) -> None:
    seen: list[Any] = []

    def handle(session: Any) -> None:
        seen.append(session)
        answer_all(echo)(session)

    with serving(certificate, handle) as server, connected(server, certificate) as sess:
        ask(sess, "/")
        for session in (sess, seen[0]):
            assert isinstance(session, Session)
            assert (session.alpn, session.closed) == ("h3", False)
            assert session.remote_address[0] == "127.0.0.1"
            assert session.stats()["rtt"] > 0
            assert repr(session).endswith("h3>")
        sess.close()
        assert sess.closed
        assert repr(sess) == "<ClientSession closed>"
        assert wait_until(lambda: seen[0].closed)


def test_a_block_closes_it(certificate: Certificate) -> None:
    with nothing_left_behind(), serving(certificate, answer_all(echo)) as server:
        with connected(server, certificate) as sess, sess as same:
            assert same is sess
        assert sess.closed


def test_a_server_s_session_that_is_forgotten_is_closed(certificate: Certificate) -> None:
    """A handler failed, say: its client hears of it, and does not wait for the idle timeout."""
    found: list[Any] = []

    def handle(session: Any) -> None:
        found.append(weakref.ref(session))

    with serving(certificate, handle) as server, connected(server, certificate) as sess:
        assert wait_until(lambda: found and (gc.collect(), found[0]() is None)[1])
        assert wait_until(lambda: sess.connection.closed)


def test_a_websocket_keeps_its_session(certificate: Certificate) -> None:
    def handle(session: Any) -> Any:
        ws = session.upgrade("/chat")
        del session
        gc.collect()
        gevent.sleep(0.05)
        ws.write(ws.readline())

    with serving(certificate, handle) as server, connected(server, certificate) as sess:
        ws = sess.upgrade("/chat")
        ws.write("hello\n")
        assert ws.readline() == "hello\n"


def test_another_thread_is_told(certificate: Certificate) -> None:
    with serving(certificate, answer_all(echo)) as server, connected(server, certificate) as sess:

        def use() -> list[str]:
            said = []
            for call in (lambda: sess.send_request("/"), lambda: sess.poll(1), sess.stats, sess.close):
                with pytest.raises(QuicClientException) as caught:
                    call()
                said.append(caught.value.cause)
            return said

        assert gevent.get_hub().threadpool.apply(use) == ["thread"] * 4
        assert ask(sess, "/")["status"] == 200


def test_after_a_fork_and_in_a_thread_of_its_own(certificate: Certificate) -> None:
    with serving(certificate, answer_all(echo)) as server:
        output = check_python_in_thread(
            """
            import os, sys, threading
            from quicgreen.quicpro import *
            port, ca = int(sys.argv[1]), sys.argv[2]
            def fetch():
                s = quicpro_connect("127.0.0.1", port, {"ca_file": ca})
                i = quicpro_send_request(s, "/")
                while not (r := quicpro_receive_response(s, i)):
                    quicpro_poll(s, 5)
                return s, r["status"]
            s, status = fetch()
            print(status, flush=True)
            t = threading.Thread(target=lambda: print(fetch()[1], flush=True)); t.start(); t.join()
            if os.fork() == 0:
                try:
                    quicpro_send_request(s, "/")
                except QuicClientException as e:
                    print(e.cause, quicpro_get_last_error(), flush=True)
                print(fetch()[1], flush=True)
                os._exit(0)
            os.wait()
            quicpro_close(s)
            """,
            str(server.port),
            certificate.ca_certs,
        )
    assert output.split() == ["200", "200", "fork", "2", "200"]


def test_monkey_patched(certificate: Certificate) -> None:
    with serving(certificate, answer_all(echo)) as server:
        output = check_python_in_thread(
            """
            from gevent import monkey; monkey.patch_all()
            import sys
            from quicgreen.quicpro import *
            def fetch(path):
                s = quicpro_connect("127.0.0.1", int(sys.argv[1]), {"ca_file": sys.argv[2]})
                i = quicpro_send_request(s, path)
                while not (r := quicpro_receive_response(s, i)):
                    quicpro_poll(s, 5)
                quicpro_close(s)
                return r["headers"]["x-path"]
            fibers = [Fiber(fetch) for _ in "abc"]
            for f, p in zip(fibers, "abc"): f.start("/" + p)
            print(*[f.getReturn() for f in fibers])
            """,
            str(server.port),
            certificate.ca_certs,
        )
    assert output.split() == ["/a", "/b", "/c"]


@pytest.mark.parametrize("ms", [-1, "5", True, None, float("nan"), float("inf"), 1e13])
def test_what_is_no_time(ms: Any) -> None:
    with pytest.raises(QuicClientException, match="milliseconds"):
        milliseconds(ms)
    assert milliseconds_or_none(None) is None
    assert milliseconds_or_none(5) == milliseconds(5.0) == 0.005


def test_the_idle_time_is_honoured_on_both_sides(certificate: Certificate) -> None:
    """RFC 9000, section 10.1: the shorter of the two counts, whoever said it."""
    for mine, yours in ((200, 30_000), (30_000, 200)):
        with (
            serving(certificate, answer_all(echo), max_idle_ms=yours) as server,
            connected(server, certificate, max_idle_ms=mine) as sess,
        ):
            ask(sess, "/")
            assert sess.connection._closed_event.wait(10)
            assert sess.connection.closing_error().cause == "idle-timeout"
            assert wait_until(lambda: counters()["connections"] == 0, 10)
