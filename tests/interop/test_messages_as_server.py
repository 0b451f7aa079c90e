"""Other clients with our server: what they sent as our handler saw it, and what they got, code by code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers import bodies
from helpers.processes import Peer
from support import wait_until

import quicgreen
from quicgreen.testing import Authority, Link, self_signed

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
    def open_now() -> dict[str, Any]:
        told: dict[str, Any] = session.get(ours.url("/counters")).json()
        return {k: told[k] for k in ("greenlets", "descriptors")} | {
            k: told["engine"][k] for k in ("connections", "streams")
        }

    before = open_now()
    bad = [
        {"path": "/stream/50000000", "cancel": True},
        {"path": "/raise-late"},
        {"path": "/reset/300"},
        {"method": "POST", "path": "/echo", "size": 1000, "abort": H3_REQUEST_CANCELLED},
        {"method": "POST", "path": "/early", "size": 1_000_000},
        {"path": "/sink", "fields": [["connection", "close"]]},
    ]
    aioquic_client(ours, bad * 5)
    assert wait_until(lambda: open_now() == before), (before, open_now())


# ---------------------------------------------------------------- below HTTP


def counted(peer: Peer, session: quicgreen.Session) -> dict[str, int]:
    """The server's counters, as it tells them itself."""
    told: dict[str, int] = session.get(peer.url("/counters")).json()["engine"]
    return told


def test_retry_always(ours_with_retry: Peer, session: quicgreen.Session, ask: Ask) -> None:
    before = counted(ours_with_retry, session)["retries_sent"]
    (answer,) = ask(ours_with_retry, GOOD)
    assert is_good(ours_with_retry, answer)
    assert counted(ours_with_retry, session)["retries_sent"] > before


V1, V2 = 0x00000001, 0x6B3343CF


def test_version_negotiation(
    ours: Peer, session: quicgreen.Session, aioquic_client: Callable[..., dict[str, Any]]
) -> None:
    before = counted(ours, session)["versions_sent"]
    told = aioquic_client(ours, [GOOD], versions=[V2, V1])
    assert told["negotiated"] == V1
    assert is_good(ours, told["answers"][0])
    assert counted(ours, session)["versions_sent"] > before


def test_no_common_version(ours: Peer, aioquic_client: Callable[..., dict[str, Any]]) -> None:
    told = aioquic_client(ours, [GOOD], versions=[V2])
    assert "error" in told
    assert is_good(ours, aioquic_client(ours, [GOOD])["answers"][0])


NO_APPLICATION_PROTOCOL = 0x100 + 120


def test_another_protocol_is_refused(ours: Peer, aioquic_client: Callable[..., dict[str, Any]]) -> None:
    told = aioquic_client(ours, [{"text": "hello"}], alpn=["something-else"])
    assert told["closed"]["code"] == NO_APPLICATION_PROTOCOL
    assert is_good(ours, aioquic_client(ours, [GOOD])["answers"][0])


def test_the_server_name_arrives(ours: Peer, ask: Ask) -> None:
    (answer,) = ask(ours, {"path": "/counters"})
    assert json.loads(answer["content"])["server_name"] == "localhost"


@pytest.fixture
def demanding(start_ours: Callable[..., Peer], certificates: Authority) -> Peer:
    """Our server, which wants a certificate from its clients."""
    return start_ours(ca_certs=certificates.ca_certs)


def test_a_client_certificate(
    demanding: Peer,
    certificates: Authority,
    aioquic_client: Callable[..., dict[str, Any]],
    curl: Callable[..., list[dict[str, Any]]],
) -> None:
    mine = certificates.issue("client")
    (answer,) = aioquic_client(demanding, [GOOD], cert=mine.certfile, key=mine.keyfile)["answers"]
    assert is_good(demanding, answer)
    (answer,) = curl({"url": demanding.url("/size/1024")}, cert=mine.certfile, key=mine.keyfile)
    assert is_good(demanding, answer)


CERTIFICATE_REQUIRED = 0x100 + 116
UNKNOWN_CA = 0x100 + 48


def test_no_client_certificate(demanding: Peer, aioquic_client: Callable[..., dict[str, Any]]) -> None:
    told = aioquic_client(demanding, [GOOD])
    assert told["closed"]["code"] == CERTIFICATE_REQUIRED
    assert told["answers"][0]["status"] == 0


def test_a_client_certificate_of_a_stranger(
    demanding: Peer, tmp_path: Path, aioquic_client: Callable[..., dict[str, Any]]
) -> None:
    mine = self_signed(tmp_path, "client")
    told = aioquic_client(demanding, [GOOD], cert=mine.certfile, key=mine.keyfile)
    assert told["closed"]["code"] == UNKNOWN_CA
    assert told["answers"][0]["status"] == 0


def test_a_key_update_by_the_client(ours: Peer, aioquic_client: Callable[..., dict[str, Any]]) -> None:
    requests = [{"method": "POST", "path": "/sink", "size": 300_000}, {"path": "/size/300000"}]
    told = aioquic_client(ours, requests, key_update=True)
    sent, got = told["answers"]
    assert told["key_phase"] == 1  # we send with the new keys too
    assert json.loads(sent["content"])["sha256"] == bodies.digest(300_000)
    assert is_good(ours, got, 300_000)


def test_a_client_whose_address_changes(ours: Peer, aioquic_client: Callable[..., dict[str, Any]]) -> None:
    with Link(ours.address) as link:
        running = gevent.spawn(aioquic_client, link, [{"path": "/drip/20/100"}], pings=True)
        assert wait_until(lambda: link.counters().to_client.seen > 10, 10)
        link.rebind()
        assert not running.ready()
        (answer,) = running.get(timeout=30)["answers"]
    # What goes to the old address is lost, so the server has followed.
    assert (answer["status"], answer["content"]) == (200, "".join(f"{i}\n" for i in range(20)))
    assert named(answer["fields"], "x-peer") == [ours.version]


# ---------------------------------------------------------------- streams without HTTP


@pytest.mark.parametrize("size", [0, 1, 65537, 1_000_000])
def test_raw_streams_of_aioquic(
    ours_raw: Peer, aioquic_client: Callable[..., dict[str, Any]], size: int
) -> None:
    told = aioquic_client(ours_raw, [{"size": size}, {"text": "hello"}], alpn=["raw-test"])
    assert told["alpn"] == "raw-test"
    head = f"{size}:{bodies.digest(size)}:"
    assert told["answers"][0]["length"] == len(head) + size
    assert told["answers"][0]["content"].startswith(head)
    assert told["answers"][1]["content"] == f"5:{bodies.digest_of(b'hello')}:hello"


def test_raw_streams_that_our_server_opens(
    ours_raw: Peer, aioquic_client: Callable[..., dict[str, Any]]
) -> None:
    told = aioquic_client(ours_raw, [{"text": "open 50000"}], alpn=["raw-test"], opens=2)
    assert [int(stream) & 3 for stream in told["opened"]] == [1, 3]
    assert {a["sha256"] for a in told["opened"].values()} == {bodies.digest(50_000)}


@pytest.mark.parametrize("peer", ["aioquic_raw", "ours_raw"])
@pytest.mark.parametrize("size", [0, 1, 65537, 400_000])
def test_raw_streams_of_ours(
    request: pytest.FixtureRequest, certificates: Authority, peer: str, size: int
) -> None:
    server: Peer = request.getfixturevalue(peer)
    with quicgreen.connect(
        "localhost", server.port, verify=certificates.ca_certs, alpn=("raw-test",)
    ) as connection:
        stream = connection.open_stream()
        stream.finish(bodies.body(size))
        head = f"{size}:{bodies.digest(size)}:".encode()
        assert stream.read() == head + bodies.body(size)
        stream = connection.open_stream()
        stream.finish(b"open 50000")
        assert stream.read().endswith(b":open 50000")
        opened = [connection.accept_stream(timeout=10) for _ in range(2)]
        assert [s and s.id & 3 for s in opened] == [1, 3]
        assert {bodies.digest_of(s.read()) for s in opened if s is not None} == {bodies.digest(50_000)}
