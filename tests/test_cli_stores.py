"""Which store a command works with."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tickets import current_ticket

from quicgreen.cli import stores
from quicgreen.cli.session_file import HEADER, SessionFile
from quicgreen.exceptions import QuicException
from quicgreen.session_modes import SessionMode
from quicgreen.tickets import (
    FileTicketStore,
    MemoryTicketStore,
    RedisTicketStore,
    SharedMemoryTicketStore,
    TicketStore,
)


def test_a_command_is_a_process_for_one_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert stores.mode_of_commands() is SessionMode.TICKET
    monkeypatch.setenv("QUICPRO_SESSION_MODE", "warm")
    assert stores.mode_of_commands() is SessionMode.WARM
    assert not stores.is_shared(stores.in_force())
    monkeypatch.setenv("QUICPRO_SESSION_MODE", "ticket")
    monkeypatch.setenv("QUICPRO_TICKET_STORE", str(tmp_path / "here"))
    store = stores.in_force()
    assert isinstance(store, FileTicketStore)
    assert store.folder == str(tmp_path / "here")


def test_a_place_is_known_by_what_is_there(tmp_path: Path, segment_path: str) -> None:
    SharedMemoryTicketStore(segment_path).close()
    copy = tmp_path / "segment"
    copy.write_bytes(Path(segment_path).read_bytes())
    copy.chmod(0o600)
    (tmp_path / "sessions").write_text(HEADER)
    (tmp_path / "sessions").chmod(0o600)
    (tmp_path / "folder").mkdir(0o700)
    for place, kind in {
        segment_path: SharedMemoryTicketStore,
        str(copy): SharedMemoryTicketStore,
        str(tmp_path / "sessions"): SessionFile,
        str(tmp_path / "folder"): FileTicketStore,
        "redis://127.0.0.1:1/0": RedisTicketStore,
    }.items():
        store = stores.at(place, make=False)
        assert type(store) is kind
        assert stores.is_shared(store)
        store.close()
    assert not stores.is_shared(MemoryTicketStore())


def test_a_place_that_is_not_there_is_made_when_it_is_wanted(tmp_path: Path, segment_path: str) -> None:
    for place, kind in {
        segment_path: SharedMemoryTicketStore,
        str(tmp_path / "new"): FileTicketStore,
    }.items():
        with pytest.raises(QuicException, match="does not exist"):
            stores.at(place, make=False)
        assert not Path(place).exists()
        store = stores.at(place, make=True)
        assert type(store) is kind
        store.close()
        assert Path(place).exists()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:p@h:1/0", "redis://***@h:1/0"),
        ("rediss://u:p@@h/0", "rediss://***@h/0"),
        ("unix:///run/redis?db=1&password=p&timeout=1", "unix:///run/redis?db=1&password=***&timeout=1"),
        ("/a/b@c", "/a/b@c"),
    ],
)
def test_a_password_is_no_part_of_a_description(url: str, shown: str) -> None:
    assert stores.without_password(url) == shown


def test_a_watched_store_counts() -> None:
    inner = MemoryTicketStore()
    store = stores.Watched(inner)
    assert isinstance(store, TicketStore)
    assert not store.blocks
    assert stores.Watched(object()).blocks  # type: ignore[arg-type]
    ticket = current_ticket(1)
    assert store.pop("a") is None
    store.put("a", ticket)
    assert (store.gave, store.got) == (0, 1)
    assert store.get("a") == inner.get("a") == ticket
    assert len(list(store.items())) == 1
    assert store.pop("a") == ticket
    assert (store.gave, store.got) == (1, 1)
    store.put("a", ticket)
    store.delete("a")
    store.put("b", ticket)
    store.clear()
    assert list(inner.items()) == []
    store.close()
