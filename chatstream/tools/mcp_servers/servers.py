"""The configured MCP servers and their tools.

Each server's tool list (names, descriptions, schemas) is fetched at start and regularly after that. An unreachable
server is retried; its tools are offered only after its first list. Over HTTP each call has its own connection, so that
a failed call leaves no state behind. A program is started once, and again when it has ended.

See `asking` for servers' questions to the user.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

import msgspec
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    ElicitResult,
    ErrorData,
    Implementation,
    InputRequiredResult,
)
from mcp_types import Tool as Described
from msgspec.structs import replace

from chatstream import __version__
from chatstream.logs import describe
from chatstream.pieces import Effect
from chatstream.tools import schema
from chatstream.tools.addresses import NOT_REACHED
from chatstream.tools.http import header_text
from chatstream.tools.mcp_file import McpServer, McpTool
from chatstream.tools.mcp_servers import stdio
from chatstream.tools.mcp_servers.asking import GRACE, KEPT_OPEN, Ask, OpenCall, required, responses
from chatstream.tools.mcp_servers.http import Guard
from chatstream.tools.tool import Answered, Caller, InputRequired, OutcomeUnknown, Said, Tool, ToolFailed

log = logging.getLogger("chatstream.tools")

# Seconds for which the start waits for tool lists; the tools of slower servers are offered later.
_AT_START: Final = 5.0
# Seconds to connect to a server and list its tools: a program may have to be loaded or downloaded first.
LISTING: Final = 30.0
# Seconds between two lists, as tools may change. An unreachable server is retried sooner at first.
_AGAIN: Final = 300.0
_SOONEST, _LATEST = 1.0, 60.0
_CONNECTING: Final = 10.0
_MOST_PAGES: Final = 20
_MOST_SCHEMA: Final = 64 * 1024  # bytes of a tool's schema as JSON: every request sends it to the model
_MOST_DESCRIPTION: Final = 4_000
_CLOSING: Final = 8.0
_GATEWAY: Final = (502, 504)  # a gateway's statuses that leave the call's outcome open
_KEY: Final = "chatstream/"
# Pause in seconds, and maximum number of repeats, for a server that wants to be called again without asking a question.
_PAUSE: Final = 1.0
_MOST_PAUSES: Final = 20


class NotReached(Exception):
    """The server could not be reached; no call was sent."""


class _Refused(Exception):
    """The tool reported an error, with this text."""


class McpServers:
    """All configured MCP servers."""

    def __init__(self, servers: Sequence[McpServer], found: Callable[[Sequence[Tool]], None]) -> None:
        """`found`: called with all available tools whenever they change."""
        _silence()
        tls = ssl.create_default_context()  # made once: it is slow
        self._servers = [_Server(each, self._changed, tls) for each in servers]
        self._found = found
        self._tasks: list[asyncio.Task[None]] = []

    def _changed(self) -> None:
        self._found([tool for server in self._servers for tool in server.tools])

    async def open(self) -> None:
        """Start listing the tools of all servers regularly; wait a moment for the first lists."""
        self._tasks = [asyncio.create_task(each.keep_listed()) for each in self._servers]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AT_START):
                for each in self._servers:
                    await each.asked.wait()

    def callers(self) -> Sequence[Caller]:
        """See `OpenCalls`."""
        return [caller for server in self._servers for caller in server.callers()]

    def answer(self, key: str, said: Said) -> None:
        """See `OpenCalls`."""
        for server in self._servers:
            server.answer(key, said)

    def let_go(self, which: Callable[[Caller], bool]) -> None:
        """See `OpenCalls`."""
        for server in self._servers:
            server.let_go(which)

    async def close(self) -> None:
        """Stop the listing, and end the programs."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(each.close() for each in self._servers))


async def try_out(server: McpServer) -> tuple[bool, str]:
    """Test a server: whether it has the tools that the file names, and a line about it."""
    _silence()
    asked = _Server(server, lambda: None, ssl.create_default_context())
    try:
        async with asyncio.timeout(LISTING):
            missing = await asked.list()
    except (NotReached, TimeoutError) as exc:
        return False, f"{server.name}: {str(exc) or f'it does not answer within {LISTING:g} s'}"
    finally:
        await asked.close()
    if missing:
        return False, f"{server.name}: {'; '.join(missing)}"
    return True, f"{server.name}: {len(asked.tools)} tools (protocol {asked.version})"


class _Held(NamedTuple):
    """An open call whose user is being asked, and the timer that ends it. `caller` is None once nobody waits for it."""

    call: OpenCall
    caller: Caller | None
    timer: asyncio.TimerHandle


class _Server:
    """An MCP server. `tools`: its tools that models may call."""

    def __init__(self, server: McpServer, changed: Callable[[], None], tls: ssl.SSLContext) -> None:
        self.tools: list[Tool] = []
        self.asked = asyncio.Event()
        self.version = ""
        self._server = server
        self._changed = changed
        self._tls = tls
        self._program = _Program(server) if server.command else None
        self._known: tuple[str, Any] | None = None  # its protocol version, and in newer versions its discovery data
        self._told = ""
        self._held: dict[str, _Held] = {}  # by the call's key

    async def keep_listed(self) -> None:
        """List the tools regularly, for ever."""
        failures = 0
        while True:
            try:
                async with asyncio.timeout(LISTING):
                    said = "; ".join(await self.list())
                failures, pause = 0, _AGAIN
            except (NotReached, TimeoutError) as exc:
                said = str(exc) or f"it does not answer within {LISTING:g} s"
                failures, pause = failures + 1, min(_SOONEST * 2**failures, _LATEST)
            if said and said != self._told:
                log.error("MCP server %s: %s", self._server.name, said)
            elif self._told and not said:
                log.info("MCP server %s is there", self._server.name)
            self._told = said
            self.asked.set()
            await asyncio.sleep(pause)

    async def list(self) -> list[str]:
        """Fetch the tool list. Returns a line for each unusable tool. Raises `NotReached`."""
        described: dict[str, Described] = {}
        problem = "its connection broke off"
        self._known = None
        async with self._connected({}, LISTING) as (client, _):
            try:
                cursor = None
                for _ in range(_MOST_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    described |= {each.name: each for each in page.tools}
                    cursor = page.next_cursor
                    if cursor is None:
                        break
                self.version = client.protocol_version
                self._known = client.protocol_version, client.session.discover_result
                problem = ""
            except Exception as exc:  # noqa: BLE001 - whatever the library makes of what a server sends
                problem = f"its tools cannot be listed ({_kind(exc)})"
        if problem:
            raise NotReached(problem)
        tools, problems = [], []
        for each in self._server.tools:
            try:
                tools.append(self._tool(each, described))
            except ValueError as exc:
                problems.append(f"tool {each.own_name}: {exc}")
        self.tools = tools
        self._changed()
        return problems

    def _tool(self, tool: McpTool, described: Mapping[str, Described]) -> Tool:
        found = described.get(tool.own_name)
        if found is None:
            raise ValueError("the server has none of this name")
        # The server's hints on its tools' effects are ignored: only the operator's file counts.
        parameters = found.input_schema
        if len(msgspec.json.encode(parameters)) > _MOST_SCHEMA:
            raise ValueError("its schema has more than 64 KiB")

        async def run(arguments: Any, caller: Caller) -> object:
            return await self._run(tool, arguments, caller)

        async def go_on(arguments: Any, caller: Caller, answered: Answered) -> object:
            return await self._run(tool, arguments, caller, answered)

        return Tool(
            name=tool.name,
            description=tool.description or (found.description or "")[:_MOST_DESCRIPTION],
            parameters=parameters,
            manner=tool.manner,
            check=schema.checking(parameters),
            run=run,
            go_on=go_on,
            source=f"the MCP server {self._server.name}",
        )

    async def _run(self, tool: McpTool, arguments: Any, caller: Caller, answered: Answered | None = None) -> object:
        async def work(call: OpenCall) -> object:
            told = replace(caller, progress=lambda text: call.progress(text))
            return await self._called(tool, arguments, told, call.ask, answered)

        held = self._taken(caller.key)
        if held is not None and (answered is None or not held.answer(answered.said[-1])):
            held.cancel()  # the open call of an earlier attempt, which was not stored
            held = None
        if held is not None:
            held.progress = caller.progress
        try:
            if held is None and answered is not None and not answered.carry:
                # It was open in another process, or for too long.
                if tool.manner.effect is Effect.ONCE:
                    raise OutcomeUnknown
                held = OpenCall(work, (*answered.before, *answered.said), progress=caller.progress)
            held = held or OpenCall(work, progress=caller.progress)
            return await held.result()
        except InputRequired as exc:
            if exc.held is not None and held is not None:
                self._hold(caller.key, held, caller, KEPT_OPEN)
            raise
        except _Refused as exc:  # not logged: the server wrote the message
            raise ToolFailed(str(exc)) from exc
        except ToolFailed as exc:
            log.warning("tool %s: %s", tool.name, exc)
            raise

    def callers(self) -> Sequence[Caller]:
        """See `OpenCalls`."""
        return [held.caller for held in self._held.values() if held.caller is not None]

    def answer(self, key: str, said: Said) -> None:
        """See `OpenCalls`."""
        if held := self._held.get(key):
            held.call.answer(said)

    def let_go(self, which: Callable[[Caller], bool]) -> None:
        """See `OpenCalls`. If a server does not end the call when it gets the message to end it, the call is
        cancelled.
        """
        for key, held in [*self._held.items()]:
            if held.caller is not None and which(held.caller) and (call := self._taken(key)):
                call.dismiss()
                self._hold(key, call, None, GRACE)

    def _hold(self, key: str, call: OpenCall, caller: Caller | None, seconds: float) -> None:
        """Keep a call open, while its user is asked or until the server has ended it."""
        timer = asyncio.get_running_loop().call_later(seconds, self._cancel, key)
        self._held[key] = _Held(call, caller, timer)

    def _taken(self, key: str) -> OpenCall | None:
        """Return the open call of this key, if there is one. It is no longer held."""
        held = self._held.pop(key, None)
        if held is None:
            return None
        held.timer.cancel()
        return held.call

    def _cancel(self, key: str) -> None:
        held = self._held[key]
        if held.caller is not None and held.call.is_over:
            return  # the result is kept until the answer continues
        self._taken(key)
        held.call.cancel()

    async def _called(
        self, tool: McpTool, arguments: Any, caller: Caller, ask: Ask, answered: Answered | None
    ) -> object:
        inputs, state = responses(answered) if answered is not None and answered.carry else (None, None)
        for _ in range(_MOST_PAUSES):
            result = await self._call(tool, arguments, caller, ask, inputs, state)
            if not isinstance(result, InputRequiredResult):
                return _said(result)
            if result.input_requests:
                raise required(result)
            inputs, state = None, result.request_state
            await asyncio.sleep(_PAUSE)
        raise ToolFailed("the service does not come to an end")

    async def _call(
        self,
        tool: McpTool,
        arguments: Any,
        caller: Caller,
        ask: Ask,
        inputs: "dict[str, Any] | None",
        state: str | None,
    ) -> object:
        """Send one request for the call."""
        ids = {
            "idempotency-key": caller.key,
            "user-id": caller.user,
            "conversation-id": caller.conversation,
            "message-id": caller.answer,
        }
        headers = {name if name == "idempotency-key" else f"x-{name}": header_text(ids[name]) for name in ids}
        meta: Any = {f"{_KEY}{name}": value for name, value in ids.items()}

        async def progressed(progress: float, total: float | None, message: str | None) -> None:
            caller.progress(message or (f"{progress:g}" if total is None else f"{progress:g} / {total:g}"))

        once = tool.manner.effect is Effect.ONCE
        result: Any = None
        failure: Exception | None = ConnectionError()  # the default, if no error is reported
        sent: Callable[[], bool] = lambda: True  # noqa: E731 - until the connection knows better
        status: Callable[[], int | None] = lambda: None  # noqa: E731
        try:
            async with self._connected(headers, tool.manner.timeout, ask) as (client, guard):
                if guard is not None:
                    sent, status = lambda: guard.sent, lambda: guard.status
                try:
                    result = await client.session.call_tool(
                        tool.own_name,
                        arguments,
                        meta=meta,
                        input_responses=inputs,
                        request_state=state,
                        progress_callback=progressed,
                        allow_input_required=True,
                    )
                    failure = None
                except Exception as exc:  # noqa: BLE001 - whatever the library makes of what a server sends
                    failure = exc
        except NotReached as exc:
            raise ToolFailed(NOT_REACHED) from exc
        if failure is None:
            return result
        self._known = None  # the server may have changed
        raise _failed(failure, sent=sent(), status=status(), once=once) from failure

    @asynccontextmanager
    async def _connected(
        self, headers: Mapping[str, str], timeout: float, ask: Ask | None = None
    ) -> AsyncIterator[tuple[Client, Guard | None]]:
        """Open a client, for a call if `ask` is set. Raises only `NotReached` itself."""
        if self._program is not None:
            client = await self._program.client()
            with self._program.calling(ask):
                yield client, None
            return
        url = self._server.url
        assert url is not None  # noqa: S101 - for the type checker: what is no program has one
        connecting = min(_CONNECTING, timeout / 2)
        # While the user is asked, nothing is sent. The caller of this method limits the time of a call.
        patience = timeout if ask is None else timeout + KEPT_OPEN
        guard = Guard(self._server, self._tls, connecting=connecting, timeout=patience)
        given = {"user-agent": "chatstream", **{n.lower(): v for n, v in self._server.headers.items()}, **headers}
        entered = False
        try:
            async with guard.client(given) as http, self._client(url, http, ask) as client:
                _unvalidated(client)
                entered = True
                yield client, guard
        except Exception as exc:
            if not entered:
                raise NotReached(f"it cannot be reached ({_kind(exc)})") from exc
            log.info("MCP server %s: its connection ended with %s", self._server.name, _kind(exc))

    def _client(self, url: str, http: Any, ask: Ask | None) -> Client:
        # A known server needs no new negotiation.
        version, discovered = self._known or ("", None)
        mode = version if discovered is not None else "legacy" if version else "auto"
        return Client(
            streamable_http_client(url, http_client=http),
            mode=mode,
            prior_discover=discovered,
            cache=None,
            client_info=_ourselves(),
            elicitation_callback=None if ask is None else _asks(ask),
        )

    async def close(self) -> None:
        held = [call for key in [*self._held] if (call := self._taken(key))]
        await asyncio.gather(*(call.close() for call in held))
        if self._program is not None:
            await self._program.close()


class _Program:
    """A stdio server: its program is started when needed, and again when it has ended."""

    def __init__(self, server: McpServer) -> None:
        self._server = server
        self._owner: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Client] | None = None
        self._ended = asyncio.Event()
        self._closed = False
        self._calls: list[Ask] = []  # for each open call, the function that asks its user
        self._abandoned = False  # a cancelled call may still be at work in it
        self._stale = False  # so the program must be restarted, as soon as it has no open call

    @contextmanager
    def calling(self, ask: Ask | None) -> Iterator[None]:
        """Note an open call of the program; `ask` is None if the call is not a tool call."""
        if ask is None:
            yield
            return
        self._calls.append(ask)
        try:
            yield
        except asyncio.CancelledError:
            self._abandoned = True
            raise
        finally:
            self._calls.remove(ask)
            if self._stale and not self._calls:
                self._ended.set()

    async def _ask(self, params: Any) -> ElicitResult | ErrorData:
        """Ask the user of the only open call. In the older protocol, a program's question does not say which call it
        belongs to, and another user must not see it."""
        if len(self._calls) == 1 and not self._abandoned:
            return await self._calls[0](params)
        self._stale = self._abandoned
        log.warning("MCP server %s: it asked while it was not clear whom to ask", self._server.name)
        return ErrorData(code=INVALID_REQUEST, message="It is not clear which user to ask.")

    async def client(self) -> Client:
        """The program's client. Raises `NotReached` if the program cannot be started."""
        if self._closed:
            raise NotReached("it is closed")
        if self._owner is None or self._ended.is_set():
            if self._owner is not None:
                await asyncio.wait([self._owner])
            if self._owner is None or self._owner.done():  # only the first of several waiting calls starts it
                self._ended, self._abandoned, self._stale = asyncio.Event(), False, False
                self._ready = asyncio.get_running_loop().create_future()
                self._owner = asyncio.create_task(self._hold(self._ready, self._ended))
        assert self._ready is not None  # noqa: S101 - for the type checker: it was started
        return await asyncio.shield(self._ready)

    async def _hold(self, ready: "asyncio.Future[Client]", ended: asyncio.Event) -> None:
        """Hold the connection open. It must be opened and closed in the same task."""
        why = "it ended at once"
        try:
            transport = stdio.connection(self._server.command, self._server.environment, ended)
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(LISTING):
                    client = await stack.enter_async_context(
                        Client(
                            transport,
                            cache=None,
                            client_info=_ourselves(),
                            elicitation_callback=_asks(self._ask),
                        )
                    )
                _unvalidated(client)
                ready.set_result(client)
                await ended.wait()
        except FileNotFoundError:
            why = "there is no such program"
        except Exception as exc:  # noqa: BLE001 - whatever the library makes of what a program says
            why = f"it cannot be started, or does not speak MCP ({_kind(exc)})"
        finally:
            ended.set()
            if not ready.done():
                ready.set_exception(NotReached(why))
                ready.exception()  # marks it as retrieved

    async def close(self) -> None:
        self._closed = True
        self._ended.set()
        if self._owner is not None and not self._owner.done():
            if self._ready is not None and not self._ready.done():
                self._owner.cancel()  # it is still waiting for the program's first message
            _, left = await asyncio.wait([self._owner], timeout=_CLOSING)
            for task in left:
                task.cancel()


def _silence() -> None:
    """Silence the library's loggers: their messages may quote what a server sends."""
    for name in ("mcp", "client"):  # "client": the logger of its session
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _asks(ask: Ask) -> Any:
    """Return the callback of `mcp` that asks with `ask`."""

    async def callback(_: Any, params: Any) -> ElicitResult | ErrorData:
        return await ask(params)

    return callback


def _ourselves() -> Implementation:
    return Implementation(name="chatstream", version=__version__)


def _unvalidated(client: Client) -> None:
    """Switch off the validation of results against the server's schemas: its patterns could take any time, and a call
    that succeeded would be reported as failed."""

    async def nothing(name: str, result: Any) -> None:
        pass

    client.session.validate_tool_result = nothing  # type: ignore[method-assign]  # the library has no option for it


def _kind(exc: BaseException) -> str:
    """The kind of an error, without its message, which may be the server's."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return f"JSON-RPC error {exc.code}" if isinstance(exc, MCPError) else type(exc).__name__


def _failed(failure: Exception, *, sent: bool, status: int | None, once: bool) -> Exception:
    """The exception for a call without a result."""
    if not sent:
        return ToolFailed(NOT_REACHED)
    refused = status is not None and not 200 <= status < 300
    if refused and not (once and status in _GATEWAY):
        also = ", a redirect, which is not followed" if 300 <= (status or 0) < 400 else ""
        return ToolFailed(f"the service answered HTTP {status}{also}")
    if isinstance(failure, MCPError) and failure.code not in (CONNECTION_CLOSED, INTERNAL_ERROR):
        return ToolFailed(f"the service refused it ({_kind(failure)})")
    log.warning("a call of an MCP server broke off: %s", describe(failure))
    return OutcomeUnknown() if once else ToolFailed("the service broke off")


def _said(result: Any) -> object:
    """The result of a tool. Raises `_Refused` if the tool reports an error."""
    texts = [_text(block) for block in result.content]
    if result.is_error:
        raise _Refused("\n".join(texts) or "the service says so")
    if result.structured_content is not None:
        return result.structured_content
    return "\n".join(texts) if texts else None


def _text(block: Any) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type == "resource" and getattr(block.resource, "text", None) is not None:
        return str(block.resource.text)
    if block.type == "resource_link":
        return f"({block.name}: {block.uri})"
    return f"(something that cannot be shown: {block.type})"
