"""`quicgreen ping`: what a handshake costs, what a resumed one costs, and then round trips.

A round trip is a HEAD request for / and its response, on a connection that is open: the way there and back,
and what the server needs for the answer. (QUIC's own PING is acknowledged when the peer sees fit, up to 25 ms
later; RFC 9000, section 13.2.1.) QUIC sends lost packets again: a lost one shows as a longer time, so what is
lost is counted as well. A response that does not come in time is a loss.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time

import gevent

from ..client import Connection, connect
from ..configuration import Timeout
from ..exceptions import QuicException, error
from ..tickets import Ticket
from ..urls import split_authority
from . import trust
from .output import EXIT_NOTHING, quiet_interrupts, tell, words

_TICKET_S = 1.0
"""How long a ticket is waited for; it comes a round trip after the handshake."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Time a full handshake, a resumed one (with early data, if the server takes it), and then round "
        "trips: HEAD requests for / on the open connection, the server's work on them included."
    )
    parser.set_defaults(command=_ping)
    parser.add_argument("server", metavar="HOST[:PORT]", help="port 443 unless another one is given")
    parser.add_argument("-c", "--count", type=int, metavar="COUNT", help="round trips; else until Ctrl-C")
    parser.add_argument("-i", "--interval", type=float, default=1.0, metavar="SECONDS", help="between them")
    parser.add_argument(
        "-W", "--wait", type=float, default=2.0, metavar="SECONDS", help="how long to wait for a response"
    )
    trust.add(parser)
    parser.add_argument("--connect-timeout", type=float, default=10.0, metavar="SECONDS")


def _ping(options: argparse.Namespace) -> int:
    host, port = split_authority(options.server)
    if options.count is not None and options.count < 1:
        raise error("argument", "-c is at least 1")
    if not 0 <= options.interval < math.inf:
        raise error("argument", "-i is a number of seconds")
    quiet_interrupts()
    pinger = _Pinger(host, port, options)
    try:
        pinger.handshakes()
        pinger.round_trips(options.count, options.interval)
    except KeyboardInterrupt:
        tell("")
    finally:
        pinger.close()
    pinger.sum_up()
    return 0 if pinger.times else EXIT_NOTHING


class _Pinger:
    """One server, and what was measured of it. Times are in seconds."""

    def __init__(self, host: str, port: int, options: argparse.Namespace) -> None:
        self.times: list[float] = []
        self._host = host
        self._port = port
        self._arguments = trust.arguments(options)
        self._timeout = Timeout(connect=options.connect_timeout, read=options.wait)
        self._connection: Connection | None = None
        self._sent = 0
        self._packets = [0, 0]  # sent, lost
        self._began = time.monotonic()

    # ---------------------------------------------------------------- handshakes

    def handshakes(self) -> None:
        """A full one, which must succeed, and one that resumes it."""
        connection, text = self._timed(None)
        ip, port = connection.remote_address
        tell(f"PING {self._host} ({ip}) port {port}: HTTP/3 over QUIC version 1")
        tell(f"full handshake: {text}")
        ticket = connection.export_ticket(_TICKET_S)
        if ticket is None:
            tell("resumed handshake: not tried, the server gives no session tickets")
            return
        self.close()
        try:
            _, text = self._timed(ticket)
        except QuicException as e:
            text = f"failed: {words(e)}"
        tell(f"resumed handshake: {text}")

    def _timed(self, ticket: Ticket | None) -> tuple[Connection, str]:
        """Open the connection and send a first request. Returns how long it took, in words. Looking up the
        name is not part of it."""
        connection = self._open(ticket)
        established = gevent.spawn(self._established, connection)
        connection.request("HEAD")
        first = time.monotonic() - connection.opened_at
        handshake = established.get() - connection.opened_at
        text = f"time={_ms(handshake)} ms, first response after {_ms(first)} ms"
        if ticket is not None and not connection.is_resumed:
            text += ", but it was a full one: the server did not take the session ticket"
        elif ticket is not None:
            said = {True: "accepted", False: "refused", None: "not used"}
            text += f", early data {said[connection.early_data]}"
        return connection, text

    def _open(self, ticket: Ticket | None) -> Connection:
        self._connection = connect(
            self._host,
            self._port,
            ticket=ticket,
            early_data=ticket is not None and ticket.early_data,
            timeout=self._timeout,
            **self._arguments,
        )
        return self._connection

    @staticmethod
    def _established(connection: Connection) -> float:
        try:
            connection.wait_established()
        except QuicException:
            pass  # the request says why
        return time.monotonic()

    # ---------------------------------------------------------------- round trips

    def round_trips(self, count: int | None, interval: float) -> None:
        began = self._began = time.monotonic()
        for number in itertools.count(1) if count is None else range(1, count + 1):
            self._sent += 1
            try:
                if self._connection is None or not self._connection.usable:
                    self.close()
                    self._open(None)
                status, took = self._round_trip()
            except QuicException as e:
                tell(f"seq={number} no response: {words(e)}")
            else:
                self.times.append(took)
                tell(f"HEAD /: seq={number} status={status} time={_ms(took)} ms")
            if number != count:
                gevent.sleep(max(0.0, began + number * interval - time.monotonic()))

    def _round_trip(self) -> tuple[int, float]:
        assert self._connection is not None
        begun = time.monotonic()
        response = self._connection.request("HEAD")
        return response.status_code, time.monotonic() - begun

    def close(self) -> None:
        """Count what the connection sent and lost, and end it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            stats = connection.stats()
            if stats is not None:
                self._packets[0] += stats["sent"]
                self._packets[1] += stats["lost"]
            connection.close(timeout=None)

    # ---------------------------------------------------------------- the end

    def sum_up(self) -> None:
        answered, sent = len(self.times), self._sent
        took = time.monotonic() - self._began
        loss = 100 * (sent - answered) / sent if sent else 0
        tell(f"--- {self._host} ping statistics ---")
        tell(f"{sent} requests sent, {answered} answered, {loss:.4g}% loss, time {took * 1e3:.0f} ms")
        if answered:
            mean = sum(self.times) / answered
            mdev = math.sqrt(max(0.0, sum(t * t for t in self.times) / answered - mean * mean))
            shown = "/".join(_ms(t) for t in (min(self.times), mean, max(self.times), mdev))
            tell(f"rtt min/avg/max/mdev = {shown} ms")
        packets, lost = self._packets
        tell(f"{packets} QUIC packets sent, handshakes included; {lost} lost and sent again")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"
