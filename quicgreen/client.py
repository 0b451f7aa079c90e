"""The client: sessions with a pool, and the module's `get`, `request` and `connect`.

A request takes the shortest way that is safe: its head is joined from encoded lines, handed to the engine
in the turn's batch, and the greenlet sleeps until the response's head is there. A connection that is still
shaking hands takes requests too; the engine sends them when it may.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from gevent.event import Event

from . import _engine, fields, h3, hub
from .configuration import ClientTls, Limits, QuicConfiguration, Timeout, busy_poll_us
from .connection import ClientConnection
from .exceptions import QuicException, error
from .hub import thread_id
from .messages import Body, Response

_UNSET: Any = object()

_USER_AGENT = "quicgreen/0.1"

_DEFAULT_HEADERS = {"user-agent": _USER_AGENT, "accept": "*/*"}

_REPEATABLE = {"refused", "closed-by-peer", "closed-here", "idle-timeout", "lost"}

_ATTEMPTS = 3
"""How often a request is sent when each time it is certain that the server did nothing of it."""

_ORIGINS_MAX = 1024
_TARGETS_MAX = 1024


class _Origin:
    """One scheme, host and port: its connections, and the head that all its requests begin with."""

    __slots__ = ("authority", "connections", "host", "opening", "port", "prefixes")

    def __init__(self, host: str, port: int, authority: str) -> None:
        self.host = host
        self.port = port
        self.authority = authority
        self.connections: list[ClientConnection] = []
        self.opening: Event | None = None
        self.prefixes: dict[str, bytes] = {}

    def prefix(self, method: str) -> bytes:
        """:method, :scheme and :authority, encoded."""
        found = self.prefixes[method] = h3.head_prefix(method, self.authority)
        return found


def _split_url(url: str) -> tuple[str, str]:
    """(authority, path with query) of an https URL, in the form in which they are sent."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise error("argument", f"{url!r} is not a URL: {e}") from None
    if parts.scheme != "https" or not host:
        raise error("argument", f"{url!r}: only https:// URLs can be fetched over QUIC")
    if parts.username is not None:
        raise error("argument", "a URL with a user name is not sent (RFC 9110, section 4.2.4)")
    host = ascii_host(host)
    authority = f"[{host}]" if ":" in host else host
    path = quote(parts.path or "/", safe="/:@!$&'()*+,;=~%-._")
    query = "?" + quote(parts.query, safe="/:@!$&'()*+,;=~%-._?[]|^`{}\\\"") if parts.query else ""
    return f"{authority}:{port}" if port else authority, path + query


def _split_authority(authority: str) -> tuple[str, int]:
    host, _, port = authority.rpartition(":")
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        port = port.removeprefix(":")
    elif not host:
        host, port = authority, ""
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise error("argument", f"{port!r} is not a port")
    if not host:
        raise error("argument", f"{authority!r} has no host")
    return host, int(port) if port else 443


def ascii_host(host: str) -> str:
    """A host name as DNS and TLS want it (RFC 5891)."""
    if host.isascii():
        return host.lower().rstrip(".")
    import idna

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError as e:
        raise error("argument", f"{host!r} is not a host name: {e}") from None


def trust(verify: bool | str) -> tuple[str | None, str | None]:
    """(file, folder) of trusted certificates."""
    if verify is False:
        return None, None
    if not isinstance(verify, bool):
        try:
            path = os.fspath(verify)
        except TypeError:
            raise error("argument", f"verify is True, False or a path, not {verify!r}") from None
        if not os.path.exists(path):
            raise error("trust-file", f"{path} does not exist")
        return (None, path) if os.path.isdir(path) else (path, None)
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        return file, folder
    import certifi

    return certifi.where(), None


def make_configuration(tls: ClientTls, transport: QuicConfiguration | None) -> _engine.Configuration:
    """Settings in the engine's form."""
    file, folder = trust(tls.verify)
    return _engine.Configuration(tls, transport or QuicConfiguration(), ca_file=file, ca_dir=folder)


def resolve(host: str, port: int, timeout: float | None) -> list[Any]:
    """The host's addresses in the engine's form, as the resolver prefers them.

    Raises:
        QuicSocketException: there is no such name.
        QuicTimeoutException: the resolver did not answer in time.
    """
    address = _engine.parse_address(host, port)
    if address is not None:
        return [address]
    from gevent import Timeout as GeventTimeout
    from gevent import socket

    limit = GeventTimeout(timeout)
    limit.start()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as e:
        raise error("name", f"{host}: {e}", request_sent=False) from None
    except GeventTimeout as e:
        if e is not limit:
            raise
        raise error("handshake-timeout", f"resolving {host}", request_sent=False) from None
    finally:
        limit.close()
    ips = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [a for a in (_engine.parse_address(ip, port) for ip in ips) if a is not None]


_Connection = TypeVar("_Connection", bound=ClientConnection)


def dial(
    runtime: hub.Runtime,
    kind: type[_Connection],
    addresses: list[Any],
    configuration: _engine.Configuration,
    name: str | None,
    timeout: float | None,
) -> _Connection:
    """Connect to the first address that answers. The last one is not waited for: its handshake goes on
    while the caller prepares a request."""

    def begin(address: Any) -> _Connection:
        connection = kind(runtime, address, configuration, name, timeout)
        _dialled.add(connection)
        return connection

    for address in addresses[:-1]:
        connection = begin(address)
        try:
            connection.wait_established()
            return connection
        except QuicException as e:
            if e.cause not in ("unreachable", "handshake-timeout"):
                raise
    return begin(addresses[-1])


def _may_repeat(e: BaseException, body: Any) -> bool:
    """Nothing of the request was processed, another connection may do better, and the body is still there:
    a file or an iterable may have been read in part."""
    return (
        isinstance(e, QuicException)
        and not e.request_sent
        and e.cause in _REPEATABLE
        and (body is None or isinstance(body, bytes))
    )


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
        headers: fields.Fields | None = None,
        data: Body = None,
        json: Any = None,
        timeout: Timeout | float | tuple[float | None, float | None] | None = _UNSET,
        stream: bool = False,
    ) -> Response:
        """Send a request and wait for its response; arguments and errors as `Session.request`, with the path
        instead of the URL."""
        self._check()
        if self.alpn not in ("h3", ""):
            raise error("state", f"the connection speaks {self.alpn}, not HTTP/3")
        limit = self._timeout if timeout is _UNSET else Timeout.of(timeout)
        body, extra = h3.encode_body(data, json)
        items = {**_DEFAULT_HEADERS, **extra}
        own = list(items_of(headers))
        for name, _ in own:
            items.pop(name.lower(), None)
        head = (
            h3.head_prefix(method, self._authority)
            + fields.path_line(path)
            + fields.encode(items)
            + fields.encode(own)
        )
        url = f"https://{self._authority}{path}"
        declared = None if body is None else h3.declared_length(own)
        response = h3.exchange(self, method, url, head, body, limit, None, declared)
        if not stream:
            response.read()
        return response

    def get(self, path: str = "/", **options: Any) -> Response:
        """`request("GET", ...)`."""
        return self.request("GET", path, **options)

    def post(self, path: str = "/", data: Body = None, **options: Any) -> Response:
        """`request("POST", ...)`."""
        return self.request("POST", path, data=data, **options)


def items_of(headers: fields.Fields | None) -> Iterable[tuple[str, fields.FieldValue]]:
    """Pairs of a mapping or of pairs."""
    if headers is None:
        return ()
    return headers.items() if isinstance(headers, Mapping) else headers


def connect(
    host: str,
    port: int = 443,
    *,
    verify: bool | str = True,
    cert: str | tuple[str, str] | None = None,
    server_name: str | None = None,
    alpn: tuple[str, ...] = ("h3",),
    timeout: Timeout | float | tuple[float | None, float | None] | None = _UNSET,
    config: QuicConfiguration | None = None,
) -> Connection:
    """Open a connection and wait for its handshake.

    Args:
        host, port: a name or an address, IPv4 or IPv6.
        verify, cert, server_name, config: as in `Session`.
        alpn: application protocols; anything but "h3" gives a connection whose streams are yours
            (`open_stream`, `accept_stream`).
        timeout: `Timeout.connect` bounds this call.

    Raises:
        QuicSocketException, QuicTlsHandshakeException, QuicTimeoutException, QuicTransportException.
    """
    if not isinstance(port, int) or not 0 < port < 65536:
        raise error("argument", f"{port!r} is not a port")
    limit = Timeout() if timeout is _UNSET else Timeout.of(timeout)
    certificate, key = cert if isinstance(cert, tuple) else (cert, None)
    configuration = make_configuration(ClientTls(verify=verify, cert=certificate, key=key, alpn=alpn), config)
    runtime = hub.current()
    runtime.engine.set_spin(busy_poll_us())
    host = ascii_host(host.strip("[]"))
    addresses = resolve(host, port, limit.connect)
    connection = dial(runtime, Connection, addresses, configuration, server_name or host, limit.connect)
    bracketed = f"[{host}]" if ":" in host else host
    connection._authority = bracketed if port == 443 else f"{bracketed}:{port}"
    connection._timeout = limit
    try:
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
    """

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
    ) -> None:
        self.headers: dict[str, str] = {
            **_DEFAULT_HEADERS,
            **{k.lower(): v for k, v in (headers or {}).items()},
        }
        """Default fields. Assign a new dict to change them."""
        self.timeout = Timeout() if timeout is _UNSET else Timeout.of(timeout)
        self.limits = limits or Limits()
        certificate, key = cert if isinstance(cert, tuple) else (cert, None)
        self._tls = ClientTls(verify=verify, cert=certificate, key=key)
        self._transport = self._with_expiry(config or QuicConfiguration())
        self._server_name = server_name
        self._configuration: _engine.Configuration | None = None
        self._runtime: hub.Runtime | None = None
        self._origins: dict[str, _Origin] = {}
        self._count = 0  # connections in all
        self._closed = False
        self._waiting = 0  # greenlets that wait for a connection
        self._free = Event()
        self._on_done = self._release
        self._encoded_for: Any = None  # the dict that `_encoded` was made from
        self._encoded = b""
        self._targets: dict[str, tuple[_Origin, bytes]] = {}  # by URL, bounded

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
        headers: fields.Fields | None = None,
        data: Body = None,
        json: Any = None,
        timeout: Timeout | float | tuple[float | None, float | None] | None = _UNSET,
        stream: bool = False,
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

        Raises:
            QuicSocketException, QuicTlsHandshakeException, QuicTimeoutException: no connection.
            QuicTimeoutException: no response in time. The request is cancelled, the connection stays.
            QuicStreamException: the server reset the request.
            QuicConnectionException: the connection ended meanwhile.
            QuicClientException: wrong arguments; nothing was sent.
        """
        runtime = self._runtime
        if runtime is None or runtime.engine.closed:
            runtime = self._begin()
        if thread_id() != runtime.thread:
            runtime.check("this session")
        limit = self.timeout if timeout is _UNSET else Timeout.of(timeout)
        if params:
            url = _with_params(url, params)
        origin, path_line = self._targets.get(url) or self._new_target(url)
        own = self.headers
        if own is not self._encoded_for:
            self._encode_headers(own)
        head = (origin.prefixes.get(method) or origin.prefix(method)) + path_line
        body = extra = declared = None
        if data is not None or json is not None:
            body, extra = h3.encode_body(data, json)
            if headers:
                headers = list(items_of(headers))
                declared = h3.declared_length(headers)
        head += self._merge(headers, extra) if headers or extra else self._encoded
        for attempt in range(_ATTEMPTS):
            connection = self._connection(origin, limit)
            connection.in_flight += 1
            try:
                response = h3.exchange(connection, method, url, head, body, limit, self._on_done, declared)
                break
            except BaseException as e:
                self._release(connection)
                if attempt == _ATTEMPTS - 1 or self._closed or not _may_repeat(e, body):
                    raise
        if not stream and response._guard is not None:
            response.read()
        return response

    # ---------------------------------------------------------------- heads

    def _encode_headers(self, own: dict[str, str]) -> None:
        if "content-length" in own:
            raise error("argument", "content-length belongs to a request, not to all of a session")
        self._encoded = fields.encode(own)
        self._encoded_for = own

    def _merge(self, headers: fields.Fields | None, extra: dict[str, str] | None) -> bytes:
        """The session's fields, with the request's instead where they have the same name."""
        own = self.headers
        if not extra and isinstance(headers, dict):
            known = fields.lines.get
            encoded = [self._encoded]
            for item in headers.items():
                if item[0].lower() in own:
                    break
                encoded.append(known(item) or fields.line(*item))
            else:
                return b"".join(encoded)
        merged: dict[str, fields.FieldValue] = {**own, **(extra or {})}
        items = list(items_of(headers))
        for name, _ in items:
            merged.pop(name.lower(), None)
        return fields.encode(merged) + fields.encode(items)

    def _new_target(self, url: str) -> tuple[_Origin, bytes]:
        slash = url.find("/", 8)
        origin = self._origins.get(url[8:slash]) if slash > 0 and url.startswith("https://") else None
        if origin is None or not url.isascii() or not url.isprintable() or " " in url or "#" in url:
            authority, path = _split_url(url)
            origin = self._origins.get(authority) or self._new_origin(authority)
        else:
            path = url[slash:]
        if len(self._targets) >= _TARGETS_MAX:
            self._targets.clear()
        target = self._targets[url] = (origin, fields.path_line(path))
        return target

    # ---------------------------------------------------------------- the pool

    def _begin(self) -> hub.Runtime:
        if self._closed:
            raise error("state", "the session is closed")
        if self._runtime is not None:
            self._runtime.check("this session")  # raises: it was closed with its hub, or forked
        runtime = self._runtime = hub.current()
        runtime.engine.set_spin(busy_poll_us())
        if self._configuration is None:
            self._configuration = make_configuration(self._tls, self._transport)
        return runtime

    def _new_origin(self, authority: str) -> _Origin:
        host, port = _split_authority(authority)
        if len(self._origins) >= _ORIGINS_MAX:
            for key in [k for k, o in self._origins.items() if not o.connections and o.opening is None]:
                del self._origins[key]
        origin = self._origins[authority] = _Origin(ascii_host(host), port, authority.lower())
        return origin

    def _connection(self, origin: _Origin, limit: Timeout) -> ClientConnection:
        """A connection with room for one more request, opened if need be."""
        most = self.limits.max_streams
        for connection in origin.connections:
            if connection.in_flight < most and not connection.draining and connection._why is None:
                return connection
        if origin.opening is None and self._count < self.limits.max_connections:
            return self._open(origin, limit)
        return self._wait_for_connection(origin, limit)

    def _wait_for_connection(self, origin: _Origin, limit: Timeout) -> ClientConnection:
        deadline = None if limit.pool is None else time.monotonic() + limit.pool
        self._waiting += 1
        try:
            while True:
                if origin.opening is not None:
                    self._sleep(origin.opening, deadline)
                elif not self._evict():
                    self._free.clear()
                    self._sleep(self._free, deadline)
                for connection in origin.connections:
                    if connection.in_flight < self.limits.max_streams and connection.usable:
                        return connection
                if origin.opening is None and self._count < self.limits.max_connections:
                    return self._open(origin, limit)
        finally:
            self._waiting -= 1

    def _sleep(self, event: Event, deadline: float | None) -> None:
        assert self._runtime is not None
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise error("pool-timeout", request_sent=False)
        self._runtime.reference()
        try:
            event.wait(left)
        finally:
            self._runtime.unreference()

    def _evict(self) -> bool:
        """Close one connection that nobody uses, of whichever origin."""
        for origin in self._origins.values():
            for connection in origin.connections:
                if connection.in_flight == 0:
                    connection.close(timeout=None)
                    self._forget(origin, connection)
                    return True
        return False

    def _open(self, origin: _Origin, limit: Timeout) -> ClientConnection:
        origin.opening = Event()
        self._count += 1
        try:
            addresses = resolve(origin.host, origin.port, limit.connect)
            connection = self._dial(origin, addresses, limit.connect)
        except BaseException:
            self._count -= 1
            raise
        finally:
            opening, origin.opening = origin.opening, None
            opening.set()
        origin.connections.append(connection)
        if connection.closed:
            self._forget(origin, connection)
        else:
            connection.on_closed = lambda: self._forget(origin, connection)
        return connection

    def _dial(self, origin: _Origin, addresses: list[Any], timeout: float | None) -> ClientConnection:
        assert self._runtime is not None
        assert self._configuration is not None
        name = self._server_name or origin.host
        return dial(self._runtime, ClientConnection, addresses, self._configuration, name, timeout)

    def _forget(self, origin: _Origin, connection: ClientConnection) -> None:
        """A connection is over. Runs in the hub."""
        if connection in origin.connections:
            origin.connections.remove(connection)
            self._count -= 1
            self._wake()

    def _release(self, connection: ClientConnection) -> None:
        """A request is done."""
        connection.in_flight -= 1
        if connection.draining and connection.in_flight == 0:
            connection.close(timeout=None)
        if self._waiting:
            self._free.set()

    def _wake(self) -> None:
        if self._waiting:
            self._free.set()

    # ---------------------------------------------------------------- the end

    def close(self, timeout: float | None = 1.0) -> None:
        """Close all connections; waits until that is done, at most `timeout` seconds. Idempotent."""
        self._closed = True
        runtime = self._runtime
        if runtime is None or runtime.engine.closed or runtime.forked:
            return
        runtime.check("this session")
        connections = [c for origin in self._origins.values() for c in origin.connections]
        for connection in connections:
            connection.close(timeout=None)
        if timeout:
            for connection in connections:
                self._sleep_until_closed(runtime, connection, timeout)

    @staticmethod
    def _sleep_until_closed(runtime: hub.Runtime, connection: ClientConnection, timeout: float) -> None:
        runtime.reference()
        try:
            connection._closed_event.wait(timeout)
        finally:
            runtime.unreference()

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


def _with_params(url: str, params: Mapping[str, Any] | list[tuple[str, Any]]) -> str:
    url, hash_mark, fragment = url.partition("#")
    query = urlencode(params, doseq=True)
    return f"{url}{'&' if '?' in url else '?'}{query}{hash_mark}{fragment}"


_dialled: weakref.WeakSet[ClientConnection] = weakref.WeakSet()


@atexit.register
def _say_goodbye() -> None:
    """At the end of the program: tell servers, so that they need not wait for the idle timeout."""
    runtimes = set()
    for connection in list(_dialled):
        runtime = connection._runtime
        if not connection.closed and runtime.thread == thread_id():
            connection.close(timeout=None)
            runtimes.add(runtime)
    for runtime in runtimes:
        runtime.flush()


def _default_session() -> Session:
    """The calling thread's session, for the functions below."""
    runtime = hub.current()
    session: Session | None = runtime.attachments.get("session")
    if session is None:
        session = runtime.attachments["session"] = Session()
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
    if verify is True and cert is None and server_name is None:
        return _default_session().request(method, url, **options)
    sessions = hub.current().attachments
    key = f"session {verify!r} {cert!r} {server_name!r}"
    session = sessions.get(key)
    if session is None:
        session = sessions[key] = Session(verify=verify, cert=cert, server_name=server_name)
    response: Response = session.request(method, url, **options)
    return response


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
