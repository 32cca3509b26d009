"""What plug-ins may do; and that one that is slow, raises or lies harms only itself."""

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from chatstream.errors import ConfigurationError, ErrorCode, Unavailable
from chatstream.events import Cursor
from chatstream.formats.ui_message_stream import UIMessageStream, ui_messages
from chatstream.llm.model import Finish, Turn
from chatstream.models import Annotation, Recommendation, Status, Usage
from chatstream.pieces import Data
from chatstream.plugins import loading
from chatstream.plugins.loading import Loaded
from chatstream.plugins.plugin import RULES, AnswerFailed, Blocked, Plugin, Reasoning, Refused
from chatstream.plugins.threads import Threads
from tests.support.scripted_model import STOP, Bench, bench, following

CARD = Annotation(kind="card", id="c1", message="A card", data={"title": "T", "n": 2**70, "deep": [{"a.b": None}]})


def plugged(plugin: Plugin, *, deadline: float | None = None, failure: str | None = None) -> list[Loaded]:
    rules = {hook: rule for hook, rule in RULES.items() if hasattr(plugin, hook)}
    if deadline is not None:
        rules = {hook: rule._replace(deadline=deadline) for hook, rule in rules.items()}
    if failure is not None:
        rules = {hook: rule._replace(open=failure == "open") for hook, rule in rules.items()}
    return [Loaded("app:plugin", plugin, rules, Threads("app:plugin"))]


def having(**methods: Any) -> Plugin:
    """A plug-in with these methods."""
    return type("Made", (), {name: staticmethod(method) for name, method in methods.items()})()


def calls(b: Bench, method: str, outcome: str) -> float:
    line = f'chatstream_plugin_calls_total{{method="{method}",outcome="{outcome}",plugin="app:plugin"}} '
    text = b.metrics.expose("")[1].decode()
    return next((float(each.removeprefix(line)) for each in text.splitlines() if each.startswith(line)), 0)


async def answered(b: Bench, *steps: Any, content: str = "Tell me.") -> Any:
    """The stored answer to `content`, for which the model says `steps`."""
    conversation = await b.conversation()
    b.model.reply(*(steps or ("Fine.", STOP)))
    await b.post(conversation, content)
    return await b.ended(conversation)


@contextlib.contextmanager
def hanging() -> Iterator[Callable[..., Any]]:
    """A function that blocks its thread until the test is over."""
    over = threading.Event()
    try:
        yield lambda *_: over.wait(60) and None
    finally:
        over.set()


def leave(*_: object) -> None:
    sys.exit(3)


def fail(*_: object) -> None:
    raise ValueError("secret")


async def hang(*_: object) -> None:
    """It takes no notice of its cancellation, for a while."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.sleep(0.1)


async def cancel_itself(*_: object) -> None:
    raise asyncio.CancelledError


BAD = [fail, leave, hang, cancel_itself, lambda *_: object(), lambda *_: True, lambda *_: "x" * 9999]


# Context ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_context_is_added_to_the_prompt_and_before_the_message(mongodb_uri: str) -> None:
    asked: list[Any] = []

    def context(turn: Any) -> list[Turn]:
        asked.append(turn)
        return [Turn("system", "It is noon."), Turn("user", "What do you know?"), Turn("assistant", "A fact.")]

    async with bench(mongodb_uri, plugins=plugged(having(context=context))) as b:
        conversation = await b.conversation()
        for number in (1, 2):
            b.model.reply(f"Answer {number}.", STOP)
            await b.post(conversation, f"Question {number}?")
            await b.ended(conversation)
        told = [(turn.role, turn.content) for turn in b.model.calls[1].turns]
        assert told == [
            ("system", "Be brief.\n\nIt is noon."),
            ("user", "Question 1?"),
            ("assistant", "Answer 1."),
            ("user", "What do you know?"),
            ("assistant", "A fact."),
            ("user", "Question 2?"),
        ]
        assert [(turn.message, turn.attempt, len(turn.history)) for turn in asked] == [
            ("Question 1?", 1, 0),
            ("Question 2?", 1, 2),
        ]
        await b.commands.regenerate(conversation, request_id="r")
        b.model.calls[-1].say("Again.", STOP) if len(b.model.calls) > 2 else (await b.model.call(3)).say("Again.", STOP)
        await b.ended(conversation)
        assert (asked[2].attempt, asked[2].key) == (2, asked[1].key)
        assert asked[0].key != asked[1].key


@pytest.mark.gen_test
async def test_context_counts_and_the_oldest_is_left_out_for_it(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(context=lambda _: "c" * 4_000))) as b:
        conversation = await b.conversation()
        for _ in range(2):
            b.model.reply("a" * 3_000, STOP)
            await b.post(conversation, "q" * 1_000)
            await b.ended(conversation)
        b.model.reply("a", STOP)
        await b.post(conversation, "q" * 1_000)
        await b.ended(conversation)
        assert [turn.role for turn in b.model.calls[2].turns] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("context", BAD)
@pytest.mark.gen_test
async def test_without_context_the_answer_goes_on(mongodb_uri: str, context: Callable[..., Any]) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(context=context), deadline=0.2)) as b:
        assert (await answered(b)).content == "Fine."
        assert [turn.content for turn in b.model.calls[0].turns] == ["Be brief.", "Tell me."]
        assert calls(b, "context", "ok") == 0


@pytest.mark.gen_test
async def test_if_its_rule_is_closed_the_answer_fails(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(context=fail), failure="closed")) as b:
        answer = await answered(b)
        assert (answer.status, answer.failure.code) == (Status.FAILED, ErrorCode.UPSTREAM_UNAVAILABLE)
        assert b.model.calls == []


# Admission --------------------------------------------------------------------------------------------------------


def only_polite(turn: Any) -> None:
    if "please" not in turn.message:
        raise Refused("Say please.", code="impolite")


@pytest.mark.gen_test
async def test_what_is_not_admitted_is_neither_stored_nor_paid_for(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(admit=only_polite))) as b:
        conversation = await b.conversation()
        with pytest.raises(Refused) as refused:
            await b.post(conversation, "Now!")
        assert (refused.value.status, refused.value.code, refused.value.detail) == (403, "impolite", "Say please.")
        assert b.model.calls == []
        assert await b.reading.newest(conversation.key) is None
        assert calls(b, "admit", "refused") == 1
        assert (await answered(b, content="Now, please!")).content == "Fine."


@pytest.mark.gen_test
async def test_a_message_that_was_accepted_is_not_refused_when_it_comes_again(mongodb_uri: str) -> None:
    open_: list[bool] = [True]

    def admit(turn: Any) -> None:
        if not open_:
            raise Refused("Closed.")

    async with bench(mongodb_uri, plugins=plugged(having(admit=admit))) as b:
        conversation = await b.conversation()
        b.model.reply("Fine.", STOP)
        first = await b.post(conversation, "One?", client_message_id="m1")
        await b.ended(conversation)
        open_.clear()
        again = await b.post(conversation, "One?", client_message_id="m1")
        assert again.message.id == first.message.id
        with pytest.raises(Refused):
            await b.post(conversation, "Two?", client_message_id="m2")
        with pytest.raises(Refused):
            await b.commands.regenerate(conversation, request_id="r")
        assert len(b.model.calls) == 1


@pytest.mark.parametrize("admit", [*BAD, lambda _: False])
@pytest.mark.gen_test
async def test_nothing_is_admitted_that_was_not_looked_at(mongodb_uri: str, admit: Callable[..., Any]) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(admit=admit), deadline=0.2)) as b:
        conversation = await b.conversation()
        with pytest.raises(Unavailable) as refused:
            await b.post(conversation)
        assert refused.value.code == "admission_unavailable"
        assert "secret" not in refused.value.detail
    async with bench(mongodb_uri, plugins=plugged(having(admit=admit), deadline=0.2, failure="open")) as b:
        assert (await answered(b)).content == "Fine."


# Release ----------------------------------------------------------------------------------------------------------

PHRASE = "the code is 4711"


def hold_back(text: str, told: int, ended: bool) -> int:
    """Blocks the phrase; holds back whatever may become it."""
    if PHRASE in text:
        raise Blocked
    if ended:
        return len(text)
    return max(told, next(n for n in range(len(text) + 1) if PHRASE.startswith(text[n:])))


@pytest.mark.gen_test
async def test_a_phrase_that_is_held_back_is_nowhere(mongodb_uri: str) -> None:
    held = plugged(having(release=hold_back))
    async with bench(mongodb_uri, plugins=held) as b, bench(mongodb_uri, plugins=held) as there, following(there):
        conversation = await b.conversation()
        await b.post(conversation, "What is it?")
        call = await b.model.call(1)
        async with b.viewer(conversation) as watched, there.viewer(conversation) as elsewhere:
            call.say("Well, the c", "ode", " may be: the co", "de is", " 47", "11, he", " said", STOP)
            for viewer in (watched, elsewhere):
                complete = await viewer.until("llm_complete")
                assert (complete["content"], complete["finishReason"]) == ("Well, the code may be: ", "content_filter")
                assert viewer.text in ("Well, the code may be: ", "")
        assert call.closed.is_set()
        answer = await b.newest(conversation)
        async with there.viewer(conversation, Cursor(answer.id, 0), once=True) as later:
            assert (await later.until("llm_complete"))["content"] == later.text == "Well, the code may be: "
        assert (answer.status, answer.recommendations) == (Status.COMPLETE, ())
        whole = str(answer) + UIMessageStream().ending(answer, 0).decode() + str(ui_messages([answer]))
        assert "4711" not in whole
        assert "the code is" not in whole


@pytest.mark.gen_test
async def test_what_is_not_blocked_comes_whole(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(release=hold_back))) as b:
        answer = await answered(b, "the code", " is", " 47", Finish(reason="length", usage=None))
        assert (answer.content, answer.finish_reason) == ("the code is 47", "length")


@pytest.mark.parametrize("release", [*BAD, lambda *_: -1, lambda *_: 10**9])
@pytest.mark.gen_test
async def test_nothing_is_told_that_was_not_released(mongodb_uri: str, release: Callable[..., Any]) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(release=release), deadline=0.2)) as b:
        answer = await answered(b, "Some", " text.", STOP)
        assert (answer.content, answer.finish_reason) == ("", "content_filter")
        assert b.model.open == 0
    async with bench(mongodb_uri, plugins=plugged(having(release=release), deadline=0.2, failure="open")) as b:
        assert (await answered(b, "Some", " text.", STOP)).content == "Some text."


# Annotations ------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_annotations_are_told_stored_and_told_again(mongodb_uri: str) -> None:
    bet = Recommendation(bet_id="b", odds=2.0, odds_text="2", selection=None, stake=None)
    async with bench(mongodb_uri, plugins=plugged(having(annotate=lambda _: [CARD, bet]))) as b:
        conversation = await b.conversation()
        b.model.reply("Fine.", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            await watched.until("system")
            first, second = watched.frames[-1].data, await watched.until("system")
        assert first["metadata"]["betId"] == "b"
        assert (second["message"], second["metadata"]) == ("A card", CARD.data)
        between = Cursor.parse(str(watched.frames[-2].id))
        async with b.viewer(conversation, between) as again:
            assert (await again.until("system"))["metadata"] == CARD.data
        stored = await b.newest(conversation)
        assert (stored.annotations, stored.recommendations) == ((CARD,), (bet,))
        frames = [frame for frame in UIMessageStream().ending(stored, 0).decode().split("\n\n") if "data-card" in frame]
        assert len(frames) == 1


@pytest.mark.parametrize(
    "annotate",
    [
        *BAD,
        lambda _: [{"a": 1}],
        lambda _: [Annotation(kind="A B", id="1", message="", data={})],
        lambda _: [Annotation(kind="notice", id="1", message="", data={})],
        lambda _: [Annotation(kind="a", id="1", message="", data={"a": object()})],
        lambda _: [Annotation(kind="a", id="1", message="", data={"a": "\ud800"})],
        lambda _: [Annotation(kind="a", id="1", message="", data={"a": "x" * 20_000})],
        lambda _: [CARD] * 1_000,
        lambda _: [Recommendation(bet_id="b", odds=float("nan"), odds_text="", selection=None, stake=None)],
        lambda _: [Recommendation(bet_id=1, odds=2, odds_text="", selection=None, stake=None)],  # type: ignore[arg-type]  # the point
    ],
)
@pytest.mark.gen_test
async def test_an_answer_does_without_annotations(mongodb_uri: str, annotate: Callable[..., Any]) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(annotate=annotate), deadline=0.2)) as b:
        answer = await answered(b)
        assert (answer.status, answer.content, answer.annotations, answer.recommendations) == (
            Status.COMPLETE,
            "Fine.",
            (),
            (),
        )
        assert calls(b, "annotate", "ok") == 0


# An answerer of one's own -----------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_an_answerer_takes_the_models_place(mongodb_uri: str) -> None:
    async def answer(turn: Any) -> AsyncIterator[Any]:
        async with asyncio.timeout(20):  # which one task must enter and leave
            yield Reasoning("Hm.")
            yield f"You said: {turn.message}"
            yield Data(kind="odds_update", id="1", data={})
            yield ""
            yield " 👍"
        yield Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)

    async with bench(mongodb_uri, plugins=plugged(having(answer=answer))) as b:
        stored = await answered(b)
        assert (stored.content, stored.finish_reason, stored.usage.total_tokens) == ("You said: Tell me. 👍", "stop", 3)
        assert b.model.calls == []


@pytest.mark.gen_test
async def test_an_answerer_is_closed_when_its_answer_is_stopped(mongodb_uri: str) -> None:
    closed = asyncio.Event()

    async def answer(turn: Any) -> AsyncIterator[str]:
        try:
            yield "So far"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with bench(mongodb_uri, plugins=plugged(having(answer=answer))) as b:
        conversation = await b.conversation()
        await b.post(conversation)
        async with b.viewer(conversation) as watched:
            await watched.until("llm_chunk")
            stopped = await b.commands.stop(conversation, None)
        assert (stopped.status, stopped.content_length) == (Status.STOPPED, 6)
        assert closed.is_set()


async def gives_up(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    raise AnswerFailed("secret", ErrorCode.UPSTREAM_RATE_LIMITED)


async def breaks(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    raise KeyError("secret")


async def exits(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    sys.exit(1)


async def babbles(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    yield 7


async def stalls(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    await hang()


async def spins(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    while True:
        yield "\ud800"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (gives_up, "upstream_rate_limited"),
        (breaks, "upstream_unavailable"),
        (exits, "upstream_unavailable"),
        (babbles, "upstream_protocol"),
        (stalls, "upstream_timeout"),
        (spins, "upstream_protocol"),
    ],
)
@pytest.mark.gen_test
async def test_an_answerers_fault_ends_its_answer(mongodb_uri: str, answer: Callable[..., Any], code: str) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(answer=answer), deadline=0.2)) as b:
        stored = await answered(b)
        assert (stored.status, stored.content, stored.failure.code) == (Status.FAILED, "So far", code)


# Threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_what_blocks_has_threads_of_its_own_and_harms_no_other_plugin(mongodb_uri: str) -> None:
    with hanging() as wait_long:
        good = plugged(having(annotate=lambda _: [CARD]))
        slow = plugged(having(annotate=wait_long), deadline=0.2)
        async with bench(mongodb_uri, plugins=[*slow, *good]) as b:
            for _ in range(8):  # more than it has threads: the last ones wait for one, and no longer than the others
                assert (await answered(b)).annotations == (CARD,)
            assert calls(b, "annotate", "late") == 8


@pytest.mark.gen_test
async def test_so_many_wait_for_a_thread_and_no_more() -> None:
    with hanging() as wait_long:
        threads = Threads("t")
        waiting = [asyncio.create_task(threads.run(wait_long)) for _ in range(200)]
        done, _ = await asyncio.wait(waiting, timeout=0.2)
        assert len(done) == 132
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


@pytest.mark.gen_test
async def test_the_loop_runs_on_while_a_plugin_blocks(mongodb_uri: str) -> None:
    ticks: list[float] = []
    blocked = threading.Event()

    def annotate(_: object) -> list[Any]:
        seen = len(ticks)
        while len(ticks) < seen + 5 and not blocked.wait(0):  # the loop's ticks end it
            time.sleep(0.001)
        return [CARD]

    async def tick() -> None:
        while True:
            ticks.append(0)
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    async with bench(mongodb_uri, plugins=plugged(having(annotate=annotate))) as b:
        assert (await answered(b)).annotations == (CARD,)
    ticking.cancel()
    blocked.set()


# Loading ----------------------------------------------------------------------------------------------------------


def make_good() -> Plugin:
    return having(context=lambda turn: None)


def make_bad() -> Plugin:
    raise RuntimeError("no key")


def make_nothing() -> Plugin:
    return object()


def make_wrong_arguments() -> Plugin:
    return having(release=lambda text: len(text))


def make_no_generator() -> Plugin:
    return having(answer=lambda turn: "x")


def make_wrong_deadline() -> Plugin:
    plugin = make_good()
    plugin.deadlines = {"context": "soon"}
    return plugin


def make_wrong_rule() -> Plugin:
    plugin = make_good()
    plugin.failures = {"context": "ajar"}
    return plugin


def make_unknown_rule() -> Plugin:
    plugin = make_good()
    plugin.deadlines = {"admit": 1}
    return plugin


def make_leaving() -> Plugin:
    sys.exit(2)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("make_bad", "cannot be called: RuntimeError: no key"),
        ("make_leaving", "cannot be called: SystemExit"),
        ("make_missing", "cannot be called: AttributeError"),
        ("make_nothing", "has none of the methods context, admit, release, annotate, answer, budget"),
        ("make_wrong_arguments", "`release` must take 3 arguments"),
        ("make_no_generator", "`answer` must be an async generator"),
        ("make_wrong_deadline", "the deadline of `context` must be a number of seconds"),
        ("make_wrong_rule", "the failure rule of `context` must be"),
        ("make_unknown_rule", "`deadlines` names 'admit', which is no method of it"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_named(monkeypatch: pytest.MonkeyPatch, function: str, words: str) -> None:
    monkeypatch.setitem(sys.modules, "an_app", sys.modules[__name__])
    with pytest.raises(ConfigurationError, match=words) as error:
        loading.load([f"an_app:{function}"])
    assert f"an_app:{function}" in str(error.value)


def test_a_plugin_may_set_its_deadlines_and_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "an_app", sys.modules[__name__])
    [loaded] = loading.load(["an_app:make_good"])
    assert loaded.rules == {"context": RULES["context"]}
    assert loading.load([]) == []
    for name in ("nowhere", "nowhere:", ":f", "no.such.module:f"):
        with pytest.raises(ConfigurationError, match="CHATSTREAM_PLUGINS"):
            loading.load([name])
