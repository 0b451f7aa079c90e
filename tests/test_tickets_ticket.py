from __future__ import annotations

import dataclasses
import math
import pickle
import zlib
from typing import Any

import pytest
from helpers.tickets import START, make_ticket

from quicgreen import QuicClientException
from quicgreen.tickets import Ticket


def seal(body: bytes) -> bytes:
    """What `to_bytes` would have made of such a body."""
    return b"QGT\x01" + zlib.crc32(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"early_data": False, "port": 65535, "alpn": ""},
        {"host": "::1", "port": 0, "issued_at": 0.0, "expires_at": 0.25},
        {"host": "b\u00fccher.example", "alpn": "h3-\u00ff\udc80"},
        {"host": "h" * 255, "alpn": "a" * 255, "data": bytes(range(256)) * 255},
        {"data": b"x" * 65535, "issued_at": 1e9 + 1 / 3, "expires_at": 4e9},
    ],
)
def test_what_is_written_is_read(fields: dict[str, Any]) -> None:
    ticket = make_ticket(**fields)
    assert Ticket.from_bytes(ticket.to_bytes()) == ticket


def test_the_form_is_the_documented_one() -> None:
    """Tickets of older processes lie in files and in Redis: a change needs another version."""
    ticket = Ticket("a.test", 4433, "h3", 1.0, 2.0, True, b"DATA")
    body = bytes.fromhex("01 1151 06 02 3ff0000000000000 4000000000000000 00000004") + b"a.testh3DATA"
    assert ticket.to_bytes() == seal(body)
    assert len(make_ticket(data=b"x" * 1000).to_bytes()) <= 1056, "one slot of shared memory"


def test_a_cut_ticket_is_refused_wherever_it_is_cut() -> None:
    data = make_ticket().to_bytes()
    for end in range(len(data)):
        with pytest.raises(QuicClientException) as caught:
            Ticket.from_bytes(data[:end])
        assert caught.value.cause == "ticket"


def test_a_damaged_ticket_is_refused_whatever_is_damaged() -> None:
    data = make_ticket().to_bytes()
    for at in range(len(data)):
        with pytest.raises(QuicClientException) as caught:
            Ticket.from_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        assert caught.value.cause == "ticket"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not one"),
        (b"\0" * 100, "not one"),
        (b"-----BEGIN CERTIFICATE-----", "not one"),
        (b"QGT\x02" + make_ticket().to_bytes()[4:], "version 2, not 1"),
        (make_ticket().to_bytes() + b"x", "too few or too many"),
        (seal(bytes.fromhex("02 1151 00 00 3ff0000000000000 4000000000000000 00000001 00")), "damaged"),
        (seal(bytes.fromhex("00 1151 01 00 3ff0000000000000 4000000000000000 00000001 ff00")), "decode"),
        (seal(bytes.fromhex("00 1151 00 00 7ff8000000000000 4000000000000000 00000001 00")), "finite"),
        (seal(bytes.fromhex("00 1151 00 00 3ff0000000000000 4000000000000000 00000000")), "1 to 65535 bytes"),
    ],
)
def test_what_is_no_ticket_is_refused_with_a_reason(data: bytes, words: str) -> None:
    with pytest.raises(QuicClientException, match=words) as caught:
        Ticket.from_bytes(data)
    assert caught.value.cause == "ticket"


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "h" * 256},
        {"host": "\u00fc" * 128},
        {"alpn": "a" * 256},
        {"port": -1},
        {"port": 65536},
        {"issued_at": math.nan},
        {"expires_at": math.inf},
        {"data": b""},
        {"data": b"x" * 65536},
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(QuicClientException) as caught:
        make_ticket(**fields)
    assert caught.value.cause == "argument"


@pytest.mark.parametrize(
    ("now", "expired"),
    [(0, False), (3599.9, False), (3600, True), (1e9, True), (-1, False), (-1.1, True), (-1e9, True)],
)
def test_it_lives_from_its_issue_to_its_expiry(now: float, expired: bool) -> None:
    """Before its issue its age cannot be told: the clock was set back."""
    assert make_ticket(lifetime=3600.0).expired(START + now) is expired


def test_no_ticket_lives_longer_than_a_week() -> None:
    ticket = make_ticket(lifetime=1e9)
    assert not ticket.expired(START + 604_799)
    assert ticket.expired(START + 604_800)
    assert ticket.ends_at == START + 604_800


def test_it_does_not_change_and_does_not_show_its_secret() -> None:
    ticket = make_ticket(data=b"the secret")
    with pytest.raises(dataclasses.FrozenInstanceError):
        ticket.port = 1
    assert not hasattr(ticket, "__dict__")
    assert "the secret" not in repr(ticket)
    assert "example.com" in repr(ticket)
    assert pickle.loads(pickle.dumps(ticket)) == ticket
