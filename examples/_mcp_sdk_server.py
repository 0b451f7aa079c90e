"""The Model Context Protocol's own server, from its SDK, behind hypercorn over HTTP/3: nothing of it is ours.

Its tool reports each character of the result as progress while it works, and returns the whole.
"""

from __future__ import annotations

import asyncio
import socket

from _calculator import calculate
from _local import say_where, where_to_serve
from hypercorn.asyncio import serve
from hypercorn.config import Config
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

tools = MCPServer("calculator", log_level="ERROR")


@tools.tool()
async def calculator(expression: str, ctx: Context) -> str:
    """Arithmetic: numbers, + - * / and sqrt, sin, cos, log."""
    try:
        result = str(calculate(expression))
    except ValueError as e:
        raise ToolError(str(e)) from None
    for done, character in enumerate(result, 1):
        await asyncio.sleep(0.05)
        await ctx.report_progress(done, len(result), character)
    return result


def main() -> None:
    host, port, certfile, keyfile = where_to_serve()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((host, port))
    config = Config()
    config.bind = [f"{host}:0"]  # HTTP/1 and 2, which hypercorn insists on
    config.quic_bind = [f"fd://{udp.fileno()}"]
    config.certfile, config.keyfile = certfile, keyfile
    config.errorlog = None
    config.graceful_timeout = 0.1
    say_where(host, udp.getsockname()[1])
    udp.detach()
    asyncio.run(serve(tools.streamable_http_app(), config))


if __name__ == "__main__":
    main()
