"""Describes each route as data. The OpenAPI document is made from it, and a test compares it with the route table.

Each method of a route has an `Operation` in `OPERATIONS`. `openapi` adds the parts that follow from it: the id in the
path, and the error responses of every handler with a token, a parameter or a body.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel

from chatstream.formats.registry import DEFAULT, FORMATS, FRAMES, VERSIONS
from chatstream.generations.commands import IfBusy, Stopped
from chatstream.handlers.export import NDJSON, ExportLine
from chatstream.handlers.operations import State
from chatstream.handlers.views import (
    CALL_ID_PATTERN,
    KEY_PATTERN,
    MAX_PAGE,
    MAX_QUERY,
    OBJECT_KEY_PATTERN,
    PAGE,
    BegunAnswer,
    CallRequest,
    CallView,
    ConversationChanges,
    ConversationPage,
    ConversationView,
    ErasureView,
    MessagePage,
    ModelList,
    NewConversation,
    NewConversationView,
    NewMessage,
    NewTicket,
    PostedMessage,
    RatingRequest,
    RatingView,
    RegenerateRequest,
    StopRequest,
    UIMessagePage,
    UsageView,
)

JSON, STREAM, HTML, TEXT = "application/json", "text/event-stream", "text/html", "text/plain"


class Version(StrEnum):
    """A version of OpenAPI: 3.1 for client generators, and 3.2, the first that can describe a stream's events."""

    V31 = "3.1"
    V32 = "3.2"


class Parameter(NamedTuple):
    """A request's parameter. `place` is ``query`` or ``header``; `schema` is JSON Schema."""

    place: str
    name: str
    description: str
    schema: Mapping[str, Any]
    is_alias: bool = False  # another name of an existing parameter
    required: bool = False
    of_stream: bool = False  # asks for a stream instead of JSON, or configures one


class Reply(NamedTuple):
    """A successful response. `bodies`: the body's type by media type; for a stream, its formats.

    `headers` are names in `openapi.HEADERS`.
    """

    description: str
    bodies: Mapping[str, Any] = {}
    headers: Sequence[str] = ()
    of_stream: bool = False  # only if a stream is requested instead of JSON


class Operation(NamedTuple):
    """One method of one route. `refusals`: error statuses that cannot be derived from the other fields."""

    id: str
    summary: str
    replies: Mapping[int, Reply]
    description: str = ""
    parameters: Sequence[Parameter] = ()
    body: type[BaseModel] | None = None
    body_required: bool = True
    example: Mapping[str, Any] | None = None  # an example of the body
    refusals: Sequence[int] = ()
    public: bool = False  # no token is needed
    query_token: bool = False  # the token may stand in the query


_RATE = ("RateLimit", "RateLimit-Policy")
_CURSOR = {"type": "string"}  # any text: an invalid cursor is ignored

_LIMIT = Parameter(
    "query", "limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE}
)
_CONVERSATIONS_BEFORE = Parameter(
    "query",
    "before",
    "A `nextCursor` of this list: the conversations after that page.",
    {"type": "string", "pattern": "^[0-9]{1,14}-[0-9a-fA-F]{24}$"},
)
_SEARCH = Parameter(
    "query",
    "q",
    "Only conversations in whose title or messages all of these words stand, or words that begin like them, in any "
    "order. Case and accents make no difference. Where a script has no spaces between its words, any two characters "
    "that stand together are found. An emoji is a word; punctuation is none. What a model thought is not searched.",
    {"type": "string", "minLength": 1, "maxLength": MAX_QUERY},
)
_WAITING = Parameter(
    "query",
    "waiting",
    "Only conversations in which an answer waits for the caller's decision, or for the app.",
    {"type": "boolean", "default": False},
)
_MESSAGES_BEFORE = Parameter(
    "query",
    "before",
    "A `nextCursor` of this list: the messages before that page.",
    {"type": "string", "pattern": "^[0-9]{1,15}$"},
)
_IF_BUSY = Parameter(
    "query",
    "ifBusy",
    "While an answer runs: `refuse` the message with 409; `queue` it, so that it is answered next; or `interrupt` the "
    "answer.",
    {"type": "string", "enum": [*IfBusy], "default": IfBusy.REFUSE},
)
_IF_BUSY_REGENERATE = Parameter(
    "query",
    "ifBusy",
    "While an answer runs: `refuse` with 409, or `interrupt` it.",
    {"type": "string", "enum": [IfBusy.REFUSE, IfBusy.INTERRUPT], "default": IfBusy.REFUSE},
)
_BACKGROUND = Parameter(
    "query",
    "background",
    "Whether the answer finishes though nobody watches; what a body says counts more. By default as its message or "
    "conversation has it; and one that is asked for again because nobody watched the one before does.",
    {"type": "boolean"},
)
_IDEMPOTENCY_KEY = Parameter(
    "header",
    "Idempotency-Key",
    "A name for this message, unique in its conversation, of the client's choice; the same as `clientMessageId`. Sent "
    "again under it, the message gets the first result: it is stored and answered once. Other content under it is "
    "refused with 422.",
    {"type": "string", "pattern": KEY_PATTERN},
)
_LAST_EVENT_ID = Parameter(
    "header",
    "Last-Event-ID",
    "The last `id` that was received, or a `streamCursor`: the stream goes on behind it. An EventSource sends it by "
    "itself when it reconnects. What is no cursor of this conversation counts as none.",
    _CURSOR,
)
_LEAF = Parameter(
    "query",
    "leaf",
    "A message's id: the branch that ends with it. By default the one that is shown.",
    {"type": "string", "pattern": OBJECT_KEY_PATTERN},
)
_BRANCHES = Parameter(
    "query",
    "branches",
    "The messages of all branches, whatever `leaf` says, in the order of the log. A user message says its `parent` "
    "where there are several.",
    {"type": "string", "enum": ["all"]},
)
_FORMAT = Parameter(
    "query",
    "format",
    f"The stream's wire format: {'; '.join(f'`{one.name}`, {one.summary}' for one in FORMATS.values())}. "
    "To name one is to ask for a stream.",
    {"type": "string", "enum": [*FORMATS], "default": DEFAULT.name},
    of_stream=True,
)
_VERSION = Parameter(
    "query",
    "version",
    f"With `format={', '.join(VERSIONS)}`: the major version of the npm package `ai` that reads it. Without, every one "
    "can. With it, a stopped answer ends as that version has it, and 6 and 7 are told the finish reason.",
    {"type": "string", "enum": list(dict.fromkeys(one for versions in VERSIONS.values() for one in versions))},
    of_stream=True,
)
_FRAMES = Parameter(
    "query",
    "frames",
    f"Of `format={DEFAULT.name}`. With `lean` a chunk has `type` and `content` alone, but for the first one of each "
    "part of an answer: what else it would say is in its `id`, or in the chunk before it. A third of the bytes; all "
    "else is the same, the ids as well.",
    {"type": "string", "enum": [*FRAMES], "default": FRAMES[0]},
    of_stream=True,
)
_UI_VERSION = Parameter(
    "query",
    "version",
    "The major version of the npm package `ai` that reads it: 6 and 7 have a state for calls that wait for an "
    "approval. Without, a part `data-approval` says so, which every one can read.",
    _VERSION.schema,
)
_ONCE = Parameter("query", "once", "End the stream after one answer.", {"type": "boolean", "default": False})

_OPENAPI_VERSION = Parameter(
    "query", "version", "Of OpenAPI.", {"type": "string", "enum": [*Version], "default": Version.V31}
)

_CONVERSATIONS = "/api/v1/chat/conversations"
_ONE = _CONVERSATIONS + "/{id}"
_EVENTS = {STREAM: [*FORMATS.values()]}

OPERATIONS: Mapping[str, Mapping[str, Operation]] = {
    "/api/v1/chat/models": {
        "get": Operation(
            "listModels",
            "The models that a conversation may have",
            {200: Reply("All of them; one is the default.", {JSON: ModelList}, _RATE)},
            "A conversation's `model` is one of these names, or null for the default.",
        ),
    },
    "/api/v1/chat/usage": {
        "get": Operation(
            "getUsage",
            "What the caller has spent, what is left, and when it begins again",
            {200: Reply("Each limit; none where the server counts for nobody.", {JSON: UsageView}, _RATE)},
            "Days and months are those of UTC. An answer counts when it begins, with what it is expected to take, and "
            "with what it took when it has ended, however it ended. While nothing is left, no answer begins: 429 "
            "`budget_exhausted`.",
        ),
    },
    _CONVERSATIONS: {
        "get": Operation(
            "listConversations",
            "The caller's conversations, most recently active first",
            {200: Reply("A page of them.", {JSON: ConversationPage}, _RATE)},
            parameters=[_LIMIT, _CONVERSATIONS_BEFORE, _SEARCH, _WAITING],
            refusals=[422],
        ),
        "post": Operation(
            "createConversation",
            "Create a conversation",
            {201: Reply("It was created.", {JSON: NewConversationView}, ["Location", *_RATE])},
            "With `initialMessage` its first message is stored and answered, too. The caller may choose the `id`; a "
            "second one of the same id is refused with 409.",
            body=NewConversation,
            example={"title": "The derby", "initialMessage": "Who wins on Sunday?"},
            refusals=[403, 409],
        ),
    },
    _ONE: {
        "get": Operation(
            "getConversation", "Read a conversation", {200: Reply("The conversation.", {JSON: ConversationView}, _RATE)}
        ),
        "patch": Operation(
            "changeConversation",
            "Change a conversation's title, system prompt, model or background, or show another branch",
            {200: Reply("The conversation as it is now.", {JSON: ConversationView}, _RATE)},
            "What is not named stays as it is; null resets to the server's default. `background` holds for the running "
            "answer, too. With `head` all who watch are told of the other branch by a `branch` event.",
            body=ConversationChanges,
            example={"title": "The derby"},
        ),
        "delete": Operation(
            "deleteConversation",
            "Delete a conversation with its messages",
            {204: Reply("It is gone. A running answer was ended, and so were its streams.", headers=_RATE)},
        ),
    },
    _ONE + "/stream": {
        "get": Operation(
            "streamConversation",
            "Watch a conversation as Server-Sent Events",
            {
                200: Reply(
                    "The events. The stream stays open, turn after turn. An EventSource gives up for good on any "
                    "status but 200: where `Accept` names `text/event-stream`, a refusal that will pass (429, 503) is "
                    "a stream, too, of one `error` event without `connected`, and `retry`.",
                    _EVENTS,
                ),
                204: Reply(
                    "With `once`, or in a format that is one answer: nothing comes after the cursor, nothing runs, and "
                    "no answer is owed."
                ),
            },
            "With a cursor it goes on behind it, and nothing is lost or told twice. Without, it begins with the "
            "running answer, if there is one; with an answer that nobody saw end; with a new answer to a message that "
            "has none. After 15 s without an event there is a `heartbeat`.",
            parameters=[
                _LAST_EVENT_ID,
                Parameter("query", "last_event_id", "The same as Last-Event-ID, which wins.", _CURSOR),
                Parameter(
                    "query", "lastEventId", "Another name of `last_event_id`, which wins.", _CURSOR, is_alias=True
                ),
                _ONCE,
                _FORMAT,
                _VERSION,
                _FRAMES,
            ],
            query_token=True,
        ),
    },
    _ONE + "/stream-tickets": {
        "post": Operation(
            "createStreamTicket",
            "Get a ticket for one stream",
            {
                201: Reply(
                    "The ticket. It is good for a minute, and for as long as the token.", {JSON: NewTicket}, _RATE
                )
            },
            "For an EventSource, which cannot set headers: `…/stream?ticket=`. A ticket opens this conversation's "
            "stream for its user, once. To connect again takes another one.",
        ),
    },
    _ONE + "/messages": {
        "get": Operation(
            "listMessages",
            "The messages of a conversation, oldest first",
            {200: Reply("A page: without `before` the newest messages.", {JSON: MessagePage}, _RATE)},
            "Of a conversation with one branch all attempts at an answer are listed, of which the newest counts; with "
            "several, or with `leaf`, the messages from the first one down to the end of the branch.",
            parameters=[_LIMIT, _MESSAGES_BEFORE, _LEAF, _BRANCHES],
        ),
        "post": Operation(
            "postMessage",
            "Send a message and have it answered",
            {
                200: Reply(
                    "With `Accept: text/event-stream` or `format`: the events of the answer. Otherwise the message was "
                    "sent before, and this is the first result.",
                    {JSON: PostedMessage} | _EVENTS,
                ),
                201: Reply("The message is stored, and its answer begins.", {JSON: PostedMessage}, _RATE),
                204: Reply(
                    "Where a stream was asked for: the message was sent before, and no answer comes.", of_stream=True
                ),
            },
            "With `Accept: text/event-stream`, or a `format`, the response is the answer's stream, which ends with it.",
            parameters=[_IF_BUSY, _BACKGROUND, _IDEMPOTENCY_KEY, _FORMAT, _VERSION, _FRAMES],
            body=NewMessage,
            example={"content": "Who wins on Sunday?"},
            refusals=[403, 409],
        ),
    },
    _ONE + "/messages/{messageId}": {
        "delete": Operation(
            "takeBackMessage",
            "Take back a message that waits",
            {204: Reply("It is gone; the same again is 204, too.", headers=_RATE)},
            "Of a user message that waits behind a running answer (`ifBusy=queue`). Whoever watches gets `withdrawn`. "
            "Once its own answer has begun, it is 409.",
            parameters=[
                Parameter(
                    "path",
                    "messageId",
                    "The message's id.",
                    {"type": "string", "pattern": OBJECT_KEY_PATTERN},
                    required=True,
                )
            ],
            refusals=[409],
        ),
    },
    _ONE + "/ui-messages": {
        "get": Operation(
            "listUIMessages",
            "The same messages as the AI SDK has them",
            {
                200: Reply(
                    "A page: without `before` the newest messages. Of several answers to a message the newest; a "
                    "running one is left out, since a stream opened with `streamCursor` tells all of it.",
                    {JSON: UIMessagePage},
                )
            },
            "For `useChat`, whose first messages they are.",
            parameters=[_LIMIT, _MESSAGES_BEFORE, _LEAF, _UI_VERSION],
        ),
    },
    _ONE + "/stop": {
        "post": Operation(
            "stopAnswer",
            "End the running answer",
            {200: Reply("How it ended; its text so far is stored.", {JSON: Stopped}, _RATE)},
            "With `messageId` the result is the same however often it is asked, and however that answer ended; "
            "without, the running answer is meant, and 409 says that there is none.",
            body=StopRequest,
            example={"seenLength": 120},
            body_required=False,
            refusals=[409],
        ),
    },
    _ONE + "/regenerate": {
        "post": Operation(
            "regenerateAnswer",
            "Answer a message again, or continue a cut answer",
            {
                200: Reply(
                    "With `Accept: text/event-stream` or `format`: the events of the answer.", _EVENTS, of_stream=True
                ),
                202: Reply("Another attempt has begun; the one before stays stored.", {JSON: BegunAnswer}, _RATE),
            },
            "With `Accept: text/event-stream`, or a `format`, the response is the answer's stream, which ends with it.",
            parameters=[_IF_BUSY_REGENERATE, _BACKGROUND, _FORMAT, _VERSION, _FRAMES],
            body=RegenerateRequest,
            body_required=False,
            refusals=[403, 409],
        ),
    },
    _ONE + "/tool-calls/{toolCallId}": {
        "post": Operation(
            "decideToolCall",
            "Approve or deny a call that waits, or answer it for the app",
            {
                200: Reply(
                    "The call as it is now. With `Accept: text/event-stream` or `format`: the events of the answer, "
                    "from behind what was asked.",
                    {JSON: CallView} | _EVENTS,
                    _RATE,
                ),
                204: Reply(
                    "Where a stream was asked for, in a format that is one answer: other calls still wait.",
                    of_stream=True,
                ),
            },
            "A call in the state `awaiting_approval` takes a `decision`, one in `awaiting_client` an `output` or an "
            "`error`. The first one counts, from whichever device: the same again gets 200, another one 409 "
            "`already_decided`; after its time 410. What is carried out is what the model wrote, and what was shown. "
            "When no call waits any more, the same answer goes on. `GET /conversations?waiting=true` lists where one "
            "waits.",
            parameters=[
                Parameter(
                    "path",
                    "toolCallId",
                    "The `toolCallId` of the call.",
                    {"type": "string", "pattern": CALL_ID_PATTERN},
                    required=True,
                ),
                _FORMAT,
                _VERSION,
                _FRAMES,
            ],
            body=CallRequest,
            example={"decision": "approve"},
            refusals=[409, 410],
        ),
    },
    _ONE + "/rating": {
        "put": Operation(
            "rateAnswer",
            "Rate an answer",
            {200: Reply("What is stored now.", {JSON: RatingView}, _RATE)},
            "Of each attempt, thumb up or down; null takes it back.",
            body=RatingRequest,
        ),
    },
    "/api/v1/chat/me": {
        "delete": Operation(
            "eraseMe",
            "Erase everything of the caller",
            {
                200: Reply("The receipt: all of it is gone.", {JSON: ErasureView}, _RATE),
                202: Reply(
                    "It goes on, also if this process dies: `/me/erasure?id=` says how it stands.",
                    {JSON: ErasureView},
                    _RATE,
                ),
            },
            "Running answers are stopped first, open streams end. What is sent while it runs is erased, too; what is "
            "sent after it is complete stays. It cannot be undone.",
        ),
    },
    "/api/v1/chat/me/erasure": {
        "get": Operation(
            "getErasure",
            "How an erasure stands",
            {200: Reply("The erasure; complete, it is the receipt, kept for a year.", {JSON: ErasureView}, _RATE)},
            parameters=[
                Parameter(
                    "query",
                    "id",
                    "The `id` of the erasure.",
                    {"type": "string", "pattern": OBJECT_KEY_PATTERN},
                    required=True,
                )
            ],
            refusals=[404],
        ),
    },
    "/api/v1/chat/me/export": {
        "get": Operation(
            "exportMe",
            "Everything of the caller, as a file",
            {
                200: Reply(
                    "One JSON object a line: `export`, then each `conversation` and its `message`s, oldest first; "
                    "then each `document` that a plug-in keeps. Only if the last line is an `end` whose `complete` is "
                    "true, nothing is missing.",
                    {NDJSON: ExportLine},
                    _RATE,
                )
            },
            "`chatstream seed --file` stores it again. What runs is there as far as it has come.",
        ),
    },
    "/healthz": {
        "get": Operation("getHealth", "Is the process alive?", {200: Reply("It is.", {JSON: State})}, public=True)
    },
    "/readyz": {
        "get": Operation(
            "getReadiness",
            "Can the server serve?",
            {200: Reply("It can.", {JSON: State})},
            refusals=[503],
            public=True,
        )
    },
    "/metrics": {
        "get": Operation(
            "getMetrics",
            "What there is to measure, for Prometheus",
            {200: Reply("In Prometheus' text format, or in OpenMetrics if `Accept` asks for it.", {TEXT: str})},
            "Not here but on a port of its own where the server was configured so.",
            public=True,
        )
    },
    "/openapi.json": {
        "get": Operation(
            "getDocument",
            "This document",
            {200: Reply("OpenAPI.", {JSON: dict[str, Any]})},
            "Generators of clients take 3.1. In it a stream's events are text, and where a reply is JSON or a stream, "
            "it is JSON alone; 3.2 has the events' types, and both.",
            parameters=[_OPENAPI_VERSION],
            public=True,
        )
    },
    "/docs": {
        "get": Operation("getReference", "This document as a page", {200: Reply("HTML.", {HTML: str})}, public=True)
    },
    "/": {
        "get": Operation(
            "getPage",
            "A page to chat with the server, where it is switched on",
            {200: Reply("HTML.", {HTML: str})},
            refusals=[404],
            public=True,
        )
    },
}
