"""An HTTP service that streams its own events answers in place of the model.

It gets a POST with the message, and sends events on an event stream: ``llm_chunk {content}``, ``odds_update {…}``,
``error {code}``, and at last ``done``. An event's type is the ``type`` in its JSON, or else its
``event:`` line. `SERVICE_URL` is the address of the service.
"""

import json
import os
from collections.abc import AsyncIterator

import httpx2

from chatstream.errors import ErrorCode
from chatstream.pieces import Data
from chatstream.plugins.plugin import AnswerFailed, Said, Turn


class Service:
    """Gets answers from the service at `url`. The server's deadlines apply to them."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def answer(self, turn: Turn) -> AsyncIterator[Said]:
        """Yield the answer's pieces as they arrive. The request to the service is closed when the answer is stopped."""
        body = {"user": turn.user, "conversation": turn.conversation, "message": turn.message}
        headers = {"Idempotency-Key": f"{turn.key}.{turn.attempt}"}
        async with (
            httpx2.AsyncClient(timeout=None) as client,
            client.stream("POST", self._url, json=body, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise AnswerFailed(f"the service said {response.status_code}")
            name = ""
            async for line in response.aiter_lines():
                field, _, value = line.partition(":")
                if field == "event" or not line:  # an empty line ends an event
                    name = value.strip()
                if field != "data":
                    continue
                event = json.loads(value)
                match event.get("type", name):
                    case "llm_chunk":
                        yield event["content"]
                    case "odds_update":  # the same id again replaces what is shown
                        yield Data(kind="odds_update", id=str(event.get("id", "odds")), data=event)
                    case "error":
                        busy = event.get("code") == "busy"
                        code = ErrorCode.UPSTREAM_RATE_LIMITED if busy else ErrorCode.UPSTREAM_UNAVAILABLE
                        raise AnswerFailed(f"the service said {event.get('code')}", code)
                    case "done":
                        return
        raise AnswerFailed("the service's stream broke off", ErrorCode.UPSTREAM_TRUNCATED)


def plugin() -> Service:
    """The entry point for ``CHATSTREAM_PLUGINS=chatstream.plugins.examples.service:plugin``."""
    return Service(os.environ["SERVICE_URL"])
