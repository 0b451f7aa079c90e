"""Fixtures for whoever wants them: certificates, and a check that nothing is left behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from helpers.census import Census
from helpers.redis_server import RedisServer

from quicgreen.testing import Authority, Certificate, authority


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
