"""`quicgreen fetch`: what it prints, its exit status, what crossed the wire."""

from __future__ import annotations

import re
import signal
import socket
import time
from pathlib import Path

import gevent
import pytest
from helpers.commands import START_S, Site, command, complaint, run, run_process
from support import make_server, url_of


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
        (["-k", "-E", "/no/such/file", "https://127.0.0.1/"], 3),
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
