"""Builds the OpenAPI document from `reference.OPERATIONS` and the schemas of request and response bodies.

Version 3.2 is the first that can describe a stream's events (``itemSchema``). Version 3.1 is for client generators,
which know one type per response: there a stream is text, a response that may be JSON or a stream is described as JSON
only, and each parameter has one name.
https://spec.openapis.org/oas/v3.1.1.html https://spec.openapis.org/oas/v3.2.0.html
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from chatstream import __version__
from chatstream.handlers import problems
from chatstream.handlers.docs import Version
from chatstream.handlers.export import NDJSON
from chatstream.handlers.problems import Problem
from chatstream.handlers.reference import JSON, OPERATIONS, STREAM, Operation, Parameter, Reply
from chatstream.handlers.views import ID_PATTERN

_SCHEMAS = "#/components/schemas/"

_DESCRIPTION = (
    "Streams the answers of a language model to chat clients. Conversations and messages are JSON over REST. The "
    "events of a conversation are sent on its stream, as Server-Sent Events.\n\nErrors are problem documents (RFC "
    "9457): `code` never changes meaning, `detail` is for people. An internal error is a 500 of the same form. Later "
    "versions may add fields, parameters and events: clients must ignore those they do not know. Unknown fields in a "
    "request are refused. Every route answers OPTIONS, for browsers' preflight requests. Times are in UTC; lengths "
    "are in Unicode code points."
)

HEADERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "X-Request-Id": (
        "The request's own id if it is valid, else a new one. The server's log has details under it.",
        {"type": "string"},
    ),
    "Location": ("The URL of the new conversation.", {"type": "string", "format": "uri-reference"}),
    "Retry-After": ("Seconds to wait before trying again.", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("The challenge (RFC 6750).", {"type": "string"}),
    "RateLimit": ("The rest of the rate limit (draft-ietf-httpapi-ratelimit-headers-11).", {"type": "string"}),
    "RateLimit-Policy": ("The rate limit.", {"type": "string"}),
}


class Refusal(NamedTuple):
    """An error response: the meaning of its status, the codes of its problem documents, and its headers."""

    description: str
    codes: Sequence[str]
    headers: Sequence[str] = ()


REFUSALS: Mapping[int, Refusal] = {
    400: Refusal("Malformed. Nothing was changed.", ["invalid_request"]),
    401: Refusal(
        "There is no token, or one that is not accepted.", ["unauthenticated", "invalid_token"], ["WWW-Authenticate"]
    ),
    403: Refusal(
        "The app does not accept this message (`code` may be one of its own), or as much is stored as may be.",
        ["refused", "too_many_conversations", "conversation_full"],
    ),
    404: Refusal("It does not exist, or belongs to someone else.", ["not_found"]),
    409: Refusal(
        "Not possible in the present state.",
        [
            *("answer_in_progress", "already_exists", "no_answer_running", "nothing_to_answer", "nothing_to_continue"),
            *("already_decided", "not_waiting", "not_queued", "withdrawn"),
        ],
    ),
    410: Refusal("The time in which it could be decided is over.", ["call_expired"]),
    408: Refusal("The body comes too slowly.", ["request_timeout"]),
    413: Refusal("The body is too large.", ["too_large"]),
    415: Refusal("The body is not `application/json`.", ["unsupported_media_type"]),
    422: Refusal("Well-formed, but not acceptable; `errors` says what, field by field.", ["invalid_content"]),
    429: Refusal(
        "Too many requests of this caller, or all is spent that they may spend.",
        ["rate_limited", "too_many_streams", "budget_exhausted"],
        ["Retry-After", "RateLimit", "RateLimit-Policy"],
    ),
    503: Refusal(
        "Not now.",
        [
            "unavailable",
            "storage_unavailable",
            "stop_pending",
            "server_shutdown",
            "rate_limited",
            "too_many_streams",
            "auth_unavailable",
            "admission_unavailable",
            "budget_unavailable",
        ],
        ["Retry-After"],
    ),
}

_SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A JSON Web Token; its `sub` is the user.",
    },
    "accessToken": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "The same token, for clients that cannot set headers; `token` is another name of it. "
        "A server may be configured to take none here.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "A ticket from `/stream-tickets`: it opens one stream, once.",
    },
}


_FULL_VERSIONS = {Version.V31: "3.1.1", Version.V32: "3.2.0"}


def document(content_characters: int, version: Version) -> dict[str, Any]:
    """Build the document. `content_characters`: the longest message."""
    paths = {
        path: {method: _operation(path, operation, version) for method, operation in _with_head(operations).items()}
        for path, operations in OPERATIONS.items()
    }
    return {
        "openapi": _FULL_VERSIONS[version],
        "info": {
            "title": "chatstream",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(content_characters),
            "responses": {str(status): _refusal(status) for status in REFUSALS},
            "headers": {
                name: {"description": description, "schema": schema, "required": True}
                for name, (description, schema) in HEADERS.items()
            },
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _with_head(operations: Mapping[str, Operation]) -> dict[str, Operation]:
    """Add HEAD to each GET: the same without a body (RFC 9110, section 9.3.2)."""
    found = dict(operations)
    if get := operations.get("get"):
        replies = {status: reply._replace(bodies={}) for status, reply in get.replies.items()}
        found["head"] = get._replace(id=f"{get.id}Head", replies=replies)
    return found


def _for_generators(operation: Operation) -> Operation:
    """The operation for client generators: without an alternative stream, without aliases of parameters, and without
    JSON lines, for which generators have no type."""
    operation = operation._replace(
        parameters=[each for each in operation.parameters if not each.is_alias],
        replies={status: _without(NDJSON, reply) for status, reply in operation.replies.items()},
    )
    if not any(JSON in reply.bodies for reply in operation.replies.values()):
        return operation
    replies = {status: _without(STREAM, reply) for status, reply in operation.replies.items() if not reply.of_stream}
    parameters = [parameter for parameter in operation.parameters if not parameter.of_stream]
    return operation._replace(replies=replies, parameters=parameters)


def _without(media_type: str, reply: Reply) -> Reply:
    return reply._replace(bodies={kind: body for kind, body in reply.bodies.items() if kind != media_type})


def _operation(path: str, operation: Operation, version: Version) -> dict[str, Any]:
    if version is Version.V31:
        operation = _for_generators(operation)
    parameters = [_parameter(parameter) for parameter in operation.parameters]
    if "{id}" in path:
        parameters.insert(0, _ID_PARAMETER)
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        **({"description": operation.description} if operation.description else {}),
        "tags": [_tag(path)],
        **({"parameters": parameters} if parameters else {}),
        "responses": {str(status): _reply(reply, version) for status, reply in operation.replies.items()}
        | {str(status): {"$ref": f"#/components/responses/{status}"} for status in _refusals(path, operation)},
        "security": _security(operation),
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {
                JSON: {
                    "schema": {"$ref": _SCHEMAS + operation.body.__name__},
                    **({} if operation.example is None else {"example": operation.example}),
                }
            },
        }
    return described


def _tag(path: str) -> str:
    if not path.startswith("/api/"):
        return "server"
    what = path.partition("{id}/")[2]
    if not what:
        return "conversations"
    return "stream" if what.startswith("stream") else "messages"


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    if operation.public:
        return []
    return [{name: []} for name in (_SECURITY_SCHEMES if operation.query_token else ["bearer"])]


def _refusals(path: str, operation: Operation) -> list[int]:
    statuses = {*operation.refusals}
    if not operation.public:
        statuses |= {401, 429, 503}
    if "{id}" in path:
        statuses |= {400, 404}
    if operation.parameters:
        statuses.add(400)
    if operation.body is not None:
        statuses |= {400, 408, 413, 415, 422}
    return sorted(statuses)


_ID_PARAMETER = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The conversation's `id`.",
    "schema": {"type": "string", "pattern": ID_PATTERN},
}


# A chunk with `frames=lean`: the omitted fields follow from its `id` and from the chunk before it.
_LEAN_CHUNK = {
    "type": "object",
    "properties": {"type": {"enum": ["llm_chunk", "reasoning_chunk"]}, "content": {"type": "string"}},
    "required": ["type", "content"],
}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        **({"required": True} if parameter.required else {}),
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *names)}


def _reply(reply: Reply, version: Version) -> dict[str, Any]:
    content = {media_type: _body(media_type, shape, version) for media_type, shape in reply.bodies.items()}
    return {
        "description": reply.description,
        "headers": _headers(*reply.headers),
        **({"content": content} if content else {}),
    }


def _body(media_type: str, shape: Any, version: Version) -> dict[str, Any]:
    if media_type == STREAM and version is Version.V31:
        return {"schema": {"type": "string"}}
    schemas, _ = msgspec.json.schema_components(_types(media_type, shape), ref_template=_SCHEMAS + "{name}")
    if media_type != STREAM:
        return {"itemSchema" if media_type == NDJSON else "schema": schemas[0]}
    said = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": [*schemas, _LEAN_CHUNK]}}
    frame = {
        "type": "object",
        "properties": {
            "data": {"anyOf": [said, *({"enum": [wire.end]} for wire in shape if wire.end is not None)]},
            "id": {"type": "string", "description": "A cursor, on the events that a stream can go on behind."},
            "retry": {"type": "integer", "description": "Milliseconds to wait before connecting again."},
        },
        "required": ["data"],
    }
    return {"itemSchema": frame}


def _types(media_type: str, shape: Any) -> list[Any]:
    return [wire.data for wire in shape] if media_type == STREAM else [shape]


def _refusal(status: int) -> dict[str, Any]:
    refusal = REFUSALS[status]
    narrowed = {"code": {"type": "string", "enum": refusal.codes}}
    schema = {"allOf": [{"$ref": _SCHEMAS + "Problem"}, {"properties": narrowed}]}
    return {
        "description": refusal.description,
        "headers": _headers(*refusal.headers),
        "content": {problems.MEDIA_TYPE: {"schema": schema}},
    }


def _schemas(content_characters: int) -> dict[str, Any]:
    operations = [operation for each in OPERATIONS.values() for operation in each.values()]
    bodies = [operation.body for operation in operations if operation.body is not None]
    _, taken = models_json_schema(
        [(body, "validation") for body in bodies],
        ref_template=_SCHEMAS + "{model}",
        schema_generator=_WithoutFieldTitles,
    )
    replies = [reply for each in operations for reply in each.replies.values()]
    shapes = [one for reply in replies for body in reply.bodies.items() for one in _types(*body)]
    _, sent = msgspec.json.schema_components([Problem, *shapes], ref_template=_SCHEMAS + "{name}")
    schemas: dict[str, Any] = taken["$defs"] | sent
    schemas["NewMessage"]["properties"]["content"]["maxLength"] = content_characters
    schemas["NewConversation"]["properties"]["initialMessage"]["anyOf"][0]["maxLength"] = content_characters
    for name in taken["$defs"]:
        _without_defaults(schemas[name])
    for name in sent:
        schemas[name] = _always_sent(schemas[name])
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = _for_clients(schema["description"])
    return schemas


def _without_defaults(schema: dict[str, Any]) -> None:
    """Remove defaults from a request's schema: some generators make fields with a default required."""
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


def _always_sent(schema: dict[str, Any]) -> dict[str, Any]:
    """Mark fields with a default as required in a response's schema: they are always sent."""
    fields = schema.get("properties", {})
    bare = {name: {key: value for key, value in field.items() if key != "default"} for name, field in fields.items()}
    required = [name for name in fields if name in schema.get("required", ()) or "default" in fields[name]]
    return schema | ({"properties": bare} if fields else {}) | ({"required": required} if required else {})


class _WithoutFieldTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # pydantic would make the title from the field's name, which explains nothing


def _for_clients(docstring: str) -> str:
    """A docstring as one line, with field names in camel case, as in JSON."""
    return re.sub(r"`([a-z]+_[a-z_]+)`", lambda name: f"`{to_camel(name[1])}`", " ".join(docstring.split()))
