"""The command, as a process of its own: what it prints, its exit status, what crossed the wire."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import GreenletExit
from gevent.event import Event
from support import make_server, url_of

import quicgreen
from quicgreen import cli
from quicgreen._contexts import self_signed

QUICGREEN = [sys.executable, "-m", "quicgreen"]

_START_S = 30.0
"""An interpreter and gevent; two cores, shared."""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "error", **more}


def run_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. In a thread: the server that it talks to lives in this process."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    options |= {"text": True, "timeout": _START_S, "env": environment()}
    return gevent.get_hub().threadpool.apply(subprocess.run, ([*QUICGREEN, *arguments],), options)


def run(
    *arguments: str, stdin: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The same in this process, which is quicker. Nothing is patched here."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for name in ("stdout", "stderr")}
    if stdin is not None:
        streams["stdin"] = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    kept = {name: getattr(sys, name) for name in streams}
    path, modules, folder = list(sys.path), set(sys.modules), os.getcwd()
    more = ["--no-patch"] if arguments[:1] == ("serve",) and "-h" not in arguments else []
    try:
        for name, stream in streams.items():
            setattr(sys, name, stream)
        if cwd is not None:
            os.chdir(cwd)
        status = cli.main([*arguments, *more])
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)  # as the interpreter does
    finally:
        for name, stream in kept.items():
            setattr(sys, name, stream)
        os.chdir(folder)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if name in ("app", "broken") or name.startswith("package"):
                del sys.modules[name]
    said = []
    for name in ("stdout", "stderr"):
        streams[name].flush()
        said.append(streams[name].buffer.getvalue().decode().replace("\r\n", "\n"))
    return subprocess.CompletedProcess(list(arguments), status, *said)


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that it said."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("quicgreen: ")
    return lines[0].removeprefix("quicgreen: ")


# ---------------------------------------------------------------- info, help


def test_info() -> None:
    result = run_process("info")
    assert (result.returncode, result.stderr) == (0, "")
    values = dict(line.split(" => ", 1) for line in result.stdout.splitlines())
    assert values["quicgreen.version"] == quicgreen.__version__
    assert values["udp.gso"] in ("yes", "no")
    assert values["transport.max_idle_ms"] == "30000"
    assert values.keys() == cli.information().keys()


def test_info_of_one_key() -> None:
    result = run("info", "transport.max_idle_ms")
    assert (result.returncode, result.stdout, result.stderr) == (0, "30000\n", "")
    result = run("info", "no.such.key")
    assert (result.returncode, result.stdout) == (1, "")
    assert "no.such.key" in complaint(result)


def test_the_installed_command_is_the_module() -> None:
    script = Path(sys.executable).parent / "quicgreen"
    outs = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in ([str(script)], QUICGREEN)
    ]
    assert outs == [f"quicgreen {quicgreen.__version__}\n"] * 2


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["serve", "fetch", "info", "--version"]),
        (["serve"], ["MODULE:HANDLER", "--bind", "--certfile", "--no-patch", "--graceful-timeout"]),
        (["fetch"], ["--insecure", "--cacert", "--output", "--connect-timeout", "--max-time", "--fail"]),
        (["info"], ["key"]),
    ],
)
def test_help(command: list[str], words: list[str]) -> None:
    result = run(*command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for word in words:
        assert word in result.stdout


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["fetch"], ["serve"], ["fetch", "--nonsense", "x"]])
def test_wrong_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: ")


# ---------------------------------------------------------------- fetch


class Site:
    """A server in this process, and what it was asked."""

    def __init__(self) -> None:
        self.seen: list[quicgreen.Request] = []
        self.bodies: list[bytes] = []
        self.go_on = Event()
        self.url = ""

    def __call__(self, request: quicgreen.Request) -> None:
        self.seen.append(request)
        self.bodies.append(request.read())
        if request.path.startswith("/status/"):
            request.respond(int(request.path[8:]), {"x-a": "1"}, b"the body\n")
        elif request.path == "/never":
            self.go_on.wait()
            request.respond(200)
        elif request.path == "/drip":
            stream = request.start_response(200)
            stream.write(b"first\n")
            self.go_on.wait()
            stream.finish(b"last\n")
        elif request.path == "/big":
            request.respond(200, None, bytes(1_000_000))
        elif request.path == "/cut":
            request.start_response(200, {"content-length": "100"}).write(b"begun\n")
            raise GreenletExit
        else:
            request.respond(200, {"x-a": "1"}, b"hello\n")


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    server = make_server(found)
    server.start()
    found.url = url_of(server).rstrip("/")
    yield found
    found.go_on.set()
    server.stop(timeout=0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    cert, key = self_signed("localhost,127.0.0.1")
    (tmp_path / "cert.pem").write_text(cert)
    (tmp_path / "key.pem").write_text(key)
    (tmp_path / "both.pem").write_text(cert + key)
    (tmp_path / "form").write_bytes(b"a=1&\r\nb=2\n\0")
    (tmp_path / "file name").write_bytes(b"line\r\n" * 20_000)
    return tmp_path


def test_fetch(site: Site) -> None:
    result = run_process("fetch", "-k", site.url + "/a?b")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")
    request = site.seen[0]
    assert (request.method, request.path) == ("GET", "/a?b")
    assert request.headers["user-agent"].startswith("quicgreen/")


def test_fetch_says_what_to_do_when_a_certificate_is_not_trusted(site: Site) -> None:
    result = run("fetch", site.url + "/")
    assert (result.returncode, result.stdout) == (60, "")
    words = complaint(result)
    assert "certificate" in words
    assert "--cacert" in words
    assert "-k" in words
    assert site.seen == []


def test_fetch_with_an_authority_of_ones_own(files: Path) -> None:
    site = Site()
    with make_server(site, certfile=str(files / "both.pem")) as server:
        ok = run("fetch", "--cacert", str(files / "cert.pem"), url_of(server))
        assert (ok.returncode, ok.stdout) == (0, "hello\n")
        for wrong in (files / "missing", files / "form"):
            result = run("fetch", "--cacert", str(wrong), url_of(server))
            assert result.returncode == 77
            assert str(wrong) in complaint(result)
    assert len(site.seen) == 1


def test_fetch_with_a_client_certificate(files: Path) -> None:
    both = str(files / "both.pem")
    with make_server(Site(), certfile=both, ca_certs=str(files / "cert.pem")) as server:
        url = url_of(server)
        assert run("fetch", "-k", "-E", both, url).stdout == "hello\n"
        pair = ["--cert", str(files / "cert.pem"), "--key", str(files / "key.pem")]
        assert run("fetch", "-k", *pair, url).stdout == "hello\n"
        result = run("fetch", "-k", url)
        assert result.returncode in (35, 56)
        assert complaint(result)


def test_verbose_goes_to_stderr(site: Site) -> None:
    result = run("fetch", "-k", "-v", "-H", "X-Own: 5", site.url + "/")
    assert (result.returncode, result.stdout) == (0, "hello\n")
    for line in ("* ALPN: server accepted h3", "> X-Own: 5", "< HTTP/3 200 OK", "< x-a: 1"):
        assert line in result.stderr.splitlines()
    assert re.search(r"^\* Connected to 127\.0\.0\.1 port \d+ ", result.stderr)
    assert re.search(r"^\* 6 bytes in ", result.stderr, re.MULTILINE)


def test_include_and_head(site: Site) -> None:
    result = run("fetch", "-k", "-i", site.url + "/")
    head, _, body = result.stdout.partition("\n\n")
    assert body == "hello\n"
    assert head.splitlines()[0] == "HTTP/3 200"
    assert "x-a: 1" in head.splitlines()
    result = run("fetch", "-k", "-I", site.url + "/")
    assert result.stdout.startswith("HTTP/3 200\n")
    assert result.stdout.endswith("\n\n")
    assert "content-length: 6" in result.stdout
    assert [r.method for r in site.seen] == ["GET", "HEAD"]


def test_output(site: Site, files: Path) -> None:
    for option in ("-o", "--output"):
        result = run("fetch", "-k", option, str(files / "out"), site.url + "/big")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert (files / "out").read_bytes() == bytes(1_000_000)
    assert run("fetch", "-k", "-o", "-", site.url + "/").stdout == "hello\n"
    result = run("fetch", "-k", "-o", str(files / "no" / "such"), site.url + "/")
    assert result.returncode == 23
    assert "No such file" in complaint(result)


def test_data(site: Site, files: Path) -> None:
    """As in curl: a form by POST, joined by &, line ends of files left out."""
    form = f"@{files / 'form'}"
    for arguments in (["-d", "c=d"], ["--data", "a=1", "-d", "b=ü"], ["-d", form, "-d", "c=3"], ["-d", ""]):
        assert run("fetch", "-k", *arguments, site.url + "/").returncode == 0
    assert run("fetch", "-k", "-d", "@-", site.url + "/", stdin="x=\ny").returncode == 0
    assert site.bodies == [b"c=d", "a=1&b=ü".encode(), b"a=1&b=2&c=3", b"", b"x=y"]
    assert {r.method for r in site.seen} == {"POST"}
    assert {r.headers["content-type"] for r in site.seen} == {"application/x-www-form-urlencoded"}
    assert [r.content_length for r in site.seen] == [len(b) for b in site.bodies]


def test_data_with_another_method_and_type(site: Site) -> None:
    run("fetch", "-k", "-X", "QUERY", "-H", "Content-Type: application/json", "-d", "{}", site.url + "/")
    assert (site.seen[0].method, site.bodies) == ("QUERY", [b"{}"])
    assert site.seen[0].headers.get_list("content-type") == ["application/json"]


def test_upload(site: Site, files: Path) -> None:
    """A file as it is, with its length; by its name when the URL names a folder."""
    path = files / "file name"
    for url in ("/put", "/folder/"):
        result = run("fetch", "-k", "-T", str(path), site.url + url)
        assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")
    run("fetch", "-k", "--upload-file", "-", "-X", "POST", site.url + "/", stdin="piped")
    assert site.bodies == [path.read_bytes(), path.read_bytes(), b"piped"]
    assert [(r.method, r.path, r.content_length) for r in site.seen] == [
        ("PUT", "/put", 120_000),
        ("PUT", "/folder/file%20name", 120_000),
        ("POST", "/", None),
    ]


@pytest.mark.parametrize("arguments", [["-d", "@missing"], ["-T", "missing"], ["-T", "."]])
def test_a_file_that_cannot_be_read(site: Site, files: Path, arguments: list[str]) -> None:
    result = run("fetch", "-k", *arguments, site.url + "/", cwd=files)
    assert result.returncode == 26
    assert arguments[1].lstrip("@") in complaint(result)
    assert site.seen == []


def test_header(site: Site) -> None:
    headers = ["-H", "X-Own:  5 ", "-H", "user-agent: me", "--header", "x-own: 6"]
    assert run("fetch", "-k", *headers, site.url + "/").returncode == 0
    assert site.seen[0].headers.get_list("x-own") == ["5", "6"]
    assert site.seen[0].headers.get_list("user-agent") == ["me"]
    for wrong in ("nonsense", "a b: c", "x: a\nb"):
        result = run("fetch", "-k", "-H", wrong, site.url + "/")
        assert result.returncode in (1, 3)
        assert complaint(result)
    assert len(site.seen) == 1


@pytest.mark.parametrize(("status", "code"), [(200, 0), (304, 0), (404, 22), (500, 22)])
def test_fail(site: Site, status: int, code: int) -> None:
    """-f turns an error's status into the command's, and shows nothing of the body."""
    url = f"{site.url}/status/{status}"
    if status == 304:
        url = site.url + "/status/399"
    body = "the body\n"
    result = run("fetch", "-k", "-f", url)
    assert (result.returncode, result.stdout) == (code, "" if code else body)
    if code:
        assert f"{status} " in complaint(result)
    plain = run("fetch", "-k", url)
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, body, "")


def test_silent(site: Site) -> None:
    for arguments, code in (
        ([site.url + "/"], 60),
        (["-k", "-f", site.url + "/status/404"], 22),
        (["-k", "-m", "0.2", site.url + "/never"], 28),
        (["-k", "-d", "@/no/such/file", site.url + "/"], 26),
        (["-k", "-o", "/no/such/file", site.url + "/"], 23),
    ):
        result = run("fetch", "-s", *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (code, "", "")


def test_max_time(site: Site) -> None:
    for path, out in (("/never", ""), ("/drip", "first\n")):
        result = run("fetch", "-k", "-m", "0.4", site.url + path)
        assert (result.returncode, result.stdout) == (28, out)
        assert "-m" in complaint(result)


def test_connect_timeout() -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        result = run("fetch", "-k", "--connect-timeout", "0.2", url)
        assert result.returncode == 28
        assert "--connect-timeout" in complaint(result)
    result = run("fetch", "-k", url)
    assert result.returncode == 7
    assert "refused" in complaint(result)


def test_a_response_that_is_cut_off(site: Site) -> None:
    result = run("fetch", "-k", site.url + "/cut")
    assert result.returncode in (92, 18)
    assert complaint(result)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["http://127.0.0.1/"], 3),
        (["nonsense"], 3),
        (["https://"], 3),
        (["https://127.0.0.1:99999/"], 3),
        (["https://no-such-host.invalid/"], 6),
        (["-X", "A B", "https://127.0.0.1/"], 3),
        (["-m", "-1", "https://127.0.0.1/"], 3),
        (["-k", "-E", "/no/such/file", "https://127.0.0.1/"], 3),
    ],
)
def test_wrong_arguments(arguments: list[str], code: int) -> None:
    result = run("fetch", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert complaint(result)


# ---------------------------------------------------------------- output that breaks


@pytest.mark.parametrize("command", ["fetch -k -s {url}/big", "fetch -k -i {url}/big", "info"])
def test_a_broken_pipe(site: Site, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = run_process(*command.format(url=site.url).split(), stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (23, "")


@pytest.mark.parametrize("command", ["fetch -k {url}/big", "info", "info quicgreen.version"])
def test_a_full_disk(site: Site, command: str) -> None:
    with open("/dev/full", "wb") as full:
        result = run_process(*command.format(url=site.url).split(), stdout=full)
    assert result.returncode == 23
    assert "No space left" in complaint(result)


# ---------------------------------------------------------------- serve


class Command:
    """One that goes on."""

    def __init__(self, *arguments: str, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [*QUICGREEN, *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        self.out = b""

    def wait_for(self, words: str) -> str:
        """Read its output until these words came."""
        deadline = time.monotonic() + _START_S
        stdout = self.process.stdout
        assert stdout is not None
        while words.encode() not in self.out:
            if select.select([stdout], [], [], 0)[0]:
                piece = os.read(stdout.fileno(), 65536)
                assert piece, (self.out, self.process.communicate()[1])
                self.out += piece
            else:
                assert time.monotonic() < deadline, self.out
                gevent.sleep(0.01)
        return self.out.decode()

    def url(self) -> str:
        found = re.search(r"https://\S+/", self.wait_for("(UDP)\n"))
        assert found is not None
        return found.group()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """(exit status, all of its output, errors) once it has ended."""
        out, err = gevent.get_hub().threadpool.apply(self.process.communicate, kwds={"timeout": _START_S})
        return self.process.returncode, (self.out + out).decode(), err.decode()


@contextlib.contextmanager
def command(*arguments: str, cwd: Path | None = None) -> Iterator[Command]:
    started = Command(*arguments, cwd=cwd)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
        for file in (started.process.stdout, started.process.stderr):
            assert file is not None
            file.close()


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
    with quicgreen.Session(verify=False, timeout=_START_S) as session:
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
        with quicgreen.Session(verify=str(app / "cert.pem"), timeout=_START_S) as session:
            assert session.get(url).text == "True"
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
        assert slow.get(timeout=_START_S).text == "finished"
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
        never.join(_START_S)
    assert (status, err) == (0, "")
    assert isinstance(never.exception, quicgreen.QuicException)


def test_the_graceful_timeout_ends_a_drain(app: Path) -> None:
    arguments = ["--bind", "127.0.0.1:0", "--graceful-timeout", "0.2"]
    with command("serve", "app:handle", *arguments, cwd=app) as served:
        never = gevent.spawn(get, served.url() + "never")
        served.wait_for("begun")
        served.signal(signal.SIGINT)
        assert served.end()[0] == 0
        never.join(_START_S)


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


# ---------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("path", ["/never", "/drip"])
def test_an_interrupted_fetch_leaves_no_traceback(site: Site, path: str) -> None:
    with command("fetch", "-k", site.url + path) as fetching:
        if path == "/drip":
            fetching.wait_for("first\n")  # what came is shown at once
        else:
            deadline = time.monotonic() + _START_S
            while not site.seen:
                assert time.monotonic() < deadline
                gevent.sleep(0.01)
        fetching.signal(signal.SIGINT)
        status, _, err = fetching.end()
    assert (status, err) == (130, "")
