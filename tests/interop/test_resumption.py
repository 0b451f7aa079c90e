"""Tickets of our server: a client that comes back skips the certificate, under that name only."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers.processes import Peer

import quicgreen
from quicgreen.testing import Authority

Run = Callable[..., dict[str, Any]]

REQUEST = [{"path": "/version"}]


def resumed(peer: Peer, session: quicgreen.Session) -> int:
    count: int = session.get(peer.url("/counters")).json()["engine"]["handshakes_resumed"]
    return count


def assert_answered(peer: Peer, told: dict[str, Any]) -> None:
    (answer,) = told["answers"]
    assert answer["status"] == 200
    assert ["x-peer", peer.version] in answer["fields"]


def test_aioquic_resumes(ours: Peer, session: quicgreen.Session, aioquic_client: Run) -> None:
    before = resumed(ours, session)
    result = aioquic_client(ours, REQUEST, REQUEST, REQUEST)
    assert result["tickets"] >= 3  # each connection brings new ones
    assert [r["resumed"] for r in result["rounds"]] == [False, True, True]
    for told in result["rounds"]:
        assert_answered(ours, told)
    assert resumed(ours, session) == before + 2


def test_curl_resumes(
    ours: Peer, session: quicgreen.Session, curl: Callable[..., list[dict[str, Any]]]
) -> None:
    before = resumed(ours, session)
    answers = curl(*[{"url": ours.url("/version")}] * 3, fresh=True)
    assert [a["status"] for a in answers] == [200] * 3
    assert resumed(ours, session) == before + 2


def test_a_ticket_counts_under_its_own_name_only(ours: Peer, aioquic_client: Run) -> None:
    names = ["localhost", "a.localhost", "localhost"]
    result = aioquic_client(ours, REQUEST, REQUEST, REQUEST, server_names=names, verify=False)
    # The third ticket offered is one of a.localhost.
    assert [r["resumed"] for r in result["rounds"]] == [False, False, False]
    for told in result["rounds"]:
        assert_answered(ours, told)


def test_a_ticket_survives_a_restart_with_the_same_keys(
    start_ours: Callable[..., Peer], session: quicgreen.Session, aioquic_client: Run
) -> None:
    first = start_ours()
    second = start_ours()
    result = aioquic_client(first, REQUEST, REQUEST, ports=[first.port, second.port])
    assert [r["resumed"] for r in result["rounds"]] == [False, True]
    assert resumed(second, session) == 1


@pytest.mark.parametrize("what", ["other keys", "other trust"])
def test_a_ticket_does_not_count_with(
    start_ours: Callable[..., Peer], certificates: Authority, aioquic_client: Run, what: str
) -> None:
    first = start_ours()
    other = {"secret": secrets.token_hex(32), "origin_s": int(time.time())}
    second = start_ours(**(other if what == "other keys" else {"ca_certs": certificates.ca_certs}))
    mine = certificates.issue("client")
    result = aioquic_client(
        first, REQUEST, REQUEST, ports=[first.port, second.port], cert=mine.certfile, key=mine.keyfile
    )
    assert [r["resumed"] for r in result["rounds"]] == [False, False]
    assert_answered(second, result["rounds"][1])
