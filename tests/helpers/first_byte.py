"""A client: our own, which measures when a response begins. Prints what it saw as JSON.

Options
    server, other   (ip, port) each; `other` does not know the first one's tickets
    ca, delay_ms    what to trust; of the link that is put before them, in each direction
    count           how often
All times are milliseconds. Beside each it tells what the connection says of itself.
    full            a new connection, until the response's head is there
    early           the same with a ticket and early data
    refused         the same at `other`
    sent_again      refused: from the server's first packet at the client until what was refused leaves it
                    again, as the link saw it
"""

from __future__ import annotations

import json
import time

import ready  # isort: skip - it makes what follows importable

from support import wait_until

import quicgreen
from quicgreen.testing import Link

VERSION = f"quicgreen/{quicgreen.__version__}"

# So that the request's packet can be told from acknowledgements, and from probes of the path's MTU.
PADDING = {"x-padding": "p" * 400}
REQUEST_MIN, REQUEST_MAX = 350, 1100


def measure(options, link, ticket=None):
    """(milliseconds, connection)"""
    began = time.monotonic()
    connection = quicgreen.connect(
        *link.address, server_name="localhost", verify=options["ca"], ticket=ticket, early_data=True
    )
    connection.get("/version", headers=PADDING)
    elapsed = time.monotonic() - began
    connection.wait_established()
    return elapsed * 1000, connection


def ticket_from(connection):
    if not wait_until(lambda: connection.tickets):
        raise AssertionError("no ticket came")
    return connection.export_ticket()


def sent_again(packets, delay_ms):
    arrived = next(p.time for p in packets if p.direction == "to_client") + delay_ms / 1000
    for p in packets:
        is_short = not p.data[0] & 0x80
        if p.direction == "to_server" and is_short and REQUEST_MIN < len(p.data) < REQUEST_MAX:
            return (p.time - arrived) * 1000
    raise AssertionError("it was not sent again")


def main() -> None:
    options = ready.options()
    delay_ms = options["delay_ms"]
    told = {name: [] for name in ("full", "early", "refused", "sent_again", "states")}
    with Link(options["server"], delay_ms=delay_ms) as link:
        for _ in range(options["count"]):
            ms, full = measure(options, link)
            told["full"].append(ms)
            ms, early = measure(options, link, ticket_from(full))
            told["early"].append(ms)
            with Link(options["other"], delay_ms=delay_ms, record=1000) as other:
                ms, refused = measure(options, other, ticket_from(early))
                told["refused"].append(ms)
                told["sent_again"].append(sent_again(other.packets(), delay_ms))
                told["states"].append([(c.is_resumed, c.early_data) for c in (full, early, refused)])
                for connection in (full, early, refused):
                    connection.close(timeout=None)
    print(json.dumps({"version": VERSION, **told}))


main()
