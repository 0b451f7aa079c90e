"""URLs, in the form in which they are sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from .exceptions import error

_HOST = re.compile(r"[\w.:%-]+", re.ASCII)
"""Names, with the underscores that DNS knows, and addresses. Nothing that would end a C string."""

_PATH_SAFE = "/:@!$&'()*+,;=~%-._"
_QUERY_SAFE = _PATH_SAFE + '?[]|^`{}\\"'
PLAIN_PATH = re.compile(rf"/[\w{re.escape(_PATH_SAFE)}]*(?:\?[\w{re.escape(_QUERY_SAFE)}]*)?", re.ASCII)
"""A path and query that is sent as it is."""


def ascii_host(host: str) -> str:
    """A host name as DNS and TLS want it (RFC 5891)."""
    if host.isascii():
        if not _HOST.fullmatch(host):
            raise error("argument", f"{host!r} is not a host name")
        return host.lower().rstrip(".")
    import idna

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError as e:
        raise error("argument", f"{host!r} is not a host name: {e}") from None


def split_authority(authority: str) -> tuple[str, int]:
    """(host, port) of what a URL says between the slashes."""
    host, colon, port = authority.rpartition(":")
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        port = port.removeprefix(":")
    elif not colon:
        host, port = authority, ""
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise error("argument", f"{port!r} is not a port")
    if not host:
        raise error("argument", f"{authority!r} has no host")
    return host, int(port) if port else 443


def split_url(url: str) -> tuple[str, str]:
    """(authority, path with query) of an https URL, in the form in which they are sent."""
    if not isinstance(url, str):
        raise error("argument", f"a URL is text, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise error("argument", f"{url!r} is not a URL: {e}") from None
    if parts.scheme != "https":
        raise error("argument", f"{url!r}: only https:// URLs can be fetched over QUIC")
    if not host:
        raise error("argument", f"{url!r} has no host")
    if parts.username is not None:
        raise error("argument", "a URL with a user name is not sent (RFC 9110, section 4.2.4)")
    host = ascii_host(host)
    return join_authority(host, 443 if port is None else port), quote_path(parts.path or "/", parts.query)


def join_authority(host: str, port: int) -> str:
    """What a URL says between the slashes, without the port if that is https's."""
    if ":" in host:
        host = f"[{host}]"
    return host if port == 443 else f"{host}:{port}"


def quote_path(path: str, query: str) -> str:
    """Path and query as they are sent: what may not stand there is quoted, as UTF-8."""
    return quote(path, safe=_PATH_SAFE) + ("?" + quote(query, safe=_QUERY_SAFE) if query else "")


def with_params(url: str, params: Mapping[str, Any] | list[tuple[str, Any]]) -> str:
    url, hash_mark, fragment = url.partition("#")
    query = urlencode(params, doseq=True)
    return f"{url}{'&' if '?' in url else '?'}{query}{hash_mark}{fragment}"
