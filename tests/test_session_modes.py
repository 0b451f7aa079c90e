"""Which mode fits which process, where each keeps its tickets, and processes that share them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.redis_server import RedisServer, free_port
from support import check_python, check_python_in_thread, hello, new_session, serving, url_of

import quicgreen
from quicgreen import QuicClientException, QuicException, QuicWarningTicketStore
from quicgreen.session_modes import SessionMode, choose, open_store
from quicgreen.tickets import (
    FileTicketStore,
    MemoryTicketStore,
    RedisTicketStore,
    SharedMemoryTicketStore,
)

AUTO, LIVE, TICKET, WARM, SHM_LRU = SessionMode


@pytest.fixture
def server() -> Iterator[quicgreen.Server]:
    with serving(hello, early_data=True) as server:
        yield server


# ---------------------------------------------------------------- which one


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({}, LIVE),
        ({"AWS_LAMBDA_FUNCTION_NAME": "f"}, WARM),
        ({"K_SERVICE": "f"}, WARM),
        ({"FUNCTION_TARGET": "f"}, WARM),
        ({"FUNCTIONS_WORKER_RUNTIME": "python"}, WARM),
        ({"K_SERVICE": ""}, LIVE),
        ({"GATEWAY_INTERFACE": "CGI/1.1"}, TICKET),
        ({"GATEWAY_INTERFACE": "CGI/1.1", "K_SERVICE": "f"}, WARM),
        ({"QUICPRO_SESSION_MODE": "ticket"}, TICKET),
        ({"QUICPRO_SESSION_MODE": "auto", "K_SERVICE": "f"}, WARM),
        ({"QUICPRO_SESSION_MODE": "1", "GATEWAY_INTERFACE": "CGI/1.1"}, LIVE),
    ],
    ids=str,
)
def test_auto_chooses_by_the_environment(environ: dict[str, str], mode: SessionMode) -> None:
    assert choose(None, environ) is mode
    assert choose("live", environ) is LIVE  # what the caller says comes first


@pytest.mark.parametrize(
    ("given", "mode"),
    [("live", LIVE), ("WARM", WARM), ("shm_lru", SHM_LRU), ("shm-lru", SHM_LRU), (2, TICKET), ("2", TICKET)]
    + [(mode, mode) for mode in SessionMode if mode is not AUTO],
    ids=repr,
)
def test_a_mode_may_be_given(given: Any, mode: SessionMode) -> None:
    assert choose(given, {"K_SERVICE": "f"}) is mode


@pytest.mark.parametrize("wrong", ["often", "", 5, -1, 1.5, True, [], b"live"], ids=repr)
def test_what_is_no_mode_is_refused(server: quicgreen.Server, wrong: Any) -> None:
    with pytest.raises(QuicClientException, match="session_mode") as caught:
        choose(wrong, {})
    assert caught.value.cause == "argument"
    with new_session(session_mode=wrong) as session, pytest.raises(QuicClientException, match="session_mode"):
        session.get(url_of(server))


def test_after_a_fork_auto_is_shared_memory() -> None:
    out = check_python(
        """
        import os
        from quicgreen.session_modes import choose
        read, write = os.pipe()
        before = choose(None, {})
        if (child := os.fork()) == 0:
            os.write(write, f"{choose(None, {}).name} {choose(None, {'K_SERVICE': 'f'}).name}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        print(before.name, os.read(read, 100).decode(), choose(None, {}).name)
        """
    )
    assert out.split() == ["LIVE", "SHM_LRU", "WARM", "LIVE"]


def test_a_session_shows_its_mode_once_it_has_chosen(
    server: quicgreen.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICPRO_SESSION_MODE", "warm")
    with new_session() as session:
        assert session.session_mode is AUTO
        assert session.get(url_of(server)).connection.session_mode is WARM
        monkeypatch.setenv("QUICPRO_SESSION_MODE", "live")
        assert session.session_mode is WARM
    monkeypatch.setenv("QUICPRO_SESSION_MODE", "seldom")
    with new_session() as session, pytest.raises(QuicClientException, match="QUICPRO_SESSION_MODE"):
        session.get(url_of(server))


# ---------------------------------------------------------------- which store


def test_each_mode_has_its_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, segment_path: str, redis_server: RedisServer
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("QUICPRO_SHM_PATH", segment_path)
    monkeypatch.setenv("QUICPRO_SHM_SIZE", "32768")
    memory = open_store(LIVE, required=True)
    assert isinstance(memory, MemoryTicketStore)
    assert open_store(WARM, required=True) is memory  # one for all sessions of the process
    shared = open_store(SHM_LRU, required=True)
    assert isinstance(shared, SharedMemoryTicketStore)
    assert (shared.path, shared.info()["size"]) == (segment_path, 32768)
    files = open_store(TICKET, required=True)
    assert isinstance(files, FileTicketStore)
    assert files.folder == str(tmp_path / "quicgreen" / "tickets")
    monkeypatch.setenv("QUICPRO_TICKET_STORE", str(tmp_path / "mine"))
    files = open_store(TICKET, required=True)
    assert isinstance(files, FileTicketStore)
    assert files.folder == str(tmp_path / "mine")
    monkeypatch.setenv("QUICPRO_TICKET_STORE", redis_server.url)
    assert isinstance(open_store(TICKET, required=True), RedisTicketStore)


@pytest.mark.parametrize("mode", [TICKET, SHM_LRU])
def test_a_store_that_cannot_be_had_is_an_error_when_it_was_asked_for(
    server: quicgreen.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: SessionMode
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder, and no segment")
    blocked.chmod(0o600)
    monkeypatch.setenv("QUICPRO_TICKET_STORE", str(blocked))
    monkeypatch.setenv("QUICPRO_SHM_PATH", str(blocked))
    url = url_of(server)
    with new_session(session_mode=mode) as session, pytest.raises(QuicException) as caught:
        session.get(url)
    assert caught.value.cause.startswith("ticket")
    with pytest.raises(QuicException) as caught:
        quicgreen.connect(*server.address, verify=False, session_mode=mode)
    assert caught.value.cause.startswith("ticket")

    # Else it is the program's luck: a warning, and tickets in memory.
    monkeypatch.setenv("QUICPRO_SESSION_MODE", mode.name)
    with new_session() as session:
        with pytest.warns(QuicWarningTicketStore, match="in memory only"):
            assert session.get(url).text == "hello"
        assert session.session_mode is mode
    with new_session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert session.get(url).connection.is_resumed


# ---------------------------------------------------------------- processes that share

VISIT = """
import json, sys, quicgreen
with quicgreen.Session(verify=False) as session:
    connection = session.get(sys.argv[1]).connection
    print(json.dumps([connection.is_resumed, connection.early_data, connection.session_mode.name]))
"""


PATCHED = "from gevent import monkey; monkey.patch_all()\n"


def visit(server: quicgreen.Server, before: str = "", **environ: str | None) -> Any:
    return json.loads(check_python_in_thread(before + VISIT, url_of(server), **environ))


def test_two_processes_share_files(server: quicgreen.Server, tmp_path: Path) -> None:
    config = tmp_path / "quicpro.toml"
    config.write_text(f'[quicpro]\nsession_mode = "ticket"\nticket_store = "{tmp_path}/tickets"\n')
    assert visit(server, QUICPRO_CONFIG=str(config)) == [False, None, "TICKET"]
    kept = os.listdir(tmp_path / "tickets")
    assert kept
    assert visit(server, QUICPRO_CONFIG=str(config)) == [True, True, "TICKET"]
    assert len(set(kept) - set(os.listdir(tmp_path / "tickets"))) == 1  # it is used up


def test_cgi_processes_share_files(server: quicgreen.Server, tmp_path: Path) -> None:
    environ = {"GATEWAY_INTERFACE": "CGI/1.1", "XDG_CACHE_HOME": str(tmp_path)}
    assert visit(server, **environ) == [False, None, "TICKET"]
    assert visit(server, **environ) == [True, True, "TICKET"]


def test_two_processes_share_redis_and_do_without(
    server: quicgreen.Server, redis_server: RedisServer
) -> None:
    environ = {"QUICPRO_SESSION_MODE": "ticket", "QUICPRO_TICKET_STORE": redis_server.url}
    assert visit(server, **environ) == [False, None, "TICKET"]
    assert visit(server, **environ) == [True, True, "TICKET"]
    assert visit(server, PATCHED, **environ) == [True, True, "TICKET"]  # its sockets are gevent's then
    assert visit(server, PATCHED, GEVENT_LOOP="libuv-cffi", **environ) == [True, True, "TICKET"]
    nobody = {**environ, "QUICPRO_TICKET_STORE": f"redis://127.0.0.1:{free_port()}", "PYTHONWARNINGS": None}
    assert visit(server, **nobody) == [False, None, "TICKET"]


def test_a_parent_that_forks_a_worker_per_request(server: quicgreen.Server, segment_path: str) -> None:
    """Each worker lives for one request; they share what shared memory keeps, and nobody says goodbye to
    anybody: the first pays the handshake for all."""
    out = check_python_in_thread(
        """
        import os, sys, quicgreen, gevent
        session = quicgreen.Session(verify=False)
        if sys.argv[2] == "used before":
            print(session.get(sys.argv[1]).connection.is_resumed, session.session_mode.name, flush=True)
        for _ in range(5):
            if (child := os.fork()) == 0:
                with session:
                    connection = session.get(sys.argv[1]).connection
                    print(connection.is_resumed, session.session_mode.name, flush=True)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """,
        url_of(server),
        "not used before",
        QUICPRO_SHM_PATH=segment_path,
    )
    assert out.split("\n")[:-1] == ["False SHM_LRU"] + ["True SHM_LRU"] * 4
    out = check_python_in_thread(
        """
        import os, sys, quicgreen
        session = quicgreen.Session(verify=False, session_mode="live")
        print(session.get(sys.argv[1]).connection.is_resumed)
        if (child := os.fork()) == 0:
            print(session.get(sys.argv[1]).connection.is_resumed, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        session._pool.sessions.cache.flush()
        session.get(sys.argv[1]).connection.close()
        print(session.get(sys.argv[1]).connection.is_resumed)
        """,
        url_of(server),
    )
    # What is in a process's memory is that process's: a child must not use the same tickets once more.
    assert out.split() == ["False", "False", "True"]


def test_a_store_where_the_program_says(segment_path: str) -> None:
    given = {"shm_path": segment_path, "shm_size": 32768}
    store = open_store(SessionMode.SHM_LRU, required=True, given=given)
    assert Path(segment_path).stat().st_size == 32768
    store.close()
