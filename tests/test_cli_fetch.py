"""`quicgreen fetch`: what it prints, its exit status, what crossed the wire."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from helpers.commands import START_S, Site, command, complaint, run, run_process
from helpers.processes import Peer
from helpers.qlog_schema import validate
from support import make_server, serving, url_of

from quicgreen._contexts import Keys, ReplayRegister
from quicgreen.testing import Certificate, Link


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
    assert re.search(r"^\* Connected to 127\.0\.0\.1 port \d+ ", result.stderr, re.MULTILINE)
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
        (["-k", "-E", "/no/such/file", "https://127.0.0.1/"], 58),
    ],
)
def test_wrong_arguments(arguments: list[str], code: int) -> None:
    result = run("fetch", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert complaint(result)


# ---------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("path", ["/never", "/drip"])
def test_an_interrupted_fetch_leaves_no_traceback(site: Site, path: str) -> None:
    with command("fetch", "-k", site.url + path) as fetching:
        if path == "/drip":
            fetching.wait_for("first\n")  # what came is shown at once
        else:
            deadline = time.monotonic() + START_S
            while not site.seen:
                assert time.monotonic() < deadline
                gevent.sleep(0.01)
        fetching.signal(signal.SIGINT)
        status, _, err = fetching.end()
    assert (status, err) == (130, "")


# ---------------------------------------------------------------- sessions


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's tickets, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "quicgreen" / "tickets"


@pytest.fixture
def early() -> Iterator[Site]:
    """A server that takes early data."""
    found = Site()
    with serving(found, early_data=True) as server:
        found.url = url_of(server).rstrip("/")
        yield found
        found.go_on.set()


FULL = "* TLS full handshake: no session ticket for this server"
NOT_TAKEN = "* TLS full handshake: the server did not take the session ticket"
RESUMED = "* TLS session resumed"
UNUSED = "* Early data: not used"
ACCEPTED = "* Early data: accepted"


def told(result: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """What it said of its session: (handshake, early data)."""
    assert (result.returncode, result.stdout) == (0, "hello\n"), result.stderr
    lines = result.stderr.splitlines()
    handshake, early = ([x for x in lines if x.startswith(y)] for y in ("* TLS ", "* Early data: "))
    assert (len(handshake), len(early)) == (1, 1)
    return handshake[0], early[0]


def warnings_of(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [x for x in result.stderr.splitlines() if "arning" in x]


def test_a_second_process_resumes_with_early_data(early: Site, cache: Path) -> None:
    for expected in ((FULL, UNUSED), (RESUMED, ACCEPTED)):
        assert told(run_process("fetch", "-k", "-v", early.url + "/")) == expected
    # Each took a ticket and brought others: it goes on so.
    for _ in range(4):
        assert told(run("fetch", "-k", "-v", early.url + "/")) == (RESUMED, ACCEPTED)
    assert len(early.seen) == 6
    assert {oct(p.stat().st_mode & 0o777) for p in cache.iterdir()} == {"0o600"}
    assert oct(cache.stat().st_mode & 0o777) == "0o700"


def test_who_verifies_does_not_resume_what_was_not_verified(files: Path, cache: Path) -> None:
    site = Site()
    with serving(site, certfile=str(files / "both.pem")) as server:
        for trust, expected in (
            (["-k"], FULL),
            (["--cacert", str(files / "cert.pem")], FULL),
            (["--cacert", str(files / "cert.pem")], RESUMED),
            (["-k"], RESUMED),
        ):
            assert told(run("fetch", "-v", *trust, url_of(server)))[0] == expected


def test_a_server_without_early_data(site: Site, cache: Path) -> None:
    for expected in (FULL, RESUMED, RESUMED):
        assert told(run("fetch", "-k", "-v", site.url + "/")) == (expected, UNUSED)


def test_early_data_can_be_left_out(early: Site, cache: Path) -> None:
    assert told(run("fetch", "-k", "-v", early.url + "/"))[0] == FULL
    assert told(run("fetch", "-k", "-v", "--no-tls-earlydata", early.url + "/")) == (RESUMED, UNUSED)
    assert told(run("fetch", "-k", "-v", "--tls-earlydata", early.url + "/")) == (RESUMED, ACCEPTED)


def test_a_form_is_not_sent_early(early: Site, cache: Path) -> None:
    assert told(run("fetch", "-k", "-v", early.url + "/"))[0] == FULL
    assert told(run("fetch", "-k", "-v", "-d", "a=1", early.url + "/")) == (RESUMED, UNUSED)
    assert [(r.method, r.early_data) for r in early.seen] == [("GET", False), ("POST", False)]


def test_refused_early_data_is_sent_again(cache: Path) -> None:
    keys, sites = Keys(), [Site(), Site()]
    with serving(sites[0], keys=keys, replay=ReplayRegister(), early_data=True) as server:
        url, address = url_of(server), server.address
        assert told(run("fetch", "-k", "-v", url))[0] == FULL
    with serving(sites[1], address, keys=keys):
        handshake, early_data = told(run("fetch", "-k", "-v", url))
    assert handshake == RESUMED
    assert early_data.startswith("* Early data: refused")
    assert len(sites[1].seen) == 1


def test_a_server_with_other_keys(cache: Path) -> None:
    with serving(Site()) as server:
        url, address = url_of(server), server.address
        assert told(run("fetch", "-k", "-v", url))[0] == FULL
    with serving(Site(), address):
        assert told(run("fetch", "-k", "-v", url)) == (NOT_TAKEN, UNUSED)
        assert told(run("fetch", "-k", "-v", url)) == (RESUMED, UNUSED)


def test_without_sessions(site: Site, cache: Path) -> None:
    for _ in range(2):
        assert told(run("fetch", "-k", "-v", "--no-sessionid", site.url + "/"))[0] == FULL
    assert not cache.exists()
    assert told(run("fetch", "-k", "-v", "--sessionid", site.url + "/"))[0] == FULL
    kept = sorted(cache.iterdir())
    assert kept
    assert told(run("fetch", "-k", "-v", "--no-sessionid", site.url + "/"))[0] == FULL
    assert sorted(cache.iterdir()) == kept


def test_a_file_of_sessions(early: Site, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    arguments = ["fetch", "-k", "-v", "--ssl-sessions", str(path), early.url + "/"]
    for process, expected in ((run, FULL), (run_process, RESUMED), (run, RESUMED)):
        assert told(process(*arguments))[0] == expected
        assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert not cache.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sessions"]


@pytest.mark.parametrize("kind", ["foreign", "folder", "nowhere", "open to others"])
def test_a_file_of_sessions_that_cannot_be_used(site: Site, cache: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sessions"
    if kind == "foreign":
        path.write_text("my thesis\n")
    elif kind == "folder":
        path.mkdir()
    elif kind == "nowhere":
        path = tmp_path / "no" / "such" / "folder"
    else:
        path.write_text("")
        path.chmod(0o666)
    arguments = ["fetch", "-k", "--ssl-sessions", str(path), site.url + "/"]
    result = run(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")
    result = run(*arguments, "-v")
    assert told(result)[0] == FULL
    assert str(path) in warnings_of(result)[0]
    if kind == "foreign":
        assert path.read_text() == "my thesis\n"


def test_settings_choose_the_store(
    site: Site, cache: Path, tmp_path: Path, segment_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way in a process of its own; what one store has the others do not."""
    config = tmp_path / "quicpro.toml"
    config.write_text(f'[quicpro]\nticket_store = "{tmp_path / "configured"}"\n')
    ways: list[dict[str, str]] = [
        {"QUICPRO_TICKET_STORE": str(tmp_path / "named")},
        {"QUICPRO_CONFIG": str(config)},
        {"QUICPRO_SESSION_MODE": "shm_lru", "QUICPRO_SHM_PATH": segment_path},
    ]
    for way in ways:
        for process, expected in ((run_process, FULL), (run, RESUMED)):
            with monkeypatch.context() as patch:
                for name, value in way.items():
                    patch.setenv(name, value)
                assert told(process("fetch", "-k", "-v", site.url + "/"))[0] == expected
    assert list((tmp_path / "named").iterdir())
    assert list((tmp_path / "configured").iterdir())
    assert os.path.exists(segment_path)
    monkeypatch.setenv("QUICPRO_SESSION_MODE", "live")
    for _ in range(2):
        assert told(run_process("fetch", "-k", "-v", site.url + "/"))[0] == FULL
    assert not cache.exists()


@pytest.mark.parametrize("store", ["redis://127.0.0.1:1/0", "{}/form"])
def test_a_store_that_fails_is_no_failure_of_the_fetch(
    site: Site, files: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setenv("QUICPRO_TICKET_STORE", store.format(files))
    result = run("fetch", "-k", site.url + "/")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")
    result = run("fetch", "-k", "-v", site.url + "/")
    assert told(result)[0] == FULL
    assert warnings_of(result)
    assert all(line.startswith("* Warning: session tickets: ") for line in warnings_of(result))


def test_a_setting_that_is_wrong(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICPRO_SESSION_MODE", "sometimes")
    result = run("fetch", "-k", site.url + "/")
    assert result.returncode == 3
    assert "QUICPRO_SESSION_MODE" in complaint(result)
    monkeypatch.delenv("QUICPRO_SESSION_MODE")
    (tmp_path / "config").write_text("[quicpro]\nshm_sise = 5\n")
    monkeypatch.setenv("QUICPRO_CONFIG", str(tmp_path / "config"))
    result = run("fetch", "-k", site.url + "/")
    assert (result.returncode, result.stdout) == (0, "hello\n")
    assert complaint(result).startswith("warning: ")
    assert "shm_sise" in complaint(result)
    assert run("fetch", "-k", "-s", site.url + "/").stderr == ""


def test_tickets_that_come_after_the_response_are_waited_for(
    certificate: Certificate, tmp_path: Path
) -> None:
    """aioquic sends its ticket when the handshake is complete, a round trip after the response."""
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with Peer("aioquic_server.py", tickets="early", **files) as peer:
        peer.wait_until_it_answers(certificate.ca_certs)
        with Link(peer.address, delay_ms=20) as link:
            arguments = ["--cacert", certificate.ca_certs, "--ssl-sessions", str(tmp_path / "sessions")]
            url = f"https://127.0.0.1:{link.address[1]}/version"
            for expected in (FULL, RESUMED, RESUMED, RESUMED):
                result = run("fetch", "-v", *arguments, url)
                assert result.returncode == 0
                assert expected in result.stderr.splitlines()
            assert ACCEPTED in result.stderr.splitlines()


def test_the_qlog_begins_with_the_first_packet(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "a.sqlog"
    result = run_process("fetch", "-k", "--qlog", str(file), site.url + "/")
    assert (result.returncode, result.stdout) == (0, "hello\n")
    found = validate(file)
    assert found["quic:packet_sent"] > 3
    story = run("qlog", "show", str(file)).stdout
    assert "> initial 0, " in story
    assert "> stream 0 ends after " in story
    assert "> the connection is closed: H3_NO_ERROR" in story


def test_a_qlog_into_a_folder(site: Site, tmp_path: Path) -> None:
    assert run("fetch", "-k", "--qlog", str(tmp_path), site.url + "/").returncode == 0
    (file,) = tmp_path.iterdir()
    assert file.name.endswith("_client.sqlog")


def test_a_qlog_that_cannot_be_written(site: Site) -> None:
    result = run("fetch", "-k", "--qlog", "/nowhere/at/all", site.url + "/")
    assert (result.returncode, result.stdout) == (23, "")
    assert "/nowhere/at/all: No such file or directory (--qlog names a file" in complaint(result)
    assert site.seen == []
