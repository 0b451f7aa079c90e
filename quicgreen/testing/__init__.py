"""For tests of programs that speak QUIC: a bad network, and certificates to throw away.

with Server(("127.0.0.1", 0), handle, certfile=c.certfile, keyfile=c.keyfile) as server:
    with Link(server.address, seed=1, loss=0.1, reorder=0.2) as link:
        Session(verify=c.ca_certs).get(f"https://localhost:{link.port}/")
"""

from .certs import Authority, Certificate, authority, self_signed
from .link import Counters, Direction, Link, Packet

__all__ = [
    "Authority",
    "Certificate",
    "Counters",
    "Direction",
    "Link",
    "Packet",
    "authority",
    "self_signed",
]
