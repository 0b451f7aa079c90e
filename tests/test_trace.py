"""QP_TRACE: lines of an engine's life, in a process of its own; and that without it nothing is changed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support import check_python, run_python

from quicgreen import hub
from quicgreen._engine import Engine

PROGRAM = """
import sys
sys.path.insert(0, "tests")
from support import connect, serving
import gevent, quicgreen
with serving(lambda r: r.respond(200, None, r.read())) as server, connect(server) as connection:
    connection.post("/", b"x" * 20_000)
    try:
        connection.get("/", timeout=1e-6)
    except quicgreen.QuicTimeoutException:
        pass
"""

LINE = re.compile(r"\d+\.\d{6} (\w+):? (.*)")


def kinds(text: str) -> dict[str, list[str]]:
    """What each line says, by its first word. Every line is whole."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        found.setdefault(match[1], []).append(match[2])
    return found


def test_a_program_with_its_steps_packets_events_and_waits() -> None:
    run = run_python(PROGRAM, QP_TRACE="1")
    assert run.returncode == 0, run.stderr
    said = kinds(run.stderr)
    assert said.keys() == {"engine", "drain", "flush", "recv", "send", "event", "wait", "resume"}
    assert "starts: quiche" in said["engine"][0]
    way = r"(0\.0\.0\.0|127\.0\.0\.1):\d+ > 127\.0\.0\.1:\d+"
    ids = "dcid=[0-9a-f]{16,40} scid=[0-9a-f]{24}"
    assert re.fullmatch(f"1200 B {way} initial {ids}", said["send"][0])
    assert any(re.search(r" 1rtt dcid=[0-9a-f]{24}$", line) for line in said["recv"])
    assert any(re.search(r" 1rtt dcid=[0-9a-f]{16}\.\.\.$", line) for line in said["send"])
    drained = sum(int(line.split()[0]) for line in said["drain"])
    flushed = sum(int(line.split()[0]) for line in said["flush"])
    assert (drained, flushed) == (len(said["recv"]), len(said["send"]))
    assert any(
        line.startswith("connected, token ") and " -> Connection._on_event" in line for line in said["event"]
    )
    assert any(
        line.startswith("request, token ") and " -> Server._on_event" in line for line in said["event"]
    )
    answered = [line for line in said["event"] if line.startswith("response, token ")]
    assert ", status 200" in answered[0]
    assert answered[0].endswith(" -> main")
    token = answered[0].split()[2].rstrip(",")
    assert f"token {token}: main" in said["wait"]
    assert any(re.fullmatch(rf"token {token}: main after [\d.]+ ms: response", x) for x in said["resume"])
    assert any(line.endswith(" ms: deadline") for line in said["resume"])
    assert any("Greenlet-0" in line for line in said["wait"])


def test_who_is_killed_leaves() -> None:
    run = run_python(
        """
        import sys
        from support import connect, serving
        import gevent, quicgreen
        def handle(request):
            gevent.sleep(30)
        with serving(handle) as server, connect(server) as connection:
            g = gevent.spawn(connection.get, "/")
            gevent.sleep(0.2)
            g.kill()
        """,
        QP_TRACE="1",
    )
    assert run.returncode == 0, run.stderr
    (left,) = kinds(run.stderr)["leave"]
    assert re.fullmatch(r"token \d+: Greenlet-\d+ after [\d.]+ ms: GreenletExit\(\)", left)


def test_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    for number in (1, 2):
        assert run_python(PROGRAM, QP_TRACE=str(file)).stderr == ""
        assert len(kinds(file.read_text())["engine"]) >= number
    assert file.stat().st_mode & 0o777 == 0o600


def test_threads_each_have_theirs(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    check_python(
        """
        import threading, os
        import quicgreen, gevent
        from support import connect, hello, serving
        def work():
            with serving(hello) as server, connect(server) as connection:
                for _ in range(50):
                    connection.get("/")
            gevent.get_hub().destroy(destroy_loop=True)
        before = set(os.listdir("/proc/self/fd"))
        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert set(os.listdir("/proc/self/fd")) == before
        """,
        QP_TRACE=str(file),
    )
    said = kinds(file.read_text())["engine"]
    assert sum("starts" in line for line in said) == 3
    assert sum("ends" in line for line in said) == 3


def test_a_forked_child_traces_its_own(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    check_python(
        """
        import os, sys
        import quicgreen, gevent
        from support import connect, hello, serving
        with serving(hello) as server, connect(server) as connection:
            connection.get("/")
        pid = os.fork()
        if pid == 0:
            with serving(hello) as server, connect(server) as connection:
                connection.get("/")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """,
        QP_TRACE=str(file),
    )
    said = kinds(file.read_text())["engine"]
    assert len({line.split(":")[0] for line in said}) == 2


def test_a_reader_that_went_away_is_not_missed() -> None:
    check_python(
        """
        import os
        from support import connect, hello, serving
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 2)
        with serving(hello) as server, connect(server) as connection:
            assert connection.get("/").text == "hello"
        """,
        QP_TRACE="1",
    )


@pytest.mark.parametrize("value", ["", "0", None])
def test_off(value: str | None) -> None:
    assert run_python(PROGRAM, QP_TRACE=value).stderr == ""


def test_off_no_method_is_another() -> None:
    runtime = hub.current()
    assert type(runtime.engine) is Engine
    assert not {"wait", "_dispatch"} & vars(runtime).keys()


def test_a_file_that_cannot_be_opened() -> None:
    check_python(
        """
        import pytest, quicgreen
        with pytest.raises(quicgreen.QuicClientException, match="/nowhere/at/all: No such file") as caught:
            quicgreen.connect("127.0.0.1", 1)
        assert (caught.value.cause, caught.value.errno) == ("argument", 2)
        """,
        QP_TRACE="/nowhere/at/all",
    )
    assert not os.path.exists("/nowhere")
