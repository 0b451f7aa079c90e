"""`quicgreen serve`: a process of its own."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers.commands import START_S, Site, command, complaint, run, run_process
from helpers.qlog_schema import validate

import quicgreen


@pytest.fixture
def app(files: Path) -> Path:
    (files / "app.py").write_text(
        """
import threading, gevent
from gevent import monkey

class Group:
    @staticmethod
    def handle(request):
        request.respond(200, None, b"from a group")

def handle(request):
    if request.path == "/slow":
        print("begun", flush=True)
        gevent.sleep(1)
        request.respond(200, None, b"finished")
    elif request.path == "/never":
        print("begun", flush=True)
        gevent.sleep(600)
    else:
        request.respond(200, None, str(monkey.is_module_patched("socket")))

group = Group()
number = 5
"""
    )
    (files / "broken.py").write_text("import no_such_module_anywhere\n")
    (files / "failing.py").write_text("1 / 0\n")
    package = files / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("from app import handle\n")
    return files


def get(url: str, **options: Any) -> quicgreen.Response:
    with quicgreen.Session(verify=False, timeout=START_S) as session:
        return session.get(url, **options)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve(app: Path, number: int) -> None:
    with command("serve", "app:handle", "--bind", "127.0.0.1:0", cwd=app) as served:
        url = served.url()
        assert url.startswith("https://127.0.0.1:")
        assert "self-signed certificate" in served.wait_for("")
        assert "fetch -k" in served.wait_for("")
        assert get(url).text == "True"
        served.signal(number)
        status, out, err = served.end()
    assert (status, err) == (0, "")
    assert "stopping" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["app:handle", "--no-patch"], "False"),
        (["app:group.handle"], "from a group"),
        (["package.inner:handle"], "True"),
        (["app:handle", "--interface", "native", "--spawn", "raw", "--retry", "always"], "True"),
        (["app:handle", "--spawn", "2"], "True"),
    ],
)
def test_serve_with(app: Path, arguments: list[str], text: str) -> None:
    arguments = ["serve", *arguments, "-b", "127.0.0.1:0", "--chdir", str(app)]
    with command(*arguments) as served:
        assert get(served.url()).text == text
        served.signal(signal.SIGTERM)
        assert served.end()[0] == 0


def test_serve_with_a_certificate(app: Path) -> None:
    arguments = ["--certfile", "cert.pem", "--keyfile", "key.pem"]
    with command("serve", "app:handle", "-b", "127.0.0.1:0", *arguments, cwd=app) as served:
        url = served.url()
        assert "self-signed" not in served.wait_for("")
        with quicgreen.Session(verify=str(app / "cert.pem"), timeout=START_S) as session:
            assert session.get(url).text == "True"
        served.signal(signal.SIGTERM)
        assert served.end()[0] == 0


def test_serve_with_qlog(app: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    arguments = ["serve", "app:handle", "-b", "127.0.0.1:0", "--qlog-dir", str(folder), "--chdir", str(app)]
    with command(*arguments) as served:
        assert get(served.url()).text == "True"
        served.signal(signal.SIGTERM)
        assert served.end()[0] == 0
    (file,) = folder.iterdir()
    assert file.name.endswith("_server.sqlog")
    assert validate(file)["quic:packet_received"] > 3


@pytest.mark.parametrize("options", [[], ["--early-data"]])
def test_serve_with_early_data(app: Path, options: list[str]) -> None:
    """It is off unless it is asked for, and then said."""
    with command("serve", "app:handle", "-b", "127.0.0.1:0", *options, cwd=app) as served:
        url = served.url()
        assert ("early data (0-RTT) is taken" in served.wait_for("")) == bool(options)
        for _ in range(2):
            result = run("fetch", "-k", "-v", "--ssl-sessions", str(app / "sessions"), url)
            assert (result.returncode, result.stdout) == (0, "True")
        assert "* TLS session resumed\n" in result.stderr
        assert ("* Early data: accepted\n" in result.stderr) == bool(options)
        served.signal(signal.SIGTERM)
        assert served.end()[0] == 0


@pytest.mark.parametrize("bind", ["[::1]:0", "localhost:0"])
def test_serve_on_other_names_of_this_machine(app: Path, bind: str) -> None:
    with command("serve", "app:handle", "--bind", bind, cwd=app) as served:
        assert get(served.url()).text == "True"
        served.signal(signal.SIGTERM)
        assert served.end()[0] == 0


def test_a_signal_lets_requests_finish(app: Path) -> None:
    with command("serve", "app:handle", "--bind", "127.0.0.1:0", cwd=app) as served:
        slow = gevent.spawn(get, served.url() + "slow")
        served.wait_for("begun")
        served.signal(signal.SIGTERM)
        assert slow.get(timeout=START_S).text == "finished"
        assert served.end()[0] == 0


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(app: Path, again: int) -> None:
    arguments = ["--bind", "127.0.0.1:0", "--graceful-timeout", "600"]
    with command("serve", "app:handle", *arguments, cwd=app) as served:
        never = gevent.spawn(get, served.url() + "never")
        served.wait_for("begun")
        served.signal(signal.SIGTERM)
        served.wait_for("stopping")
        served.signal(again)
        status, _, err = served.end()
        never.join(START_S)
    assert (status, err) == (0, "")
    assert isinstance(never.exception, quicgreen.QuicException)


def test_the_graceful_timeout_ends_a_drain(app: Path) -> None:
    arguments = ["--bind", "127.0.0.1:0", "--graceful-timeout", "0.2"]
    with command("serve", "app:handle", *arguments, cwd=app) as served:
        never = gevent.spawn(get, served.url() + "never")
        served.wait_for("begun")
        served.signal(signal.SIGINT)
        assert served.end()[0] == 0
        never.join(START_S)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["app"], "MODULE:HANDLER"),
        ([":handle"], "MODULE:HANDLER"),
        (["app:"], "MODULE:HANDLER"),
        (["nomodule:handle"], "nomodule"),
        (["package.missing:handle"], "package.missing"),
        (["app:nothing"], "nothing"),
        (["app:number"], "number"),
        (["app:group.nothing"], "group.nothing"),
        (["app:handle", "--chdir", "/no/such/folder"], "/no/such/folder"),
        (["app:handle", "--bind", "nonsense"], "nonsense"),
        (["app:handle", "--bind", "127.0.0.1:99999"], "99999"),
        (["app:handle", "--bind", "127.0.0.1:x"], "127.0.0.1:x"),
        (["app:handle", "--bind", "0.0.0.0:0"], "--certfile"),
        (["app:handle", "--bind", ":0"], "--certfile"),
        (["app:handle", "--bind", "192.0.2.1:0", "--certfile", "both.pem"], "192.0.2.1"),
        (["app:handle", "--certfile", "missing"], "missing"),
        (["app:handle", "--certfile", "cert.pem"], "--keyfile"),
        (["app:handle", "--certfile", "both.pem", "--ca-certs", "missing"], "missing"),
        (["app:handle", "--spawn", "sideways"], "sideways"),
        (["app:handle", "--spawn", "0"], "spawn"),
        (["app:handle", "--qlog-dir", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_serve_that_cannot(app: Path, arguments: list[str], words: str) -> None:
    result = run("serve", *arguments, cwd=app)
    assert result.returncode not in (0, 2)
    assert result.stdout == ""
    assert words in complaint(result)


def test_serve_on_a_port_that_is_taken(app: Path, site: Site) -> None:
    port = site.url.rpartition(":")[2]
    result = run("serve", "app:handle", "--bind", f"127.0.0.1:{port}", cwd=app)
    assert result.returncode == 95
    words = complaint(result)
    assert port in words
    assert "in use" in words


@pytest.mark.parametrize("module", ["broken", "failing"])
def test_what_a_module_raises_is_shown_with_its_traceback(app: Path, module: str) -> None:
    """It is its author who runs the command."""
    result = run_process("serve", f"{module}:handle", cwd=app)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert f"{module}.py" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--interface", "wsgi"], ["--retry", "sometimes"], ["--graceful-timeout", "long"]]
)
def test_serve_with_other_values(app: Path, arguments: list[str]) -> None:
    result = run("serve", "app:handle", *arguments, cwd=app)
    assert result.returncode == 2
    assert arguments[0] in result.stderr
    assert arguments[1] in result.stderr


def test_the_configuration_is_looked_at(app: Path) -> None:
    (app / "c.toml").write_text("[quicgreen]\napp = 'app:handle'\nworkers = 3\n")
    result = run_process("serve", "-c", "c.toml", "--print-config", "--timeout", "5", cwd=app)
    assert (result.returncode, result.stderr) == (0, "")
    assert "app = 'app:handle'" in result.stdout
    assert "workers = 3  # c.toml" in result.stdout
    assert "timeout = 5.0  # command line" in result.stdout
    assert run_process("serve", "-c", "c.toml", "--check-config", cwd=app).stdout == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[quicgreen]\nworkers = 'many'\n", "workers is a number"),
        ("[quicgreen]\ncertfile = 'missing'\n", "missing"),
        ("[quicgreen]\napp = 'app:nothing'\n", "nothing"),
    ],
)
def test_a_configuration_that_cannot_be(app: Path, text: str, words: str) -> None:
    (app / "c.toml").write_text(text)
    handler = [] if "app =" in text else ["app:handle"]
    result = run("serve", *handler, "-c", str(app / "c.toml"), "--check-config", cwd=app)
    assert result.returncode == 95
    assert words in complaint(result)


def test_what_a_configuration_raises_is_shown_with_its_traceback(app: Path) -> None:
    (app / "c.py").write_text("def broken():\n    return 1 / 0\nbroken()\n")
    result = run_process("serve", "app:handle", "-c", "c.py", cwd=app)
    assert result.returncode == 95
    assert "line 2, in broken" in result.stderr
