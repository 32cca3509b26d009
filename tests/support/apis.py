"""The responses of a model in the form of each API. A test with a parameter of this type runs for all APIs."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from tests.support import upstream
from tests.support.upstream import DONE, END, delta, event, head, http_chunk

Json = dict[str, Any]
Said = tuple[str, ...]
"""A part of an answer: ``("text", …)``, ``("thought", …)`` or ``("refusal", …)`` with its deltas; ``("call", name, …)``
with the fragments of its arguments."""


class Api(Protocol):
    """`counts` are 5 tokens of the prompt, of which 3 were cached, and 2 of the answer, of which 1 was thinking."""

    name: str
    path: str

    def said(self, *parts: Said) -> list[Json]:
        """The first events of an answer, with these texts."""
        ...

    def end(self, *parts: Said, reason: str = "stop") -> list[Any]:
        """The last events of an answer, with the token counts."""
        ...

    def document(self, *parts: Said) -> Json:
        """A whole answer that is not streamed, with the token counts."""
        ...

    def sent(self, body: Json) -> list[tuple[Any, ...]]:
        """The texts of a request's messages, in order."""
        ...


class Chat:
    """Chat Completions."""

    name = "chat"
    path = "/v1/chat/completions"
    counts: ClassVar[Json] = {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }

    def said(self, *parts: Said) -> list[Json]:
        events = []
        calls = 0
        for kind, *texts in parts:
            if kind == "call":
                function = {"name": texts[0], "arguments": ""}
                events.append(delta(tool_calls=[{"index": calls, "id": f"call_{calls}", "function": function}]))
                events += [delta(tool_calls=[{"index": calls, "function": {"arguments": text}}]) for text in texts[1:]]
                calls += 1
            else:
                field = {"text": "content", "thought": "reasoning_content"}.get(kind, kind)
                events += [delta(**{field: text}) for text in texts]
        return events

    def end(self, *parts: Said, reason: str = "stop") -> list[Any]:
        reason = "tool_calls" if reason == "stop" and any(kind == "call" for kind, *_ in parts) else reason
        return [delta(finish_reason=reason), {"choices": [], "usage": self.counts}, DONE]

    def document(self, *parts: Said) -> Json:
        message: Json = {
            "role": "assistant",
            "content": "".join(t for kind, *ts in parts if kind == "text" for t in ts),
        }
        message["tool_calls"] = [
            {"id": f"call_{number}", "function": {"name": name, "arguments": "".join(texts)}}
            for number, (name, *texts) in enumerate(rest for kind, *rest in parts if kind == "call")
        ]
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": self.counts}

    def sent(self, body: Json) -> list[tuple[Any, ...]]:
        told: list[tuple[Any, ...]] = []
        names: dict[str, str] = {}
        for message in body["messages"]:
            if message["role"] == "tool":
                told.append(("result", names.pop(message["tool_call_id"]), message["content"]))
                continue
            if message["content"] is not None:
                told.append((message["role"], message["content"]))
            for call in message.get("tool_calls", ()):
                names[call["id"]] = call["function"]["name"]
                told.append(("call", call["function"]["name"], call["function"]["arguments"]))
        assert not names
        return told


class Responses:
    """The Responses API."""

    name = "responses"
    path = "/v1/responses"
    counts: ClassVar[Json] = {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 7,
    }

    def said(self, *parts: Said) -> list[Json]:
        events: list[Json] = [{"type": "response.created", "response": {"id": "r", "status": "in_progress"}}]
        for index, (kind, *texts) in enumerate(parts):
            place = {"item_id": f"item_{index}", "output_index": index}
            item = self._item(index, kind, texts)
            empty = {"arguments": "", "content": [], "summary": [], "encrypted_content": "half"}
            begun = {key: empty.get(key, value) for key, value in item.items()}
            events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
            where = place | ({} if kind == "call" else {"summary_index" if kind == "thought" else "content_index": 0})
            name = {
                "text": "output_text",
                "refusal": "refusal",
                "thought": "reasoning_summary_text",
                "call": "function_call_arguments",
            }[kind]
            deltas = texts[1:] if kind == "call" else texts
            events += [{"type": f"response.{name}.delta", **where, "delta": text} for text in deltas]
            told = {"arguments": "".join(deltas)} if kind == "call" else {"text": "".join(deltas)}
            events.append({"type": f"response.{name}.done", **where, **told})
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        return [event | {"sequence_number": number} for number, event in enumerate(events)]

    def end(self, *parts: Said, reason: str = "stop") -> list[Any]:
        response = self.document(*parts)
        if reason == "stop":
            return [{"type": "response.completed", "response": response}]
        because = {"reason": "max_output_tokens" if reason == "length" else reason}
        response |= {"status": "incomplete", "incomplete_details": because}
        return [{"type": "response.incomplete", "response": response}]

    def document(self, *parts: Said) -> Json:
        output = [self._item(index, kind, texts) for index, (kind, *texts) in enumerate(parts)]
        return {"id": "r", "object": "response", "status": "completed", "error": None, "incomplete_details": None,
                "output": output, "usage": self.counts}  # fmt: skip

    def _item(self, index: int, kind: str, texts: Sequence[str]) -> Json:
        item: Json = {"id": f"item_{index}", "status": "completed"}
        if kind == "call":
            arguments = "".join(texts[1:])
            return item | {
                "type": "function_call",
                "call_id": f"call_{index}",
                "name": texts[0],
                "arguments": arguments,
            }
        text = "".join(texts)
        if kind == "thought":
            summary = [{"type": "summary_text", "text": text}]
            return item | {"type": "reasoning", "summary": summary, "encrypted_content": f"secret {text}"}
        part = {"type": "refusal", "refusal": text} if kind == "refusal" else {"type": "output_text", "text": text}
        return item | {"type": "message", "role": "assistant", "content": [part]}

    def sent(self, body: Json) -> list[tuple[Any, ...]]:
        told: list[tuple[Any, ...]] = [("system", body["instructions"])] if "instructions" in body else []
        names: dict[str, str] = {}
        for item in body["input"]:
            if item["type"] == "function_call":
                names[item["call_id"]] = item["name"]
                told.append(("call", item["name"], item["arguments"]))
            elif item["type"] == "function_call_output":
                told.append(("result", names.pop(item["call_id"]), item["output"]))
            elif item["type"] == "message":
                told.append((item["role"], item["content"]))
        assert not names
        return told


def events(*all_of_them: object, api: Api) -> bytes:
    """The events as bytes of the stream. In the Responses API each event has a name."""
    sent = b""
    for one in all_of_them:
        name = f"event: {one['type']}\n".encode() if api.name == "responses" and isinstance(one, dict) else b""
        sent += name + event(one)
    return sent


def begins(api: Api, *parts: Said) -> bytes:
    """The head of a response, and the first events of the answer."""
    return head() + b"".join(http_chunk(events(one, api=api)) for one in api.said(*parts))


def answers(api: Api, *parts: Said, reason: str = "stop") -> bytes:
    """A whole answer."""
    ending = b"".join(http_chunk(events(one, api=api)) for one in api.end(*parts, reason=reason))
    return begins(api, *parts) + ending + END


def document(api: Api, *parts: Said) -> bytes:
    """A whole answer that is not streamed."""
    return upstream.whole("200 OK", api.document(*parts))


APIS: Sequence[Api] = (Chat(), Responses())
