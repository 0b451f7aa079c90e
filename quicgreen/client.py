"""The client: sessions with a pool, and the module's `get`, `request` and `connect`.

A request takes the shortest way that is safe: its head is joined from encoded lines, handed to the engine
in the turn's batch, and the greenlet sleeps until the response's head is there. A connection that is still
shaking hands takes requests too; the engine sends them when it may.
"""

from __future__ import annotations

import atexit
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from . import datapath, fields, h3, hub
from .bodies import Body
from .client_settings import ClientSettings, shared
from .configuration import ClientTls, Limits, QuicConfiguration, Timeout
from .connection import ClientConnection
from .exceptions import error
from .hub import thread_id
from .messages import Response
from .pool import Origin, Pool, dial, dialled, resolve, seconds_left
from .repeats import ATTEMPTS, TOO_EARLY, found_dead, is_whole, unprocessed
from .session_modes import SessionMode, choose, open_store
from .ticket_cache import finish_all
from .tickets import Ticket, TicketStore
from .urls import PLAIN_PATH, ascii_host, join_authority, split_url, with_params

if TYPE_CHECKING:
    from .websocket import WebSocket

_UNSET: Any = object()

_USER_AGENT = "quicgreen/0.1"

DEFAULT_HEADERS = {"user-agent": _USER_AGENT, "accept": "*/*"}
"""What every request has, unless it says otherwise."""

_TARGETS_MAX = 1024

_NOTHING: dict[str, str] = {}

_SPECIAL = {"host", "content-length"}
"""Fields of a request that do more than be sent."""

RequestHeaders = Mapping[str, fields.FieldValue | None] | Iterable[tuple[str, fields.FieldValue | None]]
"""Fields of a request; with None as its value a field of the session is left out."""


class Connection(ClientConnection):
    """One connection to one server, as `quicgreen.connect` opens it: HTTP requests on it, or streams.

    A session chooses among connections and replaces those that end; this one is itself, and over when it
    is over.
    """

    _authority = ""
    _timeout = Timeout()

    def request(
        self,
        method: str,
        path: str = "/",
        *,
        headers: RequestHeaders | None = None,
        data: Body = None,
        json: Any = None,
        timeout: Timeout | float | tuple[float | None, float | None] | None = _UNSET,
        stream: bool = False,
        early_data: bool | None = None,
    ) -> Response:
        """Send a request and wait for its response; arguments and errors as `Session.request`, with the path
        instead of the URL."""
        self._check()
        if self.alpn not in ("h3", ""):
            raise error("state", f"the connection speaks {self.alpn}, not HTTP/3: open_stream() is for that")
        limit = self._timeout if timeout is _UNSET else Timeout.of(timeout)
        body, extra = h3.encode_body(data, json)
        method = _method(method)
        authority, lines, declared = join(DEFAULT_HEADERS, extra, headers)
        head = h3.head_prefix(method, authority or self._authority) + fields.path_line(path) + lines
        url = f"https://{self._authority}{path}"
        response = h3.exchange(self, method, url, head, body, limit, None, declared, early_data)
        if not stream:
            response.read()
        return response

    def websocket(self, path: str = "/", **options: Any) -> WebSocket:
        """Open a WebSocket on this connection: see `quicgreen.websocket.connect` for the options, of which
        `http3` is none here."""
        from .websocket.handshake import open_on_connection

        self._check()
        if self.alpn not in ("h3", ""):
            raise error("state", f"the connection speaks {self.alpn}, not HTTP/3")
        return open_on_connection(self, self._authority, path, **options)

    @property
    def authority(self) -> str:
        """Host and port of the server, as a request says them."""
        return self._authority

    def get(self, path: str = "/", **options: Any) -> Response:
        """`request("GET", ...)`."""
        return self.request("GET", path, **options)

    def post(self, path: str = "/", data: Body = None, **options: Any) -> Response:
        """`request("POST", ...)`."""
        return self.request("POST", path, data=data, **options)


def _method(method: str) -> str:
    """In capitals, as requests and httpx send it: methods are case-sensitive (RFC 9110, section 9.1)."""
    return method.upper() if isinstance(method, str) else method


def join(
    own: Mapping[str, Any], extra: Mapping[str, str], headers: RequestHeaders | None
) -> tuple[str | None, bytes, int | None]:
    """(host field, encoded fields, content-length) of a request: the session's and the body's fields, with
    the request's instead where they have the same name."""
    given = list(headers.items() if isinstance(headers, Mapping) else headers or ())
    merged = {**own, **extra}
    for name, _ in given:
        merged.pop(str(name).lower(), None)
    host = declared = None
    items: list[tuple[str, fields.FieldValue]] = list(merged.items())
    for name, value in given:
        if value is None:
            continue
        lower = str(name).lower()
        if lower[:1] == ":":
            raise error("argument", f"{name!r} is not a field that can be given (RFC 9114, section 4.3)")
        if lower == "host":  # HTTP/3 says it as :authority, and no other beside it (RFC 9114, section 4.3.1)
            host = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            continue
        if lower == "content-length":
            declared = fields.length_of(value)
        items.append((name, value))
    return host, fields.encode(items), declared


def connect(
    host: str,
    port: int = 443,
    *,
    verify: bool | str = True,
    cert: str | tuple[str, str] | None = None,
    server_name: str | None = None,
    alpn: tuple[str, ...] = ("h3",),
    tls: ClientTls | None = None,
    timeout: Timeout | float | tuple[float | None, float | None] | None = _UNSET,
    config: QuicConfiguration | None = None,
    ticket: Ticket | None = None,
    tickets: TicketStore | None = None,
    session_mode: int | str | None = None,
    early_data: bool = False,
    xdp: str | None = None,
) -> Connection:
    """Open a connection and wait for its handshake.

    Args:
        host, port: a name or an address, IPv4 or IPv6.
        verify, cert, server_name, config: as in `Session`.
        alpn: application protocols; anything but "h3" gives a connection whose streams are yours
            (`open_stream`, `accept_stream`).
        tls: a `ClientTls` instead of verify, cert and alpn.
        timeout: `Timeout.connect` bounds this call.
        ticket: of an earlier connection to this server (`Connection.export_ticket`), to be resumed.
        tickets, session_mode: where tickets come from and go to, as in `Session`; with neither the
            connection keeps its own, to be exported.
        early_data: with a ticket that allows it, return before the handshake is complete; safe requests
            then go out at once (0-RTT). Why a handshake failed is told by the first use.
        xdp: network interface, for AF_XDP (docs/datapath.md); None: `QUICPRO_XDP`, "": none. Where that
            cannot be had the reason is logged, and the UDP socket is used.

    Raises:
        QuicSocketException, QuicTlsHandshakeException, QuicTimeoutException, QuicTransportException.
    """
    if not isinstance(port, int) or not 0 < port < 65536:
        raise error("argument", f"{port!r} is not a port")
    limit = Timeout() if timeout is _UNSET else Timeout.of(timeout)
    certificate, key = cert if isinstance(cert, tuple) else (cert, None)
    runtime = hub.current()
    datapath.tune_client(runtime.engine, xdp=xdp)
    name = None if server_name is None else ascii_host(server_name)
    mode = SessionMode.AUTO
    if session_mode is not None or tickets is not None:
        mode = choose(session_mode)
    if session_mode is not None and tickets is None:
        tickets = open_store(mode, required=True)
    tls = tls or ClientTls(verify=verify, cert=certificate, key=key, alpn=alpn)
    settings = shared(runtime, tls, config, name, tickets, mode, early_data)
    host = ascii_host(host.strip("[]"))
    deadline = None if limit.connect is None else time.monotonic() + limit.connect
    addresses = resolve(host, port, limit.connect)
    prepare = settings.sessions.resume(host, port, seconds_left(deadline), ticket)
    connection = dial(runtime, Connection, addresses, settings.configuration, name or host, deadline, prepare)
    connection._authority = join_authority(host, port)
    connection._timeout = limit
    try:
        if early_data:
            runtime.flush()  # the first flight: only then there may be early data
        if not connection.in_early_data:
            connection.wait_established()
    except BaseException:
        connection.close(0, timeout=None)
        raise
    return connection


class Session:
    """Requests over a pool of connections; every connection carries many at a time.

        with quicgreen.Session() as session:
            print(session.get("https://example.org/").text)

    May be used by any number of greenlets of one thread.

    Args:
        headers: sent with every request, unless the request has its own of that name.
        verify: True, False, or the path of trusted certificates (`ClientTls.verify`).
        cert: client certificate, a PEM path or a pair (certificate, key).
        timeout: a `Timeout`, or seconds for all of its parts, or None.
        limits: of the pool.
        config: transport settings.
        server_name: what the certificate must be for, when it is not the URL's host.
        tickets: where session tickets are kept; None: where `session_mode` says; False: nowhere, and
            nothing is resumed.
        session_mode: a `SessionMode`, its name or number; None: as `QUICPRO_SESSION_MODE` or the
            configuration file say, else AUTO.
        early_data: GET, HEAD and OPTIONS without a body may go out before a resumed handshake is complete
            (0-RTT). What the server refuses is sent again by itself.
    """

    on_connection: Callable[[ClientConnection], None] | None = None
    """Called with each connection that is opened, before anything is sent on it; to be set before the first
    request. What it raises, the request raises."""

    def __init__(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
        timeout: Timeout | float | tuple[float | None, float | None] | None = _UNSET,
        limits: Limits | None = None,
        config: QuicConfiguration | None = None,
        server_name: str | None = None,
        tickets: TicketStore | Literal[False] | None = None,
        session_mode: int | str | None = None,
        early_data: bool = True,
    ) -> None:
        self.headers: dict[str, str] = {
            **DEFAULT_HEADERS,
            **{k.lower(): v for k, v in (headers or {}).items()},
        }
        """Default fields; may be changed."""
        self.timeout = Timeout() if timeout is _UNSET else Timeout.of(timeout)
        self.limits = limits or Limits()
        certificate, key = cert if isinstance(cert, tuple) else (cert, None)
        self._tls = ClientTls(verify=verify, cert=certificate, key=key)
        self._transport = self._with_expiry(config or QuicConfiguration())
        self._server_name = None if server_name is None else ascii_host(server_name)
        self._tickets = tickets
        self._mode = session_mode
        self._early_data = early_data
        self._pool: Pool | None = None
        self._closed = False
        self._own: dict[str, str] = {}  # the default fields, with names in lower case
        self._encoded = b""  # the same as lines
        self._added: set[str] = set()  # names of other fields: see _is_added
        self._encoded_for: Any = None  # what they were made from
        self._targets: dict[str, tuple[Origin, bytes]] = {}  # by URL, bounded

    def _with_expiry(self, transport: QuicConfiguration) -> QuicConfiguration:
        """An unused connection gets no keep-alives, so QUIC's idle timeout is the pool's expiry."""
        expiry = self.limits.keepalive_expiry
        if expiry is None:
            return transport
        idle = max(1, int(expiry * 1000))
        if transport.max_idle_ms is not None:
            idle = min(idle, transport.max_idle_ms)
        return dataclasses.replace(transport, max_idle_ms=idle)

    # ---------------------------------------------------------------- requests

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | list[tuple[str, Any]] | None = None,
        headers: RequestHeaders | None = None,
        data: Body = None,
        json: Any = None,
        timeout: Timeout | float | tuple[float | None, float | None] | None = _UNSET,
        stream: bool = False,
        early_data: bool | None = None,
    ) -> Response:
        """Send a request and wait for its response.

        Args:
            params: added to the URL's query.
            headers: fields of this request.
            data: the body: bytes, text, a file, an iterable of bytes, or a mapping (sent as a form).
            json: an object to send as JSON instead.
            timeout: instead of the session's.
            stream: return when the head is there; the body is read with `iter_bytes()`, `readinto()` or
                `content`, and the response must be closed or read to its end.
            early_data: may it go out before a resumed handshake is complete, where somebody on the way could
                replay it? None: if it is a GET, HEAD or OPTIONS without a body. A body must fit one piece
                (64 KiB, no file or iterable).

        Raises:
            QuicSocketException, QuicTlsHandshakeException, QuicTimeoutException: no connection.
            QuicTimeoutException: no response in time. The request is cancelled, the connection stays.
            QuicStreamException: the server reset the request.
            QuicConnectionException: the connection ended meanwhile.
            QuicClientException: wrong arguments; nothing was sent.
        """
        pool = self._pool
        if pool is None or self._closed or pool.runtime.engine.closed:
            pool = self._begin()
        if thread_id() != pool.runtime.thread:
            pool.runtime.check("this session")
        limit = self.timeout if timeout is _UNSET else Timeout.of(timeout)
        if params:
            url = with_params(url, params)
        origin, path_line = self._targets.get(url) or self._new_target(pool, url)
        if self.headers != self._encoded_for:
            self._encode_headers()
        body, extra = (None, _NOTHING) if data is None and json is None else h3.encode_body(data, json)
        prefix = origin.prefixes.get(method)
        if prefix is None:
            method = _method(method)
            prefix = origin.prefixes[method] = h3.head_prefix(method, origin.authority)
        declared = None
        if headers or extra:
            lines = None if extra else self._plain_lines(headers)
            if lines is None:
                host, lines, declared = join(self._own, extra, headers)
                if host is not None:
                    prefix = h3.head_prefix(method, host)
        else:
            lines = self._encoded
        head = prefix + path_line + lines
        attempts = ATTEMPTS
        repeated = False
        while True:
            connection = pool.connection(origin, limit)
            connection.in_flight += 1
            attempts -= 1
            try:
                response = h3.exchange(
                    connection, method, url, head, body, limit, pool.answered, declared, early_data
                )
            except BaseException as e:
                dead = not repeated and found_dead(e, method, connection.rested)
                pool.release(connection)
                if self._closed or not is_whole(body) or not (dead or (attempts and unprocessed(e))):
                    raise
                if dead:
                    repeated = True
                    pool.close_rested(origin)
                continue
            if response.status_code != TOO_EARLY or early_data is False or not is_whole(body):
                break
            if not connection.early_data:
                break  # it is for another reason
            response.close()
            connection.wait_established()
            early_data = False  # once (RFC 8470, section 5.2)
        if not stream and response._guard is not None:
            response.read()
        return response

    def websocket(self, url: str, **options: Any) -> WebSocket:
        """Open a WebSocket on a connection of the pool: see `quicgreen.websocket.connect` for the options."""
        from .websocket.handshake import open_websocket

        return open_websocket(self, url, **options)

    def route(self, url: str) -> tuple[Pool, Origin, bytes]:
        """(pool, origin, encoded path) for what is sent with more than `request` can say."""
        pool = self._pool
        if pool is None or self._closed or pool.runtime.engine.closed:
            pool = self._begin()
        pool.runtime.check("this session")
        if self.headers != self._encoded_for:
            self._encode_headers()
        origin, path_line = self._targets.get(url) or self._new_target(pool, url)
        return pool, origin, path_line

    # ---------------------------------------------------------------- heads

    def _encode_headers(self) -> None:
        headers = dict(self.headers)
        own = {name.lower(): value for name, value in headers.items() if value is not None}
        for name in own:
            if name in _SPECIAL or name[:1] == ":":
                raise error("argument", f"{name} belongs to a request, not to all of a session")
        self._encoded = fields.encode(own)
        self._own = own
        self._added.clear()
        self._encoded_for = headers

    def _plain_lines(self, headers: Any) -> bytes | None:
        """The session's fields and the request's, for a mapping that only adds some; None for any other."""
        if not isinstance(headers, dict):
            return None
        added = self._added
        known = fields.lines.get
        encoded = [self._encoded]
        for item in headers.items():
            name, value = item
            if value is None or (name not in added and not self._is_added(name)):
                return None
            encoded.append(known(item) or fields.line(name, value))
        return b"".join(encoded)

    def _is_added(self, name: Any) -> bool:
        """A field of this name is none of the session's, and does no more than be sent."""
        lower = str(name).lower()
        if lower in self._own or lower in _SPECIAL or lower[:1] == ":":
            return False
        if len(self._added) < _TARGETS_MAX:
            self._added.add(name)
        return True

    def _new_target(self, pool: Pool, url: str) -> tuple[Origin, bytes]:
        slash = url.find("/", 8) if isinstance(url, str) and url.startswith("https://") else -1
        origin = pool.origins.get(url[8:slash]) if slash > 0 else None
        if origin is not None and PLAIN_PATH.fullmatch(url, slash):
            line = fields.plain_path_line(url[slash:])
        else:
            authority, path = split_url(url)
            origin = pool.origins.get(authority) or pool.new_origin(authority)
            line = fields.path_line(path)
        if len(self._targets) >= _TARGETS_MAX:
            self._targets.clear()
        target = self._targets[url] = (origin, line)
        return target

    # ---------------------------------------------------------------- life

    def _begin(self) -> Pool:
        if self._closed:
            raise error("state", "the session is closed: make another one", request_sent=False)
        if self._pool is not None and not self._pool.runtime.forked:
            self._pool.runtime.check("this session")  # raises: it was closed with its hub
        runtime = hub.current()
        datapath.tune_client(runtime.engine)
        mode = choose(self._mode)
        store = None if self._tickets is False else self._tickets  # which may be empty, and false for that
        if self._tickets is None:
            store = open_store(mode, required=self._mode is not None)
        settings = ClientSettings(
            runtime, self._tls, self._transport, self._server_name, store, mode, self._early_data
        )
        self._targets.clear()
        made = settings.configuration, self.limits, self._server_name, settings.sessions
        self._pool = Pool(runtime, *made, self.on_connection)
        return self._pool

    @property
    def session_mode(self) -> SessionMode:
        """How sessions are kept; AUTO until the first request has chosen."""
        return SessionMode.AUTO if self._pool is None else self._pool.sessions.mode

    def close(self, timeout: float | None = 1.0) -> None:
        """Close all connections; waits until that is done, at most `timeout` seconds. Idempotent.

        Requests under way end with QuicConnectionException."""
        pool = self._pool
        if pool is None or pool.runtime.engine.closed:
            self._closed = True
            return
        pool.runtime.check("this session")
        self._closed = True
        pool.close(timeout)
        if timeout and pool.sessions.cache is not None:
            pool.sessions.cache.flush(timeout)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ---------------------------------------------------------------- by method

    def get(self, url: str, **options: Any) -> Response:
        """`request("GET", ...)`."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Any) -> Response:
        """`request("HEAD", ...)`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Any) -> Response:
        """`request("OPTIONS", ...)`."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str, data: Body = None, **options: Any) -> Response:
        """`request("POST", ...)`."""
        return self.request("POST", url, data=data, **options)

    def put(self, url: str, data: Body = None, **options: Any) -> Response:
        """`request("PUT", ...)`."""
        return self.request("PUT", url, data=data, **options)

    def patch(self, url: str, data: Body = None, **options: Any) -> Response:
        """`request("PATCH", ...)`."""
        return self.request("PATCH", url, data=data, **options)

    def delete(self, url: str, **options: Any) -> Response:
        """`request("DELETE", ...)`."""
        return self.request("DELETE", url, **options)

    @contextmanager
    def stream(self, method: str, url: str, **options: Any) -> Iterator[Response]:
        """A response whose body is read in the `with` block, and closed after it."""
        response = self.request(method, url, stream=True, **options)
        try:
            yield response
        finally:
            response.close()


@atexit.register
def _say_goodbye() -> None:
    """At the end of the program: tell servers, so that they need not wait for the idle timeout."""
    runtimes = set()
    for connection in list(dialled):
        runtime = connection._runtime
        if not connection.closed and runtime.thread == thread_id():
            connection.close(timeout=None)
            runtimes.add(runtime)
    for runtime in runtimes:
        runtime.flush()
    finish_all()


def session_for(
    verify: bool | str = True, cert: str | tuple[str, str] | None = None, server_name: str | None = None
) -> Session:
    """The calling thread's session for the functions below: one for each set of these."""
    sessions = hub.current().attachments
    plain = verify is True and cert is None and server_name is None
    key = "session" if plain else f"session {verify!r} {cert!r} {server_name!r}"
    session: Session | None = sessions.get(key)
    if session is None:
        session = sessions[key] = Session(verify=verify, cert=cert, server_name=server_name)
    return session


def request(
    method: str,
    url: str,
    *,
    verify: bool | str = True,
    cert: str | tuple[str, str] | None = None,
    server_name: str | None = None,
    **options: Any,
) -> Response:
    """Send one request: see `Session.request`. Connections are kept for the next call of this thread,
    one pool for each set of `verify`, `cert` and `server_name`."""
    return session_for(verify, cert, server_name).request(method, url, **options)


def _by_method(method: str) -> Callable[..., Response]:
    def call(url: str, **options: Any) -> Response:
        return request(method, url, **options)

    call.__name__ = call.__qualname__ = method.lower()
    call.__doc__ = f"`request({method!r}, url, ...)`."
    return call


get = _by_method("GET")
head = _by_method("HEAD")
options = _by_method("OPTIONS")
post = _by_method("POST")
put = _by_method("PUT")
patch = _by_method("PATCH")
delete = _by_method("DELETE")
