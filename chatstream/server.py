"""Opens all parts in order, listens, waits for a signal to end, drains, and closes the parts in reverse."""

import asyncio
import contextlib
import gc
import logging
import math
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial

from msgspec.structs import replace
from tornado.ioloop import PeriodicCallback
from tornado.netutil import bind_sockets
from tornado.platform.asyncio import AsyncIOMainLoop
from tornado.web import Application

from chatstream import __version__, auth, logs
from chatstream.app import make_app, make_metrics_app
from chatstream.auth import Authenticator
from chatstream.capacity import Capacity, raise_descriptor_limit
from chatstream.errors import ConfigurationError, StorageUnavailable, Unavailable
from chatstream.formats.registry import Formats
from chatstream.generations import sweeper
from chatstream.generations.answer import admit, estimated_usage, write_answer
from chatstream.generations.budgets import Budgets
from chatstream.generations.calls import CallBounds, Calling
from chatstream.generations.commands import Commands
from chatstream.generations.deciding import LOOK_FOR_OVERDUE, Deciding
from chatstream.generations.erasing import LOOK_FOR_ERASURES, Erasing
from chatstream.generations.generation import AnswerBounds, unpriced
from chatstream.generations.hub import POLL_TICK, Hub
from chatstream.generations.room import Config
from chatstream.generations.sweeper import Lost, Sweeper
from chatstream.generations.titles import Titles
from chatstream.handlers.connection import ChatServer
from chatstream.handlers.door import Door
from chatstream.handlers.listener import Listener
from chatstream.lag import LoopLag
from chatstream.limits import Answers, Limits
from chatstream.llm.catalogue import Catalogue, UserChoices
from chatstream.llm.configuration import configured_model, demo_models, served_catalogue
from chatstream.llm.model import Delta, Tell
from chatstream.metrics import Metrics
from chatstream.models import Answer, Budget, Conversation, UserMessage
from chatstream.plugins.loading import Loaded, load
from chatstream.plugins.plugins import Plugins
from chatstream.settings import DEFAULT_SYSTEM_PROMPT, Environment, LogFormat, Settings
from chatstream.store.attempts import Attempts
from chatstream.store.changes import Changes
from chatstream.store.contexts import Contexts
from chatstream.store.conversations import Conversations
from chatstream.store.demo import DEMO_CONVERSATION, DEMO_USER, seed_demo_conversation
from chatstream.store.diagnosis import why_not
from chatstream.store.erasures import Erasures
from chatstream.store.leases import Leases
from chatstream.store.ledger import Ledger
from chatstream.store.mongo import Mongo
from chatstream.store.plugin_documents import PluginDocuments
from chatstream.store.posting import Posting
from chatstream.store.reading import Reading
from chatstream.store.searching import Search
from chatstream.store.tickets import Tickets
from chatstream.summary import address, database, summary
from chatstream.tools.configuration import configured_tools
from chatstream.tools.storage import stored_in
from chatstream.worker import CHANNEL, READY, Worker

log = logging.getLogger("chatstream.server")

# The most bytes of a request line and headers: a token of 8 KiB and a browser's headers. Tornado's own limit is 64 KiB.
_MAX_HEADER_BYTES = 16 * 1024
# Seconds until a keep-alive connection without a complete request head is closed. For bodies, see
# `chatstream.handlers.base`.
_IDLE_CONNECTION_TIMEOUT = 30
# The most connections to the monitoring port: a few monitoring systems, with one connection each.
_ROOM_FOR_MONITORING = 16
# How often followers check the clock: 15 times in a heartbeat's interval, so that a heartbeat is at most 1/15 late; and
# at least every `_LONGEST_TICK` seconds, as an expired token must end its stream in time.
_TICKS_PER_HEARTBEAT = 15
_LONGEST_TICK = 1.0
# Seconds between tries to reach a database that does not respond.
_DATABASE_RETRY_PAUSE = 1.0
# Seconds between log lines that say why the database does not respond.
_DATABASE_SAID_EVERY = 10.0
# The most connections that wait to be accepted: a thousand clients may return at the same moment after a restart.
_BACKLOG = 1024
# The longest wait at the end for requests, in seconds: each is answered within this time once its body has come. One
# whose body is late is cut.
_LAST_REQUESTS_SECONDS = 5.0
# The longest wait at the end for a task that was cancelled, in seconds: more than any of them needs.
_CANCEL_SECONDS = 10.0
# New objects until the garbage collector looks at them; see `_settle`.
_COLLECTED_AFTER = 5_000
# Seconds for which the token printed at start is valid: a working day and the evening after it.
_DEMO_TOKEN_SECONDS = 86_400


class _MonotonicIOLoop(AsyncIOMainLoop):
    """Uses a monotonic clock. Tornado uses the wall clock: if that goes back an hour, heartbeats stop for an hour."""

    def time(self) -> float:
        return time.monotonic()


class Server:
    """A running server."""

    def __init__(self, settings: Settings, notes: Iterable[str] = (), worker: Worker | None = None) -> None:
        """`worker`: this server is one of several processes, each with ports of its own."""
        self._settings = settings if worker is None else _with_own_ports(settings, worker)
        self._notes = notes
        self._worker = worker
        self._process = worker.number if worker else None

    async def run(self) -> None:
        """Serve until SIGINT, SIGTERM or SIGHUP; a second SIGINT or SIGTERM ends at once.

        Raises `ConfigurationError`.
        """
        _MonotonicIOLoop()
        logs.configure(self._settings.log_format, self._settings.log_level, process=self._process)
        for note in self._notes:
            log.warning("%s", note)
        told_to_end = asyncio.Event()
        with _signals(told_to_end, supervised=self._worker is not None):
            async with contextlib.AsyncExitStack() as stack:
                opening = asyncio.create_task(self._open(stack))
                ending = asyncio.create_task(told_to_end.wait())
                await asyncio.wait((opening, ending), return_when=asyncio.FIRST_COMPLETED)
                if ending.done():  # also while waiting for the database
                    opening.cancel()
                    await asyncio.wait((opening,))
                else:
                    await opening
                    await ending
        log.info("stopped")

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self._settings
        loaded = load(settings.plugins)
        secret = auth.secret(settings, make=True) if settings.verifies_with_secret else None
        logs.configure(settings.log_format, settings.log_level, _pseudonyms(settings, secret), self._process)
        guard = auth.guard(settings)
        keys = await stack.enter_async_context(auth.keys(settings, secret))
        capacity = Capacity.of(raise_descriptor_limit())
        why = f"; each of the {self._worker.count} processes has a port of its own" if self._worker else ""
        sockets = _listen(settings.host, settings.port, f"CHATSTREAM_PORT or CHATSTREAM_HOST{why}")
        for each in sockets:
            stack.callback(each.close)
        for_metrics = _listen_for_metrics(settings)
        for each in for_metrics:
            stack.callback(each.close)
        metrics = Metrics()
        plugins = Plugins(loaded, metrics, answer_timeout=settings.answer_timeout)
        tools = await stack.enter_async_context(configured_tools(settings, loaded))
        lag = LoopLag(metrics.loop_was_late)
        stack.push_async_callback(_cancelled, asyncio.create_task(lag.run(), name="the measuring of the lag"))

        uri = await stack.enter_async_context(_database_uri(settings, self._worker))
        mongo = Mongo(uri, settings.mongodb_database, metrics)
        stack.callback(mongo.close)
        preparing = asyncio.create_task(_wait_for(mongo, uri), name="the waiting for the database")
        stack.push_async_callback(_cancelled, preparing)
        documents = PluginDocuments(mongo)
        bounds = _call_bounds(settings)
        # The id of this process. Unique even if another host, or a later process here, has the same pid.
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        calling = Calling(tools=tools, bounds=bounds, metrics=metrics, storage=stored_in(documents), owner=owner)
        has_webhook = settings.webhook_url is not None
        has_budgets = settings.gives_budgets or plugins.budgets
        ledger = Ledger(mongo, webhooks=has_webhook) if has_budgets else None
        conversations = Conversations(mongo, ledger, owner=owner)
        posting, attempts, reading = (
            Posting(mongo, owner=owner, most_messages=settings.messages_per_conversation, ledger=ledger),
            Attempts(
                mongo,
                owner=owner,
                ledger=ledger,
                webhook_delay=timedelta(seconds=settings.webhook_delay) if has_webhook else None,
            ),
            Reading(mongo),
        )
        contexts = Contexts(mongo)
        catalogue, demo_address = stack.enter_context(served_catalogue(settings, plugins.demo))
        choices = UserChoices(catalogue, models=settings.user_models, prompts=settings.user_prompts)
        model, loading = await stack.enter_async_context(configured_model(catalogue, metrics, demo_address))
        system_prompt = settings.system_prompt or plugins.system_prompt or DEFAULT_SYSTEM_PROMPT

        def answers(
            conversation: Conversation,
            answer: Answer,
            question: UserMessage | None,
            may_ask: "asyncio.Future[None]",
            tell: Tell,
        ) -> AsyncGenerator[Delta, None]:
            conversation = choices.allowed(conversation)
            entry = catalogue.entry(conversation.model)

            async def remember(seq: int) -> int:
                metrics.context_trimmed()
                return await contexts.begin_at(conversation, seq)

            return write_answer(
                conversation,
                answer,
                question,
                reading=reading,
                model=model.beginning_at(answer.model),
                plugins=plugins,
                calling=calling,
                system_prompt=system_prompt,
                context_characters=entry.context_characters(settings.context_characters),
                remember=remember,
                reasoning_back=any(one.reasoning_back != "off" for one in catalogue.chain(conversation.model)),
                may_ask=may_ask,
                may_go_on=partial(budgets.goes_on, conversation, answer),
                tell=tell,
            )

        async def admit_message(conversation: Conversation, content: str, attempt: int, key: str) -> None:
            await admit(
                conversation,
                content,
                attempt=attempt,
                key=key,
                plugins=plugins,
                reading=reading,
                context_characters=settings.context_characters,
            )

        limits = Limits.of(settings, capacity, lambda: lag.seconds)
        priced = unpriced if plugins.answers else catalogue.priced
        budgets = Budgets(ledger, _budget(settings), plugins=plugins, priced=priced, system_prompt=system_prompt)
        titles = Titles(
            conversations,
            reading,
            model,
            plugins,
            metrics,
            allowed=choices.allowed,
            name=settings.title_model,
            priced=catalogue.priced,
            budgets=budgets,
            given=lambda conversation: hub.titled(conversation),
        )
        hub = Hub(
            attempts,
            reading,
            answers,
            plugins.annotate,
            metrics,
            _hub_config(settings, catalogue),
            limits.answers,
            priced,
            budgets,
            titles.answered,
        )
        metrics.know_models(catalogue.entries)
        deciding = Deciding(hub, attempts, reading, metrics, calling.bounds, calling.tools)

        async def lost_usage(conversation: Conversation, answer: Answer) -> Lost | None:
            if plugins.answers:
                return None  # no model was asked
            entry = catalogue.entry(answer.model or choices.allowed(conversation).model)
            usage = await estimated_usage(
                conversation,
                answer,
                reading=reading,
                system_prompt=system_prompt,
                context_characters=entry.context_characters(settings.context_characters),
            )
            return Lost(catalogue.priced(usage, entry.name) or usage, entry.name)

        orphans = Sweeper(attempts, reading, hub, metrics, lost_usage)
        leases = Leases(mongo, owner=owner)
        erasing = Erasing(Erasures(mongo, ledger), leases, hub, metrics, limits.kept.forget)
        authenticator = Authenticator(keys, auth.rules(settings), guard=guard, count=metrics.token_verified)
        door = Door(
            authenticator,
            settings.cors_origins,
            limits,
            settings.trusted_proxies,
            tickets=Tickets(mongo),
            slow_reader_timeout=settings.slow_reader_timeout,
            query_tokens=settings.query_tokens,
            local_origins=settings.env is Environment.DEVELOPMENT,
            formats=Formats(
                reasoning=settings.shows_reasoning,
                models=settings.models_file is not None and len(catalogue.entries) > 1,
            ),
            budgets=budgets,
        )
        door.refusal = StorageUnavailable()  # until the database has responded
        app = make_app(
            settings,
            door=door,
            metrics=metrics,
            hub=hub,
            commands=Commands(hub, posting, attempts, reading, limits.answers, admit_message, deciding, budgets),
            deciding=deciding,
            tools=calling.tools,
            conversations=conversations,
            attempts=attempts,
            reading=reading,
            documents=documents,
            choices=choices,
            erasing=erasing,
            search=Search(mongo),
            ping=mongo.ping,
            page_words=plugins.page_words,
            page_cards=plugins.cards,
            demo_models=demo_models(settings, plugins.demo),
        )
        # Not sooner: who connects meanwhile gets its response 0.1 s later. A load balancer that asks again and again
        # whether the server is ready would take the CPU from the loading.
        await loading
        _serve(stack, make_metrics_app(door, metrics), for_metrics, _ROOM_FOR_MONITORING)
        server = _serve(stack, app, sockets, capacity.connections)  # from now on it serves, but reports "not ready"

        await preparing
        if settings.uses_embedded_database and (self._worker is None or self._worker.is_first):
            await orphans.end_all()  # no other process can be generating in this database
            await seed_demo_conversation(
                conversations, posting, reading, title=plugins.demo.title, question=plugins.demo.question
            )
        _every(stack, min(settings.heartbeat_interval / _TICKS_PER_HEARTBEAT, _LONGEST_TICK), hub.tick)
        _every(stack, settings.revocation_interval, guard.look)
        _every(stack, sweeper.LOOK_INTERVAL, orphans.look)
        _every(stack, LOOK_FOR_OVERDUE, deciding.look)
        _every(stack, POLL_TICK, hub.poll)
        stack.push_async_callback(erasing.close)
        _every(stack, LOOK_FOR_ERASURES, erasing.look)
        if settings.webhook_url is not None and settings.webhook_secret is not None:
            from chatstream.store.outbox import Outbox  # import on use: most servers have no webhook
            from chatstream.webhooks import sender

            webhooks = sender.Webhooks(
                Outbox(mongo, text=settings.webhook_text),
                leases,
                sender.client(settings.webhook_url),
                settings.webhook_url,
                settings.webhook_secret.get_secret_value(),
                metrics,
            )
            stack.push_async_callback(webhooks.close)
            stack.push_async_callback(_cancelled, asyncio.create_task(webhooks.run(), name="the sending of webhooks"))
        if settings.retention_days is not None:
            from chatstream.generations.retaining import LOOK_FOR_IDLE, Retaining
            from chatstream.store.retention import Retention

            retaining = Retaining(Retention(mongo, ledger), leases, hub, metrics, days=settings.retention_days)
            _every(stack, LOOK_FOR_IDLE, retaining.look)
        changes = Changes(mongo, owner=owner)
        listening = asyncio.create_task(changes.listen(hub.changed, hub.resync), name="the change stream")
        stack.push_async_callback(_cancelled, listening)
        stack.push_async_callback(titles.close)
        # Registered last, so that it runs first at the end: until the last stream has ended, heartbeats, checks of
        # tokens and revocations, the sweeper and the change stream continue.
        stack.push_async_callback(self._drain, server, door, hub, limits.answers)
        door.refusal = None
        if self._worker is not None:
            # Listen only when this worker is ready: until then, the kernel gives connections on the shared port to the
            # others.
            server.listen_on(_listen(settings.host, self._worker.port, "CHATSTREAM_PORT", shared=True))
        _greet(settings, secret, sockets[0].getsockname()[1], loaded, self._worker)
        _settle()
        if self._worker is not None:
            with contextlib.suppress(OSError):  # the supervisor is gone, which this process notices next
                os.write(CHANNEL, READY)

    async def _drain(self, server: ChatServer, door: Door, hub: Hub, answers: Answers) -> None:
        server.stop()  # no new connections; requests on the open ones are refused
        running = answers.total
        have = "running answers have" if running > 1 else "running answer has"
        left = f"{running} {have} {self._settings.drain_timeout:g} s to finish" if running else "no answer is running"
        log.info("stopping; %s", left)
        door.refusal = Unavailable("The server is restarting.", code="server_shutdown", retry_after=2)
        await hub.drain(self._settings.drain_timeout)
        await door.ended(_LAST_REQUESTS_SECONDS)


def _settle() -> None:
    """Exclude the loaded objects from garbage collection, which would scan them over and over, and collect less often.

    There are some 300,000 objects before the first request; scanning them is a fifth of a request's CPU time. A request
    leaves few cycles, but with 50 answers running, Python's threshold of 700 new objects is reached every third
    request, and its objects are scanned again: 4 % of a request's CPU time, against 1 % with this threshold. A
    collection then takes a millisecond or two, and leaves less than a megabyte of garbage until the next.
    """
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER)
    gc.enable()


async def run(settings: Settings, notes: Iterable[str] = (), worker: Worker | None = None) -> None:
    """Run the server until a signal ends it. Raises `ConfigurationError` if it cannot start with these settings.

    `notes` are log lines about the settings. `worker`: it is one of several processes.
    """
    await Server(settings, notes, worker).run()


def _with_own_ports(settings: Settings, worker: Worker) -> Settings:
    """Return the settings with the worker's own ports: above the shared port, or any free ones if that is 0."""
    own = {"port": settings.port and settings.port + worker.number}
    if settings.metrics_port:
        own["metrics_port"] = settings.metrics_port + worker.number - 1
    return replace(settings, **own)


def _pseudonyms(settings: Settings, secret: str | None) -> logs.Pseudonyms:
    """Return the pseudonyms for the log: the same in all processes with the same key."""
    return logs.Pseudonyms.derived(secret if settings.log_key is None else settings.log_key.get_secret_value())


@contextlib.contextmanager
def _signals(told_to_end: asyncio.Event, *, supervised: bool) -> Iterator[None]:
    """Set `told_to_end` at the first signal; the second SIGINT or SIGTERM ends the process at once.

    `supervised`: set it also when the supervisor says so, or ends. That counts as no signal, since whoever told the
    supervisor to end may have told this process, too.
    """
    loop = asyncio.get_running_loop()
    signalled = False

    def closed() -> None:
        loop.remove_reader(CHANNEL)  # nothing is ever sent to a worker: only its end can be read
        told_to_end.set()

    def end() -> None:
        nonlocal signalled
        if signalled:
            os._exit(1)  # exit at once; nothing is saved
        signalled = True
        told_to_end.set()

    handlers = {signal.SIGINT: end, signal.SIGTERM: end}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which `nohup` asks for
        handlers[signal.SIGHUP] = told_to_end.set  # a terminal that is closed may send it twice
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    if supervised:
        loop.add_reader(CHANNEL, closed)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
        if supervised:
            loop.remove_reader(CHANNEL)


def _listen_for_metrics(settings: Settings) -> list[Listener]:
    """Return the listeners for the metrics; none if there is no separate port."""
    if settings.metrics_port is None:
        return []
    return _listen(settings.metrics_host, settings.metrics_port, "CHATSTREAM_METRICS_PORT or CHATSTREAM_METRICS_HOST")


def _listen(host: str, port: int, settings: str, *, shared: bool = False) -> list[Listener]:
    """Raises `ConfigurationError`. `shared`: other processes listen on the same port."""
    try:
        return [Listener(bound) for bound in bind_sockets(port, host, backlog=_BACKLOG, reuse_port=shared)]
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or "there is no such host"
        raise ConfigurationError(f"Cannot listen on {address(host, port)}: {reason}. Set {settings}.") from exc


def _serve(stack: contextlib.AsyncExitStack, app: Application, listeners: list[Listener], room: int) -> ChatServer:
    server = ChatServer(
        app,
        room=room,
        max_header_size=_MAX_HEADER_BYTES,
        idle_connection_timeout=_IDLE_CONNECTION_TIMEOUT,
    )
    server.listen_on(listeners)
    stack.push_async_callback(server.close_all_connections)
    return server


@contextlib.asynccontextmanager
async def _database_uri(settings: Settings, worker: Worker | None) -> AsyncIterator[str]:
    if settings.mongodb_uri is not None:
        yield settings.mongodb_uri.get_secret_value()
        return
    if worker is not None and worker.database is not None:
        yield worker.database  # the supervisor's
        return
    from chatstream.store.embedded import embedded_mongod

    async with embedded_mongod(settings.data_dir) as uri:
        yield uri


async def _wait_for(mongo: Mongo, uri: str) -> None:
    """Wait until the database responds. Only then are its indexes, and with them the lock, known to exist."""
    clock = asyncio.get_running_loop().time
    say_at = -math.inf
    while True:
        try:
            return await mongo.prepare()
        except StorageUnavailable:
            if clock() >= say_at:
                say_at = clock() + _DATABASE_SAID_EVERY
                log.warning("the database does not answer; waiting for it: %s", await why_not(uri))
                gc.enable()  # the wait may take hours, and each refused request leaves 6 KB of garbage
            await asyncio.sleep(_DATABASE_RETRY_PAUSE)


def _budget(settings: Settings) -> Budget:
    """Return the budget of users without one of their own."""
    cost = settings.user_cost_per_month
    return Budget(
        tokens_per_day=settings.user_tokens_per_day,
        tokens_per_month=settings.user_tokens_per_month,
        cost_per_month=None if cost is None else int(cost * 1_000_000),  # at most six decimals
    )


def _hub_config(settings: Settings, catalogue: Catalogue) -> Config:
    return Config(
        heartbeat_interval=settings.heartbeat_interval,
        disconnect_grace=settings.disconnect_grace,
        connection_timeout=settings.connection_timeout,
        connection_bytes=settings.connection_bytes,
        bounds=AnswerBounds(
            answer_characters=settings.answer_characters,
            reasoning_characters=settings.reasoning_characters,
            save_deadline=settings.save_deadline,
            asks_remotely=settings.webhook_url is not None,
        ),
        model=catalogue.default.name,
    )


def _call_bounds(settings: Settings) -> CallBounds:
    return CallBounds(
        rounds=settings.tool_rounds,
        calls=settings.tool_calls,
        argument_characters=settings.tool_argument_characters,
        output_characters=settings.tool_output_characters,
    )


def _every(stack: contextlib.AsyncExitStack, seconds: float, callback: Callable[[], Awaitable[None] | None]) -> None:
    async def guarded() -> None:
        # Tornado would log the exception's text, too, which may quote a user.
        try:
            if (running := callback()) is not None:
                await running
        except Exception as exc:  # noqa: BLE001 - whatever it was, the next time it may work
            log.error("%s", logs.describe(exc))

    periodic = PeriodicCallback(guarded, seconds * 1000)
    periodic.start()
    stack.callback(periodic.stop)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    if not (await asyncio.wait((task,), timeout=_CANCEL_SECONDS))[0]:
        log.error("%s does not end; the server ends without it", task.get_name())


def _greet(settings: Settings, secret: str | None, port: int, loaded: Sequence[Loaded], worker: Worker | None) -> None:
    facts = summary(settings, port) | {"plugins": ", ".join(map(str, loaded)) or "none"}
    for_people = sys.stdout.isatty() or settings.log_format is LogFormat.TEXT
    invites = worker is None or worker.is_first
    if settings.env is Environment.DEVELOPMENT and for_people and invites:  # a stored log must not have a token
        _invite(settings, secret, worker.port if worker else port, loaded, worker.count if worker else 1)
    log.info("chatstream %s listens on %s", __version__, facts.pop("listens"), extra={"facts": facts})


def _invite(settings: Settings, secret: str | None, port: int, loaded: Sequence[Loaded], processes: int) -> None:
    """Print the next steps for the person who started the server."""
    model = _model_in_words(settings)
    where = f"embedded MongoDB in {settings.data_dir}/" if settings.uses_embedded_database else database(settings)
    host = "localhost" if settings.host in ("127.0.0.1", "0.0.0.0", "::", "") else settings.host  # noqa: S104 - compared
    origin = f"http://{address(host, port)}"
    plugins = ", ".join(each.name for each in loaded)
    lines = [
        f"chatstream {__version__} · {model} · {where} · {f'plug-ins: {plugins}' if plugins else 'no plug-ins'}"
        f"{f' · {processes} processes' if processes > 1 else ''}",
        "",
    ]
    if secret is not None and settings.jwt_secret is None:
        token = auth.mint(secret, DEMO_USER, _DEMO_TOKEN_SECONDS, auth.rules(settings))
        stream = f"{origin}/api/v1/chat/conversations/{DEMO_CONVERSATION}/stream"
        lines += [f'  curl -N -H "Authorization: Bearer {token}" {stream}', "", f"  {origin}/#token={token}"]
    else:
        lines += [f"  {origin}/", "", "  `chatstream token` (in a clone: scripts/mint_token) makes a token."]
    try:
        print("\n".join([*lines, "", "  Ctrl-C stops it.", ""]), flush=True)  # noqa: T201 - for whoever started it
    except OSError:  # nobody reads the output; serve anyway
        logs.drop_output()


def _model_in_words(settings: Settings) -> str:
    if settings.models_file is not None:
        return f"models of {settings.models_file}"
    return "demo model" if settings.uses_demo_model else f"model {settings.openai_model}"
