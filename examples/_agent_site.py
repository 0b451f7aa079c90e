"""What an agent talks to, on one port: the language model of _llm.py and the tool of _calculator.py."""

from __future__ import annotations

import _calculator
import _llm
from _local import serve

import quicgreen


def handle(request: quicgreen.Request) -> None:
    part = _calculator if request.path.startswith("/mcp/") else _llm
    part.handle(request)


if __name__ == "__main__":
    serve(handle)
