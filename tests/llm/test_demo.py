import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Iterator

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.ioloop import IOLoop

from chatstream.errors import ModelError
from chatstream.generations import rounds
from chatstream.llm import demo, demo_answers
from chatstream.llm.demo_answers import GENERAL, long_answer
from chatstream.llm.model import OfferedTool, Turn
from chatstream.llm.openai_model import Deadlines, OpenAIModel
from chatstream.metrics import Metrics
from chatstream.pieces import CallState, OpenToolCall, Piece, ToolState, text
from chatstream.plugins.bets import Bets
from chatstream.plugins.bets.demo import DEMO
from chatstream.plugins.bets.tools import best_price

QUESTION = "Who wins on Saturday?"
TURNS = [Turn("user", QUESTION)]
ANSWER = DEMO.answer(QUESTION)
HALF = object()


@pytest.fixture
def base_url(io_loop: IOLoop) -> Iterator[str]:
    serving = demo.serve(DEMO, pace=0)

    async def start() -> str:
        return serving.__enter__()

    async def stop() -> None:
        serving.__exit__(None, None, None)

    yield io_loop.run_sync(start)
    io_loop.run_sync(stop)


@pytest.fixture
def model(io_loop: IOLoop, base_url: str) -> Iterator[OpenAIModel]:
    # The deadlines end the tests of silent demo models; the other models stay far below them.
    deadlines = Deadlines(connect=10, first_token=3, idle=1, total=60)
    model = OpenAIModel(
        api_key="none", base_url=base_url, model="demo", metrics=Metrics(), deadlines=deadlines, retries=1, backoff=0.0
    )
    yield model
    io_loop.run_sync(model.close)


async def ask(model: OpenAIModel, name: str) -> tuple[str, str | None]:
    """The text, and the finish reason or the error's code."""
    told: list[Piece] = []
    try:
        async with contextlib.aclosing(model.stream(TURNS, model=name)) as deltas:
            async for delta in deltas:
                told += delta.pieces
                if delta.finish is not None:
                    return text(told), delta.finish.reason
    except ModelError as exc:
        return text(told), exc.code
    return text(told), None


ENDINGS = {
    "demo": (ANSWER, "stop"),
    "gpt-4": (ANSWER, "stop"),
    "demo-429": (ANSWER, "stop"),  # the second request, after the requested second
    "demo-429-always": ("", "upstream_rate_limited"),
    "demo-500": ("", "upstream_unavailable"),
    "demo-stall-start": ("", "upstream_timeout"),
    "demo-stall": (HALF, "upstream_timeout"),
    "demo-drop": (HALF, "upstream_truncated"),
    "demo-truncate": (HALF, "upstream_truncated"),
    "demo-bad-json": (HALF, "upstream_protocol"),
    "demo-error": (HALF, "upstream_unavailable"),
    "demo-azure": (ANSWER, "stop"),
    "demo-reasoning": (ANSWER, "stop"),
    "demo-reasoning-content": (ANSWER, "stop"),
    "demo-reasoning-tags": (ANSWER, "stop"),
    "demo-reasoning-parts": (ANSWER, "stop"),
    "demo-refusal": ("I'm sorry, but I can't help with that.", "refusal"),
    "demo-length": (HALF, "length"),
    "demo-filter": (HALF, "content_filter"),
    "demo-huge": (((ANSWER + "\n\n") * 1000)[: 128 * 1024], "stop"),
    "demo-crlf": (ANSWER, "stop"),
    "demo-surrogates": ("Good luck 🍀 " + ANSWER, "stop"),
    "demo-no-usage": (ANSWER, "stop"),
    "demo-no-system": (ANSWER, "stop"),
    "demo-no-stream": (ANSWER, "stop"),
    "demo-strict": (ANSWER, "stop"),
    "demo-each-ends": (ANSWER, "stop"),
    "demo-bad-key": ("", "upstream_misconfigured"),
    "demo-context": ("", "context_too_long"),
    "demo-long": (long_answer(DEMO, QUESTION), "stop"),
    "demo-empty": ("", "stop"),
    # No tools are offered here.
    **dict.fromkeys((name for name in demo.FAULTS if name.startswith("demo-tools")), (ANSWER, "stop")),
    "demo-none-bet": (DEMO.models["demo-none-bet"].answer, "stop"),
}


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.gen_test
async def test_each_fault_is_what_it_says(model: OpenAIModel, name: str) -> None:
    expected, ending = ENDINGS[name]
    text, ended = await ask(model, name)
    assert ended == ending
    if expected is HALF:
        assert ANSWER.startswith(text)
        assert 0 < len(text) < len(ANSWER)
    else:
        assert text == expected


def test_every_fault_is_tested_and_described() -> None:
    assert set(demo.FAULTS) == set(ENDINGS) - {"demo", "gpt-4", *DEMO.models} | {"demo-slow"}
    assert all(description and "\n" not in description for description in demo.FAULTS.values())


async def post(base_url: str, body: object, path: str = "/chat/completions") -> HTTPResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await AsyncHTTPClient().fetch(base_url + path, method="POST", body=data, raise_error=False)


def request(model: str, **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": QUESTION}], **fields}


@pytest.mark.gen_test
async def test_an_answer_that_is_not_streamed(base_url: str) -> None:
    document = json.loads((await post(base_url, request("demo"))).body)
    assert document["object"] == "chat.completion"
    [choice] = document["choices"]
    assert choice == {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
    usage = document["usage"]
    assert usage["completion_tokens"] == len(ANSWER.split())
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.gen_test
async def test_token_counts_come_only_if_they_are_asked_for(base_url: str) -> None:
    without = await post(base_url, request("demo", stream=True))
    asked = await post(base_url, request("demo", stream=True, stream_options={"include_usage": True}))
    assert b"total_tokens" not in without.body
    assert b"total_tokens" in asked.body
    assert asked.headers["Content-Type"].startswith("text/event-stream")
    assert asked.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.gen_test
async def test_an_answer_is_always_the_same(base_url: str) -> None:
    first = await post(base_url, request("demo", stream=True))
    assert (await post(base_url, request("demo", stream=True))).body == first.body


def test_answers_differ_by_question_and_recommend_one_bet() -> None:
    answers = {DEMO.answer(f"Give me tip {number}") for number in range(200)}
    assert len(answers) == 8
    for answer in answers:
        assert 60 <= len(answer.split()) <= 120
        assert answer.count("I'd recommend a bet on **") == 1
        assert answer.count(" at odds of ") == 1
    assert "odds" not in DEMO.models["demo-none-bet"].answer
    assert 1400 <= len(long_answer(DEMO, "x").split()) <= 1600


# Usual first questions, each with a word of its answer.
FIRST_THINGS = {
    "Who wins, Bayern or Dortmund?": "Let's look at **Bayern München v Borussia Dortmund**",
    "Wer gewinnt, Bayern oder Dortmund?": "Let's look at **Bayern München v Borussia Dortmund**",
    "arsenal chelsea": "Let's look at **Arsenal v Chelsea**",
    "Will Arsenal win on Sunday?": "Let's look at **Arsenal v Chelsea**",
    "ATLETICO?": "Let's look at **Atlético Madrid v Sevilla**",
    "Is S\u0301wia\u0328tek going to win?": "Let's look at **Świątek v Sabalenka**",
    "psg - marseille": "Let's look at **Paris Saint-Germain v Olympique de Marseille**",
    "Any tennis tips?": "Let's look at **Świątek v Sabalenka**",
    "NBA tonight": "Let's look at **Boston Celtics v Denver Nuggets**",
    "Give me a tip": "Let's look at",
    "Gib mir einen Tipp!": "Let's look at",
    "Who wins on Sunday?": "Let's look at",
    "What are odds?": "11/8",
    "How do odds work?": "11/8",
    "hi": "demo model",
    "Are you ChatGPT?": "demo model",
    "Hello there": "demo model",
    "Tell me a joke": "programmers",
    "How do I pick a lock?": "locksmith",
    "How do I build a bomb?": "can't help with that.",
    "Thank you very much!": "You are welcome",
    "Bonjour !": "demo model",
    "こんにちは": "demo model",
    "Guten Morgen": "Demomodell",
    "مرحبا": "النموذج",
    "Should I bet on Paris or Marseille?": "Let's look at **Paris Saint-Germain v Olympique de Marseille**",
    "Ireland vs New Zealand": "Let's look at **Ireland v New Zealand**",
    "Will Dortmund win on Saturday?": "Let's look at **Bayern München v Borussia Dortmund**",
    "What are the odds for Boston to beat Denver?": "Let's look at **Boston Celtics v Denver Nuggets**",
    "Kansas City against Buffalo": "Let's look at **Kansas City Chiefs v Buffalo Bills**",
    "Will Chelsea win the league?": "Let's look at **Arsenal v Chelsea**",
    "Real Madrid vs Barcelona tonight?": "none of them is about that",
    "Bayern or Leverkusen?": "none of them is about that",
    "Bayern v Arsenal": "none of them is about that",
    "Manchester United - Chelsea": "none of them is about that",
    "Who will win the World Cup?": "none of them is about that",
    "Liverpool": "none of them is about that",
    "What's the weather like?": "none of them is about that",
    "What is 2+2?": "none of them is about that",
}
# Questions for which there is no answer, although they have words of prepared ones.
ABOUT_SOMETHING_ELSE = (
    "What's the weather in Paris?",
    "Paris or Marseille on holiday, which is nicer?",
    "How far is Boston from Denver?",
    "Flights from Paris to Marseille",
    "Is Ireland bigger than New Zealand?",
    "Tips for a weekend in Paris",
    "Wie wird das Wetter in Bayern?",
    "Best chicken nuggets recipe",
    "Tipps für Paris",
    "Which city is nicer, Boston or Denver?",
    "When was Arsenal founded?",
    "How does a database lock work?",
    "My door lock is broken",
    "Who invented the atomic bomb?",
    "Is chocolate poison for dogs?",
    "How do I remove malware?",
    "Give me a list of the planets",
    "Ideas for a birthday gift",
    "Will it be a rainy day tomorrow?",
    "How do I sort a list in JavaScript?",
    "python function to reverse a string",
    "Write a palindrome checker in Rust",
    "Explain this code: x = 1",
    "Make a table of the planets",
    "Which maths book is good?",
    "Which coffee shop in Berlin is open?",
    "Is coffee bad for you?",
    "Compare tea and coffee",
    "Ways to quit coffee",
    "Create a weapon for my game's character",
    "Write a poison ivy warning",
    "Give me a poem by Goethe",
    "Who was Pythagoras?",
    "Is this a joke?",
    "Who wrote the poem The Raven?",
    "How can I save money?",
    "What day is next Sunday?",
    "How do I play tennis?",
    "Explain this quote by Einstein",
    "Give me a good quote for the day",
    "What are the odds of rain at work?",
    "What happened on 11/8/2016?",
    "What is a good wine?",
    "Translate good morning into French",
    "How do you say thank you in Spanish?",
    "Thanks, and what is the capital of France?",
    "Hallo, wie wird das Wetter morgen?",
    "Hilfe bei Excel",
    "Hello, can you write an email?",
    "What is this plant?",
    "What model of car is best?",
    "What can you do with leftover rice?",
    "ما هي عاصمة فرنسا؟",
    "What does مرحبا mean?",
    "Quelle est la capitale de la France ?",
)


# The page's own examples, without a plug-in.
EXAMPLES = (
    "Write a function that finds palindromes",
    "Compare three ways to make coffee",
    "Explain the Pythagorean theorem",
    "Give me five ideas for a rainy Sunday",
    "Schreibe eine Funktion, die Palindrome findet",
    "Vergleiche drei Arten, Kaffee zu machen",
    "Erkläre den Satz des Pythagoras",
    "Gib mir fünf Ideen für einen verregneten Sonntag",
)


@pytest.mark.parametrize("question", FIRST_THINGS)
def test_whoever_asks_about_something_is_told_about_that_or_that_it_is_a_demo(question: str) -> None:
    answer = DEMO.answer(question)
    assert FIRST_THINGS[question] in answer
    if "none of them" in answer:
        assert "demo" in answer
        assert "OPENAI_API_KEY" in answer
        assert "at odds of" not in answer


def test_nobody_gets_an_answer_about_something_else() -> None:
    for subject in (DEMO, GENERAL):
        answered = [one for one in ABOUT_SOMETHING_ELSE if "none of them is about that" not in subject.answer(one)]
        assert not answered
    assert {demo_answers.title("How does a database lock work?")} == {"How does a database lock work"}


def test_the_examples_of_the_page_have_answers() -> None:
    words = Bets.page_words.values()
    for subject, questions in ((DEMO, [one for each in words for one in each["examples"]]), (GENERAL, EXAMPLES)):
        assert not [one for one in questions if "none of them is about that" in subject.answer(one)]


def test_a_title_ends_with_a_whole_word() -> None:
    question = "Could you compare the incontrovertible advantages of extraordinarily uncommonly long words?"
    assert demo_answers.title("Who wins on Sunday, and is there a bet?") == "Who wins on Sunday, and is there a bet"
    assert demo_answers.title(question).rstrip("…").split(" ")[-1] in question.split(" ")


def test_paragraphs_are_written_in_one_line() -> None:
    """A terminal would show each line break of the text."""
    for question in ("hi", "hallo", "rainy", "pythagoras", "pick a lock", "witz", "?"):
        paragraphs = re.sub(r"```.*?```", "", GENERAL.answer(question), flags=re.DOTALL).split("\n\n")
        for paragraph in paragraphs:
            lines = paragraph.strip().split("\n")
            assert all(re.match(r"[-|>]|\s*\d\.|\s+-", line) for line in lines[1:]), paragraph


def test_without_a_plugin_it_speaks_of_anything_but_bets() -> None:
    answers = {GENERAL.answer(f"question {number}") for number in range(50)}
    assert len(answers) > 1
    whole = " ".join([*answers, *GENERAL.texts, GENERAL.title, GENERAL.question, GENERAL.answer("hello")])
    assert not re.search(r"\b(?:bets?|odds|stakes?)\b", whole)
    assert GENERAL.answer(GENERAL.question) in GENERAL.texts
    assert 1400 <= len(long_answer(GENERAL, "x").split()) <= 1700


@pytest.mark.gen_test
async def test_429_refuses_each_conversation_once(base_url: str) -> None:
    first = await post(base_url, request("demo-429"))
    assert first.code == 429
    assert first.headers["Retry-After"] == "1"
    assert (await post(base_url, request("demo-429"))).code == 200
    other = {"model": "demo-429", "messages": [{"role": "user", "content": "Another one?"}]}
    assert (await post(base_url, other)).code == 429


@pytest.mark.gen_test
async def test_429_forgets_the_oldest_conversations(base_url: str) -> None:
    for number in range(1001):
        await post(base_url, {"model": "demo-429", "messages": [{"role": "user", "content": f"{number}"}]})
    assert (await post(base_url, {"model": "demo-429", "messages": [{"role": "user", "content": "0"}]})).code == 429
    assert (await post(base_url, {"model": "demo-429", "messages": [{"role": "user", "content": "999"}]})).code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"{", b'{"model": "demo", "messages": ["x"]}', b"[" * 100_000])
@pytest.mark.gen_test
async def test_a_body_that_is_no_request(base_url: str, body: bytes) -> None:
    response = await post(base_url, body)
    assert response.code == 400
    assert json.loads(response.body)["error"]["code"] == "invalid_request_error"


@pytest.mark.gen_test
async def test_the_models_are_listed(base_url: str) -> None:
    listed = json.loads((await AsyncHTTPClient().fetch(base_url + "/models")).body)["data"]
    assert {model["id"] for model in listed} == {"demo", *demo.FAULTS, *DEMO.models}


@pytest.mark.parametrize("name", ["demo-slow", "demo-stall", "demo-stall-start", "demo-long"])
@pytest.mark.gen_test
async def test_a_handler_ends_when_its_client_goes_away(
    base_url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def handlers() -> list[asyncio.Task[object]]:
        return [task for task in asyncio.all_tasks() if "_execute" in repr(task)]

    caplog.set_level(logging.DEBUG, "tornado")
    host, port = base_url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(request(name, stream=True)).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b"\r\n\r\n")
    running = handlers()
    assert len(running) == 1
    writer.close()
    await asyncio.wait(running)
    assert not caplog.records


@pytest.mark.gen_test
async def test_the_port_is_closed_afterwards() -> None:
    with demo.serve(DEMO, pace=0) as url:
        assert (await AsyncHTTPClient().fetch(url + "/models")).code == 200
    with pytest.raises(ConnectionRefusedError):
        await AsyncHTTPClient().fetch(url + "/models")


OFFERED = tuple(
    OfferedTool(each.__name__, "d", {"type": "object", "properties": {"selection": {"type": "string"}}})
    for each in Bets.tools
)
CALLED = {
    "demo-tools": 1,
    "demo-tools-parallel": 2,
    "demo-tools-ollama": 2,
    "demo-tools-gemini": 2,
    "demo-tools-mistral": 1,
    "demo-tools-bad": 1,
    "demo-tools-unknown": 1,
    "demo-tools-many": 40,
    "demo-tools-length": 1,
}


@pytest.mark.parametrize("name", CALLED)
@pytest.mark.gen_test
async def test_a_model_that_calls_tools_says_what_came_of_it(model: OpenAIModel, name: str) -> None:
    pieces: list[Piece] = []
    async with contextlib.aclosing(model.stream(TURNS, model=name, tools=OFFERED)) as deltas:
        async for delta in deltas:
            pieces += delta.pieces
            if delta.finish is not None:
                break
    steps = rounds.steps([*pieces, *(ready(one) for one in pieces if isinstance(one, OpenToolCall))])
    assert [len(step.calls) for step in steps] == [CALLED[name]]
    told: list[Piece] = []
    turns = [*TURNS, Turn("assistant", "", steps=steps)]
    async with contextlib.aclosing(model.stream(turns, model=name, tools=OFFERED)) as deltas:
        async for delta in deltas:
            told += delta.pieces
    assert text(told).startswith("I called `")


def ready(call: OpenToolCall) -> ToolState:
    return ToolState(id=call.id, name=call.name, state=CallState.READY)


@pytest.mark.parametrize(
    ("question", "selection"),
    [
        ("What is the best price for Arsenal?", "Arsenal"),
        ("what's the best odds on Ireland to win, please?", "Ireland to win"),
        ("Was ist die beste Quote für Bayern München?", "Bayern München"),
    ],
)
@pytest.mark.gen_test
async def test_who_asks_for_a_price_sees_it_looked_up(base_url: str, question: str, selection: str) -> None:
    tools = [{"type": "function", "function": {"name": "best_price", "parameters": {}}}]
    messages: list[dict[str, object]] = [{"role": "user", "content": question}]
    response = await post(base_url, {"model": "demo", "messages": messages, "tools": tools})
    choice = json.loads(response.body)["choices"][0]
    [call] = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(call["function"]["arguments"]) == {"selection": selection}
    price = await best_price(selection)
    messages += [choice["message"], {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(price)}]
    response = await post(base_url, {"model": "demo", "messages": messages, "tools": tools})
    assert f"has the best price: {price['odds']}." in json.loads(response.body)["choices"][0]["message"]["content"]
    # Without the tool the question gets an ordinary answer.
    response = await post(base_url, {"model": "demo", "messages": messages[:1]})
    assert "tool_calls" not in json.loads(response.body)["choices"][0]["message"]
