"""Messages read by a process of an earlier version, and messages of a later version read by this one."""

from datetime import UTC, datetime

import msgspec
import pytest
from bson import Int64

from chatstream.errors import ErrorCode
from chatstream.handlers.views import message_view
from chatstream.models import Answer, Failure, Status, Usage, recommendation
from chatstream.store.documents import NotUnderstood, answer_document, answer_model

KEY = "6b06f718bcab1449ce4875a6"
# The codes of the first version, which cannot read a document with another code.
FIRST = {*ErrorCode} - {ErrorCode.UPSTREAM_MISCONFIGURED, ErrorCode.ANSWER_TOO_LONG}


def failed(code: ErrorCode) -> Answer:
    return Answer(
        id=KEY,
        seq=1,
        reply_to=KEY,
        attempt=1,
        status=Status.FAILED,
        content="",
        created_at=datetime.now(UTC),
        failure=Failure(code=code, request_id="r", retry_after_ms=5),
    )


@pytest.mark.parametrize("code", ErrorCode)
def test_a_code_is_read_as_it_was_and_by_an_earlier_version_as_one_that_it_knows(code: ErrorCode) -> None:
    answer = failed(code)
    document = answer_document(KEY, answer)
    assert answer_model(document) == answer
    assert document["error"]["code"] in FIRST


def test_a_code_of_a_later_version_is_something_that_went_wrong() -> None:
    document = answer_document(KEY, failed(ErrorCode.INTERNAL))
    document["error"] |= {"code": "not_yet_invented"}
    failure = answer_model(document).failure
    assert failure is not None
    assert failure.code is ErrorCode.INTERNAL
    document["error"] |= {"code": "upstream_rejected", "exactCode": "not_yet_invented"}
    failure = answer_model(document).failure
    assert failure is not None
    assert failure.code is ErrorCode.UPSTREAM_REJECTED


def test_a_recommendation_is_read_as_every_version_has_stored_it() -> None:
    bet = {"betId": f"bet-{KEY}-1", "odds": 2.1, "oddsText": "11/10", "selection": "Arsenal", "stake": None}
    document = answer_document(KEY, msgspec.structs.replace(failed(ErrorCode.INTERNAL), failure=None))
    document["recommendations"] = [bet | {"of a later version": [1]}]
    answer = answer_model(document)
    assert [(one.kind, one.id, one.message, one.data) for one in answer.annotations] == [
        ("recommendation", f"bet-{KEY}-1", "New bet recommendation available", {**bet}),
    ]
    assert answer_document(KEY, answer)["recommendations"] == [bet]
    assert "annotations" not in answer_document(KEY, answer)
    wrong: tuple[object, ...] = ({"odds": 2.1}, {"betId": 7}, [], None)
    for broken in wrong:
        with pytest.raises(NotUnderstood):
            answer_model(document | {"recommendations": [broken]})


def test_a_number_that_the_database_has_as_a_long_one_is_told_like_any_other() -> None:
    """As other drivers and MongoDB's shell write them, and this one reads them: as a type that is not Python's own."""
    usage = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7, cost_micros=3)
    answer = msgspec.structs.replace(
        failed(ErrorCode.INTERNAL),
        usage=usage,
        annotations=(recommendation({"betId": "b", "odds": 2, "oddsText": "2", "selection": "A", "stake": 10}),),
        finish_reason="stop",
    )

    def long(value: object) -> object:
        match value:
            case dict():
                return {name: long(each) for name, each in value.items()}
            case list():
                return [long(each) for each in value]
            case int() if not isinstance(value, bool):
                return Int64(value)
        return value

    document = answer_document(KEY, answer)
    read = answer_model({name: long(value) for name, value in document.items()})
    assert msgspec.json.encode(message_view(read)) == msgspec.json.encode(message_view(answer_model(document)))
