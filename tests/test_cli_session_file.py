"""The file of `--ssl-sessions`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.tickets import START, Clock, make_ticket

from quicgreen.cli.session_file import HEADER, SessionFile, from_line, to_line, write_privately
from quicgreen.exceptions import QuicException
from quicgreen.tickets import TicketStore, fingerprint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def opened(path: Path, now: float = START) -> SessionFile:
    clock = Clock()
    clock.now = now
    return SessionFile(str(path), clock=clock)


def test_a_line_and_back() -> None:
    entry = fingerprint("a"), make_ticket(7)
    line = to_line(*entry)
    assert from_line(line) == entry
    for wrong in ("", "# x", line[:-9], line[33:], line.replace(" ", "  "), f"{entry[0]} QUJD\n"):
        assert from_line(wrong) is None


def test_what_is_put_is_there_for_the_next_one(path: Path) -> None:
    store = opened(path)
    assert isinstance(store, TicketStore)
    tickets = [make_ticket(i, issued_at=START + i / 10) for i in range(3)]
    for ticket in reversed(tickets[:2]):
        store.put("a", ticket)
    store.put("b", tickets[2])
    assert not path.exists(), "saved at the end"
    store.close()
    assert path.read_text().startswith(HEADER)
    assert path.stat().st_mode & 0o777 == 0o600
    again = opened(path)
    assert [again.pop("a") for _ in range(3)] == [tickets[1], tickets[0], None], "the newest first"
    again.close()
    assert [t for _, t in opened(path).items()] == [tickets[2]]


def test_nothing_changed_writes_nothing(path: Path) -> None:
    opened(path).close()
    assert not path.exists()
    write_privately(str(path), HEADER.encode())
    before = path.stat()
    opened(path).close()
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_two_at_a_time_lose_nothing_of_each_other(path: Path) -> None:
    begin = opened(path)
    begin.put("a", make_ticket(1))
    begin.put("b", make_ticket(2))
    begin.close()
    first, second = opened(path), opened(path)
    assert first.pop("a") == make_ticket(1)
    first.put("c", make_ticket(3))
    second.put("d", make_ticket(4))
    first.close()
    second.close()
    found = {key: ticket.data for key, ticket in opened(path).items()}
    assert found == {fingerprint(key): b"ticket %d" % n for key, n in (("b", 2), ("c", 3), ("d", 4))}


def test_expired_and_torn_lines_are_left_out(path: Path) -> None:
    good, old = (
        to_line(fingerprint("a"), make_ticket(1)),
        to_line(fingerprint("a"), make_ticket(2, lifetime=9)),
    )
    path.write_text(HEADER + old + "nonsense\n" + good[:-20] + "\n" + good)
    path.chmod(0o600)
    store = opened(path, START + 10)
    assert [t.data for _, t in store.items()] == [b"ticket 1"]
    store.put("b", make_ticket(3))
    store.close()
    assert len(path.read_text().splitlines()) == 3


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    store = opened(path)
    store.put("a", make_ticket())
    store.close()
    assert path.is_symlink()
    assert opened(tmp_path / "elsewhere").get("a") == make_ticket()


@pytest.mark.parametrize("content", ["my thesis", "quicgreen session ticket", " " + HEADER])
def test_another_file_is_left_as_it_is(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(QuicException) as caught:
        opened(path)
    assert caught.value.cause == "ticket"
    assert path.read_text() == content


def test_one_that_became_another_file_meanwhile_too(path: Path) -> None:
    store = opened(path)
    store.put("a", make_ticket())
    path.write_text("my thesis")
    with pytest.raises(QuicException):
        store.close()
    assert path.read_text() == "my thesis"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_one_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    """Who can place a ticket there can choose who is talked to."""
    path.write_text(HEADER)
    path.chmod(mode)
    with pytest.raises(QuicException, match="others may write") as caught:
        opened(path)
    assert caught.value.cause == "ticket-folder"


def test_what_is_no_file_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(QuicException):
        opened(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    store = opened(tmp_path / "no" / "sessions")
    store.put("a", make_ticket())
    with pytest.raises(QuicException) as caught:
        store.close()
    assert caught.value.cause == "ticket-folder"


def test_a_full_disk_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    store = opened(path)
    store.put("a", make_ticket())
    store.close()
    old = path.read_bytes()
    store.put("b", make_ticket(1, data=b"x" * 60_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # EFBIG: as full as a disk gets by itself
    try:
        with pytest.raises(QuicException):
            store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == ["sessions"]
