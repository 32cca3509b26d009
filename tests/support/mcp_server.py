"""An MCP server built with the `mcp` package: over HTTP in a thread, or as a program.

`python -m tests.support.mcp_server ERA`: ``modern`` supports both protocols, ``legacy`` only the older one, with a
handshake.
"""

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from pydantic import BaseModel

ERAS = ("modern", "legacy")


class Seat(BaseModel):
    row: int


class Sure(BaseModel):
    """A question without fields: yes or no."""


def elicited(message: str, schema: dict[str, Any]) -> types.ElicitRequest:
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


class Seen:
    """The requests to a server in this process."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.versions: list[str | None] = []
        self.ended: list[str] = []  # the results of questions
        self.listed = threading.Event()  # set when the tools were listed, by the newer protocol over HTTP

    def note(self, name: str, context: "Context[Any, Any]") -> None:
        meta = context.request_context.meta or {}
        self.calls.append((name, dict(meta), dict(context.headers or {})))
        self.versions.append(context.protocol_version)


def made(era: str, seen: Seen | None = None) -> MCPServer:
    """A server with a tool for each possible outcome."""
    seen = seen or Seen()
    server = MCPServer("test")

    @server.tool(description="Adds.")
    async def add(a: int, b: int, context: Context[Any, Any]) -> int:
        seen.note("add", context)
        await context.report_progress(1, 2, "half of it")
        return a + b

    @server.tool(name="a.b/c", annotations=types.ToolAnnotations(read_only_hint=True), structured_output=False)
    async def odd(text: str) -> list[Any]:
        image = types.ImageContent(type="image", data="AAAA", mime_type="image/png")
        return [types.TextContent(type="text", text=text), image]

    @server.tool()
    async def fail() -> str:
        raise ToolError("no room in row 7")

    @server.tool()
    async def slow(context: Context[Any, Any]) -> str:
        seen.note("slow", context)
        await asyncio.sleep(3600)
        return "late"

    @server.tool()
    async def flood() -> str:
        return "x" * 10_000_000

    @server.tool()
    async def crash(context: Context[Any, Any]) -> str:
        seen.note("crash", context)
        os._exit(1)

    @server.tool(structured_output=False)
    async def book(context: Context[Any, Any]) -> str:
        seen.note("book", context)
        answer = await context.elicit("Which row?", Seat)
        if answer.action != "accept":
            seen.ended.append(answer.action)
            return answer.action
        if answer.data.row == 13 and (sure := await context.elicit("Really 13?", Sure)).action != "accept":
            return f"not 13: {sure.action}"
        await context.report_progress(1, 1, "booking it")
        seen.ended.append(f"row {answer.data.row}")
        return f"row {answer.data.row}"

    @server.tool()
    async def book_later(context: Context[Any, Any]) -> types.InputRequiredResult | types.CallToolResult:
        seen.note("book_later", context)
        given, state = context.input_responses, context.request_state
        if given is None and state is None:
            return types.InputRequiredResult(request_state="wait")  # no question: the server wants to be called again
        if given is None:
            return types.InputRequiredResult(
                input_requests={
                    "row": elicited("Which row?", Seat.model_json_schema()),
                    "sure": elicited("Really?", {"type": "object", "properties": {}}),
                },
                request_state="asked",
            )
        said = {key: (one.action, one.content) for key, one in given.items() if isinstance(one, types.ElicitResult)}
        return types.CallToolResult(content=[types.TextContent(type="text", text=f"{state}: {said}")])

    if era == "legacy":  # over HTTP, where each request is independent

        async def unknown(*_: Any) -> Any:
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found")

        server._lowlevel_server.add_request_handler("server/discover", types.RequestParams, unknown)
    return server


@contextlib.contextmanager
def served(era: str, seen: Seen, **options: Any) -> Iterator[str]:
    """Run the server; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = made(era, seen).streamable_http_app(**options)

    async def noticing(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        if (b"mcp-method", b"tools/list") in scope.get("headers", ()):
            seen.listed.set()

    server = uvicorn.Server(uvicorn.Config(noticing, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()


async def main(era: str) -> None:
    """Run as a stdio program. The legacy one refuses `server/discover`, by which the package's class recognises a new
    client.
    """
    server = made(era)._lowlevel_server
    async with stdio_server() as (incoming, outgoing), anyio.create_task_group() as tasks:
        kept, passed = anyio.create_memory_object_stream[Any](0)

        async def keep_back() -> None:
            async with kept:
                async for message in incoming:
                    asked = getattr(message, "message", None)
                    if era == "legacy" and getattr(asked, "method", None) == "server/discover":
                        unknown = types.ErrorData(code=types.METHOD_NOT_FOUND, message="Method not found")
                        reply = types.JSONRPCError(jsonrpc="2.0", id=getattr(asked, "id", None), error=unknown)
                        await outgoing.send(SessionMessage(reply))
                    else:
                        await kept.send(message)

        tasks.start_soon(keep_back)
        await server.run(passed, outgoing, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
