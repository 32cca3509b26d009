"""An answer with calls whose model is asked by the Responses API: on a real database, from a real HTTP endpoint."""

from typing import Any, cast

import pytest

from chatstream.generations.deciding import Decision
from chatstream.llm.catalogue import Deadlines
from chatstream.llm.openai_model import OpenAIModel
from chatstream.metrics import Metrics
from chatstream.models import Status
from chatstream.tools.tool import Tools
from tests.generations.test_deciding import asking, waiting
from tests.generations.test_tools import Ledger
from tests.support.apis import Responses, answers
from tests.support.scripted_model import bench
from tests.support.upstream import Upstream


@pytest.mark.gen_test(timeout=60)
async def test_another_process_goes_on_with_what_the_model_thought(mongodb_uri: str, upstream: Upstream) -> None:
    api = Responses()
    upstream.reply(answers(api, ("thought", "Hm."), ("text", "I pay."), ("call", "pay", '{"match":', "7}")))
    upstream.reply(answers(api, ("text", "Paid.")))
    deadlines = Deadlines(connect=60, first_token=60, idle=60, total=60)
    model = OpenAIModel(
        api_key="sk-1", base_url=upstream.url, model="m", api="responses", metrics=Metrics(), deadlines=deadlines
    )
    ledger = Ledger()
    tools = Tools([asking(ledger)])
    async with bench(mongodb_uri, tools=tools) as a, bench(mongodb_uri, tools=tools) as b:
        a.model = b.model = cast("Any", model)
        conversation = await a.conversation()
        await a.post(conversation, "Pay.")
        parked = await waiting(a, conversation)
        async with b.viewer(conversation) as viewer:
            await b.deciding.decide(conversation, f"{parked.id}.1", Decision.APPROVE)
            complete = await viewer.until("llm_complete")
        answer = await b.ended(conversation)
        assert (answer.status, answer.content) == (Status.COMPLETE, "I pay.\n\nPaid.")
        assert (answer.usage and answer.usage.total_tokens, len(answer.rounds)) == (14, 2)
        assert ledger.keys == [f"{parked.id}.1"]
        # Encrypted reasoning is only for its endpoint.
        assert "secret" in str(answer.pieces)
        assert "secret" not in str([complete, *(frame.data for frame in viewer.frames)])
        first, second = [call.body for call in upstream.calls]
        assert [item["type"] for item in second["input"]] == [
            *("message", "reasoning", "message", "function_call", "function_call_output")
        ]
        assert second["input"][1]["encrypted_content"] == "secret Hm."
        assert second["input"][4]["output"] == '{"odds":2.1,"match":7}'
        assert (first["tools"][0]["name"], first["tools"][0]["strict"]) == ("pay", False)
        assert second["prompt_cache_key"] == first["prompt_cache_key"] == conversation.key
    await model.close()
