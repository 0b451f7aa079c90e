from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.tickets import START, Clock, make_ticket
from support import check_python

from quicgreen import QuicException
from quicgreen.tickets import FileTicketStore, fingerprint
from quicgreen.tickets.file import default_folder

NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "tickets"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where another user can go: pytest's own folder is closed to others."""
    path = Path(tempfile.mkdtemp(prefix="quicgreen-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def new_store(folder: Path, **options: Any) -> FileTicketStore:
    return FileTicketStore(folder, **{"clock": Clock(), **options})


def files(folder: Path) -> list[Path]:
    """Those of a key are sorted, oldest first."""
    return sorted(folder.glob("*.ticket"))


def test_nobody_else_can_look_into_it(folder: Path) -> None:
    mask = os.umask(0)
    try:
        new_store(folder).put("key", make_ticket())
    finally:
        os.umask(mask)
    (file,) = files(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.name.startswith(fingerprint("key") + "-")
    assert file.read_bytes() == make_ticket().to_bytes()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    store = new_store(folder)
    store.put("key", make_ticket())
    folder.chmod(mode)
    calls = (new_store, lambda _: store.get("key"), lambda _: store.put("key", make_ticket(1)))
    for call in calls:
        with pytest.raises(QuicException, match="others may write to") as caught:
            call(folder)
        assert caught.value.cause == "ticket-folder"
    folder.chmod(0o755)
    assert store.pop("key") == make_ticket()


def test_a_file_that_others_may_write_to_is_refused(folder: Path) -> None:
    store = new_store(folder)
    store.put("key", make_ticket())
    files(folder)[0].chmod(0o606)
    for call in (store.get, store.pop):
        with pytest.raises(QuicException, match=r"others may write to .*\.ticket") as caught:
            call("key")
        assert caught.value.cause == "ticket-folder"


def test_a_link_to_somewhere_else_is_not_followed(folder: Path, tmp_path: Path) -> None:
    store = new_store(folder)
    store.put("key", make_ticket())
    (file,) = files(folder)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(QuicException) as caught:
        store.pop("key")
    assert (caught.value.cause, caught.value.errno) == ("ticket-folder", errno.ELOOP)


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(QuicException) as caught:
            new_store(path)
        assert (caught.value.cause, caught.value.errno) == ("ticket-folder", errno.ENOTDIR)
        assert str(path) in str(caught.value)


def test_a_folder_of_another_user_or_without_permission_to_write(open_folder: Path) -> None:
    """By an ordinary user: root may write everywhere."""
    place = open_folder / "tickets"
    theirs = open_folder / "theirs"
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    new_store(place).put("key", make_ticket())
    theirs.mkdir(0o755)
    if os.geteuid() == 0:
        for path in (place, *files(place)):
            os.chown(path, user, user)
    else:
        theirs = Path("/")
    place.chmod(0o500)
    check_python(
        """
        import errno, os, sys
        from helpers.tickets import Clock, make_ticket
        from quicgreen import QuicException
        from quicgreen.tickets import FileTicketStore

        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(int(sys.argv[3]))
            os.setuid(int(sys.argv[3]))

        def refused(call, *arguments, **options):
            try:
                call(*arguments, **options)
            except QuicException as e:
                assert e.cause == "ticket-folder", e
                return e
            raise AssertionError(call)

        store = FileTicketStore(sys.argv[1], clock=Clock())
        assert store.get("key") == make_ticket()
        assert refused(store.put, "key", make_ticket(1)).errno == errno.EACCES
        assert refused(store.pop, "key").errno == errno.EACCES
        assert refused(FileTicketStore, sys.argv[1] + "/below").errno == errno.EACCES
        assert "another user" in str(refused(FileTicketStore, sys.argv[2]))
        """,
        str(place),
        str(theirs),
        str(user),
    )
    place.chmod(0o700)
    if os.geteuid() == 0:
        for path in (place, *files(place)):
            os.chown(path, 0, 0)
    assert os.listdir(place) == [files(place)[0].name], "nothing half done"
    assert new_store(place).get("key") == make_ticket()


DISK_FULL = """
    import errno, os, resource, subprocess, sys
    from helpers.tickets import Clock, make_ticket
    from quicgreen import QuicException
    from quicgreen.tickets import FileTicketStore, SharedMemoryTicketStore

    kind, folder, how = sys.argv[1:]
    ticket = make_ticket(data=b"x" * 30000)
    mounted = how == "tmpfs" and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "none", folder]).returncode == 0
    try:
        if kind == "file":
            store = FileTicketStore(folder, clock=Clock())
            store.put("before", ticket)
        if mounted:
            with open(folder + "/filler", "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"x" * 4096)
                except OSError as e:
                    assert e.errno == errno.ENOSPC
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
        try:
            if kind == "file":
                store.put("key", ticket)
            else:
                SharedMemoryTicketStore(folder + "/segment", 65536)
        except QuicException as e:
            assert e.cause == "ticket-disk", e
            assert e.errno == (errno.ENOSPC if mounted else errno.EFBIG), e
        else:
            raise AssertionError("nothing was raised")
        if mounted:
            os.unlink(folder + "/filler")
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if kind == "file":
            assert store.get("before") == ticket
            assert store.get("key") is None
            assert len(os.listdir(folder)) == 1, os.listdir(folder)  # nothing half written
            store.put("key", ticket)
            assert store.get("key") == ticket
        else:
            assert os.listdir(folder) == []
            SharedMemoryTicketStore(folder + "/segment", 65536)
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)
"""


@pytest.mark.parametrize("how", ["tmpfs", "limit"])
@pytest.mark.parametrize("kind", ["file", "segment"])
def test_a_full_disk_is_said_and_got_over(kind: str, how: str, tmp_path: Path) -> None:
    """On a real full file system where one can be mounted; a limit of the process otherwise."""
    tmp_path.chmod(0o700)
    check_python(DISK_FULL, kind, str(tmp_path), how)


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "longer", "version", "foreign"])
def test_a_torn_file_is_a_miss_and_goes(folder: Path, damage: str) -> None:
    store = new_store(folder)
    store.put("key", make_ticket(1))
    store.put("key", make_ticket(2))
    newest = files(folder)[-1]
    data = newest.read_bytes()
    newest.write_bytes(
        {
            "empty": b"",
            "cut": data[:-1],
            "zeros": bytes(len(data)),
            "longer": data + b"x" * (1 << 18),
            "version": data[:3] + b"\x09" + data[4:],
            "foreign": b"hello",
        }[damage]
    )
    assert store.get("key") == make_ticket(1)
    assert not newest.exists()
    assert store.pop("key") == make_ticket(1)
    assert files(folder) == []


def test_files_of_others_are_left_alone(folder: Path) -> None:
    store = new_store(folder)
    names = ["README", "x.ticket", f"{fingerprint('key')}.ticket", ".hidden", "A" * 32 + "-0-0-0.ticket"]
    for name in names:
        (folder / name).write_text("mine")
    store.put("key", make_ticket())
    assert [ticket for _, ticket in store.items()] == [make_ticket()]
    store.delete("key")
    store.clear()
    assert sorted(os.listdir(folder)) == sorted(names)


def test_the_oldest_leave_first_and_expired_ones_before(folder: Path) -> None:
    clock = Clock()
    store = new_store(folder, max_tickets=4, clock=clock)
    for n in range(4):
        clock.now += 1
        store.put(str(n), make_ticket(n, lifetime=60 if n == 2 else 3600))
    clock.now = START + 60
    store.put("4", make_ticket(4))
    assert len(files(folder)) == 4
    assert [store.get(str(n)) is not None for n in range(5)] == [True, True, False, True, True]
    store.put("5", make_ticket(5))
    assert [store.get(str(n)) is not None for n in range(6)] == [False, True, False, True, True, True]
    assert len(files(folder)) == 4


def test_what_a_dead_process_left_is_swept_after_a_while(folder: Path) -> None:
    store = new_store(folder)
    for name, age in ((".0123456789abcdef.tmp", 3700), (".fedcba9876543210.tmp", 3000)):
        (folder / name).write_text("half a ti")
        os.utime(folder / name, (time.time() - age,) * 2)
    store.put("key", make_ticket())
    assert sorted(os.listdir(folder)) == [".fedcba9876543210.tmp", files(folder)[0].name]


# Python 3.12 warns of any fork while there are threads; these children do nothing but use the store.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_writers_that_are_killed_leave_no_torn_ticket(folder: Path) -> None:
    ticket = make_ticket(data=b"x" * 60000)
    for turn in range(20):
        child = os.fork()
        if child == 0:
            try:
                store = new_store(folder)
                while True:
                    store.put("key", ticket)
            finally:
                os._exit(1)
        while turn == 0 and not (folder.exists() and files(folder)):
            time.sleep(0.001)  # one of them writes, on the busiest machine
        time.sleep(0.002 * turn)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        if folder.exists():
            assert all(f.read_bytes() == ticket.to_bytes() for f in files(folder))
    assert new_store(folder).pop("key") == ticket


def test_a_folder_that_was_removed_is_made_again(folder: Path) -> None:
    store = new_store(folder)
    store.put("key", make_ticket(1))
    shutil.rmtree(folder.parent)
    assert store.get("key") is None
    store.put("key", make_ticket(2))
    assert store.pop("key") == make_ticket(2)


def test_the_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FileTicketStore().folder == str(tmp_path / "quicgreen" / "tickets")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/to/be/ignored")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_folder() == "/home/somebody/.cache/quicgreen/tickets"


def test_no_room_at_all_is_refused(folder: Path) -> None:
    with pytest.raises(QuicException, match="at least 1"):
        new_store(folder, max_tickets=0)
