"""How a client's connections are made: in the engine's form, and which sessions they take up."""

from __future__ import annotations

import os
from typing import Any

from . import _contexts, hub
from .configuration import ClientTls, QuicConfiguration, qlog_folder, trust
from .session_keeper import SessionKeeper
from .session_modes import SessionMode
from .ticket_cache import TicketCache
from .tickets import TicketKeys, TicketStore

_KEPT_MAX = 16
"""Settings of a hub that are kept for connections to come: a program has few, and each may hold a trust
store, some hundred kilobytes."""


class ClientSettings:
    """Of connections that are alike; shared by any number of them.

    Attributes:
        configuration: TLS and transport.
        sessions: their tickets.
    """

    def __init__(
        self,
        runtime: hub.Runtime,
        tls: ClientTls,
        transport: QuicConfiguration | None,
        server_name: str | None,
        store: TicketStore | None,
        mode: SessionMode,
        early_data: bool,
    ) -> None:
        file, folder = trust(tls.verify)
        self.configuration = _contexts.Configuration(
            tls, transport or QuicConfiguration(), tickets=True, ca_file=file, ca_dir=folder
        )
        keys = TicketKeys(
            server_name=server_name,
            alpn=tls.alpn,
            verify=tls.verify is not False,
            ca_file=file,
            ca_dir=folder,
            cert=tls.cert,
        )
        cache = None if store is None else TicketCache(runtime, store)
        self.sessions = SessionKeeper(cache, mode, early_data=early_data, keys=keys)


def shared(
    runtime: hub.Runtime,
    tls: ClientTls,
    transport: QuicConfiguration | None,
    server_name: str | None,
    store: TicketStore | None,
    mode: SessionMode,
    early_data: bool,
) -> ClientSettings:
    """The same settings for the same arguments, as long as the files that they name have not changed: to read
    a trust store takes twenty times as long as a handshake."""
    file, folder = trust(tls.verify)
    stamps = tuple(_stamp(path) for path in (file, folder, tls.cert, tls.key))
    qlogs = qlog_folder(transport or QuicConfiguration())  # the environment may say something else by now
    key = (tls, transport, server_name, store, mode, early_data, stamps, qlogs)
    kept: dict[Any, ClientSettings] = runtime.attachments.setdefault("client settings", {})
    found = kept.pop(key, None)
    if found is None:
        found = ClientSettings(runtime, tls, transport, server_name, store, mode, early_data)
        if len(kept) >= _KEPT_MAX:
            del kept[next(iter(kept))]
    kept[key] = found  # the last one used stands last
    return found


def _stamp(path: str | None) -> tuple[int, ...] | None:
    """What changes with a file, or with the names in a folder. None also where there is none: then reading it
    fails, and says so."""
    if path is None:
        return None
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
