"""Fixtures for whoever wants them: certificates, and a check that nothing is left behind."""

from __future__ import annotations

import pytest
from helpers.census import Census

from quicgreen.testing import Authority, Certificate, authority


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority for this run."""
    return authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def certificate(certificates: Authority) -> Certificate:
    """For this host, by each of its names and addresses on loopback."""
    return certificates.issue("localhost", "127.0.0.1", "::1")


@pytest.fixture
def nothing_left():
    """After the test connections, streams, waiters, greenlets and descriptors are what they were before."""
    before = Census.taken()
    yield
    before.assert_restored()
