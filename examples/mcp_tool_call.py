"""Invoking a tool over HTTP/3, as quicpro_async's documentation does.

Why: a program that can ask a tool server need not be the calculator, the database or the vector search
itself, and neither need the model that drives it. (The Model Context Protocol itself speaks JSON-RPC: see
mcp_client.py.)

    python examples/mcp_tool_call.py                        # with a server that it starts itself
    python examples/mcp_tool_call.py mcp.example 4433
"""

import json
from collections.abc import Iterator
from typing import Any

from _local import peer
from _mcp_errors import cut_off, mcp_errors, refused

from quicgreen.quicpro import (
    quicpro_close,
    quicpro_connect,
    quicpro_poll,
    quicpro_receive_chunk,
    quicpro_receive_head,
    quicpro_receive_response,
    quicpro_send_request,
)


def call_tool(host: str, port: int, tool: str, input: dict[str, Any]) -> Iterator[str]:
    """The result in pieces, each as it comes. Raises what _mcp_errors.py says."""
    with mcp_errors():
        # 1. open one QUIC session to the tool server
        sess = quicpro_connect(host, port)
        try:
            # 2. tool name and arguments, and the wish to have the result as Server-Sent Events
            body = json.dumps({"tool": tool, "input": input, "stream": True})
            hdrs = {"content-type": "application/json", "accept": "text/event-stream"}

            # 3. send the request
            stream = quicpro_send_request(sess, "/mcp/v1/call_tool", hdrs, body)

            if (status := quicpro_receive_head(sess, stream)["status"]) >= 400:
                while not (resp := quicpro_receive_response(sess, stream)):
                    quicpro_poll(sess, 5)
                raise refused(status, resp["text"])

            # 4. read events as they come in: every one is a line "data: {JSON...}"
            rest = b""
            while chunk := quicpro_receive_chunk(sess, stream):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: "):
                        event = json.loads(line[6:])
                        yield event.get("chunk") or event.get("result") or ""
            if rest.strip():
                raise cut_off(f"it ended with {rest!r}")
        finally:
            quicpro_close(sess)


if __name__ == "__main__":
    host, port = peer("_calculator.py")
    for delta in call_tool(host, port, "calculator", {"expression": "sqrt(144)"}):
        print("Δ", delta, flush=True)
