"""Reports one answer to the operator: a log line and metrics when it has ended."""

import asyncio
import logging

from msgspec import UnsetType

from chatstream.errors import ErrorCode
from chatstream.generations.channel import Channel, Running
from chatstream.metrics import Metrics
from chatstream.models import Answer, Status, Usage

log = logging.getLogger("chatstream.generations")


def usage_facts(usage: Usage | None) -> dict[str, int | str | None]:
    """Return an answer's usage for the log line: an unknown number is null, not zero."""

    def known(count: int | UnsetType) -> int | None:
        return None if isinstance(count, UnsetType) else count

    if usage is None:
        names = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost_micros", "usage")
        return dict.fromkeys(names)
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": known(usage.cached_tokens),
        "reasoning_tokens": known(usage.reasoning_tokens),
        "cost_micros": known(usage.cost_micros),
        "usage": usage.source,
    }


class AnswerLog:
    """The log line of one answer. Opened when the answer begins, closed when its end is stored. It
    never contains text of the question or the answer."""

    def __init__(self, metrics: Metrics, *, model: str, request_id: str | None) -> None:
        """`model`: the model that generates the answer. `request_id`: the id of the HTTP request that began it."""
        self._metrics = metrics
        self._model = model
        self._request_id = request_id
        self._now = asyncio.get_running_loop().time
        self.begin()
        self.first_text: float | None = None  # seconds after the beginning
        self.detail: str | None = None  # why it failed; only for the log

    def begin(self) -> None:
        """Start measuring the answer's duration."""
        self._began_at = self._now()

    def text_came(self) -> None:
        """Note the time of the first text."""
        self.first_text = self._now() - self._began_at

    def close(self, channel: Channel, running: Running, stored: Answer | None) -> None:
        """Write the line. `stored` is the stored end, or an answer that waits; None if the conversation was deleted.

        The tokens of an answer that waits are counted when it has ended.
        """
        seconds = self._now() - self._began_at
        outcome = stored.status if stored else "deleted"
        code = stored.failure.code if stored and stored.failure else None
        usage = stored.usage if stored else None
        rounds = stored.rounds if stored else ()
        model = (stored.model if stored else None) or self._model
        if outcome is Status.WAITING:
            self._metrics.answer_waits()
        else:
            if code is ErrorCode.TOOL_OUTCOME_UNKNOWN:
                self._metrics.outcome_unknown()
            self._metrics.answer_finished(
                outcome, code, seconds=seconds, first_token=self.first_text, usage=usage, model=model, rounds=rounds
            )
        facts = {
            "request": self._request_id,
            "user": channel.conversation.user_id,
            "conversation": channel.conversation.id,
            "answer": running.answer.id,
            "code": code,
            "model": model,
            "seconds": round(seconds, 3),
            "first_token": None if self.first_text is None else round(self.first_text, 3),
            "chunks": len(running.pieces),
            "characters": running.end.text,
            "rounds": len(stored.rounds) or 1 if stored else None,
            "viewers": len(channel.readers),
        } | usage_facts(usage)
        level = logging.WARNING if outcome is Status.FAILED else logging.INFO
        if code is ErrorCode.INTERNAL:
            level = logging.ERROR
        detail = f": {self.detail}" if self.detail else ""
        log.log(level, "answer %s%s", outcome, detail, extra={"facts": facts})
