"""A WebSocket without HTTP/3: the opening handshake of HTTP/1.1 (RFC 6455, section 4) over TLS and TCP.

For clients that asked for it, when HTTP/3 is not to be had: no UDP on this network, or a server that has no
HTTP/3, or one without extended CONNECT. What comes out of the handshake has the methods of a `Stream`, so
messages, pings and closing are the same above it.

Not imported before it is needed: it is the one part of quicgreen that imports `ssl`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
import weakref
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import gevent
import h11
from gevent import socket, ssl

from .. import hub
from ..configuration import ClientTls, trust
from ..exceptions import QuicException, error
from ..fields import FieldValue
from ..headers import Headers
from ..lookups import look_up
from ..pool import seconds_left
from ..urls import split_authority, split_url
from .connection import WebSocket
from .exceptions import InvalidStatus
from .handshake import Offer, client_websocket, listed
from .pipes import GreenPipe

if TYPE_CHECKING:
    from ..client import RequestHeaders, Session

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""

_OWN = {"connection", "keep-alive", "proxy-connection", "sec-websocket-key", "transfer-encoding", "upgrade"}
"""Fields that say how this connection is used: ours alone. HTTP/3 does not carry them."""

_READ_SIZE = 65536

_HEAD_MAX = 32 * 1024
"""Of an answer's head, as over HTTP/3 (max_field_section_size)."""

_INTERIM_MAX = 16
"""Answers before the answer (RFC 9110, section 15.2): a server that sends more will never come to an end."""

_REFUSAL_MAX = 64 * 1024
"""Of a refusal's body: it is there to be read by people."""


class TlsStream:
    """The bytes of a TLS connection, with the methods of `quicgreen.stream.Stream`.

    TCP has no stream to give up: whichever side is given up, the connection goes with it.
    """

    kind = "tls"
    id = 0
    trailers = None

    def __init__(self, sock: Any, begun: bytes = b"") -> None:
        """`begun`: bytes that came with the head of the answer."""
        self._socket = sock
        self._begun = begun
        self._read_ended = self._write_ended = self._released = False

    @property
    def timeout(self) -> float | None:
        """Seconds that a read or write may wait; None: for as long as the connection lives."""
        seconds: float | None = self._socket.gettimeout()
        return seconds

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)

    @property
    def read_ended(self) -> bool:
        """Nothing more can be read."""
        return self._read_ended

    @property
    def released(self) -> bool:
        """The connection is closed."""
        return self._released

    @property
    def remote_address(self) -> tuple[str, int]:
        """(ip, port) of the peer."""
        address: tuple[str, int] = ("", 0) if self._released else self._socket.getpeername()[:2]
        return address

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ({'closed' if self._released else 'open'})>"

    # ---------------------------------------------------------------- reading

    def readinto(self, buffer: Any) -> int:
        """As `Stream.readinto`: waits for the first byte, returns how many came; 0 at the end."""
        if self._read_ended or len(buffer) == 0:
            return 0
        if self._begun:
            view = memoryview(buffer).cast("B")
            n = min(len(view), len(self._begun))
            view[:n] = self._begun[:n]
            self._begun = self._begun[n:]
            return n
        try:
            n = self._socket.recv_into(buffer)
        except (OSError, ValueError) as e:
            raise self._failure(e, "reading") from None
        self._read_ended = n == 0
        return int(n)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, at least one; b"" at the end."""
        chunk = bytearray(min(size, _READ_SIZE))
        return bytes(memoryview(chunk)[: self.readinto(chunk)])

    # ---------------------------------------------------------------- writing

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """As `Stream.write`: all of it, waiting as the peer takes it."""
        if self._write_ended:
            raise error("stream-gone", "written to after its end")
        rest = memoryview(data).cast("B")
        total = len(rest)
        try:
            while rest:
                rest = rest[self._socket.send(rest) :]
        except (OSError, ValueError) as e:
            raise self._failure(e, "writing") from None
        return total

    def finish(self, data: bytes | bytearray | memoryview = b"") -> None:
        """Write `data`, and no more. The server is who closes the connection (RFC 6455, section 7.1.1)."""
        if not self._write_ended:
            self.write(data)
            self._write_ended = True

    # ---------------------------------------------------------------- ending

    def reset(self, code: int = 0) -> None:
        """Give up."""
        self.release()

    def stop(self, code: int = 0) -> None:
        """Give up."""
        self.release()

    def release(self) -> None:
        """Close the connection; who waits for it is told. Idempotent."""
        if self._released:
            return
        self._released = self._read_ended = self._write_ended = True
        try:
            # Our close_notify (RFC 8446, section 6.1) leaves if there is room for it; the peer's is not
            # waited for.
            self._socket.settimeout(0.0)
            self._socket.unwrap()
        except (OSError, ValueError):
            pass
        finally:
            self._socket.close()

    def _failure(self, e: Exception, doing: str) -> QuicException:
        if self._released:
            return error("closed-here")
        if isinstance(e, TimeoutError):
            return error("deadline", f"{doing}, after {self.timeout} s")
        self._read_ended = True
        return error("closed-by-peer", str(e), remote=True)


# ------------------------------------------------------------------ TCP and TLS


def tls_context(tls: ClientTls) -> Any:
    """The same in OpenSSL's form."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # A writer must never wait for something to be read: another greenlet does that.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    if tls.keylog_file:
        context.keylog_filename = tls.keylog_file
    if tls.verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        file, folder = trust(tls.verify)
        try:
            context.load_verify_locations(file, folder)
        except OSError as e:
            raise error("trust-file", f"{file or folder}: {e}") from None
    if tls.cert is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key)
        except OSError as e:
            raise error("client-certificate", f"{tls.cert}: {e}") from None
    return context


def _dial(host: str, port: int, deadline: float | None) -> Any:
    """A TCP connection to the first address that answers; each gets its share of the time."""
    try:
        found = look_up(host, port, socket.SOCK_STREAM, seconds_left(deadline))
    except TimeoutError as e:
        raise error("handshake-timeout", f"resolving {host}: {e}", request_sent=False) from None
    except (OSError, UnicodeError) as e:
        why = getattr(e, "strerror", None) or e
        raise error("name", f"{host}: {why}", request_sent=False) from None
    failure: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            if deadline is not None:
                sock.settimeout(max(0.001, (deadline - time.monotonic()) / (len(found) - number)))
            sock.connect(address)
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as e:
            sock.close()
            failure = e
        except BaseException:
            sock.close()
            raise
    cause = "handshake-timeout" if isinstance(failure, TimeoutError) else "unreachable"
    detail = f"{host} port {port} over TCP: {failure}"
    raise error(cause, detail, request_sent=False, errno=failure.errno if failure else None) from None


def _secure(sock: Any, context: Any, name: str) -> Any:
    """TLS on it; it is closed when that fails."""
    try:
        sock = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
        sock.do_handshake()
        return sock
    except BaseException as e:
        sock.close()
        if isinstance(e, ssl.SSLCertVerificationError):
            raise error("certificate", e.verify_message, request_sent=False) from None
        if isinstance(e, ssl.SSLError):
            raise error("alert", f"over TCP: {e.reason or e}", request_sent=False) from None
        if isinstance(e, OSError):
            raise error("closed-by-peer", f"during the TLS handshake: {e}", request_sent=False) from None
        raise


# ------------------------------------------------------------------ HTTP/1.1


class Refusal:
    """The answer of a server that does not upgrade; as much of a `Response` as there is of it."""

    def __init__(self, status: int, headers: Headers, content: bytes) -> None:
        self.status_code = status
        self.headers = headers
        self.content = content

    @property
    def reason(self) -> str:
        """The status in words."""
        try:
            return HTTPStatus(self.status_code).phrase
        except ValueError:
            return ""

    @property
    def text(self) -> str:
        """The body, decoded as UTF-8."""
        return self.content.decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"<Refusal {self.status_code}>"


def _refused(response: Refusal) -> QuicException:
    refusal = error("websocket-status", f"{response.status_code} {response.reason}".rstrip(), remote=True)
    assert isinstance(refusal, InvalidStatus)
    refusal.response = response
    return refusal


def _invalid(detail: str) -> QuicException:
    return error("websocket-handshake", detail, remote=True)


def accept_key(key: bytes) -> str:
    """What a server answers to Sec-WebSocket-Key (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()


def _encoded(value: FieldValue) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("latin-1")


def _fields(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    return Headers.of((name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs)


def _has_token(headers: Headers, name: str, token: str) -> bool:
    return token in [item.lower() for item in listed(headers.get(name))]


class _Exchange:
    """One request on one connection, and what is answered."""

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_MAX)

    def ask(self, target: str, fields: list[tuple[str, FieldValue]]) -> None:
        try:
            headers = [(name.encode("latin-1"), _encoded(value)) for name, value in fields]
            request = h11.Request(method="GET", target=target, headers=headers)
            data = self._http.send(request) + self._http.send(h11.EndOfMessage())
        except (h11.LocalProtocolError, UnicodeEncodeError) as e:
            raise error("argument", f"a field of the request cannot be sent: {e}") from None
        self._socket.sendall(data)

    def answer(self) -> Any:
        """The final answer's head: 101, or a refusal."""
        for _ in range(_INTERIM_MAX):
            event = self._next()
            if event.status_code == HTTPStatus.SWITCHING_PROTOCOLS or isinstance(event, h11.Response):
                return event
        raise _invalid("the server sends interim answers without end")

    def refusal(self, head: Any) -> Refusal:
        """The body too, or as much of it as is worth reading."""
        content = b""
        try:
            while len(content) < _REFUSAL_MAX and isinstance(event := self._next(), h11.Data):
                content += event.data
        except OSError:
            pass  # the status says enough
        return Refusal(head.status_code, _fields(head.headers), content[:_REFUSAL_MAX])

    @property
    def rest(self) -> bytes:
        """What came behind the head, and belongs to the WebSocket."""
        return bytes(self._http.trailing_data[0])

    def _next(self) -> Any:
        data = None
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = self._socket.recv(_READ_SIZE)
                self._http.receive_data(data)
        except h11.RemoteProtocolError as e:
            if data == b"":
                raise _invalid("the server closed the connection before it answered") from None
            raise _invalid(f"the answer is not HTTP/1.1: {e}") from None
        return event


def _check(headers: Headers, key: bytes) -> None:
    """RFC 6455, section 4.1, the last list."""
    if not _has_token(headers, "upgrade", "websocket") or not _has_token(headers, "connection", "upgrade"):
        raise _invalid("the server switches to something that is not a WebSocket")
    if headers.get("sec-websocket-accept") != accept_key(key):
        raise _invalid("the answer belongs to another request: its sec-websocket-accept is wrong")


def upgrade(
    host: str,
    port: int,
    authority: str,
    target: str,
    fields: Iterable[tuple[str, FieldValue]],
    *,
    context: Any,
    server_name: str | None = None,
    timeout: float | None = 10.0,
) -> tuple[TlsStream, Headers]:
    """Connect, shake hands, and ask for a WebSocket.

    Args:
        host, port: where; a name, or an address without brackets.
        authority, target: as they stand in the request.
        fields: those of the request that are not the upgrade's own: version, subprotocols, extensions.
        context: from `tls_context`.
        server_name: what the certificate must be for, when it is not the host.
        timeout: seconds for all of it.

    Returns:
        The stream, and the fields of the answer, of which subprotocol and extensions are not checked here.

    Raises:
        QuicSocketException, QuicTlsHandshakeException, QuicTimeoutException, QuicConnectionException: no
            connection, as over QUIC.
        InvalidStatus: the server refused; the answer is its `response`.
        InvalidHandshake: the answer is none that RFC 6455 knows.
    """
    key = base64.b64encode(os.urandom(16))
    own: list[tuple[str, FieldValue]] = [
        ("host", authority),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", key.decode()),
    ]
    sock = None
    limit = gevent.Timeout(timeout)
    limit.start()
    try:
        deadline = None if timeout is None else time.monotonic() + timeout
        sock = _secure(_dial(host, port, deadline), context, server_name or host)
        exchange = _Exchange(sock)
        exchange.ask(target, [*own, *(pair for pair in fields if pair[0].lower() not in _OWN)])
        head = exchange.answer()
        if head.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            raise _refused(exchange.refusal(head))
        headers = _fields(head.headers)
        _check(headers, key)
        stream, sock = TlsStream(sock, exchange.rest), None
        return stream, headers
    except gevent.Timeout as e:
        if e is not limit:
            raise
        detail = f"no WebSocket over TCP in {timeout} s"
        raise error("handshake-timeout", detail, request_sent=False) from None
    except QuicException:
        raise
    except OSError as e:
        raise error("closed-by-peer", f"during the opening handshake: {e}") from None
    finally:
        limit.close()
        if sock is not None:
            sock.close()


# ------------------------------------------------------------------ a WebSocket

_contexts: weakref.WeakKeyDictionary[Session, Any] = weakref.WeakKeyDictionary()
"""Each session's, as it keeps its own of QUIC: to read a hundred certificates takes milliseconds."""


def open_websocket(
    session: Session,
    url: str,
    offer: Offer,
    additional_headers: RequestHeaders | None,
    timeout: float | None,
    options: dict[str, Any],
) -> WebSocket:
    """Open one with what the session trusts and shows. `url`: an https one. `options`: of `WebSocket`."""
    authority, target = split_url(url)
    host, port = split_authority(authority)
    said, fields = _merged({**session.headers, **offer.fields()}, additional_headers)
    context = _contexts.get(session)
    if context is None:
        context = _contexts[session] = tls_context(session._tls)
    runtime = hub.current()
    stream, answer = upgrade(
        host,
        port,
        said or authority,
        target,
        fields,
        context=context,
        server_name=session._server_name,
        timeout=timeout,
    )
    try:
        return client_websocket(runtime, GreenPipe(runtime, stream), offer, answer, **options)
    except BaseException:
        stream.release()
        raise


def _merged(
    own: Mapping[str, Any], additional: RequestHeaders | None
) -> tuple[str | None, list[tuple[str, FieldValue]]]:
    """(host field, fields) of a request: ours, with the caller's instead where they have the same name."""
    given = list(additional.items() if isinstance(additional, Mapping) else additional or ())
    names = {str(name).lower() for name, _ in given}
    host = None
    fields = [(name, value) for name, value in own.items() if name not in names and value is not None]
    for name, value in given:
        lower = str(name).lower()
        if lower[:1] == ":" or lower == "content-length":
            raise error("argument", f"{name!r} is not a field that can be given")
        if lower == "host" and value is not None:
            host = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        elif value is not None:
            fields.append((name, value))
    return host, fields
