"""The tree of errors: its guarantees for handlers and for people."""

import inspect
from http import HTTPStatus

import pytest

from chatstream import errors
from chatstream.errors import (
    EXPLANATIONS,
    ChatstreamError,
    ErrorCode,
    ModelError,
    RequestError,
    StorageUnavailable,
    Unauthenticated,
    Unavailable,
)

ALL = [member for _, member in inspect.getmembers(errors, inspect.isclass) if issubclass(member, Exception)]
REQUEST_ERRORS = [one for one in ALL if issubclass(one, RequestError)]


@pytest.mark.parametrize("error", ALL)
def test_there_is_one_tree(error: type[Exception]) -> None:
    assert issubclass(error, ChatstreamError)


@pytest.mark.parametrize("error", REQUEST_ERRORS)
def test_a_request_error_suggests_a_client_or_unavailable_status(error: type[RequestError]) -> None:
    assert 400 <= error.status < 500 or error.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert HTTPStatus(error.status)
    assert error.code == error.code.lower()
    assert error.title


def test_every_code_of_an_error_event_has_its_words() -> None:
    assert set(EXPLANATIONS) == set(ErrorCode)


def test_the_detail_is_the_text() -> None:
    error = Unavailable("Not now.", code="server_shutdown", retry_after=2)
    assert (str(error), error.detail, error.code, error.retry_after) == ("Not now.", "Not now.", "server_shutdown", 2)
    assert Unavailable("Not now.").code == "unavailable"


def test_invalid_token_is_said_only_of_a_token() -> None:
    assert Unauthenticated("Bad.", token_given=True).code == "invalid_token"
    assert Unauthenticated("None.", token_given=False).code == "unauthenticated"


def test_a_database_that_does_not_answer_says_when_to_come_back() -> None:
    error = StorageUnavailable()
    assert (error.status, error.code) == (503, ErrorCode.STORAGE_UNAVAILABLE)
    assert error.retry_after is not None
    assert error.retry_after > 0


def test_a_model_error_keeps_its_detail_for_the_log() -> None:
    error = ModelError(ErrorCode.UPSTREAM_REJECTED, "401 from 10.0.0.1: bad key", retry_after=1.5)
    assert (error.code, error.retry_after) == (ErrorCode.UPSTREAM_REJECTED, 1.5)
    assert "10.0.0.1" not in EXPLANATIONS[error.code].message
