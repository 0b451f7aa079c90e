"""The examples for agents: language models, retrieval, tools, events. Each is run as its reader runs it.

That something comes as it is made is shown without a clock: who makes it waits until it was seen.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from helpers.examples import Example, Served, answering, run
from helpers.processes import Peer
from support import PATIENCE_S, check_python_in_thread, new_session, wait_until

import quicgreen
from quicgreen.testing import Certificate


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch, certificate: Certificate) -> None:
    """The tests' authority, by examples that start no server."""
    monkeypatch.setenv("SSL_CERT_FILE", certificate.ca_certs)


def silent_port() -> socket.socket:
    """Somebody listens there, and never answers."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    return s


# ---------------------------------------------------------------- language models


TOKENS = ["Argentina", " won", " the", " 2022", " World", " Cup", "."]


def delta(token: str) -> bytes:
    event = {"choices": [{"index": 0, "delta": {"content": token}}]}
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def test_sse_chat_completion() -> None:
    assert run("sse_chat_completion") == "".join(TOKENS) + "\n"


def test_sse_chat_completion_prints_each_token_before_the_next_is_made(certificate: Certificate) -> None:
    """Tokens of several bytes each, cut anywhere on their way."""
    seen = Event()
    asked: list[Any] = []
    tokens = ["Schlo", "ß", " 城", " 🏰", "."]

    def handle(request: quicgreen.Request) -> None:
        asked.append(json.loads(request.read()))
        stream = request.start_response(200, {"content-type": "text/event-stream"})
        for token in tokens:
            piece = delta(token).replace(
                json.dumps(token).encode(), json.dumps(token, ensure_ascii=False).encode()
            )
            stream.write(piece[:-10])  # in the middle of a character
            gevent.sleep(0.01)
            stream.write(piece[-10:])
            seen.wait()
            seen.clear()
        stream.finish(b"data: [DONE]\n\n")

    with answering(handle, certificate) as port, Example("sse_chat_completion", "127.0.0.1", port) as example:
        for token in tokens:
            example.read_until(token)
            seen.set()
        assert example.finish() == "".join(tokens) + "\n"
    assert asked[0]["stream"] is True
    assert asked[0]["messages"] == [{"role": "user", "content": "Hello, who won the 2022 World Cup?"}]


def test_sse_chat_completion_tells_a_refusal(certificate: Certificate) -> None:
    def handle(request: quicgreen.Request) -> None:
        request.respond(429, {"content-type": "application/json"}, b'{"error": {"message": "too many"}}')

    with answering(handle, certificate) as port, Example("sse_chat_completion", "127.0.0.1", port) as example:
        example.finish(None)
        assert example.status == 1
        assert "too many" in example.complaint


def test_parallel_prompts() -> None:
    answers = run("parallel_prompts").splitlines()
    assert answers == [f"#{n - 1} → text {n} in short" for n in range(1, 11)]


def test_ten_prompts_are_under_way_together(certificate: Certificate) -> None:
    """Nobody is answered before all ten have asked."""
    prompts: list[str] = []
    all_here = Event()

    def handle(request: quicgreen.Request) -> None:
        prompt = json.loads(request.read())["prompt"]
        prompts.append(prompt)
        if len(prompts) == 10:
            all_here.set()
        all_here.wait()
        request.respond(200, None, json.dumps({"choices": [{"text": prompt.upper()}]}))

    with answering(handle, certificate) as port:
        answers = run("parallel_prompts", "127.0.0.1", port).splitlines()
    assert answers == [f"#{n - 1} → SUMMARISE TEXT {n}" for n in range(1, 11)]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", "{", 400),
        ("/v1/chat/completions", "[]", 400),
        ("/v1/completions", "{}", 400),
        ("/v1/nothing", "{}", 404),
        ("/v1/chat/completions", '{"messages": []}', 200),
    ],
)
def test_the_model_says_what_it_does_not_understand(
    load: Callable[[str], Any], certificate: Certificate, path: str, body: str, status: int
) -> None:
    with answering(load("_llm").handle, certificate) as port, quicgreen.Session() as session:
        response = session.post(f"https://127.0.0.1:{port}{path}", body)
        assert response.status_code == status
        assert response.json().keys() == ({"choices"} if status == 200 else {"error"})


# ---------------------------------------------------------------- retrieval


def test_the_retriever_says_what_it_does_not_understand(
    load: Callable[[str], Any], certificate: Certificate
) -> None:
    with answering(load("_rag").handle, certificate, websocket=True) as port:
        for bad in ("{", "[]", "{}"):
            with quicgreen.websocket.connect(f"wss://127.0.0.1:{port}/chat") as ws:
                ws.send(bad)
                with pytest.raises(quicgreen.websocket.ConnectionClosed) as caught:
                    ws.recv(timeout=PATIENCE_S)
                assert caught.value.code == 1007


def test_rag_websocket() -> None:
    """The second question is answered by what the first one was about."""
    lines = run("rag_websocket").splitlines()
    assert len(lines) == 4
    assert all(line.startswith("Agent says: ") for line in lines)
    assert "mass and energy" in lines[0]
    assert "Albert Einstein" in lines[2]


def test_rag_websocket_asks_both_on_one_socket(certificate: Certificate) -> None:
    asked: list[list[str]] = []

    def handle(request: quicgreen.Request) -> None:
        assert request.path == "/chat"
        with request.accept_websocket() as ws:
            asked.append([])
            for message in ws:
                asked[-1].append(json.loads(message)["ask"])
                ws.send(f"answer {len(asked[-1])}\n[DONE]\n")

    with answering(handle, certificate, websocket=True) as port:
        said = run("rag_websocket", "127.0.0.1", port)
        assert said == "Agent says: answer 1\nAgent says: answer 2\n"
    assert asked == [["What is E-MC²?", "And who published it?"]]


# ---------------------------------------------------------------- a tool in the documentation's form


def test_mcp_tool_call() -> None:
    assert run("mcp_tool_call") == "Δ 1\nΔ 2\nΔ .\nΔ 0\n"


def test_mcp_tool_call_prints_each_delta_before_the_next_is_made(certificate: Certificate) -> None:
    seen = Event()

    def handle(request: quicgreen.Request) -> None:
        call = json.loads(request.read())
        assert (request.path, call["tool"], call["stream"]) == ("/mcp/v1/call_tool", "calculator", True)
        assert request.headers["accept"] == "text/event-stream"
        stream = request.start_response(200, {"content-type": "text/event-stream"})
        for character in "sqr(":
            stream.write(b'data: {"chunk": "%s"}\n\n' % character.encode())
            seen.wait()
            seen.clear()
        stream.finish()

    with answering(handle, certificate) as port, Example("mcp_tool_call", "127.0.0.1", port) as example:
        for character in "sqr(":
            example.read_until(f"Δ {character}\n")
            seen.set()
        example.finish()


def call(load: Callable[[str], Any], port: int, tool: str, expression: Any) -> list[str]:
    return list(load("mcp_tool_call").call_tool("127.0.0.1", port, tool, {"expression": expression}))


def test_what_a_tool_server_refuses(load: Callable[[str], Any], certificate: Certificate) -> None:
    with answering(load("_calculator").handle, certificate) as port:
        assert call(load, port, "calculator", "sqrt(144)") == list("12.0")
        with pytest.raises(quicgreen.QuicErrorUnknownFrame, match=r"HTTP 404.*'calculater'"):
            call(load, port, "calculater", "1")
        with pytest.raises(
            quicgreen.QuicTransportException, match=r"HTTP 422.*cannot be calculated"
        ) as caught:
            call(load, port, "calculator", "__import__('os')")
        assert type(caught.value) is quicgreen.QuicTransportException
        with pytest.raises(quicgreen.QuicTransportException, match="HTTP 400") as caught:
            list(load("mcp_tool_call").call_tool("127.0.0.1", port, "calculator", {}))
        assert type(caught.value) is quicgreen.QuicTransportException
        assert caught.value.code == quicgreen.QUIC_ERROR_TRANSPORT_ERROR


@pytest.mark.parametrize("how", ["reset", "close", "end"])
def test_events_that_are_cut_off(how: str, load: Callable[[str], Any], certificate: Certificate) -> None:
    """By a reset of the stream, the end of the connection, or an end within an event. What came is not
    lost."""
    seen = Event()

    def handle(connection: Any) -> None:
        request = connection.accept_request()
        stream = request.start_response(200, {"content-type": "text/event-stream"})
        stream.write(b'data: {"chunk": "1"}\n\n')
        seen.wait()
        if how == "reset":
            stream.reset(0x102)
        elif how == "close":
            connection.close(0x102)
        else:
            stream.finish(b'data: {"chu')

    with answering(handle, certificate, sessions=True) as port:
        deltas = load("mcp_tool_call").call_tool("127.0.0.1", port, "calculator", {})
        assert next(deltas) == "1"
        seen.set()
        with pytest.raises(quicgreen.QuicStreamException) as caught:
            next(deltas)
        assert caught.value.code == quicgreen.QUIC_ERROR_STREAM_ERROR


def test_a_tool_server_that_cannot_be_reached(load: Callable[[str], Any], certificate: Certificate) -> None:
    """Nobody has the port; somebody has it and says nothing; there is no such name."""
    call_tool = load("mcp_tool_call").call_tool
    with silent_port() as s:
        port = s.getsockname()[1]
        with pytest.raises(quicgreen.QuicSocketException, match="nobody answers"):
            next(call_tool("127.0.0.1", port, "calculator", {}))
    for host in ("127.0.0.1", "mcp.example.invalid"):
        with pytest.raises(quicgreen.QuicSocketException) as caught:
            next(call_tool(host, port, "calculator", {}))
        assert caught.value.code == quicgreen.QUIC_ERROR_CONNECTION_LOST


# ---------------------------------------------------------------- the Model Context Protocol


def test_the_mcp_sdk_s_server_calculates() -> None:
    # What the SDK and hypercorn leave open is not ours to fail on.
    lines = run("mcp_client", env={"PYTHONWARNINGS": "ignore"}).splitlines()
    assert lines == ["calculator offers calculator", "Δ 1", "Δ 2", "Δ .", "Δ 0", "= 12.0"]


@pytest.fixture
def mcp_server(certificate: Certificate) -> Iterator[Peer]:
    with Peer("mcp_server.py", certfile=certificate.certfile, keyfile=certificate.keyfile) as peer:
        yield peer


def test_a_tool_s_progress_comes_while_it_works(mcp_server: Peer, load: Callable[[str], Any]) -> None:
    """Many calls are under way on one session; they end only when what they said meanwhile was heard."""
    mcp_client = load("mcp_client")
    with mcp_client.McpClient(*mcp_server.address) as mcp:
        assert mcp.server.server_info.name == "peer"
        heard: list[str] = []
        calls = [gevent.spawn(mcp.call, "wait", {}, heard.append) for _ in range(5)]
        assert wait_until(lambda: heard == ["ready"] * 5, 20)
        assert not any(call.ready() for call in calls)
        assert mcp_client.text_of(mcp.call("go", {})) == "go"
        gevent.joinall(calls, timeout=20, raise_error=True)
        assert [mcp_client.text_of(call.value) for call in calls] == ["gone"] * 5


def test_what_goes_wrong_with_a_call_has_the_table_s_classes(
    mcp_server: Peer, load: Callable[[str], Any]
) -> None:
    mcp_client = load("mcp_client")
    with mcp_client.McpClient(*mcp_server.address) as mcp:
        with pytest.raises(quicgreen.QuicErrorUnknownFrame, match="calculater"):
            mcp.call("calculater", {"expression": "1"})
        mcp._fields["content-type"] = "application/json"
        for bad in ([], "call"):  # JSON, but no message
            with pytest.raises(quicgreen.QuicTransportException, match="HTTP 400") as caught:
                mcp._post(bad)
            assert type(caught.value) is quicgreen.QuicTransportException
            assert caught.value.code == quicgreen.QUIC_ERROR_TRANSPORT_ERROR
        heard: list[str] = []
        call = gevent.spawn(mcp.call, "wait", {}, heard.append)
        assert wait_until(lambda: heard, 20)
        mcp_server.kill()
        mcp._connection.close(timeout=None)  # what a middlebox, or an idle timeout, would do later
        call.join(PATIENCE_S)
        assert isinstance(call.exception, quicgreen.QuicStreamException)
        assert call.exception.code == quicgreen.QUIC_ERROR_STREAM_ERROR
    with pytest.raises(quicgreen.QuicSocketException):
        mcp_client.McpClient(*mcp_server.address)


# ---------------------------------------------------------------- events


def test_an_event_reaches_all_and_who_was_away_gets_what_he_missed() -> None:
    lines = run("sse_hub").splitlines()
    news = ["1: one", "2: two", "3: three", "4: four", "5: five"]
    for name in ("ada", "grace", "alan"):
        assert [line for line in lines if line.startswith(f"{name} heard")] == [
            f"{name} heard {event}" for event in news
        ]
    back = lines.index("alan is back, and asks for what came after 2")
    assert lines[back + 1 :] == [f"alan heard {event}" for event in news[2:]]


def test_an_event_comes_before_the_next_one_is_made(
    load: Callable[[str], Any], certificate: Certificate
) -> None:
    sse_hub = load("sse_hub")
    with answering(sse_hub.handle, certificate) as port, quicgreen.Session() as session:
        url = f"https://127.0.0.1:{port}"
        events = sse_hub.listen(session, url, "0")
        for number in range(1, 4):
            assert session.post(f"{url}/publish", f"news\n{number}").text == f"{number}\n"
            event = next(events)
            assert (event.id, event.data) == (str(number), f"news\n{number}")
        assert session.get(f"{url}/events", headers={"last-event-id": "x"}).status_code == 400
        events.close()
        assert session.post(f"{url}/publish", b"nobody hears it").status_code == 202
        assert wait_until(lambda: not sse_hub.hub.queues)


def test_who_does_not_read_costs_the_others_nothing(
    load: Callable[[str], Any], certificate: Certificate
) -> None:
    """His stream ends; he comes back for the rest, with the last id that he has."""
    sse_hub = load("sse_hub")
    config = quicgreen.QuicConfiguration(initial_max_stream_data_bidi_local=4096, max_stream_window=4096)
    with answering(sse_hub.handle, certificate) as port, quicgreen.Session() as session:
        url = f"https://127.0.0.1:{port}"
        with quicgreen.Session(config=config) as slow_session:
            slow = sse_hub.listen(slow_session, url, "0")
            sse_hub.hub.publish("first")
            assert next(slow).data == "first"
            heard = sse_hub.listen(session, url, "0")
            assert next(heard).data == "first"
            for number in range(2, 300):
                sse_hub.hub.publish(f"{number} " + "x" * 1000)
                assert next(heard).id == str(number)
            assert len(sse_hub.hub.queues) == 1
            got = [int(event.id) for event in slow]
            assert got == list(range(2, got[-1] + 1))
            assert got[-1] < 299
            rest = sse_hub.listen(slow_session, url, str(got[-1]))
            assert int(next(rest).id) == got[-1] + 1
            rest.close()
            heard.close()


def test_curl_subscribes_from_where_it_left(certificate: Certificate) -> None:
    with Served("sse_hub", certificate) as hub, new_session() as session:
        url = f"https://127.0.0.1:{hub.port}"
        for text in ("one", "two", "three"):
            session.post(f"{url}/publish", text)
        said = check_python_in_thread(
            """
            import os
            import sys

            from curl_cffi import requests
            from curl_cffi.const import CurlHttpVersion

            url, ca = sys.argv[1:]
            with requests.Session(verify=ca, http_version=CurlHttpVersion.V3ONLY) as session:
                answer = session.get(url, headers={"last-event-id": "1"}, stream=True)
                for line in answer.iter_lines():
                    print(line.decode(), flush=True)
                    if line == b"data: three":
                        os._exit(0)  # the stream goes on for ever, and so would closing it
            """,
            f"{url}/events",
            certificate.ca_certs,
            PYTHONWARNINGS=None,
        )
    assert [line for line in said.splitlines() if line][1:] == ["id: 2", "data: two", "id: 3", "data: three"]


# ---------------------------------------------------------------- many of them


def test_locustfile_agents() -> None:
    """Ten agents for some seconds, by locust's own command."""
    with Example("locustfile_agents") as example:
        said = example.finish(None)
        assert example.status == 0, (said, example.complaint)
    table = re.findall(r"^(POST|TTFT|TPOT) +(\w+) +(\d+) +(\d+)\(", example.complaint, re.MULTILINE)
    counts = {(kind, name): (int(count), int(failures)) for kind, name, count, failures in table}
    assert counts.keys() == {("POST", "chat"), ("TTFT", "chat"), ("TPOT", "chat"), ("POST", "calculator")}
    assert len(set(counts.values())) == 1, (
        "each question has an answer, token by token, and a call of the tool"
    )
    [(count, failures)] = set(counts.values())
    assert count >= 10
    assert failures == 0
