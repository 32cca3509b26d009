"""The log: one line for each event, for people or for programs."""

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chatstream import logs
from chatstream.logs import Flood, JSONFormatter, Pseudonyms, TextFormatter
from chatstream.settings import LogFormat


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """`configure` changes the whole process: restore pytest's own logging."""
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in logs._QUIET}
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def record(message: str, *arguments: object, facts: dict[str, Any] | None = None) -> logging.LogRecord:
    made = logging.LogRecord("chatstream.http", logging.WARNING, "f.py", 1, message, arguments, None)
    if facts is not None:
        made.facts = facts
    return made


def failed() -> logging.LogRecord:
    """A log record with a traceback."""
    try:
        int("boom")
    except ValueError:
        return logging.LogRecord("chatstream", logging.ERROR, "f.py", 1, "lost", (), sys.exc_info())
    raise AssertionError


def test_a_line_for_people() -> None:
    line = TextFormatter().format(record("%s happened", "it", facts={"request": "r1", "user": None, "count": 0}))
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING it happened  request=r1  count=0", line)
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING it", TextFormatter().format(record("it")))


def test_a_traceback_for_people_comes_below() -> None:
    made = failed()
    made.facts = {"request": "r1"}
    first, *rest = TextFormatter().format(made).split("\n")
    assert first.endswith("ERROR   lost  request=r1")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError"  # the exception's text may quote a user, whichever library logs it


def test_a_line_for_machines() -> None:
    line = JSONFormatter().format(record("%s happened", "it", facts={"request": "r1", "user": None, "n": 1.5}))
    document = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document.pop("time"))
    assert document == {
        "level": "warning",
        "logger": "chatstream.http",
        "message": "it happened",
        "request": "r1",
        "n": 1.5,
    }


def test_a_traceback_for_machines_is_in_the_line() -> None:
    line = JSONFormatter().format(failed())
    assert "\n" not in line
    assert json.loads(line)["traceback"].startswith("Traceback (most recent call last):\n")
    assert json.loads(line)["traceback"].endswith("\nValueError")


@pytest.mark.parametrize("hostile", ["a\nERROR forged", "a\r\n", "\x1b[2Jgone", "\u2028", "a\0b", "\x85", "\ud800"])
def test_nobody_writes_a_line_of_their_own(hostile: str) -> None:
    """A user's id comes from a token, and its issuer may let users choose it."""
    for formatter in (TextFormatter(), JSONFormatter()):
        line = formatter.format(record("it", facts={"who": hostile}))
        assert line.isprintable()
        assert line.encode()
        assert line.splitlines() == [line]
    assert json.loads(line)["who"] == hostile


def test_a_fact_that_is_no_json_is_still_logged() -> None:
    assert json.loads(JSONFormatter().format(record("it", facts={"where": {1}})))["where"] == "{1}"


@pytest.mark.parametrize(
    ("log_format", "terminal", "formatter"),
    [
        (LogFormat.TEXT, False, TextFormatter),
        (LogFormat.TEXT, True, TextFormatter),
        (LogFormat.JSON, True, JSONFormatter),
        (LogFormat.AUTO, True, TextFormatter),
        (LogFormat.AUTO, False, JSONFormatter),
    ],
)
def test_text_is_for_terminals(
    monkeypatch: pytest.MonkeyPatch, log_format: LogFormat, terminal: bool, formatter: type[logging.Formatter]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    logs.configure(log_format, "INFO")
    [handler] = logging.getLogger().handlers
    assert isinstance(handler.formatter, formatter)


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_libraries_do_not_say_what_we_would_not(capsys: pytest.CaptureFixture[str], level: str) -> None:
    """At DEBUG, HTTP clients log headers and bodies, and the HTTP parser quotes a refused header, with its token."""
    logs.configure(LogFormat.JSON, level)
    for name in ("openai._base_client", "httpx2", "httpcore2.http11", "pymongo.command"):
        logging.getLogger(name).debug("a prompt")
        logging.getLogger(name).info("a prompt")
    logging.getLogger("tornado.general").info("Malformed HTTP message: Invalid header value 'Bearer …'")
    logging.getLogger("tornado.access").info("GET /?access_token=…")
    logging.getLogger("chatstream.http").info("ours")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["ours"]


def test_the_level_is_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogFormat.JSON, "WARNING")
    logging.getLogger("chatstream.http").info("quiet")
    logging.getLogger("chatstream.http").warning("loud")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["loud"]


def written(flood: Flood, *records: logging.LogRecord) -> list[logging.LogRecord]:
    return [one for one in records if flood.filter(one)]


def test_what_goes_wrong_all_the_time_is_written_five_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.5
    monkeypatch.setattr(time, "monotonic", lambda: now)
    flood = Flood()
    assert len(written(flood, *(record("%s happened", number) for number in range(50)))) == 5
    [other] = written(flood, record("something else"))
    assert json.loads(JSONFormatter().format(other))["left_out"] == 45
    now += 1
    [again] = written(flood, record("%s happened", 50))
    assert "left_out" not in json.loads(JSONFormatter().format(again))


def test_refusals_that_will_pass_are_a_flood_by_their_code_and_no_other_request_is() -> None:
    def request(code: str | None) -> logging.LogRecord:
        made = record("GET %s", "/", facts={"code": code})
        made.levelno = logging.INFO
        return made

    flood = Flood()
    for code in (None, "not_found", "invalid_token"):
        assert len(written(flood, *(request(code) for _ in range(50)))) == 50
    for code in ("rate_limited", "storage_unavailable"):
        # At most ten, if the loop spans two seconds: the limit is five lines a second.
        assert 5 <= len(written(flood, *(request(code) for _ in range(50)))) <= 10


def test_the_whole_process_is_protected(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogFormat.JSON, "INFO")
    for _ in range(1000):
        logging.getLogger("asyncio").error("socket.accept() out of system resource")
    assert 5 <= len(capsys.readouterr().err.splitlines()) <= 10


def test_users_have_a_name_that_says_nothing_of_them() -> None:
    names, others = Pseudonyms.derived("a secret"), Pseudonyms.derived("another")
    for formatter in (TextFormatter(names), JSONFormatter(names)):
        line = formatter.format(record("it", facts={"user": "ada@example.com", "conversation": "my-divorce"}))
        assert "ada" not in line
        assert "divorce" not in line
        assert names.user("ada@example.com") in line
        assert names.conversation("my-divorce") in line
    assert re.fullmatch("u-[0-9a-f]{16}", names.user("ada"))
    assert names.user("ada") == Pseudonyms.derived("a secret").user("ada") != others.user("ada")
    assert names.user("ada") != names.user("Ada")
    assert names.user("ada")[2:] != names.conversation("ada")[2:]
    assert names.conversation("0123456789abcdef01234567") == "0123456789abcdef01234567"  # this server made the id
    assert Pseudonyms.derived(None).user("ada") != Pseudonyms.derived(None).user("ada")
