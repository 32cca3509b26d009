"""The methods of plug-ins; and a plug-in that is slow, raises, or returns invalid values affects no other part."""

import asyncio
import contextlib
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count, repeat
from pathlib import Path
from typing import Any

import pytest

from chatstream.errors import ConfigurationError, ErrorCode, Unavailable
from chatstream.events import Cursor
from chatstream.formats.ui_message_stream import UIMessageStream, ui_messages
from chatstream.llm.model import Delta, Finish, Turn
from chatstream.models import RECOMMENDATION, Annotation, Status, Usage, recommendation
from chatstream.pieces import Data, OpenToolCall, ToolCallPart, fold
from chatstream.plugins import loading
from chatstream.plugins.cards import Card
from chatstream.plugins.loading import Loaded, threads
from chatstream.plugins.plugin import RULES, AnswerFailed, Blocked, Plugin, Reasoning, Refused
from chatstream.plugins.threads import Threads
from tests.support.scripted_model import STOP, Bench, bench, following

# A whole number: an id may have these digits by chance.
SECRET = re.compile(r"\b4711\b")

CARD = Annotation(kind="card", id="c1", message="A card", data={"title": "T", "n": 2**70, "deep": [{"a.b": None}]})


def plugged(plugin: Plugin, *, deadline: float | None = None, failure: str | None = None) -> list[Loaded]:
    rules = {hook: rule for hook, rule in RULES.items() if hasattr(plugin, hook)}
    if deadline is not None:
        rules = {hook: rule._replace(deadline=deadline) for hook, rule in rules.items()}
    if failure is not None:
        rules = {hook: rule._replace(open=failure == "open") for hook, rule in rules.items()}
    return [Loaded("app:plugin", plugin, rules, threads("app:plugin"))]


def having(**methods: Any) -> Plugin:
    """A plug-in with these methods."""
    return type("Made", (), {name: staticmethod(method) for name, method in methods.items()})()


def calls(b: Bench, method: str, outcome: str) -> float:
    line = f'chatstream_plugin_calls_total{{method="{method}",outcome="{outcome}",plugin="app:plugin"}} '
    text = b.metrics.expose("")[1].decode()
    return next((float(each.removeprefix(line)) for each in text.splitlines() if each.startswith(line)), 0)


async def answered(b: Bench, *steps: Any, content: str = "Tell me.") -> Any:
    """Post `content`, to which the model answers with `steps`; returns the stored answer."""
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


class Panic(BaseException):
    """The base class of the exceptions that libraries in Rust raise."""


async def panic(*_: object) -> None:
    raise Panic


async def exit_generator(*_: object) -> None:
    raise GeneratorExit


async def hang(*_: object) -> None:
    """A method that ignores its cancellation for a while."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.sleep(0.1)


async def cancel_itself(*_: object) -> None:
    raise asyncio.CancelledError


RAISING = [fail, leave, panic, exit_generator, hang, cancel_itself]
BAD = [*RAISING, lambda *_: object(), lambda *_: True, lambda *_: "x" * 9999]


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
    async with bench(mongodb_uri, plugins=plugged(having(context=lambda _: "c" * 1_500))) as b:
        conversation = await b.conversation()
        for _ in range(3):  # without the plug-in's context all of them would fit
            b.model.reply("a" * 2_600, STOP)
            await b.post(conversation, "q" * 200)
            await b.ended(conversation)
        b.model.reply("a", STOP)
        await b.post(conversation, "q" * 200)
        await b.ended(conversation)
        assert [turn.role for turn in b.model.calls[3].turns] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("context", BAD)
@pytest.mark.gen_test
async def test_without_context_the_answer_goes_on(mongodb_uri: str, context: Callable[..., Any]) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(context=context), deadline=0.2)) as b:
        assert (await answered(b)).content == "Fine."
        assert [turn.content for turn in b.model.calls[0].turns] == ["Be brief.", "Tell me."]
        assert calls(b, "context", "ok") == 0


@pytest.mark.gen_test
async def test_any_number_of_short_turns_is_context_and_no_unknown_role_is(mongodb_uri: str) -> None:
    unknown: Any = "tool"
    given = [[Turn("user", f"{n}") for n in range(1000)], [Turn(unknown, "x")]]
    async with bench(mongodb_uri, plugins=plugged(having(context=lambda _: given.pop(0)))) as b:
        assert (await answered(b)).content == "Fine."
        assert [turn.role for turn in b.model.calls[0].turns] == ["system", "user"]
        assert "999\n\nTell me." in b.model.calls[0].turns[1].content
        assert (await answered(b)).content == "Fine."
        assert [turn.content for turn in b.model.calls[1].turns] == ["Be brief.", "Tell me."]
        assert (calls(b, "context", "ok"), calls(b, "context", "nonsense")) == (1, 1)


@pytest.mark.gen_test
async def test_nonsense_is_named_by_what_it_is_and_what_it_must_be(
    mongodb_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    listed: Any = ["no", "object"]
    given: list[Any] = [None]
    plugin = having(context=lambda turn: [turn] if given[0] == "turn" else given[0], annotate=lambda _: given[0])
    async with bench(mongodb_uri, plugins=plugged(plugin)) as b:
        for given[0], why in (
            (
                "turn",
                "context failed: it returned the turn that it was given, or one of its kind: it must return a text",
            ),
            ([Turn(any_context, "x")], 'context failed: a turn it returned has the role "tool"'),
            ([{"role": "user"}], "context failed: among its turns is a dict"),
            (3, "context failed: it returned an int: it must return a text, a list of turns, or nothing"),
            (CARD, "annotate failed: it returned one Annotation: it must return a list of them"),
            (
                [Annotation(kind="card", id="1", message="m", data=listed)],
                "annotate failed: what it found is not as it must be: `data` must be an object",
            ),
            (
                [Annotation(kind="card", id=listed, message="m", data={})],
                "annotate failed: what it found is not as it must be: `id` must be a text",
            ),
            (
                [Annotation(kind="card", id="1", message="m", data={"x": object()})],
                "annotate failed: what it found contains a value that cannot be written as JSON",
            ),
        ):
            caplog.clear()
            assert (await answered(b)).content == "Fine."
            assert why in caplog.text


any_context: Any = "tool"


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


def weird(**attributes: Any) -> Callable[..., None]:
    def admit(turn: Any) -> None:
        refused = Refused("Not here.", code="off_topic")
        for name, value in attributes.items():
            setattr(refused, name, value)
        raise refused

    return admit


@pytest.mark.gen_test
async def test_a_refusal_is_one_that_a_client_can_read(mongodb_uri: str) -> None:
    given: list[Any] = []
    async with bench(mongodb_uri, plugins=plugged(having(admit=lambda turn: given.pop()(turn)))) as b:
        conversation = await b.conversation()
        bad: Any
        good: list[dict[str, Any]] = [
            {},
            {"status": 429, "retry_after": 60},
            {"status": 422, "fields": {"content": "no names"}},
        ]
        for one in good:
            given.append(weird(**one))
            with pytest.raises(Refused):
                await b.post(conversation)
        for bad in (
            *({"status": status} for status in (200, 101, 302, 401, 500, 999, -1, None, "403", 403.5, True)),
            *({"title": title} for title in ("", "Two\r\nSet-Cookie: x", "é", None)),
            *({"code": code} for code in ("", "two words", None, 7)),
            *({"detail": detail} for detail in ("", None, b"x", "x" * 5000, "\ud800")),
            *({"fields": fields} for fields in ([1], {"a": 1}, object())),
            *({"retry_after": wait} for wait in ("soon", -1, float("nan"), float("inf"))),
        ):
            given.append(weird(**bad))
            with pytest.raises(Unavailable):
                await b.post(conversation)
        assert b.model.calls == []


# Release ----------------------------------------------------------------------------------------------------------

PHRASE = "the code is 4711"


def hold_back(text: str, told: int, ended: bool) -> int:
    """A plug-in that blocks the phrase, and holds back text that may be its beginning."""
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
        assert not SECRET.search(whole)
        assert "the code is" not in whole


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("leak", '{"x": "the code is 4711"}'),
        ("leak", '{"x": "the c\\u006fde is 4711"}'),
        ("leak", '{"x": "the code is 4711'),
        ("the code is 4711", "{}"),
    ],
)
@pytest.mark.gen_test
async def test_a_phrase_that_is_held_back_is_in_no_call(mongodb_uri: str, name: str, arguments: str) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(release=hold_back))) as b:
        conversation = await b.conversation()
        await b.post(conversation, "What is it?")
        call = await b.model.call(1)
        async with b.viewer(conversation) as watched:
            opened = OpenToolCall(id="1", name=name)
            call.say("Well", ". ", Delta([opened, *arguments]), Finish(reason="tool_calls", usage=None))
            complete = await watched.until("llm_complete")
        assert b.model.told == 0  # no text bypasses the plug-in
        assert (complete["content"], complete["finishReason"]) == ("Well. ", "content_filter")
        told = str([frame.data for frame in watched.frames]) + str(await b.newest(conversation))
        assert not SECRET.search(told)
        assert "leak" not in told


@pytest.mark.gen_test
async def test_a_phrase_that_is_held_back_is_no_finish_reason(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(release=hold_back))) as b:
        stored = await answered(b, "Well.", Finish(reason="the code is 4711", usage=None))
        assert (stored.content, stored.finish_reason) == ("Well.", "content_filter")
        assert (await answered(b, "Well.", Finish(reason="eos_token", usage=None))).finish_reason == "eos_token"


@pytest.mark.gen_test
async def test_a_call_that_is_not_blocked_comes_whole(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(release=hold_back))) as b:
        conversation = await b.conversation()
        await b.post(conversation, "What is it?")
        first = [Delta([OpenToolCall(id="1", name="a"), '{"x":', " 1}"]), Delta([OpenToolCall(id="2", name="b"), "{}"])]
        (await b.model.call(1)).say("Well. ", *first, Finish(reason="tool_calls", usage=None))
        (await b.model.call(2)).say("There are none.", STOP)
        stored = await b.ended(conversation)
        calls = [part for part in fold(stored.pieces) if isinstance(part, ToolCallPart)]
        assert [(one.name, one.arguments) for one in calls] == [("a", '{"x": 1}'), ("b", "{}")]
        assert stored.content == "Well. \n\nThere are none."


@pytest.mark.gen_test
async def test_what_is_not_blocked_comes_whole(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(release=hold_back))) as b:
        answer = await answered(b, "the code", " is", " 47", Finish(reason="length", usage=None))
        assert (answer.content, answer.finish_reason) == ("the code is 47", "length")


@pytest.mark.parametrize(
    "more", [["11, he", " said"], ["is 47", "11."], ["the code is", " 4711."], [" is: the code is 4711"]]
)
@pytest.mark.gen_test
async def test_a_phrase_is_held_back_that_is_put_together_by_going_on(mongodb_uri: str, more: list[str]) -> None:
    """An answer that has reached its length limit sends all of its text, and another attempt continues it."""
    async with bench(mongodb_uri, plugins=plugged(having(release=hold_back))) as b:
        conversation = await b.conversation()
        b.model.reply("Well, the code", " is 47", Finish(reason="length", usage=None))
        await b.post(conversation, "What is it?")
        begun = await b.ended(conversation)
        assert (begun.content, begun.finish_reason) == ("Well, the code is 47", "length")
        b.model.reply(*more, STOP)
        async with b.viewer(conversation) as watched:
            await b.commands.regenerate(conversation, request_id="r", continues=True)
            while (complete := await watched.until("llm_complete"))["attempt"] != 2:
                pass  # the unseen end of the first attempt
        assert complete["finishReason"] == "content_filter"
        assert not SECRET.search(str([frame.data for frame in watched.frames]))
        assert not SECRET.search(str(await b.ended(conversation)))


@pytest.mark.gen_test
async def test_what_goes_on_and_is_good_comes_whole(mongodb_uri: str) -> None:
    seen: list[tuple[str, int]] = []

    def release(text: str, told: int, ended: bool) -> int:
        seen.append((text, told))
        return hold_back(text, told, ended)

    async with bench(mongodb_uri, plugins=plugged(having(release=release))) as b:
        conversation = await b.conversation()
        b.model.reply("The cats", " are", Finish(reason="length", usage=None))
        await b.post(conversation, "Where are they?")
        await b.ended(conversation)
        b.model.reply(" here", ", I think.", STOP)
        await b.commands.regenerate(conversation, request_id="r", continues=True)
        answer = await b.ended(conversation)
        assert (answer.content, answer.finish_reason) == ("The cats are here, I think.", "stop")
        assert seen[-1] == ("The cats are here, I think.", len("The cats are here, I think."))
        assert all(text.startswith("The cats") for text, _ in seen)


@pytest.mark.gen_test
async def test_a_release_that_takes_back_what_is_out_ends_the_answer(mongodb_uri: str) -> None:
    async def release(text: str, told: int, ended: bool) -> int:
        return len(text) if told == 0 else told - 1

    async with bench(mongodb_uri, plugins=plugged(having(release=release))) as b:
        answer = await answered(b, "Some", " text.", STOP)
        assert (answer.content, answer.finish_reason) == ("Some", "content_filter")


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
    bet = recommendation({"betId": "b", "odds": 2.0})
    async with bench(mongodb_uri, plugins=plugged(having(annotate=lambda _: [CARD, bet]))) as b:
        conversation = await b.conversation()
        b.model.reply("Fine.", STOP)
        async with b.viewer(conversation) as watched:
            await b.post(conversation)
            await watched.until("system")
            first, second = watched.frames[-1].data, await watched.until("system")
        assert first["metadata"]["betId"] == "b"
        assert "kind" not in first
        assert (second["kind"], second["id"]) == (CARD.kind, CARD.id)
        assert (second["message"], second["metadata"]) == ("A card", CARD.data)
        between = Cursor.parse(str(watched.frames[-2].id))
        async with b.viewer(conversation, between) as again:
            assert (await again.until("system"))["metadata"] == CARD.data
        stored = await b.newest(conversation)
        assert (stored.annotations, stored.recommendations) == ((bet, CARD), ({"betId": "b", "odds": 2.0},))
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
        lambda _: repeat(CARD),
        lambda _: (CARD for _ in count()),
        lambda _: [Annotation(kind="a", id="1", message="", data={"a": "x" * 10_000_000})],
        lambda _: [recommendation({"betId": "b", "odds": float("nan")})],
        lambda _: [recommendation({"betId": "b", "odds": 2, "a": {"deep": "1"}})],  # type: ignore[dict-item]  # the point
        lambda _: [Annotation(kind=RECOMMENDATION, id="b", message="Mine", data={"betId": "b"})],
        lambda _: [Annotation(kind=RECOMMENDATION, id="b", message="Mine", data={"odds": 2.0})],
        lambda _: [Annotation(kind=RECOMMENDATION, id="b", message="Mine", data={"betId": "b", "a\0": 2.0})],
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
        async with asyncio.timeout(20):  # a timeout must be entered and left in the same task
            yield Reasoning("Hm.")
            yield f"You said: {turn.message}"
            yield ""
            yield " 👍"
        yield Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)

    async with bench(mongodb_uri, plugins=plugged(having(answer=answer))) as b:
        stored = await answered(b)
        assert (stored.content, stored.finish_reason, stored.usage.total_tokens) == ("You said: Tell me. 👍", "stop", 3)
        assert b.model.calls == []


@pytest.mark.gen_test
async def test_of_an_answerer_that_counts_no_tokens_an_estimate_is_spent(mongodb_uri: str) -> None:
    async def answer(turn: Any) -> AsyncIterator[Any]:
        yield f"You said: {turn.message}"
        if turn.message == "Gratis.":
            yield Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)

    async with bench(mongodb_uri, plugins=plugged(having(answer=answer))) as b:
        stored = await answered(b, content="Tell me. " * 100)
        assert (stored.usage.source, stored.model) == ("estimated", None)
        assert min(stored.usage.prompt_tokens, stored.usage.completion_tokens) > 100
        assert (await answered(b, content="Gratis.")).usage.total_tokens == 0


def odds(value: Any, id_: str = "m1") -> Data:
    return Data(kind="odds_update", id=id_, data=value)


def told(frames: list[Any]) -> list[Any]:
    """The texts and the data of a stream, in order; neighbouring texts are joined."""
    said: list[Any] = []
    for frame in frames:
        if frame.type == "data":
            said.append((frame.data["kind"], frame.data["id"], frame.data["data"]))
        elif frame.type == "llm_chunk" and said and isinstance(said[-1], str):
            said[-1] += frame.data["content"]
        elif frame.type == "llm_chunk":
            said.append(frame.data["content"])
    return said


@pytest.mark.gen_test
async def test_data_is_told_where_it_was_yielded_to_whoever_comes_whenever(mongodb_uri: str) -> None:
    go_on = asyncio.Event()
    changed: dict[str, Any] = {"odds": [2.1], "n": 2**70, "a.b": {"$set": "👍", "": None}}

    async def answer(turn: Any) -> AsyncIterator[Any]:
        yield odds({"first": True}, "m0")
        yield "The odds 👍"
        yield odds(changed)
        changed["odds"].append("changed after it was told")
        await go_on.wait()
        yield " moved"
        yield odds(2.2)
        yield "."

    expected = [
        ("odds_update", "m0", {"first": True}),
        "The odds 👍",
        ("odds_update", "m1", {"odds": [2.1], "n": 2**70, "a.b": {"$set": "👍", "": None}}),
        " moved",
        ("odds_update", "m1", 2.2),
        ".",
    ]
    given = plugged(having(answer=answer))
    async with bench(mongodb_uri, plugins=given) as b, bench(mongodb_uri, plugins=given) as there, following(there):
        conversation = await b.conversation()
        await b.post(conversation)
        async with b.viewer(conversation) as live, there.viewer(conversation) as elsewhere:
            while not (live.frames and live.frames[-1].data.get("id") == "m1"):
                await live.next()
            cursor = live.cursor
            assert cursor is not None
            async with b.viewer(conversation, cursor) as back, b.viewer(conversation) as second:
                go_on.set()
                for viewer in (live, elsewhere, back, second):
                    await viewer.until("llm_complete")
            assert told(live.frames) == told(elsewhere.frames) == told(second.frames) == expected
            assert told(back.frames) == expected[3:]
        stored = await b.newest(conversation)
        assert (stored.content, stored.status) == ("The odds 👍 moved.", Status.COMPLETE)
        parts = live.frames[-1].data["parts"]
        assert [part.get("text", part.get("data")) for part in parts] == [
            {"first": True},
            "The odds 👍",
            2.2,
            " moved.",
        ]
        async with there.viewer(conversation, Cursor(stored.id, 0), once=True) as later:
            assert told(await later.rest()) == expected
        for position in range(stored.length + 1):
            async with there.viewer(conversation, Cursor(stored.id, position), once=True) as later:
                rest = told(await later.rest())
            assert rest[1:] == expected[len(expected) - len(rest) :][1:]
        in_sdk = ui_messages([stored])[0].parts
        assert [getattr(part, "type", "text") for part in in_sdk] == ["data-odds_update", "text"] * 2


@pytest.mark.gen_test
async def test_data_waits_for_the_text_before_it_to_be_released(mongodb_uri: str) -> None:
    async def answer(turn: Any) -> AsyncIterator[Any]:
        yield Reasoning("Hm.")
        yield odds(0, "m0")
        yield "Well, the c"
        yield odds(1)
        yield "ats are here"
        yield odds(2)
        yield Reasoning("Now, the code is 4711.")
        yield ": the code is"
        yield odds(3)
        yield " 4711"
        yield odds(4)

    async with bench(mongodb_uri, plugins=plugged(having(answer=answer, release=hold_back))) as b:
        conversation = await b.conversation()
        await b.post(conversation)
        async with b.viewer(conversation, Cursor(conversation.key, Cursor.START), once=True) as viewer:
            frames = await viewer.rest()
        assert told(frames) == [
            *(("odds_update", "m0", 0), "Well, the c", ("odds_update", "m1", 1), "ats are here"),
            *(("odds_update", "m1", 2), "\n\n: "),
        ]
        assert frames[-1].data["finishReason"] == "content_filter"
        assert not SECRET.search(str([frame.data for frame in frames]) + str(await b.newest(conversation)))


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


async def panics(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    raise Panic


async def spins(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    while True:
        yield "\ud800"


async def never_ends(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    while True:  # empty pieces without a pause
        yield odds("x" * 10_000)


async def says_nothing(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    while True:
        await asyncio.sleep(0.001)
        yield ""


async def says_nothing_without_a_pause(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    while True:
        yield Reasoning("")


async def counts_for_ever(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    for tokens in count():
        await asyncio.sleep(0.001)
        yield Usage(prompt_tokens=tokens, completion_tokens=0, total_tokens=tokens)


async def ignores_its_end(turn: Any) -> AsyncIterator[Any]:
    yield "So far"
    for _ in range(3):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (never_ends, "upstream_protocol"),
        (ignores_its_end, "upstream_timeout"),
        (gives_up, "upstream_rate_limited"),
        (breaks, "upstream_unavailable"),
        (exits, "upstream_unavailable"),
        (panics, "upstream_unavailable"),
        (babbles, "upstream_protocol"),
        (stalls, "upstream_timeout"),
        (says_nothing, "upstream_timeout"),
        (says_nothing_without_a_pause, "upstream_timeout"),
        (counts_for_ever, "upstream_timeout"),
        (spins, "upstream_protocol"),
    ],
)
@pytest.mark.gen_test
async def test_an_answerers_fault_ends_its_answer(mongodb_uri: str, answer: Callable[..., Any], code: str) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(answer=answer), deadline=0.2)) as b:
        stored = await answered(b)
        assert (stored.status, stored.content, stored.failure.code) == (Status.FAILED, "So far", code)


any_: Any = Any  # the test yields values of wrong types
DEEP: list[Any] = []
DEEP.append(DEEP)
LIES: list[Any] = [
    *(None, b"x", {"text": "x"}, Annotation(kind="k", id="1", message="m", data={})),
    *(Reasoning(any_), Reasoning("\ud800"), Finish(reason=any_, usage=None), Finish(reason="stop", usage=any_)),
    *(Usage(prompt_tokens=any_, completion_tokens=1, total_tokens=1),),
    *(
        Usage(prompt_tokens=-1, completion_tokens=1, total_tokens=2),
        Usage(prompt_tokens=2**70, completion_tokens=1, total_tokens=2),
    ),
    *(odds(object()), odds(float), odds(DEEP), odds("x" * 20_000), odds("\ud800")),
    *(odds(float("nan")), odds({"price": [float("-inf")]}), odds(({1, 2},)), odds(frozenset())),
    *(odds(1, ""), odds(1, "x" * 201), odds(1, any_)),
    *(Data(kind=kind, id="1", data=1) for kind in ("", "a b", "notice", "x" * 41, "é", any_)),
]


@pytest.mark.gen_test
async def test_what_an_answerer_must_not_yield_ends_its_answer_alone(mongodb_uri: str) -> None:
    async def answer(turn: Any) -> AsyncIterator[Any]:
        yield "So far"
        yield LIES[int(turn.message)] if turn.message != "Fine?" else " good"

    async with bench(mongodb_uri, plugins=plugged(having(answer=answer))) as b:
        conversation = await b.conversation()
        for number, lie in enumerate(LIES):
            await b.post(conversation, str(number))
            stored = await b.ended(conversation)
            assert stored.failure is not None, lie
            assert (stored.status, stored.content, stored.failure.code) == (
                Status.FAILED,
                "So far",
                "upstream_protocol",
            )
        assert calls(b, "answer", "nonsense") == len(LIES)
        await b.post(conversation, "Fine?")
        assert (await b.ended(conversation)).content == "So far good"


@pytest.mark.gen_test
async def test_what_comes_after_its_finish_is_not_told(mongodb_uri: str) -> None:
    closed = asyncio.Event()

    async def answer(turn: Any) -> AsyncIterator[Any]:
        try:
            yield "All."
            yield Finish(reason="length", usage=None)
            yield "More"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with bench(mongodb_uri, plugins=plugged(having(answer=answer))) as b:
        stored = await answered(b)
        assert (stored.content, stored.finish_reason) == ("All.", "length")
        await closed.wait()


# Threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_what_blocks_has_threads_of_its_own_and_harms_no_other_plugin(mongodb_uri: str) -> None:
    with hanging() as wait_long:
        good = plugged(having(annotate=lambda _: [CARD]))
        slow = plugged(having(annotate=wait_long), deadline=0.2)
        async with bench(mongodb_uri, plugins=[*slow, *good]) as b:
            for _ in range(8):  # more than its threads: the last ones wait for a thread, no longer than the others
                assert (await answered(b)).annotations == (CARD,)
            assert calls(b, "annotate", "late") == 8


@pytest.mark.gen_test
async def test_calls_that_hang_harm_neither_other_methods_nor_other_calls(mongodb_uri: str) -> None:
    with hanging() as wait_long:

        def release(text: str, told: int, ended: bool) -> int:
            if "slow" in text:
                wait_long()
            return len(text)

        loaded = plugged(having(context=wait_long, release=release), deadline=0.2)
        async with bench(mongodb_uri, plugins=loaded) as b:
            for _ in range(6):  # more than either has threads
                stored = await answered(b, "slow", STOP)
                assert (stored.finish_reason, stored.content) == ("content_filter", "")
            assert calls(b, "context", "late") == 6
            assert (await answered(b)).content == "Fine."


@pytest.mark.gen_test
async def test_so_many_wait_for_a_thread_and_no_more() -> None:
    with hanging() as wait_long:
        some = Threads("t")
        waiting = [asyncio.create_task(some.run(wait_long)) for _ in range(200)]
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
        while len(ticks) < seen + 5 and not blocked.wait(0):  # ended by the ticks of the event loop
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


# The event loop ---------------------------------------------------------------------------------------------------


def blocking(seconds: float = 0.05) -> dict[str, Callable[..., Any]]:
    """Methods that are async, but block the event loop."""

    async def context(turn: Any) -> str:
        time.sleep(seconds)  # noqa: ASYNC251 - the point
        return "It is noon."

    async def release(text: str, told: int, ended: bool) -> int:
        await asyncio.sleep(0)
        time.sleep(seconds)  # noqa: ASYNC251
        return len(text)

    async def annotate(answer: Any) -> list[Annotation]:
        time.sleep(seconds)  # noqa: ASYNC251
        return [CARD]

    return {"context": context, "release": release, "annotate": annotate}


def blocked(b: Bench, method: str) -> float:
    line = f'chatstream_plugin_loop_blocked_seconds_total{{method="{method}",plugin="app:plugin"}} '
    text = b.metrics.expose("")[1].decode()
    return next((float(each.removeprefix(line)) for each in text.splitlines() if each.startswith(line)), 0)


@pytest.mark.gen_test
async def test_what_blocks_the_loop_is_found_and_harms_no_answer(
    mongodb_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(mongodb_uri, plugins=plugged(having(**blocking()))) as b:
        conversations = [await b.conversation() for _ in range(3)]
        for _ in conversations:
            b.model.reply("One", " two", " three.", STOP)
        await asyncio.gather(*(b.post(conversation) for conversation in conversations))
        for conversation in conversations:
            answer = await b.ended(conversation)
            assert (answer.content, answer.status, answer.annotations) == ("One two three.", Status.COMPLETE, (CARD,))
        for method in ("context", "release", "annotate"):
            assert blocked(b, method) >= 3 * 0.05
            assert calls(b, method, "ok") >= 3
            assert f"app:plugin: {method} blocked the event loop for " in caplog.text
        assert caplog.text.count("blocked the event loop") == 3  # each is logged once


@pytest.mark.gen_test
async def test_an_answerer_that_blocks_the_loop_is_found(mongodb_uri: str) -> None:
    async def answer(turn: Any) -> AsyncIterator[Any]:
        yield "One"
        time.sleep(0.05)  # noqa: ASYNC251
        yield " two."

    async def waits(turn: Any) -> AsyncIterator[Any]:
        yield "One"
        await asyncio.sleep(0.05)
        yield " two."

    async with bench(mongodb_uri, plugins=plugged(having(answer=answer))) as b:
        assert (await answered(b)).content == "One two."
        assert blocked(b, "answer") >= 0.05
    async with bench(mongodb_uri, plugins=plugged(having(answer=waits))) as b:
        assert (await answered(b)).content == "One two."


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


def make_all_wrong() -> Plugin:
    plugin = make_good()
    plugin.deadlines, plugin.failures = {"context": -1, "admit": 1}, {"context": "ajar"}
    return plugin


def make_wrong_rule() -> Plugin:
    plugin = make_good()
    plugin.failures = {"context": "ajar"}
    return plugin


def make_unknown_rule() -> Plugin:
    plugin = make_good()
    plugin.deadlines = {"admit": 1}
    return plugin


def make_wrong_subject() -> Plugin:
    plugin = make_good()
    plugin.demo = {"answer": "Hi"}
    return plugin


def make_wrong_cards() -> Plugin:
    plugin = make_good()
    plugin.cards = {"ticket": "ticket.js"}
    return plugin


def make_wrong_kind() -> Plugin:
    plugin = make_good()
    plugin.cards = {"../secret": Card(script=Path(__file__))}
    return plugin


def make_missing_card() -> Plugin:
    plugin = make_good()
    plugin.cards = {"ticket": Card(script=Path("/no/such/ticket.js"))}
    return plugin


def make_card_without_file() -> Plugin:
    plugin = make_good()
    plugin.cards = {"ticket": Card(script="ticket.js")}  # type: ignore[arg-type]  # the point
    return plugin


class Good:
    def context(self, turn: Any) -> None:
        return None


def make_class() -> Plugin:
    return Good


async def make_async() -> Plugin:
    return Good()


AN_OBJECT = Good()


def make_value_for_method() -> Plugin:
    plugin = make_good()
    plugin.admit = True
    return plugin


def make_yielding_context() -> Plugin:
    async def context(turn: Any) -> AsyncIterator[str]:
        yield "It is noon."

    return having(context=context)


def make_wrong_prompt() -> Plugin:
    plugin = make_good()
    plugin.system_prompt = ["Be brief."]
    return plugin


def make_wrong_words() -> Plugin:
    plugin = make_good()
    plugin.page_words = {"en": "Hello"}
    return plugin


def make_leaving() -> Plugin:
    sys.exit(2)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("make_bad", "cannot be called: RuntimeError: no key"),
        ("make_leaving", "cannot be called: SystemExit"),
        ("make_missing", "cannot be called: there is no make_missing in /.*test_plugins.py"),
        (
            "make_nothing",
            "returns an object, which has none of context, admit, release, annotate, answer, budget, tools",
        ),
        ("make_wrong_arguments", "`release` must take 3 arguments"),
        ("make_no_generator", "`answer` must be an async generator"),
        ("make_wrong_deadline", "the deadline of `context` must be a number of seconds"),
        ("make_wrong_rule", "the failure rule of `context` must be"),
        ("make_class", "returns the class Good: it must return an object of it"),
        ("make_async", "must not be async"),
        ("AN_OBJECT", "cannot be called: TypeError: it is a Good, not a function"),
        ("make_value_for_method", "`admit` must be a method, and is a bool"),
        ("make_yielding_context", "`context` must return what it has, and not yield it"),
        ("make_wrong_prompt", "`system_prompt` must be a text, and is a list"),
        ("make_wrong_words", "`page_words` must have names and texts for each language"),
        ("make_wrong_subject", "`demo` must be a Subject"),
        ("make_wrong_cards", "`cards` must have a Card of chatstream.plugins.cards for each kind"),
        ("make_wrong_kind", "`cards` names '../secret', which is no kind of data"),
        ("make_missing_card", "`cards`: /no/such/ticket.js cannot be read: No such file"),
        ("make_card_without_file", "`cards`: 'ticket.js' is no file: it must be a pathlib.Path"),
        ("make_unknown_rule", "`deadlines` names 'admit', which is no method of it"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_named(monkeypatch: pytest.MonkeyPatch, function: str, words: str) -> None:
    monkeypatch.setitem(sys.modules, "an_app", sys.modules[__name__])
    with pytest.raises(ConfigurationError, match=words) as error:
        loading.load([f"an_app:{function}"])
    assert f"an_app:{function}" in str(error.value)


def test_all_that_is_wrong_with_plugins_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "an_app", sys.modules[__name__])
    with pytest.raises(ConfigurationError) as error:
        loading.load(["an_app:make_all_wrong", "an_app:make_bad", "an_app:make_all_wrong"])
    said = str(error.value).splitlines()
    assert len(said) == 5
    for words in ("is named twice", "deadline of `context`", "names 'admit'", "rule of `context`", "no key"):
        assert sum(words in line for line in said) == 1


@pytest.mark.parametrize(
    "words",
    [
        "raise LookupError('no index')",
        "import no_such_module_of_theirs",
        "def plugin(: pass",
        "raise SystemExit(3)",
    ],
)
def test_a_module_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str) -> None:
    (tmp_path / "an_app_of_theirs.py").write_text(words)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="an_app_of_theirs:plugin cannot be called: "):
        loading.load(["an_app_of_theirs:plugin"])
    sys.modules.pop("an_app_of_theirs", None)


def test_a_plugin_may_set_its_deadlines_and_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "an_app", sys.modules[__name__])
    [loaded] = loading.load(["an_app:make_good"])
    assert loaded.rules == {"context": RULES["context"]}
    assert loading.load([]) == []
    for name in ("nowhere", "nowhere:", ":f", "no.such.module:f"):
        with pytest.raises(ConfigurationError, match="CHATSTREAM_PLUGINS"):
            loading.load([name])
