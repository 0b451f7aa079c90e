"""Other clients with our server: what they sent as our handler saw it, and what they got, code by code."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from helpers import bodies
from helpers.processes import Peer
from support import wait_until

import quicgreen

Ask = Callable[..., list[dict[str, Any]]]

SIZES = [0, 1, 1024, 16383, 16384, 16385, 65535, 65536, 65537, 1_000_000]

H3_NO_ERROR = 0x100
H3_INTERNAL_ERROR = 0x102
H3_REQUEST_CANCELLED = 0x10C
H3_MESSAGE_ERROR = 0x10E

CURL_PARTIAL_FILE = 18
"""CURLE_PARTIAL_FILE: the response was cut off."""

GOOD = {"path": "/size/1024"}


@pytest.fixture(params=["aioquic", "curl"])
def ask(
    request: pytest.FixtureRequest,
    aioquic_client: Callable[..., dict[str, Any]],
    curl: Callable[..., list[dict[str, Any]]],
) -> Ask:
    """Each client in turn: sends requests on one connection, returns their answers."""

    def with_aioquic(peer: Peer, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        told = aioquic_client(peer, list(requests))
        assert told["closed"] is None
        answers: list[dict[str, Any]] = told["answers"]
        return answers

    def with_curl(peer: Peer, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        answers = curl(*({**r, "url": peer.url(r["path"])} for r in requests))
        assert sum(a.get("connects", 0) for a in answers) <= 1
        return answers

    return with_aioquic if request.param == "aioquic" else with_curl


def named(fields: list[list[str]], name: str) -> list[str]:
    return [value for n, value in fields if n == name]


def is_good(peer: Peer, answer: dict[str, Any], size: int = 1024) -> bool:
    """The answer to /size/N, whole, from this peer."""
    assert named(answer["fields"], "x-peer") == [peer.version]
    return (answer["status"], answer["length"], answer["sha256"]) == (200, size, bodies.digest(size))


# ---------------------------------------------------------------- requests


def test_methods(ours: Peer, ask: Ask) -> None:
    methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY"]
    answers = ask(ours, *({"method": m, "path": "/sink"} for m in methods))
    assert [json.loads(a["content"])["method"] for a in answers] == methods
    assert {tuple(named(a["fields"], "x-peer")) for a in answers} == {(ours.version,)}


def test_request_bodies(ours: Peer, ask: Ask) -> None:
    answers = ask(ours, *({"method": "POST", "path": "/sink", "size": n} for n in SIZES))
    told = [json.loads(a["content"]) for a in answers]
    assert [(t["length"], t["sha256"]) for t in told] == [(n, bodies.digest(n)) for n in SIZES]


def test_response_bodies(ours: Peer, ask: Ask) -> None:
    answers = ask(ours, *({"path": f"/size/{n}"} for n in SIZES))
    assert all(is_good(ours, a, n) for a, n in zip(answers, SIZES, strict=True))
    assert [named(a["fields"], "content-length") for a in answers] == [[str(n)] for n in SIZES]


def test_bodies_there_and_back(ours: Peer, ask: Ask) -> None:
    sizes = [1024, 65537, 1_000_000]
    answers = ask(ours, *({"method": "PUT", "path": "/echo", "size": n} for n in sizes))
    assert [a["sha256"] for a in answers] == [bodies.digest(n) for n in sizes]
    assert [named(a["fields"], "x-method") for a in answers] == [["PUT"]] * len(sizes)


def test_a_response_without_a_length(ours: Peer, ask: Ask) -> None:
    (answer,) = ask(ours, {"path": "/stream/500000"})
    assert named(answer["fields"], "content-length") == []
    assert answer["sha256"] == bodies.digest(500_000)


def test_head_has_no_body(ours: Peer, ask: Ask) -> None:
    # Without a length: aioquic calls any on a HEAD's response a lie.
    head, after = ask(ours, {"method": "HEAD", "path": "/stream/70000"}, GOOD)
    assert (head["status"], head["length"]) == (200, 0)
    assert is_good(ours, after)


def test_head_has_the_fields_of_get(ours: Peer, curl: Callable[..., list[dict[str, Any]]]) -> None:
    url = ours.url("/size/70000")
    head, got = curl({"method": "HEAD", "url": url}, {"url": url})
    assert (head["status"], head["length"]) == (200, 0)
    assert named(head["fields"], "content-length") == ["70000"]
    assert named(head["fields"], "x-sha256") == [got["sha256"]] == [bodies.digest(70_000)]


def test_statuses(ours: Peer, ask: Ask) -> None:
    statuses = [200, 201, 204, 304, 400, 404, 418, 500, 503, 599]
    answers = ask(ours, *({"path": f"/status/{s}"} for s in statuses))
    assert [a["status"] for a in answers] == statuses
    assert [a["content"] for a in answers] == ["" if s in (204, 304) else "status" for s in statuses]
    lengths = [named(a["fields"], "content-length") for a in answers]
    assert lengths == [[] if s in (204, 304) else ["6"] for s in statuses]


def test_many_and_large_fields(ours: Peer, ask: Ask) -> None:
    many = [[f"x-{i}", f"value {i}"] for i in range(100)]
    answers = ask(
        ours,
        {"path": "/sink", "fields": many},
        {"path": "/sink", "fields": [["x-big", "v" * 30_000]]},
        {"path": "/fields/100/20"},
        {"path": "/fields/1/30000"},
    )
    told = [json.loads(a["content"])["fields"] for a in answers[:2]]
    assert [f for f in told[0] if f[0].startswith("x-")] == many
    assert [len(v) for v in named(told[1], "x-big")] == [30_000]
    assert sum(len(v) == 20 for n, v in answers[2]["fields"] if n[2:].isdigit()) == 100
    assert [len(v) for v in named(answers[3]["fields"], "x-0")] == [30_000]


def test_odd_values(ours: Peer, ask: Ask) -> None:
    utf8 = "日本".encode().decode("latin-1")
    mine = [["x-latin", "café"], ["x-utf8", utf8], ["x-empty", ""], ["x-twice", "1"], ["x-twice", "2"]]
    there, back = ask(ours, {"path": "/sink", "fields": mine}, {"path": "/odd-fields"})
    told = json.loads(there["content"])["fields"]
    assert [f for f in told if f[0].startswith("x-")] == mine
    assert [f for f in back["fields"] if f[0] in dict(mine)] == mine
    assert named(back["fields"], "set-cookie") == ["a=1; Path=/", "b=2, c"]


def test_cookies_of_several_fields(ours: Peer, aioquic_client: Callable[..., dict[str, Any]]) -> None:
    # RFC 9114, section 4.2.1: they may come as several lines, and are one.
    fields = [["cookie", "a=1"], ["cookie", "b=2"]]
    (answer,) = aioquic_client(ours, [{"path": "/sink", "fields": fields}])["answers"]
    assert "; ".join(named(json.loads(answer["content"])["fields"], "cookie")) == "a=1; b=2"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([["connection", "close"]], id="connection"),
        pytest.param([["transfer-encoding", "chunked"]], id="transfer-encoding"),
        pytest.param([["te", "gzip"]], id="te"),
        pytest.param([["X-Upper", "1"]], id="upper-case"),
        pytest.param([["content-length", "5"]], id="a length without a body"),
    ],
)
def test_a_malformed_request_ends_alone(
    ours: Peer, aioquic_client: Callable[..., dict[str, Any]], fields: list[list[str]]
) -> None:
    told = aioquic_client(ours, [GOOD, {"path": "/sink", "fields": fields}, GOOD])
    before, bad, after = told["answers"]
    assert (bad["status"], bad["reset"]) == (0, H3_MESSAGE_ERROR)
    assert is_good(ours, before)
    assert is_good(ours, after)
    assert told["closed"] is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([["x-big", "v" * 40_000]], id="large"),
        pytest.param([[f"x-{i}", "v"] for i in range(200)], id="many"),
    ],
)
def test_a_head_beyond_the_limits_is_answered_with_431(ours: Peer, ask: Ask, fields: list[list[str]]) -> None:
    large, after = ask(ours, {"path": "/sink", "fields": fields}, GOOD)
    assert large["status"] == 431
    assert is_good(ours, after)


# ---------------------------------------------------------------- more than a head and a body


def test_trailers(ours: Peer, aioquic_client: Callable[..., dict[str, Any]]) -> None:
    sent = {"method": "POST", "path": "/sink", "size": 70_000, "trailers": [["x-checksum", "abc"]]}
    received, answer = aioquic_client(ours, [{"path": "/trailers"}, sent])["answers"]
    assert received["content"] == "body"
    assert received["trailers"] == [["x-checksum", "abc"], ["x-end", "1"]]
    told = json.loads(answer["content"])
    assert (told["length"], told["trailers"]) == (70_000, [["x-checksum", "abc"]])


def test_informational_responses(
    ours: Peer,
    aioquic_client: Callable[..., dict[str, Any]],
    curl: Callable[..., list[dict[str, Any]]],
) -> None:
    (answer,) = aioquic_client(ours, [{"path": "/hints"}])["answers"]
    assert (answer["interim"], answer["status"], answer["content"]) == ([103, 103], 200, "final")
    (answer,) = curl({"url": ours.url("/hints")})
    assert (answer["interim"], answer["status"], answer["content"]) == (2, 200, "final")


def test_an_early_answer_to_a_small_body(ours: Peer, ask: Ask) -> None:
    answers = ask(ours, {"method": "POST", "path": "/early", "size": 100_000}, GOOD)
    assert (answers[0]["status"], answers[0]["content"]) == (413, "enough")
    assert is_good(ours, answers[1])


def test_an_early_answer_stops_a_large_body_without_an_error(
    ours: Peer, aioquic_client: Callable[..., dict[str, Any]]
) -> None:
    large = {"method": "POST", "path": "/early", "size": 1_000_000, "until_stopped": True}
    told = aioquic_client(ours, [large, GOOD])
    early, after = told["answers"]
    assert (early["status"], early["content"]) == (413, "enough")
    assert (early["stopped"], early["reset"]) == (H3_NO_ERROR, None)
    assert is_good(ours, after)


# ---------------------------------------------------------------- requests that do not end well


@pytest.mark.parametrize("code", [H3_REQUEST_CANCELLED, H3_INTERNAL_ERROR, 0x3FFF])
def test_a_response_that_is_reset(
    ours: Peer, aioquic_client: Callable[..., dict[str, Any]], code: int
) -> None:
    told = aioquic_client(ours, [{"path": f"/reset/{code}"}, GOOD])
    cut, after = told["answers"]
    assert (cut["status"], cut["content"], cut["reset"]) == (200, "ten bytes.", code)
    assert is_good(ours, after)


def test_a_handler_that_raises(ours: Peer, aioquic_client: Callable[..., dict[str, Any]]) -> None:
    told = aioquic_client(ours, [{"path": "/raise"}, {"path": "/raise-late"}, GOOD])
    early, late, after = told["answers"]
    assert (early["status"], early["content"], early["reset"]) == (500, "Internal Server Error", None)
    assert (late["status"], late["content"], late["reset"]) == (200, "ten bytes.", H3_INTERNAL_ERROR)
    assert is_good(ours, after)


def test_curl_sees_that_a_response_was_cut_off(ours: Peer, curl: Callable[..., list[dict[str, Any]]]) -> None:
    late, after = curl({"url": ours.url("/raise-late")}, {"url": ours.url("/size/1024")})
    assert late["error"] == CURL_PARTIAL_FILE
    assert is_good(ours, after)


def test_a_response_that_the_client_gives_up(
    ours: Peer, aioquic_client: Callable[..., dict[str, Any]]
) -> None:
    told = aioquic_client(ours, [{"path": "/stream/50000000", "cancel": True}, GOOD])
    cancelled, after = told["answers"]
    assert cancelled["status"] == 200
    # RFC 9000, section 3.5: STOP_SENDING is answered with RESET_STREAM and the code that came.
    assert cancelled["reset"] == H3_REQUEST_CANCELLED
    assert is_good(ours, after)


def test_a_request_that_the_client_gives_up(
    ours: Peer, aioquic_client: Callable[..., dict[str, Any]]
) -> None:
    aborted = {"method": "POST", "path": "/echo", "size": 1000, "abort": H3_REQUEST_CANCELLED}
    told = aioquic_client(ours, [aborted, GOOD])
    cut, after = told["answers"]
    # The handler could not read on, and so not answer to the end.
    assert (cut["status"], cut["reset"]) == (200, H3_INTERNAL_ERROR)
    assert is_good(ours, after)


def test_a_hundred_at_a_time(ours: Peer, ask: Ask) -> None:
    answers = ask(ours, *({"path": f"/size/{n}"} for n in range(3000, 3100)))
    assert all(is_good(ours, a, n) for a, n in zip(answers, range(3000, 3100), strict=True))


def test_nothing_of_all_that_stays(
    ours: Peer, session: quicgreen.Session, aioquic_client: Callable[..., dict[str, Any]]
) -> None:
    def counted() -> dict[str, Any]:
        told: dict[str, Any] = session.get(ours.url("/counters")).json()
        return {k: told[k] for k in ("greenlets", "descriptors")} | {
            k: told["engine"][k] for k in ("connections", "streams")
        }

    before = counted()
    bad = [
        {"path": "/stream/50000000", "cancel": True},
        {"path": "/raise-late"},
        {"path": "/reset/300"},
        {"method": "POST", "path": "/echo", "size": 1000, "abort": H3_REQUEST_CANCELLED},
        {"method": "POST", "path": "/early", "size": 1_000_000},
        {"path": "/sink", "fields": [["connection", "close"]]},
    ]
    aioquic_client(ours, bad * 5)
    assert wait_until(lambda: counted() == before), (before, counted())
