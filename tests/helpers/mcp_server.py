"""A peer: the MCP SDK's server behind hypercorn, whose tools wait for each other.

wait    says "ready" as progress, and returns when `go` was called
go      lets all go on that wait
cut     ends the whole process, in the middle of a call
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import socket

import ready
from hypercorn.asyncio import serve
from hypercorn.config import Config
from mcp.server.mcpserver import Context, MCPServer

tools = MCPServer("peer", log_level="ERROR")
gone = asyncio.Event()


@tools.tool()
async def wait(ctx: Context) -> str:
    await ctx.report_progress(1, 2, "ready")
    await gone.wait()
    return "gone"


@tools.tool()
async def go() -> str:
    gone.set()
    return "go"


def main() -> None:
    options = ready.options()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.quic_bind = [f"fd://{udp.fileno()}"]
    config.certfile, config.keyfile = options["certfile"], options["keyfile"]
    config.graceful_timeout = 0.1
    host, port = udp.getsockname()
    udp.detach()
    ready.say(f"mcp/{importlib.metadata.version('mcp')}", host, port)
    asyncio.run(serve(tools.streamable_http_app(), config))


main()
