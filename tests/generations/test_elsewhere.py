"""What one process is told of an answer that another one generates. Two whole processes are in `test_cluster`."""

import pytest

from tests.support.scripted_model import STOP, beats, bench, following

pytestmark = pytest.mark.usefixtures("short_pauses", "soon_told_to_viewers_only")


@pytest.fixture
def soon_told_to_viewers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """All answers are as if they had begun long ago."""
    monkeypatch.setattr("chatstream.generations.generation._TOLD_TO_ALL_FOR", 0)


@pytest.mark.gen_test
async def test_of_what_nobody_watches_elsewhere_other_processes_hear_the_end_alone(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there) as seen:
        conversation = await here.conversation()
        async with here.viewer(conversation) as watched:
            posted = await here.post(conversation)
            call = await here.model.call(1)
            for text in ("One ", "two "):
                call.say(text)
                await beats(here, 2)
            call.say("three.", STOP)
            await watched.until("llm_complete")
        assert posted.answer is not None
        ours = posted.answer.id
        changes: list[str] = []
        while not changes or not changes[-1].startswith("Ended"):
            change = await seen.get()
            changes += [change] if ours in change else []
        assert [change.partition("(")[0] for change in changes] == ["Stored", "Ended"]


@pytest.mark.gen_test
async def test_who_comes_later_and_from_elsewhere_misses_nothing(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as here, bench(mongodb_uri) as there, following(there):
        conversation = await here.conversation()
        await here.post(conversation)
        call = await here.model.call(1)
        call.say("One ")
        await beats(here, 2)
        arrived, go_on = here.store.hold("checkpoint")
        call.say("two ")
        await arrived.wait()
        async with there.viewer(conversation) as watched:
            go_on.set()  # what is stored now is told to nobody
            await beats(here, 2)
            await there.hub.elsewhere.look()
            while watched.text != "One two ":
                assert await watched.next() is not None
            call.say("three.")  # and this to where the viewers are
            while watched.text != "One two three.":
                assert await watched.next() is not None
            call.say(STOP)
            assert (await watched.until("llm_complete"))["content"] == "One two three."
