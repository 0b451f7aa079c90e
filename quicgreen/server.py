"""A server in the manner of gevent's: an address, a handler, a greenlet for each request."""

from __future__ import annotations

import _socket
import logging
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import gevent
from gevent import Greenlet, GreenletExit
from gevent.baseserver import parse_address
from gevent.event import Event
from gevent.pool import Pool
from greenlet import getcurrent, greenlet

from . import _engine, datapath, hub, qlog_files
from ._contexts import Configuration, Keys, ReplayRegister
from ._engine import ACCEPTED, CONN, FIN, FLAGS, IDLE, MORE, QLOG, REQUEST, TYPE, Engine, Record
from ._group import WorkerGroup
from .bodies import Body
from .configuration import QuicConfiguration, ServerTls
from .connection import ServerConnection
from .exceptions import error
from .fields import Fields
from .greenlets import RequestGreenlet
from .lookups import look_up
from .members import Member
from .messages import Request
from .stream import H3_NO_ERROR
from .websocket import ConnectionClosed, WebSocket, accept

_log = logging.getLogger("quicgreen")

_UNLIMITED = 1 << 62
"""Credit that does not run out: requests that may be announced."""

_LOOK_S = 0.01
"""How often an ended server looks for handlers whose clients are gone; most kinds cannot be joined."""

_FIN_MORE = FIN | MORE

_LOOKUP_S = 30.0
"""Until a listener's name has an address: two servers asked twice, 5 s each (resolv.conf(5)), and some."""

_RETRY = {"never": _engine.RETRY_NEVER, "always": _engine.RETRY_ALWAYS, "auto": _engine.RETRY_AUTO}


class Server:
    """Serve HTTP/3 (or raw QUIC streams) on one UDP address.

        def handle(request):
            request.respond(200, {"content-type": "text/plain"}, b"hello\\n")

        Server(("::", 4433), handle, certfile="cert.pem", keyfile="key.pem").serve_forever()

    Args:
        listener: (host, port), "host:port", a port, or a bound UDP socket. "" and "::" mean every address,
            IPv4 included; port 0 a free one (see `address`).
        handle: called with a `Request` in a greenlet of its own; with `sessions=True`, with a
            `ServerConnection`.
        spawn: as in gevent's servers. "default": a `gevent.Greenlet` for each request; "raw": a plain
            greenlet, cheaper, which cannot be joined or killed by its methods; a number or a
            `gevent.pool.Pool`: at most so many at a time, further requests wait in their connections;
            a callable like `gevent.spawn`; None: in the hub itself, for handlers that never wait.
        certfile, keyfile: PEM files; the key may stand in certfile.
        ca_certs: clients must show a certificate that one of these signed.
        tls: a `ServerTls` instead of the three.
        config: transport settings.
        retry: "never", "always" to make clients prove their address first (RFC 9000, section 8.1.2), or
            "auto" to ask it of them while a hundred handshakes or more are under way.
        max_connections: beyond it new ones are not answered.
        max_body_bytes: the most that `request.read()` without a size returns.
        stream_timeout: seconds that reading or writing a body may wait for the client.
        sessions: hand over connections instead of requests.
        keys: a key ring shared with other servers; None: its group's, or one of the server's own.
        tickets: give clients session tickets, with which they resume.
        early_data: take requests before a resumed handshake is complete (0-RTT). Each first flight counts
            once; what is not a whole GET, HEAD or OPTIONS waits for the handshake.
        replay: the register of first flights, shared by all servers that share `keys`; None: its group's, or
            one of the server's own. With `keys` given it begins with two minutes without early data.
        websocket: let clients ask for WebSockets (RFC 9220): see `Request.is_websocket`.
        group: made before a program forks the processes that each start a server on this address with it, or
            of a file that all of them name: any of them takes up any client's session, and packets that the
            system gives to the wrong one are handed over. The server must be what begins to use the network
            in its thread.
        xdp: network interface whose datagrams come and go by AF_XDP (docs/datapath.md); None: `QUICPRO_XDP`,
            "": none. Where that cannot be had the reason is logged, and the UDP socket is used.

    Raises:
        QuicServerException: at `start`, when the address is taken or the certificate cannot be used.
    """

    stop_timeout: float | None = 1.0
    """Seconds that `stop()` waits for handlers that still run, as in gevent."""

    _runtime: hub.Runtime  # of the thread that started it
    _engine: Engine

    def __init__(
        self,
        listener: Any,
        handle: Callable[[Any], Any] | None = None,
        *,
        spawn: Any = "default",
        certfile: str | None = None,
        keyfile: str | None = None,
        ca_certs: str | None = None,
        tls: ServerTls | None = None,
        config: QuicConfiguration | None = None,
        retry: str = "never",
        max_connections: int = 100_000,
        max_body_bytes: int = 64 << 20,
        stream_timeout: float | None = 60.0,
        sessions: bool = False,
        keys: Keys | None = None,
        tickets: bool = True,
        early_data: bool = False,
        replay: ReplayRegister | None = None,
        websocket: bool = False,
        group: WorkerGroup | None = None,
        xdp: str | None = None,
    ) -> None:
        if retry not in _RETRY:
            raise error("argument", f"retry is 'never', 'always' or 'auto', not {retry!r}")
        if early_data and not tickets:
            raise error("argument", "early data needs session tickets")
        if max_connections < 1:
            raise error("argument", f"max_connections is at least 1, not {max_connections!r}")
        if handle is not None:
            self.handle = handle  # type: ignore[method-assign, assignment]
        self._listener = listener
        self._tls = tls or ServerTls(certfile=certfile, keyfile=keyfile, ca_certs=ca_certs)
        self._transport = config or QuicConfiguration()
        self._retry = _RETRY[retry]
        self._max_connections = max_connections
        self._sessions = sessions or "h3" not in self._tls.alpn
        self._keys = keys
        self._tickets = tickets
        self._early_data = early_data
        self._websocket = websocket
        self._xdp = xdp
        self._member = Member(group) if group is not None else None
        self.replay_register = replay
        """Whose early data was taken (`ReplayRegister.counts`); None without early data."""
        self.max_body_bytes = max_body_bytes
        self.stream_timeout = stream_timeout
        self.address: tuple[str, int] | None = None
        """(ip, port) that is served, once started."""
        self.sessions: dict[int, ServerConnection] = {}
        """Open connections by their id, when they are handed over as sessions."""
        self._endpoint = -1
        self._token = 0  # of the listener's events; 0: not started
        self._running: set[Any] = set()  # greenlets that waited at least once
        self._running_raw: weakref.WeakSet[greenlet] = (
            weakref.WeakSet()
        )  # those that tell nobody of their end
        self._stopped = Event()
        self._stopped.set()
        self._idle = Event()
        self.set_spawn(spawn)

    def handle(self, request: Any) -> Any:
        """Called for each request (or session). Give a function to the constructor, or override this."""
        raise error("argument", "a server needs a handle function")

    def set_spawn(self, spawn: Any) -> None:
        """See the constructor's `spawn`."""
        self.pool: Any = None
        self._credit = _UNLIMITED
        if spawn == "default":
            self._spawn: Callable[[Any], None] = self._spawn_greenlet
        elif spawn == "raw":
            self._spawn = self._spawn_raw
        elif spawn is None:
            self._spawn = self._run
        elif isinstance(spawn, int) and not isinstance(spawn, bool) and spawn > 0:
            self.pool = Pool(spawn)
        elif hasattr(spawn, "spawn"):
            self.pool = spawn
        elif callable(spawn):
            self._spawn = lambda item: spawn(self._run, item)
        else:
            raise error(
                "argument", f"spawn is 'default', 'raw', None, a number, a pool or a function, not {spawn!r}"
            )
        if self.pool is not None:
            self._spawn = self._spawn_in_pool
            self._credit = getattr(self.pool, "size", None) or _UNLIMITED

    # ---------------------------------------------------------------- life

    @property
    def started(self) -> bool:
        """Between `start` and `stop`."""
        return not self.closed

    @property
    def closed(self) -> bool:
        """Not started, or stopped."""
        return bool(self._stopped.is_set())

    @property
    def server_host(self) -> str:
        """The address bound to; "" before that."""
        return self.address[0] if self.address else ""

    @property
    def server_port(self) -> int:
        """The port bound to; 0 before that."""
        return self.address[1] if self.address else 0

    def start(self) -> None:
        """Bind and serve, in the background. Does nothing when it is started."""
        if self.started:
            self._runtime.check("this server")
            return
        member = self._member
        runtime = self._runtime = member.enter() if member is not None else hub.current()
        engine = self._engine = runtime.engine
        self._spin()
        group = runtime.group
        if self._early_data and self.replay_register is None:
            quiet = self._keys is not None
            self.replay_register = group.replay() if group is not None else ReplayRegister(quiet=quiet)
        # The ring must exist before the configuration that seals tickets with it.
        if self._tickets and self._keys is None:
            self._keys = group.keys() if group is not None else Keys()
        configuration = Configuration(
            self._tls,
            self._transport,
            keys=self._keys if self._tickets else None,
            replay=self.replay_register if self._early_data else None,
            extended_connect=self._websocket,
            ca_file=self._tls.ca_certs,
        )
        self._endpoint = self._bind()
        datapath.serve_by_xdp(engine, self._endpoint, self._xdp)
        self._token = runtime.new_token()
        on_event = self._on_event_raw if self._spawn == self._spawn_raw else self._on_event
        runtime.targets[self._token] = self._on_session_event if self._sessions else on_event
        rc = engine.listen(
            self._endpoint,
            configuration,
            token=self._token,
            credit=self._credit,
            max_connections=self._max_connections,
            retry=self._retry,
            sessions=self._sessions,
        )
        if rc < 0:
            del runtime.targets[self._token]
            engine.endpoint_close(self._endpoint)
            raise error("memory" if rc == _engine.NOMEM else "argument", _engine.error_text(rc))
        info = engine.endpoint_info(self._endpoint)
        self.address = info["address"]
        self._report(info)
        self._idle.clear()
        self._stopped.clear()
        runtime.reference()
        if member is not None:
            member.accept(info["fd"])

    def _spin(self) -> None:
        datapath.tune(self._engine)

    def _bind(self) -> int:
        listener = self._listener
        fileno = getattr(listener, "fileno", None)
        if fileno is not None:
            # The engine closes its descriptor; the socket object keeps its own.
            where = "the socket given"
            try:
                fd = os.dup(fileno())
            except OSError as e:
                raise error("bind", f"{where}: {e.strerror}", errno=e.errno) from None
            result, number = self._engine.endpoint_udp("0.0.0.0", 0, fd=fd)
        else:
            try:
                _, (host, port, *_) = parse_address(listener)
                port = int(port)
                if not isinstance(host, str):
                    raise TypeError("a host is text")
            except (TypeError, ValueError) as e:
                raise error("argument", f"{listener!r} is not an address: {e}") from None
            ip = _resolve(host or "::")
            bind = self._member.bind if self._member is not None else Engine.endpoint_udp
            result, number = bind(self._engine, ip, port)
            if result == _engine.SYSTEM and ip == "::" and not host:
                result, number = bind(self._engine, "0.0.0.0", port)  # no IPv6 here
            where = f"{ip} port {port}"
        if result < 0:
            raise error("bind", f"{where}: {os.strerror(number)}" if number else where, errno=number or None)
        return result

    def _report(self, info: dict[str, Any]) -> None:
        """Once, at the start: what the system does not offer."""
        if "buffers" not in info["capabilities"]:
            _log.warning(
                "the socket's buffers are %d and %d bytes; for bursts set net.core.rmem_max and "
                "net.core.wmem_max to 4194304",
                info["receive_buffer"],
                info["send_buffer"],
            )
        missing = {"gso", "gro"} - info["capabilities"]
        if missing:
            _log.info("this system lacks UDP %s: more system calls", " and ".join(sorted(missing)).upper())

    def serve_forever(self, stop_timeout: float | None = None) -> None:
        """Start, if need be, and wait until the server is stopped; then stop it in an orderly way."""
        self.start()
        try:
            self._stopped.wait()
        finally:
            gevent.spawn(self.stop, timeout=stop_timeout).join()

    def stop(self, timeout: float | None = None, *, spread: float = 0.0) -> None:
        """Take no new connections, announce the end to the others (GOAWAY, RFC 9114, section 5.2), wait for
        running handlers, those too whose clients are gone, then kill them and close.

        Args:
            timeout: how many seconds to wait; None: `stop_timeout`, where None is for ever.
            spread: seconds within which the end is announced to one connection after the other, 10 ms apart
                at most. Where another server takes over, clients do not come to that one all at once.
        """
        if not self.started:
            return
        self._runtime.check("this server")
        token = self._token
        if self._member is not None:
            self._member.leave()
        self._engine.listen_stop(self._endpoint, int(spread * 1e6))
        try:
            with gevent.Timeout(self.stop_timeout if timeout is None else timeout, False):
                self._idle.wait()
                while self._handlers():
                    gevent.sleep(_LOOK_S)
            # Another greenlet may have less patience, and have closed it meanwhile.
            if self._token == token:
                self._kill_handlers()
                if self._token == token and not self._idle.is_set():
                    self._engine.listen_close(self._endpoint, H3_NO_ERROR)
                    self._idle.wait(1)
        finally:
            if self._token == token:
                self._close()

    def _handlers(self) -> list[Any]:
        """Those that run, but for the caller, which may be one of them."""
        raw = [g for g in self._running_raw if g]
        return [g for g in (*self._running, *raw) if g is not getcurrent()]

    def _kill_handlers(self) -> None:
        """One that does not end within a second is left alone: it finds its connection closed."""
        handlers = self._handlers()
        own_ways = [g for g in handlers if isinstance(g, Greenlet)]
        for g in handlers:
            if g not in own_ways:
                self._runtime.throw(g, GreenletExit)
        gevent.sleep(0)
        gevent.killall(own_ways, block=False)
        gevent.joinall(own_ways, timeout=1)
        if handlers:
            self._runtime.flush()  # what they said last

    def close(self) -> None:
        """Stop at once: handlers are killed, connections closed."""
        self.stop(timeout=0)

    def _close(self) -> None:
        runtime = self._runtime
        if not self._idle.is_set():
            self._engine.listen_close(self._endpoint, H3_NO_ERROR)
        runtime.flush()  # the last CONNECTION_CLOSEs
        self._engine.endpoint_close(self._endpoint)
        if self._member is not None:
            self._member.rest()
        runtime.targets.pop(self._token, None)
        runtime.unreference()
        self._token = 0
        self._idle.set()
        self._stopped.set()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = "not started"
        if self.address:
            host, port = self.address
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"<{type(self).__name__} {where}>"

    # ---------------------------------------------------------------- dispatch

    def _on_event(self, record: Record) -> None:
        """In the hub's greenlet."""
        if record[TYPE] == REQUEST:
            self._spawn(Request(self, record))
        elif record[TYPE] == IDLE:
            self._idle.set()
        elif record[TYPE] == QLOG:
            qlog_files.report(self._engine, record)

    def _on_event_raw(self, record: Record) -> None:
        """`_on_event` and `_spawn_raw` in one: a call less for each request."""
        if record[TYPE] == REQUEST:
            g = greenlet(_run_request)
            try:
                g.switch(Request(self, record))
            except BaseException:
                self._runtime.hub.handle_error(self, *sys.exc_info())
            if g:
                self._running_raw.add(g)
        else:
            self._on_event(record)

    def _on_session_event(self, record: Record) -> None:
        """In the hub's greenlet."""
        kind = record[TYPE]
        if kind == ACCEPTED:
            self._spawn(ServerConnection(self._runtime, record, self))
        elif kind == IDLE:
            self._idle.set()
        elif kind == QLOG:
            qlog_files.report(self._engine, record)
        elif (session := self.sessions.get(record[CONN])) is not None:
            session._on_event(record)  # it came together with the connection

    def accept_websocket(self, request: Request, **options: Any) -> WebSocket:
        """`Request.accept_websocket`."""
        return accept(request, **options)

    def new_request(self, record: Record) -> Request:
        """The request of an event, for a session."""
        return SessionRequest(self, record)

    def _spawn_greenlet(self, item: Any) -> None:
        g = RequestGreenlet(self._run, item)
        g.switch()
        if not g._finished:
            self._running.add(g)
            g.rawlink(self._running.discard)

    def _spawn_raw(self, item: Any) -> None:
        # What it raises comes out in the hub: here, or where it is switched to later, which reports it too.
        g = greenlet(self._run)
        try:
            g.switch(item)
        except BaseException:
            self._runtime.hub.handle_error(item, *sys.exc_info())
        if g:
            self._running_raw.add(g)

    def _spawn_in_pool(self, item: Any) -> None:
        if not self.pool.full():
            self._start_in_pool(item)
            return
        # The pool has other work too. The hub cannot wait for it.
        g = gevent.spawn(self._start_in_pool, item)
        self._running.add(g)
        g.rawlink(self._running.discard)

    def _start_in_pool(self, item: Any) -> None:
        g = self.pool.spawn(self._run, item)
        self._running.add(g)
        g.rawlink(lambda g: self._on_pool_free(g, item))

    def _on_pool_free(self, g: Any, item: Any) -> None:
        self._running.discard(g)
        if isinstance(g.value, GreenletExit):  # it may have been killed before it began
            self._give_up(item)
        if self._credit != _UNLIMITED and self.started:
            self._engine.credit(self._endpoint, 1)

    def _give_up(self, item: Any) -> None:
        if self._engine.closed:
            return
        if isinstance(item, Request):
            item._fail(killed=True)
            item._end()
        else:
            item.close(timeout=None)

    def _run(self, item: Any) -> None:
        """In the request's greenlet: call the handler, and see that the client gets an answer."""
        if item.__class__ is Request:
            _run_request(item)
            return
        try:
            self.handle(item)
        finally:
            item.close(timeout=None)


def _run_request(request: Request) -> None:
    try:
        request._server.handle(request)
        answered = request._answered
        if not answered:
            raise error("unanswered", repr(request))
    except BaseException as e:
        request._fail(killed=isinstance(e, GreenletExit))
        request._end()
        # That a WebSocket ends is how its handler does.
        if request._websocket is None or not isinstance(e, ConnectionClosed):
            raise
        return
    # With the whole request read and the whole answer given the engine has forgotten the stream.
    if answered != 2 or request._stream is not None or request._record[FLAGS] & _FIN_MORE != FIN:
        request._end()


class SessionRequest(Request):
    """A request that a session's handler accepted. No handler of its own returns, so the answer is the last
    word: what was not read of the request then is refused."""

    def respond(self, status: int = 200, headers: Fields | None = None, body: Body = b"") -> None:
        super().respond(status, headers, body)
        self._end()


def _resolve(host: str) -> str:
    """A host's first address, numeric."""
    if _engine.parse_address(host, 0) is not None:
        return host
    try:
        found = look_up(host, None, _socket.SOCK_DGRAM, _LOOKUP_S)
    except (OSError, UnicodeError) as e:
        raise error("bind", f"{host}: {getattr(e, 'strerror', None) or e}") from None
    return str(found[0][4][0])
