"""First flights of clients with a request in early data, recorded on their way, and sent again by somebody
else."""

from __future__ import annotations

import contextlib
import socket

import gevent
from support import wait_until

import quicgreen
from quicgreen.testing import Link

from .commands import START_S
from .supervised import Supervised

_PAUSE_S = 0.025
"""Longer than the servers of these tests keep a connection whose handshake does not go on: while it lives,
what is sent again goes to it, and no register is asked."""

Flight = list[bytes]


def record_flights(server: Supervised, count: int) -> list[Flight]:
    """So many, of which the server sees nothing. Number i asks for /count/i."""
    return [_record(server, i) for i in range(count)]


def _record(server: Supervised, number: int) -> Flight:
    with quicgreen.connect("127.0.0.1", server.port, verify=False, timeout=START_S) as connection:
        connection.get("/")
        ticket = connection.export_ticket(START_S)
    with Link(("127.0.0.1", server.port), record=100) as link:
        link.blackhole()
        connection = quicgreen.connect(
            "127.0.0.1", link.port, verify=False, ticket=ticket, early_data=True, timeout=START_S
        )

        def send() -> None:
            with contextlib.suppress(quicgreen.QuicException):
                connection.get(f"/count/{number}", early_data=True)

        job = gevent.spawn(send)
        # Long headers of type 0-RTT (RFC 9000, section 17.2.3).
        # The first has the control stream, the second the request.
        assert wait_until(lambda: sum(p.data[0] & 0xF0 == 0xD0 for p in link.packets()) >= 2)
        flight = [p.data for p in link.packets()]
        connection.close(0, timeout=None)
        job.join()
    return flight


def replay(server: Supervised, flights: list[Flight], times: int) -> int:
    """Send all of them so often, each time from another address. Returns how many flights that were."""
    for _ in range(times):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            for flight in flights:
                for packet in flight:
                    s.sendto(packet, ("127.0.0.1", server.port))
        gevent.sleep(_PAUSE_S)
    return times * len(flights)


def ran(server: Supervised) -> list[str]:
    """Numbers of the requests that ran, as often as they did."""
    file = server.folder / "count"
    return file.read_text().split(",")[:-1] if file.exists() else []
