"""Fixtures for whoever wants them: certificates, and a check that nothing is left behind."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from helpers.census import Census
from helpers.commands import Site, write_files
from helpers.examples import EXAMPLES
from helpers.redis_server import RedisServer
from helpers.rooms import Room
from support import make_server, new_session, nothing_left_behind, serving, url_of

from quicgreen.testing import Authority, Certificate, authority


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_counts() -> None:
    """Also where this run was started in the background, with SIGINT ignored: children inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's settings and tickets counts here, and his cache folder stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("QUICPRO_", "QLOGDIR", "QP_TRACE"))]:
            patch.delenv(name)
        built = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quicgreen"
        if not os.environ.get("QUICGREEN_BUILD_CACHE"):
            patch.setenv("QUICGREEN_BUILD_CACHE", str(built))  # what is compiled stays where it is
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority for this run."""
    return authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def certificate(certificates: Authority) -> Certificate:
    """For this host, by each of its names and addresses on loopback."""
    return certificates.issue("localhost", "127.0.0.1", "::1")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for this run. Who stops it starts it again."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def segment_path() -> Iterator[str]:
    """A path in shared memory at which nothing is, before and after."""
    path = f"/dev/shm/quicgreen-test-{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    yield path
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@pytest.fixture
def nothing_left():
    """After the test connections, streams, waiters, greenlets and descriptors are what they were before."""
    before = Census.taken()
    yield
    before.assert_restored()


@pytest.fixture
def site() -> Iterator[Site]:
    """A server in this process, and what it was asked."""
    found = Site()
    server = make_server(found)
    server.start()
    found.url = url_of(server).rstrip("/")
    yield found
    found.go_on.set()
    server.stop(timeout=0)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Examples as modules of this process, by their names, and for this test."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(EXAMPLES)):
            del sys.modules[name]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with what commands are given."""
    write_files(tmp_path)
    return tmp_path


@pytest.fixture
def room() -> Iterator[Room]:
    """A server for WebSockets, and a session for its clients; nothing of them stays."""
    room = Room()
    with nothing_left_behind(), serving(room, websocket=True) as server, new_session() as session:
        room.server, room.session = server, session
        yield room
        room.go.set()
        room.server = room.session = None
        room.sockets.clear()
        room.ends.clear()
