"""The metrics for operators, in Prometheus' format.

Other modules report events (``metrics.answer_finished(...)``); only this module knows which metrics they change. All
durations are in seconds. Labels have few values, all chosen by the server or its operator: a route's pattern and not a
path, a stable code and not a text; no user, no conversation, and only models of the catalogue.

A call takes about a microsecond, so make one per request, answer or flush, not per chunk.
"""

import platform
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from chatstream import __version__
from chatstream.errors import ErrorCode
from chatstream.models import Rating, Round, Status, Usage, UsageSource

# Seconds of a request: from an indexed read to the 5 s within which every request is answered.
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
# Seconds of a database command: a healthy one takes 1-5 ms; the driver gives up after 2 s.
_DATABASE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
# Seconds until a model's first token: 0.2-2 s, tens of seconds with reasoning; the default deadline is 60 s.
_FIRST_TOKEN_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
# Seconds of an answer: a sentence takes one, the longest answer ten minutes (`CHATSTREAM_ANSWER_TIMEOUT`).
_ANSWER_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
# Seconds of the event loop's lag: an idle loop is far below a millisecond; from 50 ms on, text visibly jerks.
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

# Seconds of a plug-in's call: from a check of a phrase to a remote search. The default deadlines are 2 to 5 s; a whole
# answer takes minutes.
_PLUGIN_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 60)

# Rounds of an answer: by default at most ten, and one in which the model says why there are no more.
_ROUND_BUCKETS = (1, 2, 3, 5, 8, 12)

# The label for models outside the catalogue: clients may make up their names.
_OTHER = "other"

# The methods with a label of their own; clients can make up others.
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one server, in their own registry. Thread-safe."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"chatstream_{name}", text, registry=registry)

        # With labels: a function that returns the counter, or the histogram, of some labels' values. It is a cache, as
        # the library's own way to it takes as long as counting. The values of each label are few.
        def counters(name: str, text: str, labels: Sequence[str]) -> Callable[..., Counter]:
            return cache(Counter(f"chatstream_{name}", text, labels, registry=registry).labels)

        def histograms(
            name: str, text: str, buckets: Sequence[float], labels: Sequence[str]
        ) -> Callable[..., Histogram]:
            return cache(Histogram(f"chatstream_{name}", text, labels, registry=registry, buckets=buckets).labels)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"chatstream_{name}", text, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"chatstream_{name}", text, registry=registry, buckets=buckets)

        build = Info("chatstream_build", "What runs.", registry=registry)
        build.info({"version": __version__, "python": platform.python_version()})

        self._requests = histograms(
            "request_duration_seconds",
            "From a request's first line to its answer, or to the beginning of its stream.",
            _REQUEST_BUCKETS,
            ("route", "method", "status"),
        )
        self._refusals = counters("refusals_total", "Requests that were answered with an error, by its code.", ["code"])
        self._verifications = counters("token_verifications_total", "Tokens looked at, by what they were.", ["outcome"])

        self._streams_open = gauge("streams_open", "Streams that are open.")
        self._streams_ended = counters("streams_ended_total", "Streams that have ended, by why.", ["reason"])
        self._chunk_lag = histogram(
            "chunk_lag_seconds",
            "From reading a chunk of the model's to its having left for a viewer; one sample a second and stream.",
            _LAG_BUCKETS,
        )

        self._answers_running = gauge("answers_running", "Answers that are being generated in this process.")
        self._answers_finished = counters(
            "answers_finished_total", "Answers that have ended here, by status and error code.", ["outcome", "code"]
        )
        self._orphans = counter("orphans_ended_total", "Answers ended here whose process was gone.")
        self._titles = counters("titles_total", "Titles by the model, by what came of them.", ["outcome"])
        self._answer_duration = histogram(
            "answer_duration_seconds", "From an answer's beginning to its end being stored.", _ANSWER_BUCKETS
        )
        self._first_token = histogram(
            "time_to_first_token_seconds", "From an answer's beginning to its first text.", _FIRST_TOKEN_BUCKETS
        )
        self._tokens = counters(
            "tokens_total",
            "Tokens as the model counted them, where it did; cached and reasoning are among them.",
            ["kind"],
        )
        self._estimated_tokens = counters(
            "estimated_tokens_total", "Tokens by the length of the texts, where the model counted none.", ["kind"]
        )
        self._model_tokens = counters(
            "model_tokens_total", "Tokens, counted or by the length of the texts, by the model.", ["model", "kind"]
        )
        self._cost = counters(
            "cost_micros_total",
            "What answers cost by the catalogue's prices, in millionths of its currency, by the model.",
            ["model"],
        )
        self._models: frozenset[str] = frozenset()
        for kind in ("prompt", "completion"):
            self._tokens(kind)
            self._estimated_tokens(kind)

        self._ratings = counters(
            "ratings_total", "Answers that users rated up or down, or took the rating back of.", ["model", "rating"]
        )

        self._model_response = histogram(
            "model_response_seconds", "From a request to the model to the headers of its answer.", _FIRST_TOKEN_BUCKETS
        )
        self._model_retries = counters("model_retries_total", "Requests to the model sent again, by why.", ["code"])

        self._contexts_trimmed = counter(
            "contexts_trimmed_total", "Conversations that became too long for their model, and were cut."
        )
        self._erased = counters(
            "erased_total", "What was deleted for good: by a user's wish, or because of its age.", ["why", "what"]
        )

        self._plugin_calls = counters(
            "plugin_calls_total", "Calls of plug-ins' methods, by how they went.", ["plugin", "method", "outcome"]
        )
        self._plugin_blocked = counters(
            "plugin_loop_blocked_seconds_total",
            "How long plug-ins' methods held up the event loop, in steps of more than 40 ms.",
            ["plugin", "method"],
        )
        self._plugin_duration = histograms(
            "plugin_call_duration_seconds", "Calls of plug-ins' methods.", _PLUGIN_BUCKETS, ["plugin", "method"]
        )
        self._tool_calls = counters("tool_calls_total", "Calls of tools, by how they went.", ["tool", "outcome"])
        self._tool_duration = histograms("tool_call_duration_seconds", "Calls of tools.", _PLUGIN_BUCKETS, ["tool"])
        self._answer_rounds = histogram(
            "answer_rounds",
            "Requests to a model that an answer took, with the results of tools between.",
            _ROUND_BUCKETS,
        )
        self._answers_waiting = counter(
            "answers_waiting_total", "Times an answer began to wait for somebody's decision, or for the app."
        )
        self._unknown_outcomes = counter(
            "tool_outcomes_unknown_total", "Answers that ended because nobody knows whether a tool was carried out."
        )
        self._decisions = counters("tool_decisions_total", "Calls that waited, by what became of them.", ["outcome"])
        self._text_held = histogram(
            "text_held_seconds", "How long a plug-in held an answer's text back before it was told.", _PLUGIN_BUCKETS
        )

        self._webhooks = counters(
            "webhooks_total", "Tries to send an event to the webhook, by how they went.", ["type", "outcome"]
        )

        self._database = histograms(
            "database_command_duration_seconds", "Commands that succeeded.", _DATABASE_BUCKETS, ["command"]
        )
        self._database_failures = counters("database_command_failures_total", "Commands that failed.", ["command"])
        self._database_heartbeat_failures = counter(
            "database_heartbeat_failures_total", "Times a database server did not answer the driver's heartbeat."
        )
        self._passed_over = counters(
            "passed_over_total", "Documents and changes of a shape that this version does not know.", ["what"]
        )

        self._loop_lag = histogram(
            "event_loop_lag_seconds", "How late the event loop comes to what is due.", _LAG_BUCKETS
        )

        # Create these counters with 0: Prometheus sees a counter grow only from a value it has seen, so the first
        # failure of each kind would otherwise raise no alert.
        for type_ in ("answer.ended", "answer.waiting", "budget.exhausted"):
            self._webhooks(type_, "dead")
        for decision in ("approved", "denied", "answered", "expired", "stopped"):
            self._decisions(decision)
        for code in ErrorCode:
            self._answers_finished(Status.FAILED, code)
        for refusal in ("internal_server_error", ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.RATE_LIMITED):
            self._refusals(refusal)

    # Requests ---------------------------------------------------------------------------------------------------------

    def request_finished(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the pattern that matched; `seconds` until the response, or until the stream
        began."""
        known = method if method in _METHODS else "other"
        self._requests(route, known, f"{status // 100}xx").observe(seconds)

    def refused(self, code: str) -> None:
        """Count a request that was answered with an error; `code` is its stable code."""
        self._refusals(code).inc()

    def token_verified(self, outcome: str) -> None:
        """Count a token check. `outcome` is ``accepted``, or the reason for the rejection (see `auth.refusals`)."""
        self._verifications(outcome).inc()

    # Streams ----------------------------------------------------------------------------------------------------------

    def watch(self, *, streams_open: Callable[[], int], answers_running: Callable[[], int]) -> None:
        """Set the functions that return these numbers when the metrics are scraped."""
        self._streams_open.set_function(streams_open)
        self._answers_running.set_function(answers_running)

    def stream_ended(self, reason: str) -> None:
        """Count an ended stream. `reason` has few values: the client left, the connection's time was over, or an
        error code."""
        self._streams_ended(reason).inc()

    def chunk_left(self, lag: float) -> None:
        """Record the seconds between reading a chunk from the model and sending it to a viewer."""
        self._chunk_lag.observe(lag)

    # Answers ----------------------------------------------------------------------------------------------------------

    def answer_finished(
        self,
        outcome: str,
        code: ErrorCode | None,
        *,
        seconds: float,
        first_token: float | None,
        usage: Usage | None,
        model: str | None = None,
        rounds: Sequence[Round] = (),
    ) -> None:
        """Count an answer whose end is stored, `seconds` after its beginning; `first_token` is None if there was no
        text.

        `outcome` is its status, or ``deleted`` if its conversation was deleted. `rounds` are set if models were asked
        several times.
        """
        self._answer_rounds.observe(len(rounds) or 1)
        self._answers_finished(outcome, code or "").inc()
        self._answer_duration.observe(seconds)
        if first_token is not None:
            self._first_token.observe(first_token)
        if len({one.model for one in rounds}) > 1 and all(one.usage is not None for one in rounds):
            for one in rounds:
                self._used(one.usage, one.model)
        else:
            self._used(usage, model)

    def outcome_unknown(self) -> None:
        """Count an answer that ended because a tool's outcome is unknown."""
        self._unknown_outcomes.inc()

    def answer_waits(self) -> None:
        """Count an answer that waits for a decision. Its usage is counted when it has ended."""
        self._answers_waiting.inc()

    def call_decided(self, outcome: str) -> None:
        """Count a call that stops waiting: ``approved``, ``denied``, ``answered`` (by the app), ``expired`` or
        ``stopped``."""
        self._decisions(outcome).inc()

    def waiting_ended(self, outcome: str, usage: Usage | None, model: str | None) -> None:
        """Count an answer that ended while it waited, with this outcome."""
        self._answers_finished(outcome, "").inc()
        self._used(usage, model)

    def orphan_ended(self, usage: Usage | None = None, model: str | None = None) -> None:
        """Count an answer that was ended because its process is gone."""
        self._orphans.inc()
        self._used(usage, model)

    def title_made(self, outcome: str) -> None:
        """Count a title request: ``given``, ``none``, ``named`` (by somebody before it came), ``late``, ``failed``."""
        self._titles(outcome).inc()

    def title_used(self, usage: Usage, model: str | None) -> None:
        """Count the tokens used for a title."""
        self._used(usage, model)

    def know_models(self, names: Iterable[str]) -> None:
        """Set the model names that get a label of their own, from the catalogue: any other name counts as `_OTHER`."""
        self._models = frozenset(names)

    def _used(self, usage: Usage | None, model: str | None) -> None:
        if usage is None:
            return
        tokens = self._estimated_tokens if usage.source is UsageSource.ESTIMATED else self._tokens
        tokens("prompt").inc(usage.prompt_tokens)
        tokens("completion").inc(usage.completion_tokens)
        model = model if model in self._models else _OTHER
        self._model_tokens(model, "prompt").inc(usage.prompt_tokens)
        self._model_tokens(model, "completion").inc(usage.completion_tokens)
        if isinstance(usage.cost_micros, int):
            self._cost(model).inc(usage.cost_micros)
        for kind, count in (("cached", usage.cached_tokens), ("reasoning", usage.reasoning_tokens)):
            if isinstance(count, int):
                tokens(kind).inc(count)
                self._model_tokens(model, kind).inc(count)

    def rated(self, rating: Rating | None, model: str | None) -> None:
        """Count a user's rating of an answer of `model`; None: the rating was withdrawn."""
        self._ratings(model if model in self._models else _OTHER, rating or "none").inc()

    def context_trimmed(self) -> None:
        """Count a conversation from which older messages are now left out for the model."""
        self._contexts_trimmed.inc()

    # Stored data -----------------------------------------------------------------------------------------------------

    def erased(self, why: str, *, conversations: int, messages: int) -> None:
        """Count deleted conversations and messages. `why` is ``user`` or ``retention``."""
        self._erased(why, "conversations").inc(conversations)
        self._erased(why, "messages").inc(messages)

    # The model and the database ---------------------------------------------------------------------------------------

    def model_responded(self, seconds: float) -> None:
        """Record the seconds until a model's response began; refused requests are not counted here."""
        self._model_response.observe(seconds)

    def model_retried(self, code: ErrorCode) -> None:
        """Count a request to the model that is sent again because of `code`."""
        self._model_retries(code).inc()

    def plugin_blocked(self, plugin: str, method: str, seconds: float) -> None:
        """Record how long a plug-in's method blocked the event loop without an `await`."""
        self._plugin_blocked(plugin, method).inc(seconds)

    def plugin_called(self, plugin: str, method: str, outcome: str, seconds: float) -> None:
        """Count a plug-in's call. `outcome` is ``ok``, ``refused``, ``closed`` (the caller left), ``late``, ``failed``,
        ``nonsense``."""
        self._plugin_calls(plugin, method, outcome).inc()
        self._plugin_duration(plugin, method).observe(seconds)

    def tool_called(self, tool: str, outcome: str, seconds: float) -> None:
        """Count a tool call. `outcome` is ``ok``, ``failed``, ``late``, ``refused`` (not carried out), ``asks`` (the
        user), ``closed`` (stopped) or ``unknown`` (it may have been carried out)."""
        self._tool_calls(tool, outcome).inc()
        self._tool_duration(tool).observe(seconds)

    def text_held(self, seconds: float) -> None:
        """Record how long a piece of text was held back."""
        self._text_held.observe(seconds)

    def webhook(self, type_: str, outcome: str) -> None:
        """Count a webhook request. `outcome` is ``delivered``, ``failed`` (to be retried) or ``dead`` (given up)."""
        self._webhooks(type_, outcome).inc()

    def database_answered(self, command: str, seconds: float) -> None:
        """Count a successful database command."""
        self._database(command).observe(seconds)

    def database_failed(self, command: str) -> None:
        """Count a database command that failed or got no response."""
        self._database_failures(command).inc()

    def database_missed_heartbeat(self) -> None:
        """Count a missed heartbeat of a database server."""
        self._database_heartbeat_failures.inc()

    def passed_over(self, what: str) -> None:
        """Count a ``document`` or a ``change`` that was ignored because this version does not know its shape."""
        self._passed_over(what).inc()

    # The process ------------------------------------------------------------------------------------------------------

    def loop_was_late(self, seconds: float) -> None:
        """Record a sample of the event loop's lag (see `lag`)."""
        self._loop_lag.observe(seconds)

    def expose(self, accept: str) -> tuple[str, bytes]:
        """Return all metrics as (content type, body): in the OpenMetrics format if `accept` asks for it, else in
        Prometheus'."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)
