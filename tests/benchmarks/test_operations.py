"""The database commands of one answer: half of a request's cost, and most of the time to a first chunk. If you add a
command, write its purpose here.
"""

import pytest
from pymongo.monitoring import CommandStartedEvent

from chatstream.store.measuring import Commands
from tests.support.scripted_model import STOP, bench


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The commands so far, each with its collection. Checkpoints are turned off, so a slow machine has none either."""
    monkeypatch.setattr("chatstream.generations.checkpointer.CHECKPOINT_INTERVAL", 3600)
    commands: list[tuple[str, str]] = []

    def started(_: Commands, event: CommandStartedEvent) -> None:
        commands.append((event.command_name, event.command[event.command_name]))

    monkeypatch.setattr(Commands, "started", started)
    return commands


@pytest.mark.gen_test
async def test_the_answer_to_a_question_that_waits_takes_four_commands(
    mongodb_uri: str, asked: list[tuple[str, str]]
) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation(waiting="Who wins?")
        b.model.reply("Ireland.", STOP)
        asked.clear()
        async with b.viewer(conversation, reads_ahead=True, once=True) as viewer:
            await viewer.rest()
        assert viewer.text == "Ireland."
        assert asked[:2] == [
            ("aggregate", "conversations"),  # the owner, and the newest messages: is there a pending question?
            ("insert", "messages"),  # the answer's beginning, which is the lock: no other process asks the model
        ]
        assert asked[2:4] == [  # one after the other, in one step of a thread
            ("findAndModify", "messages"),  # the answer's end, and whether another message waits behind it
            ("update", "conversations"),  # sets the time of its last use, and shows whether it still exists
        ]
        assert not asked[4:]


@pytest.mark.gen_test
async def test_the_answer_to_a_later_question_also_reads_what_was_said(
    mongodb_uri: str, asked: list[tuple[str, str]]
) -> None:
    async with bench(mongodb_uri) as b:
        conversation = await b.conversation()
        b.model.reply("Ireland.", STOP)
        await b.post(conversation)
        await b.ended(conversation)
        await b.posting.add(conversation, "By how much?")
        b.model.reply("By two.", STOP)
        asked.clear()
        async with b.viewer(conversation, reads_ahead=True, once=True) as viewer:
            await viewer.rest()
        assert viewer.text == "By two."
        assert sorted(asked) == [
            ("aggregate", "conversations"),
            ("find", "messages"),  # the lengths of the earlier messages: only those that are sent are read
            ("find", "messages"),  # the messages that are sent
            ("findAndModify", "messages"),
            ("insert", "messages"),
            ("update", "conversations"),
        ]
