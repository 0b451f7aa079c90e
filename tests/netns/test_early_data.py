"""Two hosts, and 20 ms from one to the other: a round trip takes 40 ms."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import netns
from helpers.processes import Peer, run_client

from quicgreen.testing import Authority, Certificate

DELAY_MS = 20
ROUND_TRIP_MS = 2 * DELAY_MS


@pytest.fixture(scope="module")
def hosts() -> Iterator[netns.Hosts]:
    try:
        hosts = netns.Hosts()
    except netns.NamespaceError as e:
        pytest.fail(str(e), pytrace=False)
    with hosts:
        yield hosts
    assert netns.left_behind() == []


@pytest.fixture(scope="module")
def measured(
    hosts: netns.Hosts, certificates: Authority, certificate: Certificate
) -> Iterator[dict[str, Any]]:
    options = {
        "prefix": hosts.server.prefix,
        "host": hosts.server.ip,
        "certfile": certificate.certfile,
        "keyfile": certificate.keyfile,
        "early_data": True,
    }
    with Peer("our_server.py", **options) as server, Peer("our_server.py", **options) as other:
        yield run_client(
            "first_byte.py",
            prefix=hosts.client.prefix,
            server=server.address,
            other=other.address,
            ca=certificates.ca_certs,
            delay_ms=DELAY_MS,
            count=9,
        )


def test_the_connections_were_what_is_compared(measured: dict[str, Any]) -> None:
    assert measured["states"] == [[[False, None], [True, True], [False, False]]] * 9


def test_the_first_byte_comes_a_round_trip_sooner(measured: dict[str, Any]) -> None:
    full, early = (statistics.median(measured[name]) for name in ("full", "early"))
    print(f"first byte after {full:.1f} ms, with early data after {early:.1f} ms")
    assert early >= ROUND_TRIP_MS
    assert 0.6 <= (full - early) / ROUND_TRIP_MS <= 1.6


def test_what_is_refused_is_sent_again_at_once(measured: dict[str, Any]) -> None:
    """Not after a probe timeout, nor after one more round trip."""
    again, refused, full = (statistics.median(measured[name]) for name in ("sent_again", "refused", "full"))
    print(f"sent again after {again:.1f} ms; first byte after {refused:.1f} ms, of a full one {full:.1f} ms")
    assert again < 15
