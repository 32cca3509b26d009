"""Describes each route as data. The OpenAPI document is made from it, and a test compares it with the route table.

Each method of a route has an `Operation` in `OPERATIONS`. `openapi` adds the parts that follow from it: the id in the
path, and the error responses of every handler with a token, a parameter or a body.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from chatstream.formats.registry import DEFAULT, FORMATS, FRAMES, VERSIONS
from chatstream.generations.commands import IfBusy, Stopped
from chatstream.handlers.docs import Version
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
    "query",
    "limit",
    "The maximum number of items.",
    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
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
    "Only conversations whose title or messages contain all of these words, or words that begin with them, in any "
    "order. Case and accents are ignored. In scripts without spaces between words, each two adjacent characters count "
    "as a word. An emoji is a word; punctuation is ignored. The model's reasoning is not searched.",
    {"type": "string", "minLength": 1, "maxLength": MAX_QUERY},
)
_WAITING = Parameter(
    "query",
    "waiting",
    "Only conversations in which an answer waits for the caller's decision, or for the app's result.",
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
    "Whether the answer finishes even if nobody watches. A value in the body takes precedence. The default is the "
    "setting of its message, else of its conversation. If the attempt before was cut because nobody watched, it is "
    "true.",
    {"type": "boolean"},
)
_IDEMPOTENCY_KEY = Parameter(
    "header",
    "Idempotency-Key",
    "A key for this message, chosen by the client, unique in its conversation; the same as `clientMessageId`. A "
    "repeated request with the same key gets the first result: the message is stored and answered once. The same key "
    "with other content is refused with 422.",
    {"type": "string", "pattern": KEY_PATTERN},
)
_LAST_EVENT_ID = Parameter(
    "header",
    "Last-Event-ID",
    "The last received `id`, or a `streamCursor`: the stream continues right after it. An EventSource sends it by "
    "itself when it reconnects. A cursor that is not of this conversation is ignored.",
    _CURSOR,
)
_LEAF = Parameter(
    "query",
    "leaf",
    "A message's id: list the branch that ends with this message. The default is the shown branch.",
    {"type": "string", "pattern": OBJECT_KEY_PATTERN},
)
_BRANCHES = Parameter(
    "query",
    "branches",
    "List the messages of all branches, in the order of the log; `leaf` is ignored. If there are several branches, "
    "each user message has its `parent`.",
    {"type": "string", "enum": ["all"]},
)
_FORMAT = Parameter(
    "query",
    "format",
    f"The stream's wire format: {'; '.join(f'`{one.name}`, {one.summary}' for one in FORMATS.values())}. "
    "A request that names a format asks for a stream.",
    {"type": "string", "enum": [*FORMATS], "default": DEFAULT.name},
    of_stream=True,
)
_VERSION = Parameter(
    "query",
    "version",
    f"For `format={', '.join(VERSIONS)}`: the major version of the npm package `ai` that reads the stream. Without it, "
    "every version can read the stream. With it, a stopped answer ends as this version expects, and versions 6 and 7 "
    "get the finish reason.",
    {"type": "string", "enum": list(dict.fromkeys(one for versions in VERSIONS.values() for one in versions))},
    of_stream=True,
)
_FRAMES = Parameter(
    "query",
    "frames",
    f"For `format={DEFAULT.name}`. With `lean`, a chunk has only `type` and `content`, except the first chunk of each "
    "part of an answer: the other fields follow from its `id` and from the chunk before it. This needs a third of the "
    "bytes. All other events and the ids are the same.",
    {"type": "string", "enum": [*FRAMES], "default": FRAMES[0]},
    of_stream=True,
)
_UI_VERSION = Parameter(
    "query",
    "version",
    "The major version of the npm package `ai` that reads the messages. Versions 6 and 7 have a state for tool calls "
    "that wait for approval. Without it, such a call has a part `data-approval`, which every version can read.",
    _VERSION.schema,
)
_ONCE = Parameter("query", "once", "End the stream after one answer.", {"type": "boolean", "default": False})

_OPENAPI_VERSION = Parameter(
    "query", "version", "The version of OpenAPI.", {"type": "string", "enum": [*Version], "default": Version.V31}
)

_CONVERSATIONS = "/api/v1/chat/conversations"
_ONE = _CONVERSATIONS + "/{id}"
_EVENTS = {STREAM: [*FORMATS.values()]}

OPERATIONS: Mapping[str, Mapping[str, Operation]] = {
    "/api/v1/chat/models": {
        "get": Operation(
            "listModels",
            "The models that a conversation can use",
            {200: Reply("All models; one is the default.", {JSON: ModelList}, _RATE)},
            "A conversation's `model` is one of these names, or null for the default.",
        ),
    },
    "/api/v1/chat/usage": {
        "get": Operation(
            "getUsage",
            "The caller's budgets: used, left, and when they reset",
            {200: Reply("Each budget; an empty list if the server has no budgets.", {JSON: UsageView}, _RATE)},
            "Days and months are in UTC. A running answer counts with its expected use, an ended one with its real "
            "use, however it ended. While nothing is left, no answer begins: 429 `budget_exhausted`.",
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
            "`initialMessage` is stored as the first message and answered. The caller may choose the `id`; if it "
            "exists already, the request is refused with 409.",
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
            "Fields that are not sent stay unchanged; null resets a field to the server's default. `background` also "
            "applies to a running answer. With `head`, all viewers get a `branch` event.",
            body=ConversationChanges,
            example={"title": "The derby"},
        ),
        "delete": Operation(
            "deleteConversation",
            "Delete a conversation with its messages",
            {204: Reply("Deleted. A running answer was stopped, and open streams were ended.", headers=_RATE)},
        ),
    },
    _ONE + "/stream": {
        "get": Operation(
            "streamConversation",
            "Watch a conversation as Server-Sent Events",
            {
                200: Reply(
                    "The events. The stream stays open for further turns. An EventSource gives up for good on any "
                    "status but 200. So if `Accept` names `text/event-stream`, a temporary refusal (429, 503) is also "
                    "a stream with status 200: one `error` event without `connected`, and `retry`.",
                    _EVENTS,
                ),
                204: Reply(
                    "With `once`, or in a format of one answer per stream: nothing follows the cursor, no answer runs, "
                    "and no question waits for one."
                ),
            },
            "With a cursor, the stream continues right after it: nothing is lost or repeated. Without a cursor, it "
            "begins with the running answer, else with an answer that nobody has seen finish, else with a new answer "
            "to a question that has none. After 15 s without an event, a `heartbeat` is sent.",
            parameters=[
                _LAST_EVENT_ID,
                Parameter("query", "last_event_id", "The same as Last-Event-ID, which takes precedence.", _CURSOR),
                Parameter(
                    "query",
                    "lastEventId",
                    "Another name of `last_event_id`, which takes precedence.",
                    _CURSOR,
                    is_alias=True,
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
                    "The ticket. It is valid for a minute, but not longer than the token.", {JSON: NewTicket}, _RATE
                )
            },
            "For an EventSource, which cannot send headers: `…/stream?ticket=`. A ticket opens this conversation's "
            "stream once. Each reconnection needs a new ticket.",
        ),
    },
    _ONE + "/messages": {
        "get": Operation(
            "listMessages",
            "The messages of a conversation, oldest first",
            {200: Reply("A page; without `before`, the newest messages.", {JSON: MessagePage}, _RATE)},
            "If the conversation has one branch, all attempts at an answer are listed; the newest one counts. If it "
            "has several, or with `leaf`, the messages of one branch are listed, from the first to the last.",
            parameters=[_LIMIT, _MESSAGES_BEFORE, _LEAF, _BRANCHES],
        ),
        "post": Operation(
            "postMessage",
            "Send a message and have it answered",
            {
                200: Reply(
                    "With `Accept: text/event-stream` or `format`: the events of the answer. Otherwise this is the "
                    "result of an earlier request with the same key.",
                    {JSON: PostedMessage} | _EVENTS,
                ),
                201: Reply("The message is stored, and its answer begins.", {JSON: PostedMessage}, _RATE),
                204: Reply(
                    "A stream was requested, but the message was sent before, and no answer follows.", of_stream=True
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
            "Take back a queued message",
            {204: Reply("The message is deleted. A repeated request gets 204, too.", headers=_RATE)},
            "For a user message that waits behind a running answer (`ifBusy=queue`). Viewers get a `withdrawn` event. "
            "Once its own answer has begun, the request is refused with 409.",
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
            "The messages in the AI SDK's form",
            {
                200: Reply(
                    "A page; without `before`, the newest messages. Of several answers to a message, it has the "
                    "newest. A running answer is left out: a stream opened with `streamCursor` sends all of it.",
                    {JSON: UIMessagePage},
                )
            },
            "For `useChat`: its initial messages.",
            parameters=[_LIMIT, _MESSAGES_BEFORE, _LEAF, _UI_VERSION],
        ),
    },
    _ONE + "/stop": {
        "post": Operation(
            "stopAnswer",
            "End the running answer",
            {200: Reply("How it ended; its text so far is stored.", {JSON: Stopped}, _RATE)},
            "With `messageId`, a repeated request gets the same result, however that answer ended. Without it, the "
            "running answer is stopped; 409 if there is none.",
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
                202: Reply("A new attempt has begun. The earlier attempt stays stored.", {JSON: BegunAnswer}, _RATE),
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
                    "The present state of the call. With `Accept: text/event-stream` or `format`: the events of the "
                    "answer that follow the request for this decision.",
                    {JSON: CallView} | _EVENTS,
                    _RATE,
                ),
                204: Reply(
                    "A stream was requested, in a format of one answer per stream, but other calls still wait.",
                    of_stream=True,
                ),
            },
            "A call in the state `awaiting_approval` needs a `decision`, a call in `awaiting_client` an `output` or "
            "an `error`. In `awaiting_input`, its tool asks the user something: `question` is the id of that question, "
            "`action` is `accept`, `decline` or `cancel`, and `accept` needs the `content` that the question's schema "
            "describes (else 422). The first response counts, from any device. A repeated one gets 200, a different "
            "one 409 `already_decided`, a late one 410. The call is carried out with exactly the arguments that were "
            "shown. When no call waits any more, the answer continues. `GET /conversations?waiting=true` lists the "
            "conversations with waiting calls.",
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
            {200: Reply("The stored rating.", {JSON: RatingView}, _RATE)},
            "Thumb up or down, for one attempt; null removes the rating.",
            body=RatingRequest,
        ),
    },
    "/api/v1/chat/me": {
        "delete": Operation(
            "eraseMe",
            "Erase all data of the caller",
            {
                200: Reply("The receipt: everything is erased.", {JSON: ErasureView}, _RATE),
                202: Reply(
                    "The erasure continues, even if this process dies: see `/me/erasure?id=` for its state.",
                    {JSON: ErasureView},
                    _RATE,
                ),
            },
            "Running answers are stopped first, and open streams end. Messages sent while it runs are erased, too; "
            "messages sent after its completion stay. It cannot be undone.",
        ),
    },
    "/api/v1/chat/me/erasure": {
        "get": Operation(
            "getErasure",
            "The state of an erasure",
            {
                200: Reply(
                    "The erasure. Once complete, it is the receipt, which is kept for a year.",
                    {JSON: ErasureView},
                    _RATE,
                )
            },
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
            "Export all data of the caller",
            {
                200: Reply(
                    "One JSON object per line: `export`, then each `conversation` followed by its `message`s, oldest "
                    "first, then each `document` of a plug-in. The export is complete only if the last line is an "
                    "`end` whose `complete` is true.",
                    {NDJSON: ExportLine},
                    _RATE,
                )
            },
            "`chatstream seed --file` imports it. A running answer is exported with its text so far.",
        ),
    },
    "/healthz": {
        "get": Operation("getHealth", "Is the process alive?", {200: Reply("It is.", {JSON: State})}, public=True)
    },
    "/readyz": {
        "get": Operation(
            "getReadiness",
            "Is the server ready?",
            {200: Reply("It can.", {JSON: State})},
            refusals=[503],
            public=True,
        )
    },
    "/metrics": {
        "get": Operation(
            "getMetrics",
            "Prometheus metrics",
            {200: Reply("In Prometheus' text format, or in OpenMetrics if `Accept` asks for it.", {TEXT: str})},
            "With `CHATSTREAM_METRICS_PORT`, they are served on that port instead.",
            public=True,
        )
    },
    "/openapi.json": {
        "get": Operation(
            "getDocument",
            "This document",
            {200: Reply("OpenAPI.", {JSON: dict[str, Any]})},
            "Use 3.1 for client generators: a stream's events are plain text there, and a response that can be JSON "
            "or a stream is described as JSON only. 3.2 describes both, and the types of the events.",
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
            "The chat page, if it is enabled",
            {200: Reply("HTML.", {HTML: str})},
            refusals=[404],
            public=True,
        )
    },
}
