"""`quicgreen tickets`: on each kind of store, and together with `fetch`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from helpers.commands import Site, complaint, run, run_process
from helpers.redis_server import RedisServer
from helpers.tickets import make_ticket
from support import serving, url_of

from quicgreen.cli import stores
from quicgreen.cli.session_file import HEADER, to_line
from quicgreen.tickets import Ticket, fingerprint

KINDS = ["files", "shared memory", "session file", "redis"]

KEYS = {name: fingerprint(name) for name in ("a", "b", "c")}


@pytest.fixture(params=KINDS)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, segment_path: str, redis_server: RedisServer
) -> str:
    """A store with nothing in it, as --store names it."""
    kind = request.param
    if kind == "redis":
        redis_server.ask("FLUSHALL")
    if kind == "session file":
        (tmp_path / "sessions").write_text(HEADER)
        (tmp_path / "sessions").chmod(0o600)
    return {
        "files": str(tmp_path / "folder"),
        "shared memory": segment_path,
        "session file": str(tmp_path / "sessions"),
        "redis": redis_server.url,
    }[kind]


def fill(place: str, *entries: tuple[str, Ticket]) -> None:
    store = stores.at(place, make=True)
    for key, ticket in entries:
        store.put(key, ticket)
    store.close()


def three(place: str) -> list[Ticket]:
    """Two of one server, the newer one later; one of another."""
    now = time.time()
    tickets = [
        make_ticket(1, issued_at=now - 200_000, lifetime=600_000, early_data=False),
        make_ticket(2, issued_at=now - 125),
        make_ticket(3, issued_at=now - 5, host="::1", port=4433),
    ]
    fill(place, *zip((KEYS["a"], KEYS["a"], KEYS["b"]), tickets, strict=True))
    return tickets


def tickets_of(place: str) -> set[bytes]:
    store = stores.at(place, make=True)
    found = {ticket.data for _, ticket in store.items()}
    store.close()
    return found


def only(place: str, expected: list[Ticket]) -> bool:
    return tickets_of(place) == {ticket.data for ticket in expected}


# ---------------------------------------------------------------- each store


def test_list(place: str) -> None:
    tickets = three(place)
    result = run("tickets", "list", "--store", place)
    assert (result.returncode, result.stderr) == (0, "")
    head, *rows = [line.split("  ") for line in result.stdout.splitlines()]
    assert [c.strip() for c in head if c] == [
        "KEY",
        "SERVER",
        "ALPN",
        "AGE",
        "EXPIRES IN",
        "EARLY DATA",
        "SIZE",
    ]
    cells = [[c.strip() for c in row if c.strip()] for row in rows]
    assert [row[1] for row in cells] == ["[::1]:4433", "example.com:443", "example.com:443"]
    assert [row[0] for row in cells] == [KEYS[k][:12] for k in ("b", "a", "a")]
    assert [row[5] for row in cells] == ["yes", "yes", "no"]
    assert [int(row[6]) for row in cells] == [len(t.to_bytes()) for t in (tickets[2], *tickets[1::-1])]
    assert cells[1][3].startswith("2 min ")
    assert cells[2][3].startswith("2 d 7 h")
    assert cells[1][4].startswith("57 min ")
    assert only(place, tickets), "a look takes nothing out"


def test_list_of_nothing(place: str) -> None:
    fill(place)
    result = run("tickets", "list", "--store", place)
    assert (result.returncode, result.stdout) == (0, "")
    assert complaint(result) == "no tickets"


@pytest.mark.parametrize(
    ("which", "count"),
    [
        (KEYS["a"], 2),
        (KEYS["b"][:6], 1),
        ("example.com", 2),
        ("EXAMPLE.com:443", 2),
        ("::1", 1),
        ("[::1]", 1),
        ("[::1]:4433", 1),
        ("example.com:444", 0),
        ("[::1]:443", 0),
        ("xample.com", 0),
        (KEYS["a"][:5], 0),
        (KEYS["c"], 0),
    ],
)
def test_show(tmp_path: Path, which: str, count: int) -> None:
    place = str(tmp_path / "folder")
    tickets = three(place)
    result = run("tickets", "show", which, "--store", place)
    assert result.returncode == (0 if count else 1)
    assert result.stdout.count("key         ") == count
    if count == 0:
        assert which in complaint(result)
    if count == 1:
        assert f"key         {KEYS['b']}\nserver      [::1]:4433\nalpn        h3\n" in result.stdout
        assert f"\nsize        {len(tickets[2].to_bytes())} bytes" in result.stdout


def test_export_and_import(place: str, tmp_path: Path) -> None:
    """The newest goes out, and is not used twice."""
    tickets = three(place)
    result = run("tickets", "export", "example.com", "--store", place)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == HEADER + to_line(KEYS["a"], tickets[1])
    assert only(place, [tickets[0], tickets[2]])
    back = run("tickets", "import", "-", "--store", place, stdin=result.stdout)
    assert (back.returncode, back.stdout, back.stderr) == (0, "1 ticket imported\n", "")
    assert only(place, tickets)
    path = tmp_path / "ticket"
    for more, content in (
        (["--text"], (HEADER + to_line(KEYS["a"], tickets[1])).encode()),
        ([], tickets[1].to_bytes()),
    ):
        result = run("tickets", "export", KEYS["a"][:8], "-o", str(path), *more, "--store", place)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o600
        assert only(place, [tickets[0], tickets[2]])
        assert run("tickets", "import", str(path), "--store", place).returncode == 0
        assert only(place, tickets)


def test_clear(place: str) -> None:
    tickets = three(place)
    result = run("tickets", "clear", "nobody.test", "--store", place)
    assert (result.returncode, result.stdout) == (1, "")
    assert "nobody.test" in complaint(result)
    result = run("tickets", "clear", "example.com", "--store", place)
    assert (result.returncode, result.stdout, result.stderr) == (0, "2 tickets dropped\n", "")
    assert only(place, tickets[2:])
    result = run("tickets", "clear", "--store", place)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert tickets_of(place) == set()


# ---------------------------------------------------------------- with fetch


def resumed(url: str, *options: str) -> bool:
    result = run("fetch", "-k", "-v", *options, url)
    assert result.returncode == 0
    return "* TLS session resumed" in result.stderr.splitlines()


def test_a_ticket_goes_from_one_store_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user does it who has no store in common: export here, import there, in processes of their own."""
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    with serving(Site()) as server:
        url = url_of(server)
        monkeypatch.setenv("QUICPRO_TICKET_STORE", here)
        assert not resumed(url)
        path = str(tmp_path / "ticket")
        # As bytes it says no key: -k says whose it is. As text it does.
        for form, whose in (([], ["-k"]), (["--text"], [])):
            monkeypatch.setenv("QUICPRO_TICKET_STORE", here)
            exported = run_process("tickets", "export", "127.0.0.1", "-o", path, *form)
            assert exported.returncode == 0, exported.stderr
            monkeypatch.setenv("QUICPRO_TICKET_STORE", there)
            assert run_process("tickets", "import", *whose, path).stdout == "1 ticket imported\n"
            assert resumed(url)
            assert run("tickets", "clear").returncode == 0
            assert not resumed(url)
            assert run("tickets", "clear").returncode == 0
        assert run("tickets", "import", "-k", path).returncode == 0
        exported_again = run("tickets", "export", "127.0.0.1")
        (tmp_path / "sessions").write_text(exported_again.stdout)
        (tmp_path / "sessions").chmod(0o600)
        monkeypatch.delenv("QUICPRO_TICKET_STORE")
        assert resumed(url, "--ssl-sessions", str(tmp_path / "sessions")), "what is exported is such a file"


def test_the_store_in_force_is_looked_at(
    site: Site, tmp_path: Path, segment_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not resumed(site.url + "/")
    server = site.url.removeprefix("https://")
    assert f" {server} " in run("tickets", "list").stdout
    monkeypatch.setenv("QUICPRO_SESSION_MODE", "shm_lru")
    monkeypatch.setenv("QUICPRO_SHM_PATH", segment_path)
    assert server not in run("tickets", "list").stdout
    assert not resumed(site.url + "/")
    assert f" {server} " in run("tickets", "list").stdout


# ---------------------------------------------------------------- what cannot be


def test_tickets_of_several_kinds_are_not_exported_by_host(tmp_path: Path) -> None:
    place = str(tmp_path / "folder")
    now = time.time()
    fill(place, (KEYS["a"], make_ticket(1, issued_at=now)), (KEYS["b"], make_ticket(2, issued_at=now)))
    result = run("tickets", "export", "example.com", "--store", place)
    assert (result.returncode, result.stdout) == (1, "")
    words = complaint(result)
    assert KEYS["a"] in words
    assert KEYS["b"] in words
    assert len(tickets_of(place)) == 2


def test_a_key_that_is_not_clear(tmp_path: Path) -> None:
    place = str(tmp_path / "folder")
    now = time.time()
    for last in "01":
        fill(place, ("abcdef" + "0" * 25 + last, make_ticket(int(last), issued_at=now)))
    result = run("tickets", "show", "abcdef", "--store", place)
    assert result.returncode == 3
    assert "abcdef" in complaint(result)


def test_a_ticket_that_cannot_be_written_stays(tmp_path: Path) -> None:
    place = str(tmp_path / "folder")
    tickets = three(place)
    result = run("tickets", "export", KEYS["b"], "-o", str(tmp_path / "no" / "such"), "--store", place)
    assert result.returncode == 23
    assert complaint(result)
    with open("/dev/full", "wb") as full:
        result = run_process("tickets", "export", KEYS["b"], "--store", place, stdout=full)
    assert result.returncode == 23
    assert only(place, tickets)


def test_an_expired_ticket_is_not_imported(tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    path.write_bytes(make_ticket(issued_at=time.time() - 9000).to_bytes())
    result = run("tickets", "import", str(path), "--store", str(tmp_path / "folder"))
    assert (result.returncode, result.stdout) == (1, "0 tickets imported\n")
    assert "expired" in complaint(result)


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"QGT", b"QGT\x01" + bytes(80), b"UUdUAQ==", b"\xff\xfe"]
)
def test_what_is_no_ticket(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ticket").write_bytes(content)
    result = run("tickets", "import", str(tmp_path / "ticket"), "--store", str(tmp_path / "folder"))
    assert (result.returncode, result.stdout) == (26, "")
    assert complaint(result)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["list", "--store", "/no/such/place"], 2, "/no/such/place"),
        (["clear", "--store", "/etc/passwd"], 26, "/etc/passwd"),
        (["list", "--store", "redis://127.0.0.1:1/0"], 2, "refused"),
        (["import", "/no/such/file"], 26, "/no/such/file"),
        (["import", "--cacert", "/no/such/ca", "/dev/null"], 77, "/no/such/ca"),
        (["show", "host:0"], 3, "port"),
    ],
)
def test_wrong_arguments(arguments: list[str], status: int, words: str) -> None:
    result = run("tickets", *arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert words in complaint(result)


@pytest.mark.parametrize("mode", ["live", "warm"])
def test_memory_cannot_be_looked_into(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICPRO_SESSION_MODE", mode)
    result = run("tickets", "list")
    assert result.returncode == 3
    assert "--store" in complaint(result)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["show"], ["export"], ["import"]])
def test_wrong_usage(arguments: list[str]) -> None:
    result = run("tickets", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: ")
