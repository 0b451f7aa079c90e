"""Which tickets fit which connection."""

from __future__ import annotations

import functools
import hashlib
import os
import re

from ..exceptions import error

_HASHED = re.compile(r"[0-9a-f]{8}\.r?\d+")
"""The names under which OpenSSL finds certificates and revocations in a folder."""


class TicketKeys:
    """Keys for the connections that are made with one configuration.

    Files count by their content, not by their path or time: hosts that share a store need not have them in
    the same place, and a renewed file is another one. They are read here, as the configuration reads them
    once, and not for each connection.

    Args:
        server_name: the name that is verified and sent (SNI), if it is not the host's.
        alpn: the protocols that are offered, in their order (RFC 7301).
        verify: whether certificate and name are checked.
        ca_file: PEM file of trusted authorities.
        ca_dir: folder of them in OpenSSL's form. Neither counts without `verify`.
        cert: PEM file of the client's certificate.

    Raises:
        QuicClientException: with cause "trust-file" or "argument" when a file cannot be read.
    """

    def __init__(
        self,
        *,
        server_name: str | None = None,
        alpn: tuple[str, ...] = ("h3",),
        verify: bool = True,
        ca_file: str | None = None,
        ca_dir: str | None = None,
        cert: str | None = None,
    ) -> None:
        self._server_name = server_name
        self._settings = [
            str(len(alpn)).encode(),
            *(name.encode() for name in alpn),
            b"verified" if verify else b"not verified",
            _content(ca_file, "trust-file") if verify and ca_file else b"",
            _folder(ca_dir) if verify and ca_dir else b"",
            _content(cert, "argument") if cert else b"",
        ]

    def key(self, host: str, port: int) -> str:
        """32 hexadecimal digits. `host`: name or address that is connected to; case does not matter."""
        name = self._server_name or host
        return self._digest(b"quicgreen ticket 1", _name(host), str(port).encode(), _name(name)).hex()

    def binding(self, host: str) -> bytes:
        """16 bytes for what a resumed handshake takes for granted: whom the server was shown to be, to whom,
        and by whose word."""
        return self._digest(b"quicgreen binding 1", _name(self._server_name or host))

    def _digest(self, *parts: bytes) -> bytes:
        digest = hashlib.sha256()
        for part in (*parts, *self._settings):
            digest.update(len(part).to_bytes(4, "big") + part)
        return digest.digest()[:16]


def ticket_key(
    host: str,
    port: int,
    *,
    server_name: str | None = None,
    alpn: tuple[str, ...] = ("h3",),
    verify: bool = True,
    ca_file: str | None = None,
    ca_dir: str | None = None,
    cert: str | None = None,
) -> str:
    """The key under which tickets of such a connection are kept: 32 hexadecimal digits.

    A resumed handshake shows no certificate (RFC 8446, section 2.2): what was verified the first time
    holds. So whatever had a say in that is in the key. A ticket that came without verification, or under an
    authority that is no longer trusted, is not found by who verifies; a ticket that belongs to a client
    certificate not by who shows another one or none.

    Args:
        host, port: name or address that is connected to, and its UDP port.
        server_name, alpn, verify, ca_file, ca_dir, cert: as `TicketKeys`, which reads the files.

    Raises:
        QuicClientException: with cause "trust-file" or "argument" when a file cannot be read.
    """
    keys = TicketKeys(
        server_name=server_name, alpn=alpn, verify=verify, ca_file=ca_file, ca_dir=ca_dir, cert=cert
    )
    return keys.key(host, port)


def _name(host: str) -> bytes:
    return host.lower().encode("utf-8", "surrogatepass")


def _content(path: str, cause: str) -> bytes:
    try:
        info = os.stat(path)
        version = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        return _digest(path, version)
    except OSError as e:
        raise error(cause, f"{path}: {e.strerror}", errno=e.errno) from None


@functools.lru_cache(maxsize=512)
def _digest(path: str, version: tuple[int, ...]) -> bytes:
    """SHA-256 of the file, remembered for each `version` of it."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).digest()


def _folder(path: str) -> bytes:
    try:
        names = sorted(n for n in os.listdir(path) if _HASHED.fullmatch(n))
    except OSError as e:
        raise error("trust-file", f"{path}: {e.strerror}", errno=e.errno) from None
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + b"\0" + _content(os.path.join(path, name), "trust-file"))
    return b"folder" + digest.digest()
