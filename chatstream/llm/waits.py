"""Finds how long an endpoint asks to wait before a retry. Pure, except for the clock that dates need."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from chatstream.llm.refusals import Refusal

# Durations: "7m34.5s", "20ms", "1.5 seconds", "2 minutes"; a number alone is in seconds. Possessive quantifiers (`++`)
# prevent backtracking, so that every text takes linear time.
_PIECE: Final = (
    r"([0-9]{1,15}+(?:\.[0-9]{1,15}+)?+)\s*+"
    r"(milliseconds?|ms|minutes?|min|m|hours?|h|seconds?|sec|s)?+(?![a-z])\s*+"
)
_DURATION: Final = rf"(?i)(?:{_PIECE}){{1,4}}+"
_SENTENCE: Final = (
    r"(?i)(?:try(?:ing)? again|retry|wait|available again)\b(?:\s+(?:after|in|for|at least|about|your request)\b){0,3}+"
    rf"\s*+:?+\s*+((?:{_PIECE}){{1,4}}+)"
)
_SECONDS: Final = {"ms": 0.001, "h": 3600.0, "m": 60.0, "s": 1.0}
# Numbers from here on are Unix times, in seconds or milliseconds, and not durations.
_EPOCH: Final = 1_000_000_000
_EPOCH_MS: Final = _EPOCH * 1000


def seconds_to_wait(headers: Mapping[str, str], refusal: Refusal) -> float | None:
    """The seconds to wait that a response asks for: in `Retry-After` (RFC 9110, section 10.2.3) or a similar header, in
    its body, or in its rate limits. None if it does not say."""
    metadata = refusal.fields.get("headers")  # OpenRouter sends the model server's headers in its body
    also = {str(name).lower(): str(value) for name, value in metadata.items()} if isinstance(metadata, dict) else {}
    found = (_header(headers), _field(refusal), _sentence(refusal), _header(also), _reset(headers), _reset(also))
    # Ignore waits over a day or in the past. The comparison also refuses NaN.
    return next((seconds for seconds in found if seconds is not None and 0 <= seconds <= 86_400), None)


def _header(headers: Mapping[str, str]) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    return duration(headers.get("retry-after", ""))


def _field(refusal: Refusal) -> float | None:
    """The wait that the body asks for: Google's `retryDelay`, Hugging Face's `estimated_time`, and fields of other
    endpoints.
    """
    for name, unit in (("retryDelay", 1.0), ("retry_after", 1.0), ("retryAfter", 1.0), ("retry_after_seconds", 1.0),
                       ("retry_after_ms", 0.001), ("estimated_time", 1.0)):  # fmt: skip
        value = refusal.fields.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            seconds = duration(str(value))
            if seconds is not None:
                return seconds * unit
    return None


def _sentence(refusal: Refusal) -> float | None:
    found = re.search(_SENTENCE, refusal.words)
    return duration(found[1]) if found else None


def _reset(headers: Mapping[str, str]) -> float | None:
    """The wait until the rate limits reset: the latest of the exhausted ones, else of all."""
    resets: list[tuple[bool, float]] = []
    for name, value in headers.items():
        if "ratelimit" not in name or "reset" not in name:
            continue
        seconds = duration(value)
        if seconds is not None:
            left = headers.get(name.replace("reset", "remaining"), "")
            resets.append((left.strip() == "0", seconds))
    structured = re.search(r"\br=0\b.*?\bt=([0-9]{1,9})", headers.get("ratelimit", ""))
    if structured:
        resets.append((True, float(structured[1])))
    return max(resets)[1] if resets else None


def duration(text: str) -> float | None:
    """Parse seconds from now: a number, a duration with units, a date (RFC 9110, RFC 3339), or a Unix time."""
    readers: tuple[Callable[[str], float | None], ...] = (_number, _units, _date)
    seconds = next((value for read in readers if (value := read(text.strip())) is not None), None)
    if seconds is None or seconds < _EPOCH:
        return seconds
    moment = seconds / 1000 if seconds >= _EPOCH_MS else seconds
    return moment - datetime.now(UTC).timestamp()


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _units(text: str) -> float | None:
    if not re.fullmatch(_DURATION, text):
        return None
    return sum(float(number) * _unit(name.lower()) for number, name in re.findall(_PIECE, text, re.IGNORECASE))


def _unit(name: str) -> float:
    if name.startswith(("ms", "milli")):
        return _SECONDS["ms"]
    return _SECONDS[name[:1] or "s"]


def _date(text: str) -> float | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return (parse(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a time zone
            continue
    return None
