"""A supervisor in a process of its own: what signals do, who is replaced, and what is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest
from helpers.commands import START_S, environment, write_files
from helpers.supervised import APP, alive, connection_to, own_descriptors, supervised
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


def test_a_worker_that_is_not_ready_ends_without_a_noise(files: Path) -> None:
    with supervised(files, "-w", "1") as server:
        (files / "app.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(600)\n")
        server.signal(signal.SIGHUP)
        assert wait_until((files / "begun").exists, START_S)
        assert server.end() == 0
        assert "signal SIG" not in server.log


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


def test_a_reload_does_not_hold_up_the_end(files: Path) -> None:
    with supervised(files, "-w", "1", "--graceful-timeout", "60") as server:
        slow = gevent.spawn(server.get, "/slow/1.5")
        gevent.sleep(0.2)
        server.signal(signal.SIGTERM)
        server.wait_for("once more stops at once")
        server.signal(signal.SIGHUP)
        assert wait_until(lambda: server.ask()["reload_error"] == "it is stopping", 1)
        assert server.wait() == 0
        assert slow.get(timeout=START_S).status_code == 200


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


def test_one_that_served_is_back_soon_however_often_it_crashes(files: Path) -> None:
    with supervised(files, "-w", "1") as server:
        began = time.monotonic()
        for _ in range(6):
            (victim,) = server.pids()
            os.kill(victim, signal.SIGKILL)
            assert wait_until(lambda v=victim: {w["pid"] for w in server.workers()} - {v}, START_S)
        # Six pauses of 0.25 s at most; of one that never comes to serve they would be 18 s.
        assert time.monotonic() - began < 10
        assert server.get().status_code == 200


def seconds_of_goaways(connections: list[quicgreen.Connection]) -> float:
    """From the first to the last, of connections of which none has heard one."""
    told: dict[int, float] = {}
    with gevent.Timeout(START_S):
        while len(told) < len(connections):
            gevent.sleep(0.001)
            told |= {i: time.monotonic() for i, c in enumerate(connections) if c.draining and i not in told}
    return max(told.values()) - min(told.values())


def test_a_reload_hands_clients_on_one_after_the_other(files: Path) -> None:
    with supervised(files, "-w", "1") as server:
        connections = [connection_to(server, server.workers()[0]["pid"]) for _ in range(20)]
        server.signal(signal.SIGHUP)
        assert seconds_of_goaways(connections) >= 0.15  # 10 ms between two


def test_a_second_reload_hurries_those_of_the_first(files: Path) -> None:
    """Only so many generations may drain at a time: nobody is to be ended for having been polite."""
    with supervised(files, "-w", "1", "--graceful-timeout", "60") as server:
        connections = [connection_to(server, server.workers()[0]["pid"]) for _ in range(500)]
        server.signal(signal.SIGHUP)
        second = gevent.spawn(server.reload)
        assert seconds_of_goaways(connections) < 4  # 5 s by themselves
        second.get()
        assert server.ask()["generation"] == 2


def test_a_stop_hurries_those_that_hand_clients_on(files: Path) -> None:
    with supervised(files, "-w", "1", "--graceful-timeout", "60") as server:
        connections = [connection_to(server, server.workers()[0]["pid"]) for _ in range(50)]
        server.signal(signal.SIGHUP)
        server.wait_for("reloaded: generation 1")
        assert server.end() == 0
        assert wait_until(lambda: all(c.closed for c in connections), START_S)
        assert "killed" not in server.log


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


def test_where_no_program_may_steer(files: Path) -> None:
    """Packets are handed over then. The kernel goes by addresses, so each socket must be somebody's."""
    under = [sys.executable, Path(__file__).parent / "helpers" / "no_programs.py"]
    with supervised(files, "-w", "1", under=under) as server:
        server.wait_for("no steering program (Operation not permitted): packets are handed")
        assert server.ask()["steering"] == "handover"
        assert {server.get(timeout=5).status_code for _ in range(10)} == {200}
        server.reload()
        assert wait_until(lambda: len(server.pids()) == 1, START_S)
        assert {server.get(timeout=5).status_code for _ in range(10)} == {200}
        assert server.end() == 0
    with supervised(files, "-w", "1", "--steering", "bpf", under=under, wait=False) as server:
        assert server.wait() == 95
        assert "steering=bpf: this kernel takes no program" in server.log


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


def test_systemd_hears_how_it_goes(files: Path) -> None:
    path = str(files / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.setblocking(False)
        heard: list[str] = []

        def hear(word: str) -> None:
            def listen() -> bool:
                with contextlib.suppress(BlockingIOError):
                    heard.append(s.recv(1000).decode())
                return any(said.startswith(word) for said in heard)

            assert wait_until(listen, START_S), (word, heard)
            heard.clear()

        environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
        (files / "c.toml").write_text("[quicgreen]\nworkers = 1\n")
        with supervised(files, "-c", "c.toml", **environ) as server:
            hear("READY=1\nSTATUS=1 workers")
            hear("WATCHDOG=1")
            server.signal(signal.SIGHUP)
            hear("RELOADING=1\nMONOTONIC_USEC=")
            hear("READY=1\nSTATUS=1 workers, reloaded 1 times")
            (files / "c.toml").write_text("[quicgreen]\nworkers = 0\n")
            server.signal(signal.SIGHUP)
            hear("RELOADING=1\nMONOTONIC_USEC=")  # Type=notify-reload waits for both
            hear("READY=1\nSTATUS=1 workers; the last reload failed")
            server.signal(signal.SIGTERM)
            hear("STOPPING=1")
            assert server.wait() == 0


def test_a_socket_of_systemd_s_is_served(files: Path) -> None:
    """Descriptor 3; the address of `bind` does not count. systemd keeps it, for who comes next."""
    (files / "app.py").write_text(APP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        for end in (signal.SIGKILL, signal.SIGTERM):
            activated(files, s, end)


def activated(folder: Path, s: socket.socket, end: int) -> None:
    """A supervisor that gets this socket, serves and is ended."""
    start = f"""
import os, sys
os.dup2({s.fileno()}, 3)
os.environ |= {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "quic"}}
sys.argv[1:] = ["serve", "app:handle", "-w", "2"]
from quicgreen.cli import main
sys.exit(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", start],
        cwd=folder,
        pass_fds=[s.fileno()],
        env=environment(),
        stdout=subprocess.PIPE,
    )
    try:
        url = f"https://127.0.0.1:{s.getsockname()[1]}/"

        def served() -> set[str]:
            found = set()
            for _ in range(8):
                with quicgreen.Session(verify=False, timeout=START_S) as session:
                    found.add(session.get(url).headers["x-worker"])
            return found

        assert process.stdout is not None
        gevent.get_hub().threadpool.apply(process.stdout.readline)
        assert wait_until(lambda: served() == {"0", "1"}, START_S)
    finally:
        process.send_signal(end)
        process.wait(START_S)
        process.stdout.close()
    assert process.returncode == (0 if end == signal.SIGTERM else -end)


@pytest.mark.parametrize("how", ["broken", "missing"])
def test_a_certificate_that_is_broken_stays_as_it_was(files: Path, how: str) -> None:
    with supervised(files, "-w", "1", "--certfile", "both.pem") as server:
        first = quicgreen.connect("127.0.0.1", server.port, verify=False)
        before = first.peer_cert()
        first.close()
        if how == "broken":
            (files / "both.pem").write_text("nonsense")
        else:
            (files / "both.pem").unlink()
        server.reload()
        told = server.ask()
        assert told["generation"] == 1
        assert "certificate" in told["reload_error"]
        assert "the certificate stays as it was" in server.log
        with quicgreen.connect("127.0.0.1", server.port, verify=False) as connection:
            assert connection.peer_cert() == before
        write_files(files)  # another one
        server.reload()
        assert server.ask()["reload_error"] is None
        with quicgreen.connect("127.0.0.1", server.port, verify=False) as connection:
            assert connection.peer_cert() not in (None, before)


def test_a_preloaded_application_is_imported_once(files: Path) -> None:
    app = "import os\npid = os.getpid()\ndef handle(request): request.respond(200, None, str(pid))\n"
    with supervised(files, "-w", "2", "--preload", app=app) as server:
        assert {server.get().text for _ in range(10)} == {str(server.pid)}
        assert not any("eventpoll" in d for d in own_descriptors(server.pid))
        server.reload()
        assert server.get().text == str(server.pid)


def test_a_reload_finds_its_file_from_another_folder(files: Path) -> None:
    (files / "c.toml").write_text("[quicgreen]\nworkers = 1\n")
    (files / "below").mkdir()
    (files / "below" / "app.py").write_text(APP)
    with supervised(files, "-c", "c.toml", "--chdir", "below", "--pid", str(files / "pid")) as server:
        server.reload()
        told = server.ask()
        assert (told["generation"], told["reload_error"]) == (1, None)


def test_hooks_that_fail_end_nobody(files: Path) -> None:
    (files / "c.py").write_text(
        "def when_ready(supervisor): 1 / 0\ndef child_exit(supervisor, worker): 1 / 0\n"
        "def pre_fork(supervisor, worker): 1 / 0\n"
    )
    with supervised(files, "-w", "1", "-c", "c.py") as server:
        assert server.get().status_code == 200
        os.kill(server.workers()[0]["pid"], signal.SIGKILL)
        server.wait_for("the hook child_exit")
        assert wait_until(lambda: len(server.workers()) == 1, START_S)
        assert server.get().status_code == 200


def test_at_most_four_generations_drain(files: Path) -> None:
    with supervised(files, "-w", "1", "--graceful-timeout", "60") as server:
        waiting = []
        for _ in range(6):
            waiting.append(gevent.spawn(server.get, "/slow/50"))
            gevent.sleep(0.2)
            server.reload()
        assert wait_until(lambda: len(server.workers("draining")) <= 4, START_S)
        assert wait_until(lambda: sum(g.ready() for g in waiting) >= 2, START_S)
        assert all(isinstance(g.exception, quicgreen.QuicException) for g in waiting if g.ready())
        gevent.killall(waiting)


def test_a_program_that_has_a_hub_already() -> None:
    """It should not, but its workers are as well as others."""
    check_python(
        """
        import gevent, os, signal, sys
        from gevent import socket
        import quicgreen

        ticks = gevent.spawn(lambda: [gevent.sleep(0.01) for _ in range(10**9)])
        socket.getaddrinfo("localhost", 1)
        mine = quicgreen.Session(verify=False)

        def handle(request):
            gevent.sleep(0.01)
            socket.getaddrinfo("localhost", 1)
            request.respond(200, None, b"fine")

        def ready(supervisor):
            if os.fork() == 0:
                gevent.reinit()
                with quicgreen.Session(verify=False) as session:
                    url = "https://127.0.0.1:%d/" % supervisor.address[1]
                    answers = {session.get(url, timeout=20).text for _ in range(5)}
                os.kill(os.getppid(), signal.SIGTERM)
                os._exit(0 if answers == {"fine"} else 9)

        supervisor = quicgreen.Supervisor(handle, workers=2, bind="127.0.0.1:0")
        assert supervisor.run(ready) == 0
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        ticks.kill()
        """
    )
