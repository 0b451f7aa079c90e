"""The certificate and its key: read and tried by the supervisor, so that workers need no right to the files,
and a reload never takes up what cannot be used."""

from __future__ import annotations

from gevent.baseserver import parse_address

from .. import _engine
from .._contexts import Configuration, self_signed
from ..configuration import ServerTls
from ..exceptions import error
from .config import Settings


def load(settings: Settings) -> ServerTls:
    """What a server shows and demands.

    Raises:
        QuicServerException: a file cannot be read or used; or there is none, and other machines are served.
    """
    if settings.certfile is None:
        return _development(settings)
    certificate = _read(settings.certfile)
    key = _read(settings.keyfile) if settings.keyfile else None
    tls = ServerTls(cert_pem=certificate, key_pem=key, ca_certs=settings.ca_certs)
    # Made and dropped: nothing of it crosses a fork.
    Configuration(tls, settings.transport, ca_file=tls.ca_certs)
    return tls


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError as e:
        raise error("certificate-file", f"{path}: {e.strerror}", errno=e.errno) from None
    except UnicodeDecodeError:
        raise error("certificate-file", f"{path} is not a PEM file") from None


def _development(settings: Settings) -> ServerTls:
    """Without a certificate: one for this machine only."""
    bind = settings.bind
    host = parse_address(int(bind) if bind.isdecimal() else bind)[1][0]
    if host not in ("localhost", "::1") and not host.startswith("127."):
        raise error("certificate-file", "certfile and keyfile are needed to serve other machines")
    names = ["localhost", "127.0.0.1", "::1", *([host] if _engine.parse_address(host, 0) else [])]
    certificate, key = self_signed(",".join(dict.fromkeys(names)))
    return ServerTls(cert_pem=certificate, key_pem=key, ca_certs=settings.ca_certs)
