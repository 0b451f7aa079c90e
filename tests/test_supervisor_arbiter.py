"""A supervisor in a process of its own: what signals do, who is replaced, and what is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import gevent
import pytest
from helpers.commands import START_S, environment
from helpers.supervised import alive, supervised
from support import check_python, run_python, wait_until

import quicgreen


def test_workers_serve_one_port_and_end_in_an_orderly_way(files: Path) -> None:
    with supervised(files, "-w", "2") as server:
        assert (files / "pid").read_text() == f"{server.pid}\n"
        workers = {server.get().headers["x-worker"] for _ in range(30)}
        assert workers == {"0", "1"}
        slow = gevent.spawn(server.get, "/slow/0.5")
        gevent.sleep(0.2)
        pids = server.pids()
        assert server.end() == 0
        assert slow.get(timeout=START_S).status_code == 200
        assert not any(map(alive, pids))
        assert not (files / "pid").exists()
        assert "Traceback" not in server.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_end(files: Path, number: int) -> None:
    with supervised(files, "-w", "2") as server:
        never = gevent.spawn(server.get, "/slow/600")
        gevent.sleep(0.2)
        assert server.end(number) == 0
        never.join(START_S)
        assert isinstance(never.exception, quicgreen.QuicException)


def test_a_second_signal_ends_a_drain(files: Path) -> None:
    with supervised(files, "-w", "1", "--graceful-timeout", "600") as server:
        never = gevent.spawn(server.get, "/slow/600")
        gevent.sleep(0.2)
        server.signal(signal.SIGTERM)
        server.wait_for("once more stops at once")
        assert server.end() == 0
        never.join(START_S)


def test_the_graceful_timeout_ends_a_drain(files: Path) -> None:
    with supervised(files, "-w", "1", "--graceful-timeout", "0.3") as server:
        never = gevent.spawn(server.get, "/slow/600")
        gevent.sleep(0.2)
        assert server.end() == 0
        never.join(START_S)
        assert "is killed" not in server.log


def test_numbers_change_by_signals(files: Path) -> None:
    with supervised(files, "-w", "1") as server:
        server.signal(signal.SIGTTIN)
        assert wait_until(lambda: len(server.workers()) == 2, START_S)
        server.signal(signal.SIGTTIN)
        assert wait_until(lambda: len(server.workers()) == 3, START_S)
        first = min(w["pid"] for w in server.workers())
        server.signal(signal.SIGTTOU)
        assert wait_until(lambda: len(server.pids()) == 2, START_S)
        assert first not in server.pids()  # the oldest goes
        server.signal(signal.SIGWINCH)
        assert wait_until(lambda: not server.pids(), START_S)
        server.signal(signal.SIGTTOU)
        server.signal(signal.SIGTTIN)
        assert wait_until(lambda: len(server.workers()) >= 1, START_S)
        assert server.get().status_code == 200


def test_reload_takes_new_code_and_new_settings(files: Path) -> None:
    config = files / "c.toml"
    config.write_text("[quicgreen]\nworkers = 1\n")
    with supervised(files, "-c", "c.toml") as server:
        kept = server.pids()
        connection_answer = server.get().text
        (files / "app.py").write_text("def handle(request): request.respond(200, None, b'new')\n")
        config.write_text("[quicgreen]\nworkers = 2\nticket_keys = 3\n")
        server.signal(signal.SIGHUP)
        server.wait_for("generation 1 serves")
        assert wait_until(lambda: not kept & server.pids(), START_S)
        assert (connection_answer != "new", server.get().text) == (True, "new")
        told = server.ask()
        assert (len(server.workers()), told["generation"], told["reload_error"]) == (2, 1, None)
        assert "ticket_keys is not changed by a reload: it stays 25" in server.log


@pytest.mark.parametrize("broken", ["app", "config", "hang"])
def test_a_reload_that_cannot_leaves_all_as_it_is(files: Path, broken: str) -> None:
    (files / "c.toml").write_text("[quicgreen]\nworkers = 2\ntimeout = 2\n")
    with supervised(files, "-c", "c.toml") as server:
        kept = server.pids()
        if broken == "app":
            (files / "app.py").write_text("1 / 0\n")
        elif broken == "hang":
            (files / "app.py").write_text("while True: pass\n")
        else:
            (files / "c.toml").write_text("[quicgreen]\nworkers = 0\n")
        server.reload()
        assert server.ask()["reload_error"]
        assert wait_until(lambda: server.pids() == kept, START_S)
        assert server.get().headers["x-pid"] in {str(pid) for pid in kept}
        if broken == "app":
            assert "ZeroDivisionError" in server.log


def test_an_application_that_fails_stops_the_start(files: Path) -> None:
    with supervised(files, "-w", "2", app="import no_such_module_anywhere\n", wait=False) as server:
        assert server.wait() == 4
        assert "Traceback" in server.log
        assert "no_such_module_anywhere" in server.log
        assert server.log.count("Traceback") <= 2  # one a worker, and no more
        assert not (files / "pid").exists()


def test_a_crashed_worker_is_replaced(files: Path) -> None:
    with supervised(files, "-w", "2") as server:
        for count in (1, 2):
            victim = server.workers()[0]["pid"]
            os.kill(victim, signal.SIGKILL)
            server.wait_for("ended with signal SIGKILL", count=count)
            assert wait_until(lambda: len(server.workers()) == 2, START_S)
            assert server.get().status_code == 200
        assert server.end() == 0


@pytest.mark.parametrize("path", ["/hang", "/stuck"])
def test_a_worker_that_hangs_shows_where_and_is_replaced(files: Path, path: str) -> None:
    with supervised(files, "-w", "1", "--timeout", "1") as server:
        before = server.pids()
        stuck = gevent.spawn(server.get, path)
        server.wait_for("it hangs")
        server.wait_for("app.py")  # its stack
        assert wait_until(lambda: len(server.workers()) == 1 and not before & server.pids(), START_S)
        assert server.get().status_code == 200
        stuck.join(START_S)
        assert stuck.ready()


def test_a_worker_that_has_served_enough_is_replaced_before_it_goes(files: Path) -> None:
    with supervised(files, "-w", "1", "--max-requests", "5", "--timeout", "1") as server:
        first = server.get().headers["x-pid"]
        for _ in range(5):
            server.get()
        server.wait_for("has served enough")
        assert wait_until(lambda: server.get().headers["x-pid"] != first, START_S)
        server.wait_for("ended with status 0")
        assert "SIG" not in server.log


def test_usr1_shows_where_everybody_is(files: Path) -> None:
    with supervised(files, "-w", "1") as server:
        server.get()
        server.signal(signal.SIGUSR1)
        server.wait_for("generation 0, ")
        server.wait_for("Current thread")
        assert server.get().status_code == 200


def test_a_port_that_is_taken(files: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        run = subprocess.run(
            [sys.executable, "-m", "quicgreen", "serve", "app:x", "-w", "2", "-b", f"127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=START_S,
        )
    assert run.returncode == 95
    assert f"{port}: " in run.stderr
    assert "in use" in run.stderr


def test_more_workers_than_slots(files: Path) -> None:
    with supervised(files, "-w", "1") as server:
        for _ in range(20):
            server.signal(signal.SIGTTIN)
            gevent.sleep(0.01)
        server.wait_for("no more than 6 workers")
        assert server.ask()["workers_wanted"] == 6


def test_the_supervisor_has_no_hub_and_no_engine() -> None:
    check_python(
        """
        import os, signal, threading
        from gevent._hub_local import get_hub_if_exists
        from quicgreen import Supervisor
        from helpers.supervised import own_descriptors
        from quicgreen.supervisor import Settings

        def ready(supervisor):
            assert get_hub_if_exists() is None
            assert len(os.listdir("/proc/self/task")) == 1
            kinds = own_descriptors("self")
            assert not any("eventpoll" in kind or "timerfd" in kind for kind in kinds), kinds
            os.kill(os.getpid(), signal.SIGTERM)

        supervisor = Supervisor(lambda request: None, workers=2, bind="127.0.0.1:0")
        assert supervisor.run(ready) == 0
        assert get_hub_if_exists() is None
        before = len(os.listdir("/proc/self/fd"))
        assert Supervisor(lambda request: None, workers=1, bind="127.0.0.1:0").run(ready) == 0
        assert len(os.listdir("/proc/self/fd")) == before
        """
    )


def test_hooks_are_called_in_their_order() -> None:
    run = run_python(
        """
        import os, signal
        from quicgreen import Supervisor, get

        def note(name):
            def hook(*arguments):
                print(name, flush=True)
            return hook

        def when_ready(supervisor):
            print("when_ready", flush=True)
            pid = os.fork()
            if pid == 0:
                host, port = supervisor.address
                print(get(f"https://127.0.0.1:{port}/", verify=False).text, flush=True)
                os.kill(os.getppid(), signal.SIGTERM)
                os._exit(0)

        def one(name):
            return lambda a: print(name, flush=True)

        def two(name):
            return lambda a, b: print(name, flush=True)

        hooks = {name: one(name) for name in ("on_starting", "post_worker_init", "on_exit", "worker_int")}
        hooks |= {name: two(name) for name in ("pre_fork", "post_fork", "pre_request", "post_request",
                                               "worker_exit", "child_exit")}
        hooks["when_ready"] = when_ready
        handle = lambda request: request.respond(200, None, b"answer")
        raise SystemExit(Supervisor(handle, workers=1, bind="127.0.0.1:0", hooks=hooks).run())
        """
    )
    assert (run.returncode, run.stdout.split()) == (
        0,
        [
            "on_starting", "pre_fork", "post_fork", "post_worker_init", "when_ready", "pre_request",
            "post_request", "answer", "worker_exit", "child_exit", "on_exit",
        ],
    ), run.stderr  # fmt: skip
