"""The bridge to gevent. Everything here is run three times: on the loop at hand, on libuv, and with the
standard library patched (the last test of the file)."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import monkey
from gevent.event import Event
from gevent.exceptions import BlockingSwitchOutError, InvalidSwitchError
from greenlet import getcurrent, greenlet
from support import (
    PATIENCE_S,
    TESTS,
    check_python,
    connect,
    connect_raw,
    counters,
    descriptors,
    hello,
    new_session,
    nothing_left_behind,
    run_python,
    serving,
    serving_raw,
    turn_loop,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import QuicClientException, hub
from quicgreen._engine import Engine

LOOPS = ["libev-cext", "libuv"]


class Gate:
    """A handler whose requests wait until it is opened, so that their responses leave in one turn."""

    def __init__(self) -> None:
        self.event = Event()
        self.waiting = 0
        self.answered = 0

    def __call__(self, request: quicgreen.Request) -> None:
        self.waiting += 1
        self.event.wait()
        request.respond(200, None, b"hello")
        self.answered += 1


@contextlib.contextmanager
def errors_reported() -> Iterator[list[BaseException]]:
    """What reaches the hub's `handle_error`, which is kept from printing it."""
    found: list[BaseException] = []
    loop_hub = gevent.get_hub()
    original = loop_hub.print_exception
    loop_hub.print_exception = lambda context, kind, value, tb: found.append(value)
    try:
        yield found
    finally:
        del loop_hub.print_exception
        assert loop_hub.print_exception == original


def spawn_raw(function: Callable[..., Any], *arguments: Any) -> greenlet:
    """A plain greenlet below the hub."""
    g = greenlet(function, parent=gevent.get_hub())
    gevent.get_hub().loop.run_callback(g.switch, *arguments)
    return g


# ---------------------------------------------------------------- the first turn


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("start", ["gevent.spawn(use).get()", "gevent.sleep(0); use()", "use()", "later()"])
def test_the_first_use_may_be_anywhere(loop: str, start: str) -> None:
    """libev does not run a watcher that is started among its callbacks before it sleeps."""
    check_python(
        f"""
        import gevent
        from support import *
        def use():
            with serving(hello) as server, new_session(timeout=3) as session:
                assert session.get(url_of(server)).text == "hello"
        def later():
            g = gevent.spawn_later(0.01, use)
            g.get()
        {start}
        """,
        GEVENT_LOOP=loop,
    )


# ---------------------------------------------------------------- turns


@contextlib.contextmanager
def flushes_watched(
    monkeypatch: pytest.MonkeyPatch, done: Callable[[], int]
) -> Iterator[list[tuple[int, int, int]]]:
    """For each flush: what `done()` was, the packets that left, the system calls that took."""
    log: list[tuple[int, int, int]] = []
    flush = Engine.flush

    def watched(engine: Engine) -> int:
        before = engine.counters()
        count = flush(engine)
        after = engine.counters()
        sent, calls = (after[k] - before[k] for k in ("datagrams_sent", "send_calls"))
        log.append((done(), sent, calls))
        return count

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "flush", watched)
        yield log


def test_a_turn_ends_with_one_flush_after_all_that_woke_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    with serving(gate) as server, connect(server) as connection:
        requests = [gevent.spawn(connection.get) for _ in range(100)]
        assert wait_until(lambda: gate.waiting == 100)
        turn_loop()
        with flushes_watched(monkeypatch, lambda: gate.answered) as log:
            gate.event.set()
            assert [r.get(timeout=PATIENCE_S).text for r in requests] == ["hello"] * 100
        done, sent, calls = next(entry for entry in log if entry[0])
        assert done == 100
        assert sent > 0
        assert calls <= 2


def test_requests_of_one_turn_leave_in_one_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hello) as server, connect(server) as connection:
        connection.get()
        turn_loop()
        begun = counters()["requests_sent"]
        with flushes_watched(monkeypatch, lambda: counters()["requests_sent"] - begun) as log:
            requests = [gevent.spawn(connection.get) for _ in range(90)]
            gevent.joinall(requests, timeout=PATIENCE_S, raise_error=True)
        done, sent, calls = next(entry for entry in log if entry[0])
        assert done == 90
        assert sent > 0
        assert calls <= 2


def test_an_idle_engine_costs_nothing() -> None:
    with serving(hello) as server, connect(server) as connection:
        connection.get()
        gevent.sleep(0.2)
        before = counters()
        for _ in range(50):
            gevent.sleep(0.001)
        now = counters()
        for name in ("flushes", "drains", "send_calls"):
            assert now[name] - before[name] <= 3, name


def test_what_happened_since_the_last_drain_is_told_before_the_next() -> None:
    """Calls from greenlets add events to the ring, which a drain begins anew."""
    runtime = hub.current()
    loop = gevent.get_hub().loop

    def serve(connection: Any) -> None:
        stream = connection.accept_stream()
        stream.write(b"x")
        gevent.sleep(10)

    with serving_raw(serve) as server, connect_raw(server) as connection:
        stream = connection.open_stream(timeout=PATIENCE_S)
        stream.write(b"x")
        assert stream.read(1) == b"x"
        reader = gevent.spawn(stream.read, 1)
        turn_loop()

        def stop_and_drain() -> None:
            stream.stop()  # wakes the reader
            loop.run_callback(runtime._on_readable)  # as when the network has something, this very turn

        gevent.spawn(stop_and_drain).join()
        reader.join(timeout=1)
        assert reader.ready()
        assert isinstance(reader.exception, quicgreen.QuicException)
        assert reader.exception.cause != "deadline"


def test_a_spinning_flush_finds_what_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICPRO_BUSY_POLL", "500")
    with serving(hello) as server, new_session() as session:
        for _ in range(20):
            assert session.get(url_of(server)).text == "hello"
        now = counters()
        assert now["spins"] > 0
        assert now["spin_hits"] >= 20  # not only in the first turn
        monkeypatch.setenv("QUICPRO_BUSY_POLL", "0")
        with serving(hello):  # the last to begin says whether to spin
            before = counters()
            session.get(url_of(server))
            assert counters()["spins"] == before["spins"]


def test_other_greenlets_run_beside_a_spinning_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICPRO_BUSY_POLL", "200")
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0)
            ticks += 1

    with serving(hello) as server, new_session() as session:
        ticker = gevent.spawn(tick)
        for _ in range(30):
            assert session.get(url_of(server)).text == "hello"
        ticker.kill()
        assert ticks >= 30
    monkeypatch.delenv("QUICPRO_BUSY_POLL")
    with serving(hello):
        pass


@pytest.mark.parametrize("value", ["-1", "fast", "2000000"])
def test_a_spin_that_cannot_be_is_refused_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("QUICPRO_BUSY_POLL", value)
    with pytest.raises(QuicClientException, match="QUICPRO_BUSY_POLL"), serving(hello):
        pass
    with pytest.raises(QuicClientException, match="QUICPRO_BUSY_POLL"):
        quicgreen.connect("127.0.0.1", 1, verify=False)
    with pytest.raises(QuicClientException, match="QUICPRO_BUSY_POLL"), new_session() as session:
        session.get("https://127.0.0.1:1/")


# ---------------------------------------------------------------- dispatch


def in_one_turn(work: Callable[[int, Any], Any], count: int = 50) -> list[Any]:
    """`count` raw greenlets do `work` with a response, all of which come in one drain. Their results."""
    gate = Gate()
    results: list[Any] = [None] * count

    def run(i: int, connection: Any) -> None:
        results[i] = work(i, connection.get())

    with serving(gate) as server, connect(server, config=quicgreen.QuicConfiguration()) as connection:
        for i in range(count):
            spawn_raw(run, i, connection)
        assert wait_until(lambda: gate.waiting == count)
        gate.event.set()
        wait_until(lambda: all(r is not None for r in results), 1)
    return results


def test_an_error_in_a_raw_greenlet_does_not_hold_up_the_others() -> None:
    def work(i: int, response: Any) -> str:
        if i == 7:
            raise ValueError("seven")
        return response.text

    with errors_reported() as errors:
        results = in_one_turn(work)
    assert results[7] is None
    assert results[:7] + results[8:] == ["hello"] * 49
    assert [str(e) for e in errors] == ["seven"]


def test_an_error_thrown_at_the_hub_does_not_hold_up_the_others() -> None:
    def work(i: int, response: Any) -> str:
        if i == 7:
            gevent.get_hub().throw(ValueError("at the hub"))
        return response.text

    with errors_reported() as errors:
        results = in_one_turn(work)
    assert results[:7] + results[8:] == ["hello"] * 49
    assert [str(e) for e in errors] == ["at the hub"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_reaches_main_and_the_others_are_served_after_it(kind: type) -> None:
    gate = Gate()
    results: list[Any] = [None] * 50

    def run(i: int) -> None:
        response = connection.get()
        if i == 7:
            raise kind
        results[i] = response.text

    with serving(gate) as server, connect(server) as connection:
        for i in range(50):
            spawn_raw(run, i)
        assert wait_until(lambda: gate.waiting == 50)
        gate.event.set()
        with pytest.raises(kind):
            gevent.sleep(PATIENCE_S)
        assert wait_until(lambda: results.count("hello") == 49)


def test_a_greenlet_that_ends_another_one_of_the_same_turn_leaves_nothing_of_it() -> None:
    """The second one's response is already in the ring."""
    gate = Gate()
    done: list[str] = []

    def big(request: quicgreen.Request) -> None:
        gate.waiting += 1
        gate.event.wait()
        try:
            stream = request.start_response(200)
            stream.timeout = 1
            while True:
                stream.write(b"x" * 1000)
        finally:
            done.append("server")

    def run(i: int) -> None:
        try:
            connection.get(stream=True)
        except QuicClientException:
            return
        others = [g for g in greenlets if g is not getcurrent() and not g.dead]
        for g in others:
            g.parent = getcurrent()  # where it goes when it is over
            g.throw(QuicClientException("enough"))

    before = counters()["streams"]
    with nothing_left_behind(), serving(big) as server, connect(server) as connection:
        greenlets = [spawn_raw(run, i) for i in range(5)]
        assert wait_until(lambda: gate.waiting == 5)
        gate.event.set()
        assert wait_until(lambda: all(g.dead for g in greenlets))
        assert wait_until(lambda: len(done) == 5)
        del greenlets[:]
        gc.collect()
        # Two control streams, seen by both sides.
        assert wait_until(lambda: counters()["streams"] <= before + 4)


# ---------------------------------------------------------------- waiting


def test_waiting_in_the_hub_is_refused() -> None:
    failed: list[BaseException] = []

    def in_hub() -> None:
        for use in (
            connection.get,
            lambda: session.get(url_of(server)),
            lambda: connection.close(),
            lambda: connect(server),
        ):
            try:
                use()
            except BaseException as e:
                failed.append(e)

    with serving(hello) as server, connect(server) as connection, new_session() as session:
        session.get(url_of(server))
        gevent.get_hub().loop.run_callback(in_hub)
        assert wait_until(lambda: len(failed) == 4)
        assert [type(e) for e in failed] == [BlockingSwitchOutError] * 4
        assert session.get(url_of(server)).text == "hello"
        assert not connection.closed or connection.closing_error().cause == "closed-here"


def test_a_stray_switch_is_an_error_and_the_request_is_given_up() -> None:
    gate = Gate()
    with nothing_left_behind(), serving(gate) as server, connect(server) as connection:
        caught: list[BaseException] = []

        def run() -> None:
            try:
                connection.get()
            except InvalidSwitchError as e:
                caught.append(e)

        g = spawn_raw(run)
        assert wait_until(lambda: gate.waiting == 1)
        gevent.get_hub().loop.run_callback(g.switch, "what is this")
        assert wait_until(lambda: len(caught) == 1)
        assert "what is this" in str(caught[0])
        gate.event.set()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_wait_in_main_never_ends_the_loop(loop: str) -> None:
    out = check_python(
        """
        from support import *
        import gevent
        # A server in a process of its own: nothing else keeps this loop alive.
        import subprocess
        pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE}
        server = subprocess.Popen([sys.executable, "-c", SERVER], text=True, **pipes)
        port = int(server.stdout.readline())
        url = f"https://127.0.0.1:{port}/"
        with new_session() as session:
            print(session.get(url).text)
            print(session.post(url, data=iter([b"x" * 100_000])).status_code)
            with session.stream("GET", url) as response:
                print(response.read().decode())
        connection = quicgreen.connect("127.0.0.1", port, verify=False)
        print(connection.get().text)
        connection.close()
        try:
            session2 = new_session(timeout=0.1)
            session2.get("https://192.0.2.1:9/" if False else f"https://127.0.0.1:{port}/slow")
        except quicgreen.QuicTimeoutException as e:
            print(e.cause)
        server.stdin.close()
        server.wait()
        server.stdout.close()
        """.replace("SERVER", repr(SERVER_SCRIPT)),
        GEVENT_LOOP=loop,
    )
    assert out.split() == ["hello", "200", "hello", "hello", "deadline"]


SERVER_SCRIPT = """
import sys, gevent
from gevent.fileobject import FileObject
from support import *
def handle(request):
    if request.path == "/slow":
        gevent.sleep(5)
    request.read()
    hello(request)
server = make_server(handle)
server.start()
print(server.address[1], flush=True)
FileObject(sys.stdin.fileno(), "rb", closefd=False).read()
server.stop(timeout=0)
"""


# ---------------------------------------------------------------- the end of a program

GOODBYE_SERVER = """
import sys, gevent
from support import *
from gevent.fileobject import FileObject
def handle(connection):
    try:
        while (request := connection.accept_request()) is not None:
            hello(request)
    finally:
        why = connection.closing_error()
        told = (why.cause, why.wire_code, why.remote) if why else (None, None, None)
        print(*told, flush=True)
server = make_server(handle, sessions=True)
server.start()
print(server.address[1], flush=True)
FileObject(sys.stdin.fileno(), "rb", closefd=False).read()
server.stop(timeout=0)
"""


@contextlib.contextmanager
def goodbye_server() -> Iterator[tuple[int, Any]]:
    """(port, its output): a server in a process of its own that prints how connections ended."""
    import subprocess

    process = subprocess.Popen(
        [sys.executable, "-c", GOODBYE_SERVER],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield int(process.stdout.readline()), process.stdout
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "use",
    [
        "quicgreen.get(url, verify=False)",
        "s = quicgreen.Session(verify=False); s.get(url)",
        "s = quicgreen.Session(verify=False); gevent.spawn(s.get, url).get()",
        "c = quicgreen.connect('127.0.0.1', port, verify=False); c.get()",
    ],
)
def test_a_script_with_an_idle_pool_ends_and_says_goodbye(loop: str, use: str) -> None:
    with goodbye_server() as (port, said):
        run = run_python(
            f"""
            import sys, gevent, quicgreen
            port = int(sys.argv[1])
            url = f"https://127.0.0.1:{{port}}/"
            {use}
            """,
            str(port),
            GEVENT_LOOP=loop,
        )
        told = time.monotonic()
        assert (run.returncode, run.stderr) == (0, "")
        assert said.readline().split() == ["closed-by-peer", "256", "True"]
        assert time.monotonic() - told < 5  # not the idle timeout


# ---------------------------------------------------------------- threads


def in_thread(function: Callable[[], Any]) -> Any:
    """The result of a function in a thread of its own, patched or not."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as e:
            results.append(e)
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    start = monkey.get_original("_thread", "start_new_thread")
    start(run, ())
    assert wait_until(lambda: results, 20)
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def test_a_thread_has_an_engine_of_its_own() -> None:
    mine = hub.current()

    def work() -> Any:
        with new_session() as session:
            assert session.get(url).text == "hello"
        runtime = hub.current()
        return runtime is not mine, runtime.thread != mine.thread, runtime.engine.counters()["requests_sent"]

    with serving(hello) as server:
        url = url_of(server)
        assert in_thread(work) == (True, True, 1)


def test_a_thread_has_a_default_session_of_its_own() -> None:
    with serving(hello) as server:
        url = url_of(server)
        assert quicgreen.get(url, verify=False).text == "hello"
        assert in_thread(lambda: quicgreen.get(url, verify=False).text) == "hello"
        mine = {id(s) for s in hub.current().attachments.values()}
        theirs = in_thread(
            lambda: quicgreen.get(url, verify=False) and {id(s) for s in hub.current().attachments.values()}
        )
        assert mine
        assert theirs
        assert mine.isdisjoint(theirs)
        for attached in hub.current().attachments.values():
            if isinstance(attached, quicgreen.Session):
                attached.close()
        hub.current().attachments.clear()


def test_threads_work_at_the_same_time() -> None:
    def work() -> int:
        with new_session() as session:
            jobs = [gevent.spawn(session.get, url) for _ in range(50)]
            return sum(job.get(timeout=20).text == "hello" for job in jobs)

    def one(results: list[Any]) -> None:
        try:
            results.append(work())
        except BaseException as e:
            results.append(e)
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    with serving(hello) as server:
        url = url_of(server)
        results: list[Any] = []
        for _ in range(3):
            monkey.get_original("_thread", "start_new_thread")(one, (results,))
        assert work() == 50
        assert wait_until(lambda: len(results) == 3, 20)
        assert results == [50, 50, 50]


@pytest.mark.skipif(monkey.is_module_patched("threading"), reason="threads are greenlets here")
def test_a_fork_waits_for_what_runs_in_a_thread() -> None:
    """A store of tickets looks up names, and has locks: forks.py."""
    check_python(
        """
        import os, time
        import gevent
        from quicgreen import forks, hub

        forks._PATIENCE_S = 20
        begun, ended = [], []

        def work():
            begun.append(1)
            time.sleep(0.3)
            ended.append(1)
            return "done"

        job = gevent.spawn(hub.current().in_thread, work)
        while not begun:
            gevent.sleep(0.001)
        assert not ended
        if (pid := os.fork()) == 0:
            os._exit(not ended)
        assert os.waitpid(pid, 0)[1] == 0
        assert job.get() == "done"
        """
    )


def test_plain_threading_works_unpatched() -> None:
    results: list[str] = []
    with serving(hello) as server:
        url = url_of(server)

        def run() -> None:
            with new_session() as session:
                results.append(session.get(url).text)
            gevent.get_hub().destroy(destroy_loop=True)

        thread = threading.Thread(target=run)
        thread.start()
        assert wait_until(lambda: not thread.is_alive(), 20)
        thread.join()
    assert results == ["hello"]


def test_what_is_raised_in_a_helping_thread_is_raised_here_and_not_printed() -> None:
    """Stores of tickets may fail; each time gevent would print a traceback."""
    runtime = hub.current()
    with errors_reported() as errors, pytest.raises(ZeroDivisionError):
        runtime.in_thread(divmod, 1, 0)
    assert errors == []
    assert runtime.in_thread(divmod, 7, 2) == (3, 1)


def test_a_thread_that_ends_its_hub_leaves_no_descriptors() -> None:
    def work() -> None:
        with new_session() as session:
            session.get(url)
        gevent.sleep(0.2)

    with serving(hello) as server:
        url = url_of(server)
        in_thread(work)
        gc.collect()
        before = descriptors()
        for _ in range(3):
            in_thread(work)
        assert wait_until(lambda: gc.collect() >= 0 and descriptors() <= before, 3), descriptors() - before


WRONG_THREAD: dict[str, Callable[[Any], Any]] = {
    "session.get": lambda o: o.session.get(o.url),
    "session.close": lambda o: o.session.close(),
    "connection.get": lambda o: o.connection.get(),
    "connection.info": lambda o: o.connection.info(),
    "connection.stats": lambda o: o.connection.stats(),
    "connection.peer_cert": lambda o: o.connection.peer_cert(),
    "connection.close": lambda o: o.connection.close(),
    "connection.remote_address": lambda o: o.connection.remote_address,
    "raw.open_stream": lambda o: o.raw.open_stream(),
    "raw.accept_stream": lambda o: o.raw.accept_stream(timeout=1),
    "stream.read": lambda o: o.stream.read(1),
    "stream.write": lambda o: o.stream.write(b"x"),
    "stream.finish": lambda o: o.stream.finish(),
    "stream.reset": lambda o: o.stream.reset(),
    "stream.stop": lambda o: o.stream.stop(),
    "stream.release": lambda o: o.stream.release(),
    "response.read": lambda o: o.response.read(),
    "response.readinto": lambda o: o.response.readinto(bytearray(100_000)),
    "response.close": lambda o: o.response.close(),
    "request.respond": lambda o: o.request.respond(200),
    "request.start_response": lambda o: o.request.start_response(200),
    "request.inform": lambda o: o.request.inform(103),
    "request.remote_address": lambda o: o.request.remote_address,
    "request.read": lambda o: o.request.read(),
    "server.stop": lambda o: o.server.stop(),
}


class Opened:
    """One of each, opened in the main thread."""

    server: Any
    url: str
    session: Any
    connection: Any
    raw: Any
    stream: Any
    response: Any
    request: Any = None


@contextlib.contextmanager
def one_of_each() -> Iterator[Opened]:
    opened = Opened()
    proceed = Event()

    def handle(request: quicgreen.Request) -> None:
        if request.path == "/hold":
            opened.request = request
            proceed.wait()
            if not request._answered:
                request.read()
                hello(request)
        elif request.path == "/large":
            request.respond(200, None, [b"x" * 50_000, b"y" * 1_000_000])
        else:
            hello(request)

    def handle_raw(connection: Any) -> None:
        while (stream := connection.accept_stream()) is not None:
            stream.write(b"x" * 10)

    with serving(handle) as server, serving_raw(handle_raw) as raw_server:
        opened.server, opened.url = server, url_of(server)
        opened.session = new_session()
        opened.session.get(opened.url)
        opened.connection = connect(server)
        opened.raw = connect_raw(raw_server)
        opened.stream = opened.raw.open_stream(timeout=PATIENCE_S)
        opened.stream.write(b"x")
        opened.response = opened.session.get(url_of(server, "/large"), stream=True)
        held = gevent.spawn(opened.connection.request, "POST", "/hold", data=iter([b"a" * 1000]))
        assert wait_until(lambda: opened.request is not None)
        yield opened
        proceed.set()
        opened.answer = held.get(timeout=PATIENCE_S).text
        opened.response.close()
        for thing in (opened.raw, opened.connection, opened.session):
            thing.close()


def test_an_object_used_from_another_thread_is_an_error_that_names_its_owner() -> None:
    owner = hub.thread_id()

    def attempt_all() -> dict[str, tuple[str, str]]:
        found = {}
        for name, use in WRONG_THREAD.items():
            try:
                result = use(opened)
                found[name] = ("no error", repr(result))
            except QuicClientException as e:
                found[name] = (e.cause, str(e))
            except BaseException as e:
                found[name] = (type(e).__name__, str(e))
        return found

    with one_of_each() as opened:
        found = in_thread(attempt_all)
        assert {n: c for n, (c, _) in found.items() if c != "thread"} == {}
        for name, (_, text) in found.items():
            assert f"belongs to thread {owner}" in text, name
        # And nothing of it was done: all of them still work here.
        assert opened.connection.get().text == "hello"
        assert opened.session.get(opened.url).text == "hello"
        assert opened.stream.read(1) == b"x"
        assert len(opened.response.read()) == 1_050_000
    assert opened.answer == "hello"


def test_a_response_may_be_forgotten_in_another_thread() -> None:
    def large(request: quicgreen.Request) -> None:
        request.respond(200, None, [b"x" * 1_000_000])

    with nothing_left_behind(), serving(large) as server, new_session() as session:
        held = [session.get(url_of(server), stream=True)]
        in_thread(lambda: held.clear() or gc.collect())
        assert session.get(url_of(server)).status_code == 200


# ---------------------------------------------------------------- hubs that end


def test_a_new_hub_gets_a_new_engine_and_what_was_open_says_so() -> None:
    def work() -> list[str]:
        said = []
        with serving(hello) as server:
            connection = connect(server)
            first = hub.current()
            first.close()
            for use in (connection.get, connection.info, server.stop):
                try:
                    use()
                except quicgreen.QuicConnectionException as e:
                    said.append(e.cause)
            server._stopped.set()
        assert connection.closed
        connection.close()
        with serving(hello) as server, new_session() as session:
            assert hub.current() is not first
            said.append(session.get(url_of(server)).text)
        return said

    assert in_thread(work) == ["closed-here", "closed-here", "closed-here", "hello"]


# ---------------------------------------------------------------- naps and turns


def test_a_nap_ends_by_itself_or_by_its_answer() -> None:
    runtime = hub.current()
    for seconds in (0.01, 0.2):  # a nap, and what is too long for one
        started = time.monotonic()
        runtime.wait_for(runtime.new_token(), seconds)
        assert 0.9 * seconds < time.monotonic() - started < seconds + 2
        token = runtime.new_token()
        started = time.monotonic()
        gevent.spawn_later(0.001, lambda token=token: runtime.later(runtime.answer, token))
        runtime.wait_for(token, 10.0)
        assert time.monotonic() - started < 5


def test_naps_of_one_length_have_one_deadline() -> None:
    runtime = hub.current()
    deadlines = len(runtime.deadlines._heap)
    sleeping = [gevent.spawn(runtime.wait_for, runtime.new_token(), 0.05) for _ in range(100)]
    turn_loop()
    assert len(runtime.deadlines._heap) <= deadlines + 1
    gevent.joinall(sleeping, timeout=5)
    assert all(g.successful() for g in sleeping)


def test_naps_of_many_lengths_leave_nothing() -> None:
    runtime = hub.current()
    for n in range(200):
        runtime.wait_for(runtime.new_token(), 0.0001 + n * 1e-7)
    assert len(runtime._naps.queues) <= 65


def test_one_that_is_killed_in_its_nap_is_found_gone() -> None:
    runtime = hub.current()
    napping = gevent.spawn(runtime.wait_for, runtime.new_token(), 0.03)
    gevent.sleep(0.001)
    napping.kill()
    targets = len(runtime.targets)
    gevent.sleep(0.06)
    assert len(runtime.targets) == targets
    assert all(not q for q in runtime._naps.queues.values())


def test_a_turn_sends_and_receives() -> None:
    """Without sleeping: gevent's own way would look at no descriptor for a thousand of them."""
    runtime = hub.current()
    with serving(hello) as server, connect(server) as c:
        c.get()
        got = gevent.spawn(c.get)
        turns = 0
        while not got.ready():
            runtime.turn()
            turns += 1
        assert got.value.text == "hello"
        assert turns < 5000
