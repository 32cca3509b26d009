"""Requests with tools, calls and results, as sent to an endpoint."""

import json
import re
from typing import Any

import pytest

from chatstream.llm.dialects import NONE, Parts, ReasoningBack, is_in, request_body
from chatstream.llm.faults import Part, from_response
from chatstream.llm.model import OfferedTool, Step, ToolCall, Turn

ODDS = OfferedTool("odds", "The odds.", {"type": "object", "properties": {"match": {"type": "integer"}}})
CALLS = (
    ToolCall(id="a.1", name="odds", arguments='{"match":7}', result="2.1"),
    ToolCall(
        id="a.2", name="odds", arguments="{}", result="bad arguments", extra='{"google":{"thought_signature":"c"}}'
    ),
)
STEPS = (Step(content="Let me look.", reasoning="Hm.", calls=CALLS), Step(content="2.1"))
TURNS = [
    Turn("system", "Be brief."),
    Turn("user", "Which?"),
    Turn(
        "assistant",
        "Let me look.",
        steps=(Step(content="Let me look.", reasoning="Hm.", calls=CALLS), Step(content="2.1")),
    ),
    Turn("user", "Sure?"),
    Turn("assistant", "", steps=(Step(calls=CALLS[:1]),)),
]


def body(without: Parts = NONE, reasoning: ReasoningBack = ReasoningBack.OFF) -> dict[str, Any]:
    return request_body(TURNS, "m", without, reasoning=reasoning, tools=[ODDS])


def test_each_call_is_followed_by_its_result() -> None:
    messages = body()["messages"]
    assert [message["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "user",
        "assistant",
        "tool",
    ]
    _, _, said, first, second, after, _, again, last = messages
    ids = [call["id"] for call in said["tool_calls"]]
    assert ids == [first["tool_call_id"], second["tool_call_id"]]
    assert len({*ids}) == 2
    # Mistral accepts only such ids. A call has the same id everywhere in the request.
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", id_) for id_ in ids)
    assert again["tool_calls"][0]["id"] == last["tool_call_id"] == ids[0]
    assert said["content"] == "Let me look."
    assert again["content"] is None
    assert said["tool_calls"][0]["function"] == {"name": "odds", "arguments": '{"match":7}'}
    assert said["tool_calls"][1]["extra_content"] == {"google": {"thought_signature": "c"}}
    assert (first["content"], first["name"]) == ("2.1", "odds")
    assert after == {"role": "assistant", "content": "2.1"}
    assert body()["tools"] == [
        {"type": "function", "function": {"name": "odds", "description": "The odds.", "parameters": ODDS.parameters}}
    ]


@pytest.mark.parametrize(
    ("reasoning", "given"),
    [(ReasoningBack.OFF, []), (ReasoningBack.TOOL_TURNS, ["Hm."]), (ReasoningBack.ALWAYS, ["Hm."])],
)
def test_thinking_goes_back_with_calls_where_it_is_wanted(reasoning: ReasoningBack, given: list[str]) -> None:
    messages = body(reasoning=reasoning)["messages"]
    assert [message["reasoning_content"] for message in messages if "reasoning_content" in message] == given


def test_who_refuses_tools_is_asked_without() -> None:
    whole = body(frozenset({Part.TOOLS}))
    assert "tools" not in whole
    assert [message["role"] for message in whole["messages"]] == ["system", "user", "assistant", "user"]
    assert is_in(Part.TOOLS, TURNS, NONE)
    assert is_in(Part.TOOLS, TURNS[:2], NONE, [ODDS])
    assert not is_in(Part.TOOLS, TURNS[:2], NONE)


@pytest.mark.parametrize(
    "message",
    [
        "registry.ollama.ai/library/gemma:2b does not support tools",
        "No endpoints found that support tool use. To learn more about provider routing, visit: https://…",
        "tools is not supported in this model",
        "Function calling is not enabled for models/gemma-3-1b-it",
        "Unsupported parameter: 'tools' is not supported with this model.",
        "`tool_choice` is not supported",
    ],
)
def test_a_refusal_of_tools_is_known(message: str) -> None:
    error = {"error": {"message": message, "type": "invalid_request_error"}}
    assert Part.TOOLS in from_response(400, {}, json.dumps(error).encode()).refused


@pytest.mark.parametrize("message", ["You exceeded your quota", "messages: roles must alternate", "Invalid 'model'"])
def test_other_refusals_are_none_of_tools(message: str) -> None:
    error = {"error": {"message": message, "type": "invalid_request_error"}}
    assert Part.TOOLS not in from_response(400, {}, json.dumps(error).encode()).refused
