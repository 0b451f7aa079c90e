"""What a calculator is, and a server that offers it as a tool in the form of quicpro_async's documentation.

    POST /mcp/v1/call_tool {"tool": "calculator", "input": {"expression": "sqrt(144)"}, "stream": true}

answers with Server-Sent Events, a character of the result each. This is not the Model Context Protocol (for
that see _mcp_sdk_server.py), but what many a tool behind HTTP looks like.
"""

from __future__ import annotations

import ast
import json
import math
import operator
from collections.abc import Iterator

import gevent
from _local import serve

import quicgreen
from quicgreen import sse

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}
_FUNCTIONS = {"sqrt": math.sqrt, "sin": math.sin, "cos": math.cos, "log": math.log}


def calculate(expression: str) -> float:
    """Numbers, + - * / and a few functions. ValueError for anything else: this is a stranger's text."""
    try:
        return float(_value(ast.parse(expression, mode="eval").body))
    except (SyntaxError, KeyError, ArithmeticError, RecursionError, MemoryError) as e:
        raise ValueError(f"{expression[:50]!r} cannot be calculated: {type(e).__name__}") from None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _FUNCTIONS[node.func.id](*map(_value, node.args))
    raise ValueError(f"{ast.unparse(node)[:50]!r} is not arithmetic")


def handle(request: quicgreen.Request) -> None:
    try:
        call = json.loads(request.read())
        tool, expression, stream = call["tool"], call["input"]["expression"], call.get("stream", False)
    except (ValueError, KeyError, TypeError) as e:
        answer(request, 400, {"error": f"not understood: {e!r}"})
        return
    if request.path != "/mcp/v1/call_tool" or tool != "calculator":
        answer(request, 404, {"error": f"there is no tool {tool!r} at {request.path}"})
        return
    try:
        result = str(calculate(expression))
    except (ValueError, TypeError) as e:
        answer(request, 422, {"error": str(e)})
        return
    if stream:
        request.respond(200, {"content-type": "text/event-stream"}, pieces(result))
    else:
        answer(request, 200, {"result": result})


def pieces(result: str) -> Iterator[bytes]:
    for character in result:
        gevent.sleep(0.05)
        yield sse.encode(json.dumps({"chunk": character}))


def answer(request: quicgreen.Request, status: int, what: dict[str, str]) -> None:
    request.respond(status, {"content-type": "application/json"}, json.dumps(what))


if __name__ == "__main__":
    serve(handle)
