"""Random trees: the history of a leaf is its path, the model gets this path, and each replay has the log's order."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tornado.ioloop import IOLoop

from chatstream.errors import StorageUnavailable
from chatstream.events import Cursor
from chatstream.models import Answer, Conversation, Message, UserMessage
from chatstream.store.conversations import moved_head
from tests.support.scripted_model import STOP, Bench, bench

Story = dict[str, str | None]
"""What each message goes on from, by id: a model of the tree as simple as can be."""

STEPS = st.lists(st.tuples(st.sampled_from(["post", "edit", "again", "show"]), st.integers(0, 1000)), max_size=12)


class Player:
    """Plays random steps on a conversation, and computes the expected result."""

    def __init__(self, b: Bench, conversation: Conversation) -> None:
        self.bench = b
        self.conversation = conversation
        self.above: Story = {}
        self.texts: dict[str, str] = {}
        self.order: list[str] = []
        self.end: str | None = None  # the last message of the shown branch

    async def play(self, steps: list[tuple[str, int]]) -> None:
        for name, which in steps:
            self.conversation = await self.bench.conversations.get("user", self.conversation.id)
            questions = [id_ for id_ in self.order if id_.startswith("q")]
            if name == "post" or not self.order:
                await self.post(self.end)
            elif name == "edit":
                old = questions[which % len(questions)]
                await self.post(self.above[old], edited=True)
            elif name == "again":
                await self.again(questions[which % len(questions)])
            else:
                await self.show(self.order[which % len(self.order)])

    async def post(self, parent: str | None, *, edited: bool = False) -> None:
        text = f"question {len(self.order)}"
        options: dict[str, Any] = {"parent": parent and parent[1:]} if edited else {}
        self.bench.model.reply(f"answer {len(self.order)}", STOP)
        posted = await self.bench.post(self.conversation, text, **options)
        question = f"q{posted.message.id}"
        self.note(question, text, parent)
        await self.answered(question)

    async def again(self, question: str) -> None:
        self.bench.model.reply(f"answer {len(self.order)}", STOP)
        await self.bench.commands.regenerate(self.conversation, request_id="r", message_id=question[1:])
        await self.answered(question)

    async def answered(self, question: str) -> None:
        answer = await self.bench.ended(self.conversation)
        told = [turn.content for turn in self.bench.model.calls[-1].turns[1:]]
        assert told == [self.texts[id_] for id_ in self.path(question)]
        self.note(f"a{answer.id}", answer.content, question)

    async def show(self, message: str) -> None:
        tree = await self.bench.reading.tree(self.conversation.key)
        leaf = tree.newest_below(message[1:])
        below = [id_ for id_ in self.order if message in self.path(id_)]
        assert leaf == below[-1][1:]
        await self.bench.conversations.update("user", self.conversation.id, {}, head=moved_head(leaf, "test"))
        self.end = below[-1]

    def note(self, id_: str, text: str, above: str | None) -> None:
        self.above[id_], self.texts[id_] = above, text
        self.order.append(id_)
        self.end = id_

    def path(self, id_: str | None) -> list[str]:
        path: list[str] = []
        while id_ is not None:
            path.append(id_)
            id_ = self.above[id_]
        return path[::-1]

    async def check(self) -> None:
        conversation = await self.bench.conversations.get("user", self.conversation.id)
        tree = await self.bench.reading.tree(conversation.key)
        for id_ in self.order:
            assert [node.id for node in tree.path(id_[1:])] == [one[1:] for one in self.path(id_)]
            same = [one[1:] for one in self.order if self.above[one] == self.above[id_] and one[0] == id_[0]]
            assert tree.siblings(id_[1:]) == same
        assert tree.leaf(conversation.head) == (self.end and self.end[1:])
        await self.replays()

    async def replays(self) -> None:
        """A replay from any cursor has each message once, in the log's order, except attempts that were replaced by
        another one.
        """
        log: list[Message] = await self.bench.reading.page(self.conversation.key, limit=1000, before=None)
        assert [message.id for message in log] == [id_[1:] for id_ in self.order]
        newest = {message.reply_to: message.id for message in log if isinstance(message, Answer)}
        start = Cursor(self.conversation.key, Cursor.START)
        places = [start, *[Cursor(m.id, Cursor.USER) for m in log if isinstance(m, UserMessage)]]
        for cursor in places[:1] + places[-2:]:
            later = log if cursor is start else log[[m.id for m in log].index(cursor.message_id) + 1 :]
            told = [m.id for m in later if isinstance(m, UserMessage) or newest[m.reply_to] == m.id]
            async with self.bench.viewer(self.conversation, cursor) as viewer:
                seen: list[str] = []
                while len(seen) < len(told):
                    frame = await viewer.next()
                    assert frame is not None
                    if frame.type in ("user_message", "llm_complete"):
                        seen.append(frame.data["messageId"])
                        above = self.above[f"q{seen[-1]}"] if frame.type == "user_message" else None
                        assert frame.data.get("parent", above and above[1:]) == (above and above[1:])
            assert seen == told


async def play(uri: str, steps: list[tuple[str, int]]) -> None:
    async with bench(uri, "branches") as b:
        player = Player(b, await b.conversation())
        await player.play(steps)
        await player.check()


# An example takes a fifth of a second. A failure is reproducible with the same steps.
@settings(max_examples=12, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_a_leaf_is_a_path_for_readers_and_for_the_model(io_loop: IOLoop, mongodb_uri: str, steps: Any) -> None:
    io_loop.run_sync(lambda: play(mongodb_uri, steps), timeout=60)


@pytest.mark.gen_test
async def test_a_cut_continuation_begins_again_from_the_same_text(mongodb_uri: str, short_pauses: None) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("The cow jumps")
        async with b.viewer(conversation) as viewer:
            await b.post(conversation)
            await viewer.until("llm_chunk")
            await b.commands.stop(conversation, None)
            await viewer.until("llm_complete")
            b.model.reply(" over the fence")
            await b.commands.regenerate(conversation, request_id="r", continues=True)
            while "fence" not in viewer.text:
                await viewer.until("llm_chunk")
            b.model.reply(" over the moon.", STOP)
            await b.interrupt(conversation)  # its process has died, as far as another one knows
            complete = await viewer.until("llm_complete")
            if complete["status"] == "interrupted":
                complete = await viewer.until("llm_complete")
        assert (complete["content"], complete["attempt"]) == ("The cow jumps over the moon.", 3)


@pytest.mark.gen_test
async def test_an_edit_whose_result_is_lost_is_stored_once(mongodb_uri: str, short_pauses: None) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        for _ in range(2):
            b.model.reply("Yes.", STOP)
        await b.post(conversation, "One")
        await b.ended(conversation)
        b.store.lost["post"] = 1
        with pytest.raises(StorageUnavailable):
            await b.post(conversation, "One!", parent=None, client_message_id="k")
        posted = await b.post(conversation, "One!", parent=None, client_message_id="k")
        assert posted.repeated
        await b.ended(conversation)
        log = await b.reading.page(conversation.key, limit=100, before=None)
        assert [message.content for message in log] == ["One", "Yes.", "One!", "Yes."]
