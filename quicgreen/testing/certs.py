"""Certificates to throw away, for servers and clients of a test.

    certificates = authority(folder)
    c = certificates.issue("localhost", "127.0.0.1", "::1")
    Server(..., certfile=c.certfile, keyfile=c.keyfile)
    Session(verify=certificates.ca_certs)

With trustme installed (`pip install trustme`) the authority is a real one and signs what it issues. Without
it each certificate signs itself and is added to `ca_certs`, which comes to the same for whoever reads that
file after the last `issue`.
"""

from __future__ import annotations

import datetime
import importlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _contexts


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files of a certificate, for `Server(certfile=, keyfile=)` or `Session(cert=)`."""

    certfile: str
    """The chain, leaf first."""
    keyfile: str
    """Its key."""
    ca_certs: str
    """What a peer must trust."""

    @property
    def pair(self) -> tuple[str, str]:
        """(certfile, keyfile), as `Session(cert=)` takes it."""
        return self.certfile, self.keyfile


class Authority:
    """Issues certificates into a folder. To be had from `authority()`.

    Attributes:
        folder: where the files are.
        ca_certs: the file to trust.
    """

    def __init__(self, folder: Path, signer: Any) -> None:
        self.folder = folder
        self.ca_certs = str(folder / "ca.pem")
        self._signer = signer
        self._count = 0
        if signer is not None:
            signer.cert_pem.write_to_path(self.ca_certs)

    def issue(self, *names: str, days: float = 30, expired: bool = False) -> Certificate:
        """A new certificate.

        Args:
            names: DNS names and addresses that it is for.
            days: how long it is valid.
            expired: it was valid for that long, until a day ago. Needs trustme.
        """
        if not names:
            raise ValueError("a certificate needs a name")
        self._count += 1
        stem = f"{self._count}-{names[0].replace('*', '_').replace(':', '_')}"
        certfile, keyfile = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        if self._signer is not None:
            self._sign(names, days, expired, certfile, keyfile)
        elif expired:
            raise RuntimeError("an expired certificate can only be made with trustme, which is not installed")
        else:
            cert = _write_self_signed(names, days, certfile, keyfile)
            with open(self.ca_certs, "a", encoding="ascii") as trusted:
                trusted.write(cert)
        return Certificate(str(certfile), str(keyfile), self.ca_certs)

    def _sign(
        self, names: tuple[str, ...], days: float, expired: bool, certfile: Path, keyfile: Path
    ) -> None:
        now = datetime.datetime.now(datetime.timezone.utc)
        end = now - datetime.timedelta(days=1) if expired else now + datetime.timedelta(days=days)
        # An hour back, for clocks that differ.
        start = end - datetime.timedelta(days=days) if expired else now - datetime.timedelta(hours=1)
        leaf = self._signer.issue_cert(*names, not_before=start, not_after=end)
        certfile.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        _write_key(keyfile, leaf.private_key_pem.bytes())


def authority(folder: str | os.PathLike[str] | None = None) -> Authority:
    """A new authority that writes into `folder`, or one of its own under the system's temporary folder,
    which is left to you to delete."""
    path = Path(folder if folder is not None else tempfile.mkdtemp(prefix="quicgreen-certs-"))
    path.mkdir(parents=True, exist_ok=True)
    try:
        signer = importlib.import_module("trustme").CA()
    except ImportError:
        signer = None
    return Authority(path, signer)


def self_signed(folder: str | os.PathLike[str], *names: str, days: float = 30) -> Certificate:
    """A certificate that signs itself, in `folder`: what nobody trusts who was not told to."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    certfile, keyfile = path / "self-signed.pem", path / "self-signed.key"
    _write_self_signed(names, days, certfile, keyfile)
    return Certificate(str(certfile), str(keyfile), str(certfile))


def _write_self_signed(names: tuple[str, ...], days: float, certfile: Path, keyfile: Path) -> str:
    cert, key = _contexts.self_signed(",".join(names), max(1, round(days)))
    certfile.write_text(cert, encoding="ascii")
    _write_key(keyfile, key.encode("ascii"))
    return cert


def _write_key(path: Path, pem: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(pem)
