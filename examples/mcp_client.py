"""The Model Context Protocol over HTTP/3: a tool of the protocol's own server, asked from a greenlet.

Why: MCP lets any language model call outside tools in one way. This speaks the protocol itself (Streamable
HTTP, revision 2025-11-25), so any MCP server will do that HTTP/3 reaches.

    pip install quicgreen[mcp]
    python examples/mcp_client.py                          # against the SDK's server, behind hypercorn
    python examples/mcp_client.py mcp.example 443

There is no asyncio here and no thread, so thousands of calls may be under way, each in a greenlet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from _local import peer
from _mcp_errors import cut_off, mcp_errors, refused, unknown_tool
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ClientCapabilities,
    Implementation,
    InitializeRequestParams,
    InitializeResult,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    ListToolsResult,
    TextContent,
    Tool,
    jsonrpc_message_adapter,
)
from mcp_types.version import LATEST_HANDSHAKE_VERSION

import quicgreen
from quicgreen import sse


class McpClient:
    """A session with an MCP server, on one QUIC connection.

    Attributes:
        server: what it said of itself.

    Raises:
        QuicSocketException, QuicTransportException, QuicErrorUnknownFrame, QuicStreamException: see
            _mcp_errors.py.
    """

    def __init__(self, host: str, port: int = 443, path: str = "/mcp") -> None:
        self.path = path
        self._fields = {"accept": "application/json, text/event-stream"}
        self._last_id = 0
        with mcp_errors():
            self._connection = quicgreen.connect(host, port)
        try:
            self._begin()
        except BaseException:
            self._connection.close(timeout=None)
            raise

    def _begin(self) -> None:
        params = InitializeRequestParams(
            protocol_version=LATEST_HANDSHAKE_VERSION,
            capabilities=ClientCapabilities(),
            client_info=Implementation(name="quicgreen", version=quicgreen.__version__),
        )
        self.server = InitializeResult.model_validate(self._ask("initialize", _wire(params)))
        self._fields["mcp-protocol-version"] = self.server.protocol_version
        self._tell("notifications/initialized")

    def tools(self) -> list[Tool]:
        return ListToolsResult.model_validate(self._ask("tools/list")).tools

    def call(
        self, tool: str, arguments: dict[str, Any], on_progress: Callable[[str], None] | None = None
    ) -> CallToolResult:
        """Call a tool. `on_progress` gets what it says meanwhile, as it comes."""
        params = _wire(CallToolRequestParams(name=tool, arguments=arguments))
        if on_progress is not None:
            params["_meta"] = {"progressToken": self._last_id + 1}
        result = CallToolResult.model_validate(self._ask("tools/call", params, on_progress))
        if result.is_error and text_of(result).startswith("Unknown tool"):
            raise unknown_tool(text_of(result))
        return result

    def close(self) -> None:
        """End the session at the server, then the connection."""
        if "mcp-session-id" in self._fields:
            try:
                self._connection.request("DELETE", self.path, headers=self._fields)
            except quicgreen.QuicException:
                pass  # it will forget the session by itself
        self._connection.close()

    def __enter__(self) -> McpClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ---------------------------------------------------------------- JSON-RPC

    def _ask(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        self._last_id += 1
        request = JSONRPCRequest(jsonrpc="2.0", id=self._last_id, method=method, params=params)
        result = None
        with mcp_errors(), self._post(_wire(request)) as response:
            for message in _messages(response):  # to the end, which is soon after the result
                if isinstance(message, JSONRPCNotification):
                    if on_progress is not None and message.method == "notifications/progress":
                        on_progress(str((message.params or {}).get("message", "")))
                elif isinstance(message, JSONRPCResponse) and message.id == request.id:
                    result = message.result
                elif isinstance(message, JSONRPCError):
                    if message.error.code == INVALID_PARAMS and method == "tools/call":
                        raise unknown_tool(message.error.message)
                    raise refused(400, message.error.message)
            if result is None:
                raise cut_off("it ended without a result")
        return result

    def _tell(self, method: str) -> None:
        with mcp_errors():
            self._post(_wire(JSONRPCNotification(jsonrpc="2.0", method=method))).read()

    def _post(self, message: dict[str, Any]) -> quicgreen.Response:
        response = self._connection.request(
            "POST", self.path, headers=self._fields, json=message, stream=True
        )
        if response.status_code >= 400:
            raise refused(response.status_code, response.text[:500])
        if (session := response.headers.get("mcp-session-id")) is not None:
            self._fields["mcp-session-id"] = session
        return response


def _wire(model: Any) -> dict[str, Any]:
    """As JSON has it: camelCase names, and nothing that is not said."""
    wire: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return wire


def _messages(response: quicgreen.Response) -> Iterator[Any]:
    """One, or the events of a stream, each as it comes."""
    if (response.headers.get("content-type") or "").startswith("text/event-stream"):
        for event in sse.decode(response.iter_lines()):
            if event.event == "message" and event.data:
                yield jsonrpc_message_adapter.validate_json(event.data)
    else:
        yield jsonrpc_message_adapter.validate_json(response.content)


def text_of(result: CallToolResult) -> str:
    """The text of a result; it may have pictures and more."""
    return "".join(c.text for c in result.content if isinstance(c, TextContent))


def main() -> None:
    host, port = peer("_mcp_sdk_server.py")
    with McpClient(host, port) as mcp:
        print(mcp.server.server_info.name, "offers", ", ".join(tool.name for tool in mcp.tools()))
        result = mcp.call(
            "calculator", {"expression": "sqrt(144)"}, lambda text: print("Δ", text, flush=True)
        )
        print("=", text_of(result))


if __name__ == "__main__":
    main()
