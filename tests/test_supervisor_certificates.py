from __future__ import annotations

from pathlib import Path

import pytest

from quicgreen import QuicServerException
from quicgreen.supervisor import certificates
from quicgreen.supervisor.config import Settings
from quicgreen.testing import Certificate


def test_files_are_read_and_tried(certificate: Certificate) -> None:
    settings = Settings(certfile=certificate.certfile, keyfile=certificate.keyfile)
    tls = certificates.load(settings)
    assert tls.cert_pem == Path(certificate.certfile).read_text()
    assert tls.key_pem == Path(certificate.keyfile).read_text()
    assert tls.certfile is None


def test_one_file_for_both(files: Path) -> None:
    assert certificates.load(Settings(certfile=str(files / "both.pem"))).cert_pem


def test_without_files_this_machine_is_served_and_no_other() -> None:
    assert "PRIVATE KEY" in str(certificates.load(Settings(bind="[::1]:1")).key_pem)
    assert certificates.load(Settings(bind="127.0.0.9:1")).cert_pem
    for bind in (":1", "0.0.0.0:1", "4433"):
        with pytest.raises(QuicServerException, match="to serve other machines"):
            certificates.load(Settings(bind=bind))


@pytest.mark.parametrize(
    ("certfile", "keyfile", "words"),
    [
        ("missing", None, "missing: No such file"),
        ("cert.pem", None, "key"),
        ("cert.pem", "other.pem", "key"),
        ("garbage", None, "garbage is not a PEM file"),
        ("empty", None, "certificate"),
    ],
)
def test_files_that_cannot_be_used(
    files: Path, certificate: Certificate, certfile: str, keyfile: str | None, words: str
) -> None:
    (files / "garbage").write_bytes(b"\xff\xfe\xff")
    (files / "empty").write_text("")
    (files / "other.pem").write_text(Path(certificate.keyfile).read_text())
    settings = Settings(certfile=str(files / certfile), keyfile=str(files / keyfile) if keyfile else None)
    with pytest.raises(QuicServerException, match=words) as caught:
        certificates.load(settings)
    assert caught.value.cause == "certificate-file"
