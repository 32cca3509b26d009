"""Reads conversations from a JSON file, and checks all of them before anything is stored."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from chatstream.errors import ConfigurationError
from chatstream.handlers.views import Id, ModelName, Prompt, Title
from chatstream.llm.demo_answers import Subject
from chatstream.seeding import MOST_MESSAGES, Source
from chatstream.settings import Settings
from chatstream.store.seeding import History, Line, Name, history


# The limits of a file are those of the REST API.
def _not_too_long(message: "FileMessage", info: "ValidationInfo[Settings]") -> "FileMessage":
    settings = info.context
    most = settings.content_characters if message.role == "user" else settings.answer_characters
    if len(message.content) > most:
        raise ValueError(f"content must have at most {most} characters")
    if message.reasoning is not None and message.role == "user":
        raise ValueError("reasoning is for answers")
    if len(message.reasoning or "") > settings.reasoning_characters:
        raise ValueError(f"reasoning must have at most {settings.reasoning_characters} characters")
    return message


def _in_turn(messages: "list[FileMessage]") -> "list[FileMessage]":
    before = ""
    for place, message in enumerate(messages):
        if message.role == "assistant" and before != "user":
            raise ValueError(f"message {place} is an answer, but no user's message stands right before it")
        before = message.role
    return messages


class FileMessage(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1)]
    reasoning: Annotated[str, Field(min_length=1)] | None = None  # the model's reasoning before the text


class FileConversation(BaseModel):
    """One conversation; without an `id` one is made."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)

    user_id: Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,255}$")]
    id: Id | None = None
    title: Title | None = None
    system_prompt: Prompt | None = None
    model: ModelName | None = None
    messages: Annotated[
        list[Annotated[FileMessage, AfterValidator(_not_too_long)]],
        Field(max_length=MOST_MESSAGES),
        AfterValidator(_in_turn),
    ]

    def history(self, now: datetime, subject: Subject) -> History:
        """The conversation with times of just now, one second between messages: the file has no times."""
        begun = now - timedelta(seconds=len(self.messages))
        lines = [
            Line(message.role, message.content, begun + timedelta(seconds=place), message.reasoning)
            for place, message in enumerate(self.messages, start=1)
        ]
        return history(
            self.user_id,
            lines,
            id=self.id,
            title=self.title,
            system_prompt=self.system_prompt,
            model=self.model,
            created_at=begun,
            found=subject.found,
        )


def read_file(path: Path, settings: Settings, subject: Subject) -> Source:
    """The conversations of a file. `subject` makes the annotations of their answers.

    Raises `ConfigurationError` with all faults; its message does not repeat the file's text.
    """
    try:
        document = from_json(path.read_bytes())
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigurationError(f"{path} is not JSON: {exc}") from exc
    entries = document.get("conversations") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(entries, list):
        raise ConfigurationError(f'{path} must be {{"conversations": [...]}} and nothing else')
    problems: list[str] = []
    conversations: list[FileConversation] = []
    places: dict[Name, int] = {}
    for place, entry in enumerate(entries):
        try:
            conversation = FileConversation.model_validate(entry, context=settings)
        except ValidationError as exc:
            problems += (
                f"{_place(place, error['loc'])}: {error['msg'].removeprefix('Value error, ')}"
                for error in exc.errors(include_url=False, include_input=False)
            )
            continue
        conversations.append(conversation)
        if conversation.id is not None:
            first = places.setdefault((conversation.user_id, conversation.id), place)
            if first != place:
                problems.append(f"conversations[{place}].id: this user has it in conversations[{first}] already")
    if problems:
        raise ConfigurationError(f"{path} is not acceptable, nothing was stored:\n  " + "\n  ".join(problems))
    now = datetime.now(UTC)
    return Source(len(conversations), lambda: places, lambda: (each.history(now, subject) for each in conversations))


def _place(place: int, location: tuple[int | str, ...]) -> str:
    return f"conversations[{place}]" + "".join(f"[{x}]" if isinstance(x, int) else f".{x}" for x in location)
