"""A peer that speaks no QUIC: it counts the datagrams that come, and says nothing, or always the same.

Options
    says    nothing; "versions": to each long header that there is QUIC, in versions that nobody has
            (RFC 9000, section 17.2.1)
A datagram b"count?" is not counted, and answered with how many there were.
"""

from __future__ import annotations

import socket

import ready

VERSION = "datagrams/1"

_VERSIONS = bytes.fromhex("0a0a0a0a 6b3343cf")
"""One that is reserved to be unknown (RFC 9000, section 15), and QUIC version 2's (RFC 9369)."""


def other_versions(initial: bytes) -> bytes:
    """A Version Negotiation packet for this one: its connection ids come back, exchanged."""
    size = initial[5]
    destination = initial[5 : 6 + size]
    source = initial[6 + size : 7 + size + initial[6 + size]]
    return b"\xc0" + bytes(4) + source + destination + _VERSIONS


def main() -> None:
    says = ready.options().get("says")
    count = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        ready.say(VERSION, *s.getsockname())
        while True:
            data, sender = s.recvfrom(65536)
            if data == b"count?":
                s.sendto(b"%d" % count, sender)
                continue
            count += 1
            if says == "versions" and len(data) >= 1200 and data[0] & 0x80:
                s.sendto(other_versions(data), sender)


main()
