"""The reconciler accepts correct data, and each of its rules detects its violation."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.stress.ledger import (
    Acknowledged,
    Called,
    CallEnded,
    Closed,
    Deleted,
    Deleting,
    Emitted,
    Entry,
    Finished,
    Opened,
    Received,
    Regenerating,
    Sent,
    Stopped,
)
from tests.stress.reconcile import RULES, Evidence, Message, Process, reconcile

KEY, QUESTION, ANSWER, SECOND, PARTIAL, AGAIN = (f"{number:024x}" for number in range(1, 7))
FIRST_TEXT, SECOND_TEXT = "mdl-1-0 Grüße 🏆", "mdl-2-0 to be "
THIRD_TEXT = "mdl-4-0 continued"
Doctor = Callable[[Evidence], None]


def chunk(connection: int, id_: str, reply_to: str, offset: int, content: str, attempt: int = 1) -> Received:
    data = {"type": "llm_chunk", "messageId": id_, "replyTo": reply_to, "attempt": attempt}
    return Received(connection, f"{id_}.{offset + len(content)}", data | {"offset": offset, "content": content})


def complete(connection: int, answer: Message) -> Received:
    data = {"type": "llm_complete", "messageId": answer.id, "replyTo": answer.reply_to, "attempt": answer.attempt}
    data |= {"content": answer.content, "status": answer.status, "finishReason": answer.finish_reason}
    return Received(connection, f"{answer.id}.complete", data)


def user_message(connection: int, message: Message) -> Received:
    data = {"type": "user_message", "messageId": message.id, "content": message.content}
    return Received(connection, f"{message.id}.user", data)


def connected(connection: int) -> Received:
    return Received(connection, None, {"type": "connected", "resumed": True})


def message(id_: str, seq: int, **fields: object) -> Message:
    return Message(**{"id": id_, "conversation": "c", "seq": seq, "role": "assistant", **fields})  # type: ignore[arg-type]  # the fields are checked when it is used


def truth() -> Evidence:
    """Correct data: two questions; the first answer is complete, the second was cut, sent as an error and begun
    again.
    """
    messages = [
        message(QUESTION, 1, role="user", content="usr-1", key="k1"),
        message(
            *(ANSWER, 2),
            content=FIRST_TEXT,
            reply_to=QUESTION,
            attempt=1,
            status="complete",
            finish_reason="stop",
            recommendations=1,
        ),
        message(SECOND, 3, role="user", content="usr-2", key="k2"),
        message(
            *(PARTIAL, 4),
            content=SECOND_TEXT,
            reply_to=SECOND,
            attempt=1,
            status="interrupted",
            error="answer_interrupted",
            unwatched=True,
        ),
        message(
            *(AGAIN, 5),
            content=THIRD_TEXT,
            reply_to=SECOND,
            attempt=2,
            status="complete",
            finish_reason="length",
        ),
    ]
    question, answer, second, partial, again = messages
    entries: list[Entry] = [
        Opened(1, 1, "c", f"{KEY}.start"),
        connected(1),
        Sent("c", "k1", "usr-1"),
        Acknowledged("c", "k1", "usr-1", QUESTION, 201),
        user_message(1, question),
        Called(1, "usr-1"),
        Emitted(1, "mdl-1-0 "),
        Emitted(1, "Grüße 🏆"),
        Finished(1, "stop"),
        CallEnded(1, aborted=False),
        chunk(1, ANSWER, QUESTION, 0, "mdl-1-0 Gr"),
        Closed(1, "lost"),
        Opened(2, 1, "c", f"{ANSWER}.10"),
        connected(2),
        chunk(2, ANSWER, QUESTION, 10, "üße 🏆"),
        complete(2, answer),
        Received(2, f"{ANSWER}.system1", {"type": "system", "metadata": {}}),
        Stopped("c", ANSWER, "complete", len(FIRST_TEXT)),
        Sent("c", "k2", "usr-2"),
        Acknowledged("c", "k2", "usr-2", SECOND, 201),
        user_message(2, second),
        Called(2, "usr-2"),
        Emitted(2, SECOND_TEXT),
        Emitted(2, "or not"),
        CallEnded(2, aborted=True),
        chunk(2, PARTIAL, SECOND, 0, SECOND_TEXT),
        Received(2, f"{PARTIAL}.error", {"type": "error", "error": "answer_interrupted", "messageId": PARTIAL}),
        complete(2, partial),
        Called(3, "usr-2"),
        CallEnded(3, aborted=False),  # a 500, which is in the server's log
        Called(4, "usr-2"),
        Emitted(4, THIRD_TEXT),
        Finished(4, "length"),
        CallEnded(4, aborted=False),
        chunk(2, AGAIN, SECOND, 0, THIRD_TEXT, 2),
        complete(2, again),
        Deleting("d"),
        Deleted("d"),
    ]
    log = '{"message": "model retry 1 of 2 in 0.5 s: error HTTP 500"}\n'
    processes = [Process(log=log, exit_status=0, descriptors=(20, 30))]
    return Evidence(
        entries=entries,
        messages=messages,
        processes=processes,
        secrets=["sk-secret"],
        settled=frozenset({1}),
    )


def change(id_: str, **fields: object) -> Doctor:
    """Change a stored message."""

    def doctor(evidence: Evidence) -> None:
        evidence.messages = [replace(m, **fields) if m.id == id_ else m for m in evidence.messages]

    return doctor


def lose(*ids: str) -> Doctor:
    """Remove some stored messages."""

    def doctor(evidence: Evidence) -> None:
        evidence.messages = [m for m in evidence.messages if m.id not in ids]

    return doctor


def store(*messages: Message) -> Doctor:
    """Add stored messages."""

    def doctor(evidence: Evidence) -> None:
        evidence.messages = [*evidence.messages, *messages]

    return doctor


def add(*entries: Entry) -> Doctor:
    """Add entries to the ledger."""

    def doctor(evidence: Evidence) -> None:
        evidence.entries = [*evidence.entries, *entries]

    return doctor


def forget(which: Callable[[Entry], bool]) -> Doctor:
    """Remove entries from the ledger."""

    def doctor(evidence: Evidence) -> None:
        evidence.entries = [entry for entry in evidence.entries if not which(entry)]

    return doctor


def alter(which: Callable[[Received], bool], **data: object) -> Doctor:
    """Change received events."""

    def doctor(evidence: Evidence) -> None:
        evidence.entries = [
            replace(entry, data=entry.data | data) if isinstance(entry, Received) and which(entry) else entry
            for entry in evidence.entries
        ]

    return doctor


def process(**fields: object) -> Doctor:
    """Change the data of the server process."""

    def doctor(evidence: Evidence) -> None:
        evidence.processes = [replace(one, **fields) for one in evidence.processes]

    return doctor


def is_type(type_: str, id_: str = "") -> Callable[[Entry], bool]:
    return lambda entry: (
        isinstance(entry, Received) and entry.data["type"] == type_ and id_ in ("", entry.data.get("messageId"))
    )


DOCTORED: list[tuple[str, Doctor]] = [
    ("acknowledged_is_stored_once", lose(QUESTION)),
    ("acknowledged_is_stored_once", change(QUESTION, content="usr-9")),
    ("acknowledged_is_stored_once", store(message("f" * 24, 9, role="user", content="usr-1", key="k9"))),
    ("nothing_is_made_up", store(message("f" * 24, 9, role="user", content="usr-3", key="k3"))),
    ("nothing_is_made_up", store(message("f" * 24, 9, role="user", content="usr-1", key="k1"))),
    ("one_key_is_one_message", add(Acknowledged("c", "k1", "usr-1", SECOND, 200))),
    ("one_key_is_one_message", add(Acknowledged("c", "k1", "usr-1", QUESTION, 201))),
    ("attempts_are_counted", change(AGAIN, attempt=3)),
    ("attempts_are_counted", change(AGAIN, seq=3)),
    ("attempts_are_counted", lose(SECOND)),
    ("complete_once", change(PARTIAL, status="complete")),
    ("complete_is_whole", change(ANSWER, finish_reason=None)),
    ("complete_is_whole", change(ANSWER, finish_reason="length")),
    ("complete_is_whole", change(ANSWER, content=FIRST_TEXT[:-1])),
    ("complete_is_whole", change(PARTIAL, status="complete", finish_reason="stop")),
    ("partial_is_a_prefix", change(PARTIAL, content="mdl-2-0 to see")),
    ("partial_is_a_prefix", change(PARTIAL, content="to be")),
    ("one_call_is_one_attempt", change(AGAIN, content=SECOND_TEXT)),
    ("one_call_is_one_attempt", change(ANSWER, reply_to=SECOND)),
    ("nothing_received_is_lost", change(PARTIAL, content=SECOND_TEXT[:-1])),
    ("orphans_have_a_reason", change(PARTIAL, orphaned=True)),
    ("nothing_is_streaming", change(AGAIN, status="streaming")),
    ("the_newest_is_answered", change(AGAIN, status="interrupted")),
    ("the_newest_is_answered", lose(PARTIAL, AGAIN)),
    ("calls_are_accounted_for", process(log="")),
    ("chunks_are_true", alter(is_type("llm_chunk", PARTIAL), content="mdl-2-0 to see")),
    ("chunks_are_true", alter(is_type("llm_chunk", PARTIAL), offset=1)),
    ("ends_are_as_stored", alter(is_type("llm_complete", ANSWER), content="")),
    ("ends_are_as_stored", alter(is_type("llm_complete", PARTIAL), status="complete")),
    ("ends_are_as_stored", alter(is_type("error"), error="internal")),
    ("ends_are_as_stored", lose(AGAIN)),
    ("stops_are_as_stored", add(Stopped("c", PARTIAL, "stopped", len(SECOND_TEXT)))),
    ("stops_are_as_stored", add(Stopped("c", "f" * 24, "stopped", 0))),
    ("events_are_in_order", change(SECOND, seq=9)),
    ("events_are_in_order", add(complete(2, next(m for m in truth().messages if m.id == ANSWER)))),
    ("events_are_in_order", lose(PARTIAL)),
    ("chunks_are_contiguous", alter(lambda entry: entry.id == f"{ANSWER}.10", content="mdl-1-0 G")),
    ("chunks_are_contiguous", forget(lambda entry: getattr(entry, "id", "") == f"{ANSWER}.10")),
    ("cursors_are_honoured", alter(is_type("connected"), resumed=False)),
    ("watchers_have_it_all", forget(is_type("llm_complete", AGAIN))),
    ("watchers_have_it_all", forget(is_type("user_message", SECOND))),
    ("watchers_have_it_all", add(*(entry for entry in truth().entries if is_type("user_message", SECOND)(entry)))),
    ("watchers_have_it_all", forget(is_type("system"))),
    ("watchers_have_it_all", change(AGAIN, status="failed", error="internal")),
    ("deleted_is_gone", store(message("f" * 24, 1, conversation="d", role="user", content="usr-4"))),
    ("calls_are_closed", forget(lambda entry: entry == CallEnded(2, aborted=True))),
    ("descriptors_are_closed", process(descriptors=(20, 120))),
    ("processes_end_well", process(exit_status=-9)),
    ("logs_are_clean", process(log='model retry {"traceback": "Traceback (most recent call last)…"}')),
    ("logs_are_clean", process(log="model retry with sk-secret")),
    ("logs_are_clean", process(log="model retry: mdl-2-0")),
    ("logs_are_clean", process(log="model retry: usr-1")),
]


def test_the_truth_breaks_no_rule() -> None:
    assert reconcile(truth()) == []


def test_every_rule_has_something_that_breaks_it() -> None:
    assert {rule for rule, _ in DOCTORED} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize(("rule", "doctor"), DOCTORED)
def test_what_breaks_a_rule_is_seen(rule: str, doctor: Doctor) -> None:
    evidence = truth()
    doctor(evidence)
    assert rule in {violation.rule for violation in reconcile(evidence)}


def test_a_death_excuses_what_was_not_yet_stored_but_nothing_else() -> None:
    evidence = truth()
    evidence.orphans_allowed = True
    change(PARTIAL, orphaned=True, content="mdl-2-0 to")(evidence)
    alter(is_type("llm_complete", PARTIAL), content="mdl-2-0 to")(evidence)
    assert reconcile(evidence) == []
    change(PARTIAL, content="mdl-2-0 no")(evidence)
    assert reconcile(evidence) != []


def test_asking_for_another_answer_excuses_a_second_complete_one() -> None:
    evidence = truth()
    change(PARTIAL, status="complete", finish_reason="stop")(evidence)
    add(Regenerating("c"))(evidence)
    assert "complete_once" not in {violation.rule for violation in reconcile(evidence)}


def test_of_a_deleted_conversation_nothing_is_missed() -> None:
    evidence = truth()
    evidence.messages = []
    evidence.settled = frozenset()
    add(Deleting("c"))(evidence)
    assert reconcile(evidence) == []
