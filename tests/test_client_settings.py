"""Settings that repeat are made once, as long as their files are what they were."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support import connect, hello, serving

import quicgreen
from quicgreen import hub
from quicgreen.client_settings import _KEPT_MAX, shared
from quicgreen.configuration import ClientTls
from quicgreen.session_modes import SessionMode
from quicgreen.testing import Certificate


@pytest.fixture(autouse=True)
def _none_kept() -> None:
    hub.current().attachments.pop("client settings", None)


def settings(verify: Any = False, store: Any = None, **options: Any) -> Any:
    config = quicgreen.QuicConfiguration(**options)
    return shared(hub.current(), ClientTls(verify=verify), config, None, store, SessionMode.LIVE, True)


def test_the_same_for_the_same() -> None:
    assert settings(max_idle_ms=1000) is settings(max_idle_ms=1000)
    assert settings(max_idle_ms=1000) is not settings(max_idle_ms=2000)


def test_a_file_that_changed_is_read_again(tmp_path: Path, certificate: Certificate) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(Path(certificate.ca_certs).read_bytes())
    first = settings(str(trusted))
    assert settings(str(trusted)) is first
    os.utime(trusted, ns=(1, 1))
    assert settings(str(trusted)) is not first


def test_a_file_that_is_gone_is_an_error_all_the_same(tmp_path: Path, certificate: Certificate) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(Path(certificate.ca_certs).read_bytes())
    settings(str(trusted))
    trusted.unlink()
    with pytest.raises(quicgreen.QuicClientException, match="does not exist"):
        settings(str(trusted))


def test_the_environment_of_the_moment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = settings()
    monkeypatch.setenv("QLOGDIR", str(tmp_path))
    assert settings() is not first
    monkeypatch.setenv("QLOGDIR", str(tmp_path / "nowhere"))
    with pytest.raises(quicgreen.QuicClientException, match="there is no such folder"):
        settings()


def test_no_more_are_kept_than_a_program_uses() -> None:
    first = settings(max_idle_ms=1)
    for ms in range(2, _KEPT_MAX + 2):
        settings(max_idle_ms=ms)
    assert len(hub.current().attachments["client settings"]) == _KEPT_MAX
    assert settings(max_idle_ms=1) is not first


def test_connections_share_them() -> None:
    with serving(hello) as server, connect(server) as one, connect(server) as two:
        assert one._configuration is two._configuration
        assert one.get().text == two.get().text == "hello"
