"""The procedural layer: the documentation's functions, over `ClientSession`.

They block the calling greenlet only. What fails raises one of the typed exceptions and leaves its code for
`quicpro_get_last_error`; `quicpro_poll` alone returns False instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .. import client, datapath, hub
from ..exceptions import QuicException, error
from ..session_modes import choose, open_store
from ..tickets import Ticket
from ..urls import ascii_host
from .client_session import ClientSession
from .config import Config
from .exchange import CompleteResponse, ResponseHead
from .last_error import clear, failed, note, noted
from .server import check_port
from .session import Session

_TICKETS_MAX = 1024
"""Imported and not used yet."""


@noted
def quicpro_connect(host: str, port: int = 443, options: Mapping[str, Any] | None = None) -> ClientSession:
    """Open a session with a server; the handshake is done on return, or early data may be sent.

    Args:
        host: a name, which may have other letters than ASCII's, or an address.
        port: 1 to 65535.
        options: a mapping or a `Config`: `verify_peer`, `ca_file`, `connect_timeout_ms` and so on.

    Raises:
        QuicSocketException: no such name, no route, nobody there.
        QuicTlsHandshakeException: the certificate, or the protocol.
        QuicTimeoutException: not within `connect_timeout_ms`.
        QuicTransportException: no common version of QUIC.
        QuicClientException: a wrong argument.
    """
    cfg = Config.of(options)
    cfg.warn_of("client")
    name = _host(host)
    check_port(port)
    tls = cfg.client_tls()
    mode = choose(cfg.get("session_mode"))
    store = None
    if cfg.get("session_cache"):
        store = open_store(mode, required="session_mode" in cfg, given=cfg.stores())
    connection = client.connect(
        name,
        port,
        tls=tls,
        server_name=cfg.get("server_name"),
        timeout=cfg.timeout(),
        config=cfg.transport(),
        ticket=_imported().pop((name, port), None),
        tickets=store,
        session_mode=None if store is None else mode,
        early_data=cfg.get("early_data", True) is not False,
        xdp=cfg.get("xdp"),
    )
    datapath.tune(connection._engine, busy_poll=cfg.get("busy_poll"))
    return ClientSession(connection, cfg)


def _host(host: Any) -> str:
    if not isinstance(host, str):
        raise error("argument", f"a host is text, not {type(host).__name__}")
    return ascii_host(host.strip("[]"))


def _client(sess: Any) -> ClientSession:
    if not isinstance(sess, ClientSession):
        raise error("argument", f"a session is what quicpro_connect gives, not {type(sess).__name__}")
    return sess


def _any(sess: Any) -> Session:
    if not isinstance(sess, Session):
        raise error(
            "argument", f"a session is what quicpro_connect or accept gives, not {type(sess).__name__}"
        )
    return sess


def quicpro_send_request(
    sess: Session,
    path: str,
    headers: Mapping[str, Any] | None = None,
    body: Any = None,
    *,
    method: str | None = None,
) -> int:
    """Send a request, and return its id, with which the response is asked for.

    With a body it is a POST and leaves with this turn. Without one it leaves with the calling greenlet's next
    call on the session, or the first that names its id: if that is `quiche_h3_send_body_chunk` it is a POST
    whose body has begun, else a GET.

    The id is that of the QUIC stream, as long as no early data is refused: what is sent again has another.

    Args:
        path: path and query. What may not stand there is quoted.
        headers: fields.
        body: bytes, text, a mapping (sent as a form), a file or an iterable of bytes.
        method: instead of POST and GET.

    Raises:
        QuicClientException: a wrong argument; or 4,096 responses were not received.
        QuicConnectionException: the session is closed.
    """
    try:
        number = (sess if sess.__class__ is ClientSession else _client(sess)).send_request(
            path, headers, body, method=method
        )
    except BaseException as e:
        note(e)
        raise
    if failed:
        clear()
    return number


def quicpro_receive_response(sess: Session, stream_id: int) -> CompleteResponse | None:
    """The response, once it is complete: a mapping with `status`, `headers`, `body` (bytes), `text` (str) and
    `trailers`. None before; it does not wait, `quicpro_poll` does. After that the id is gone.

    Raises:
        QuicStreamException: there is no such request (any more); it was reset; or its body is larger than
            `max_body_bytes`: `quicpro_receive_chunk` takes it piece by piece.
        QuicTimeoutException: nothing came for `read_timeout_ms`.
        QuicConnectionException: the session ended before.
    """
    try:
        response = (sess if sess.__class__ is ClientSession else _client(sess)).receive_response(stream_id)
    except BaseException as e:
        note(e)
        raise
    if failed:
        clear()
    return response


@noted
def quicpro_receive_head(sess: Session, stream_id: int, ms: float | None = None) -> ResponseHead | None:
    """`status` and `headers` of a response, as soon as they are here: for who takes the body in pieces. None
    when they did not come in `ms` milliseconds. Raises as `quicpro_receive_response`."""
    return _client(sess).receive_head(stream_id, ms)


@noted
def quicpro_receive_chunk(sess: Session, stream_id: int, ms: float | None = None) -> bytes | None:
    """Bytes of the response's body, as soon as some are here; b"" at its end, after which the id is gone.
    None when none came in `ms` milliseconds; without them it waits for `read_timeout_ms`, and raises then.

    Raises as `quicpro_receive_response`."""
    return _client(sess).receive_chunk(stream_id, ms)


def quicpro_poll(sess: Session, ms: float) -> bool:
    """Give way to others, for at most `ms` milliseconds: it returns as soon as something came for the
    requests that this greenlet asked for, or for any, if it asked for none. 0 is one turn of the loop. For a
    server's session: until a request came.

    Returns:
        True, also when nothing came; False when the session is over (`quicpro_get_last_error` says why).

    Raises:
        QuicClientException: a wrong argument.
    """
    try:
        (sess if sess.__class__ is ClientSession else _any(sess)).poll(ms)
    except QuicException as e:
        note(e)
        if e.cause in ("argument", "thread", "fork"):
            raise
        return False
    if failed:
        clear()
    return True


@noted
def quicpro_close(sess: Session) -> None:
    """Close the session. What was written is delivered, for a second at most; greenlets that wait get
    QuicConnectionException. Idempotent."""
    _any(sess).close()


def quiche_h3_send_body_chunk(sess: Session, stream_id: int, data: bytes | str) -> int:
    """Send a piece of a request's body; waits while the server takes no more, which is the back-pressure.
    Returns its length.

    Raises:
        QuicStreamException: there is no such request, its body has ended, or the server reads no further (its
            response may tell why).
        QuicTimeoutException: the server took nothing for `write_timeout_ms`.
        QuicClientException: more than the content-length that was announced.
        QuicConnectionException: the session ended.
    """
    try:
        size = (sess if sess.__class__ is ClientSession else _client(sess)).send_body_chunk(stream_id, data)
    except BaseException as e:
        note(e)
        raise
    if failed:
        clear()
    return size


@noted
def quiche_h3_finish_body(sess: Session, stream_id: int) -> None:
    """End a request's body. Raises as `quiche_h3_send_body_chunk`."""
    _client(sess).finish_body(stream_id)


@noted
def quicpro_set_qlog_path(sess: Session, path: str | os.PathLike[str]) -> bool:
    """Trace the connection to this file from now on, as qlog.

    Raises:
        QuicClientException: it cannot be written.
        QuicConnectionException: the session is over.
    """
    _any(sess).set_qlog_path(path)
    return True


@noted
def quicpro_get_stats(sess: Session) -> dict[str, Any]:
    """Counters of the connection by quiche's names; `rtt`, the smoothed round-trip time, in nanoseconds.

    Raises:
        QuicConnectionException: the session is over.
    """
    return _any(sess).stats()


@noted
def quicpro_export_ticket(sess: Session, ms: float = 0) -> bytes | None:
    """A session ticket of the server, for one other session with it in any process. None when none is there,
    and none comes in `ms` milliseconds."""
    return _client(sess).export_ticket(ms)


@noted
def quicpro_import_ticket(origin: tuple[str, int], ticket: bytes) -> bool:
    """Have the next `quicpro_connect` of this thread to this (host, port) take up the session of a ticket.
    One that belongs to other settings (trust, protocol, client certificate) is not used there.

    Raises:
        QuicClientException: it is no ticket.
    """
    if not isinstance(origin, (tuple, list)) or len(origin) != 2:
        raise error("argument", f"(host, port) is needed, not {origin!r}")
    host, port = _host(origin[0]), origin[1]
    check_port(port)
    if not isinstance(ticket, (bytes, bytearray, memoryview)):
        raise error("argument", f"a ticket is bytes, not {type(ticket).__name__}")
    imported = _imported()
    imported.pop((host, port), None)
    if len(imported) >= _TICKETS_MAX:
        del imported[next(iter(imported))]
    imported[host, port] = Ticket.from_bytes(bytes(ticket))
    return True


def _imported() -> dict[tuple[str, int], Ticket]:
    found: dict[tuple[str, int], Ticket] = hub.current().attachments.setdefault("quicpro.tickets", {})
    return found
