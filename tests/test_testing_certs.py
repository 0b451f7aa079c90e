"""Certificates to throw away: who believes them, and who does not."""

from __future__ import annotations

import ipaddress
import stat
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from support import hello, new_session, serving

import quicgreen
from quicgreen.testing import Certificate, authority, self_signed


@pytest.fixture(params=["with trustme", "without trustme"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority is a real one, or the collection of what signed itself."""
    if request.param == "without trustme":
        monkeypatch.setitem(sys.modules, "trustme", None)


def leaf(certificate: Certificate) -> x509.Certificate:
    return x509.load_pem_x509_certificates(Path(certificate.certfile).read_bytes())[0]


def names_of(certificate: Certificate) -> set[str]:
    extension = leaf(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(name.value) for name in extension.value}


def fetch(certificate: Certificate, host: str = "localhost", **options: object) -> str:
    """What a client reads from a server with this certificate."""
    with (
        serving(hello, certfile=certificate.certfile, keyfile=certificate.keyfile) as server,
        new_session(**options) as session,
    ):
        return session.get(f"https://{host}:{server.address[1]}/").text


@pytest.mark.usefixtures("either")
def test_who_trusts_the_authority_believes_what_it_issued(tmp_path: Path) -> None:
    certificates = authority(tmp_path)
    first = certificates.issue("localhost")
    second = certificates.issue("127.0.0.1", "::1")
    for certificate, host in ((first, "localhost"), (second, "127.0.0.1")):
        assert fetch(certificate, host, verify=certificates.ca_certs) == "hello"
        assert certificate.ca_certs == certificates.ca_certs


@pytest.mark.usefixtures("either")
def test_who_trusts_another_authority_does_not(tmp_path: Path) -> None:
    mine, other = authority(tmp_path / "mine"), authority(tmp_path / "other")
    certificate = mine.issue("localhost")
    other.issue("localhost")
    with pytest.raises(quicgreen.QuicTlsHandshakeException):
        fetch(certificate, verify=other.ca_certs)


@pytest.mark.usefixtures("either")
def test_it_is_for_its_names_only(tmp_path: Path) -> None:
    certificates = authority(tmp_path)
    certificate = certificates.issue("localhost", "*.a.test", "127.0.0.2", "::1")
    assert names_of(certificate) == {"localhost", "*.a.test", "127.0.0.2", "::1"}
    extension = leaf(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert ipaddress.ip_address("::1") in extension.value.get_values_for_type(x509.IPAddress)
    with pytest.raises(quicgreen.QuicTlsHandshakeException):
        fetch(certificate, "127.0.0.1", verify=certificates.ca_certs)


@pytest.mark.usefixtures("either")
def test_validity_and_files(tmp_path: Path) -> None:
    certificates = authority(tmp_path / "new" / "folder")
    one, two = certificates.issue("*.a.test", days=3), certificates.issue("*.a.test")
    assert one.pair == (one.certfile, one.keyfile)
    assert len({*one.pair, *two.pair}) == 4, "no certificate overwrites another"
    assert {Path(p).parent for p in one.pair} == {certificates.folder}
    assert stat.S_IMODE(Path(one.keyfile).stat().st_mode) == 0o600
    now, end = datetime.now(timezone.utc), leaf(one).not_valid_after_utc
    assert now + timedelta(days=2.9) < end < now + timedelta(days=3.1)
    assert leaf(one).not_valid_before_utc <= now


def test_an_expired_one_is_refused(tmp_path: Path) -> None:
    certificates = authority(tmp_path)
    with pytest.raises(quicgreen.QuicTlsHandshakeException, match="expired"):
        fetch(certificates.issue("localhost", expired=True), verify=certificates.ca_certs)


def test_an_expired_one_needs_trustme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(RuntimeError, match="trustme"):
        authority(tmp_path).issue("localhost", expired=True)


@pytest.mark.usefixtures("either")
def test_a_certificate_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name"):
        authority(tmp_path).issue()


def test_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    certificates = authority()
    assert certificates.folder.parent == tmp_path
    assert Path(certificates.issue("localhost").certfile).exists()


def test_self_signed_is_believed_only_by_who_was_told(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path / "deep" / "er", "localhost", "127.0.0.1")
    assert names_of(certificate) == {"localhost", "127.0.0.1"}
    assert fetch(certificate, verify=certificate.ca_certs) == "hello"
    with pytest.raises(quicgreen.QuicTlsHandshakeException):
        fetch(certificate, verify=True)
