"""Errors as clients see them: problem documents (RFC 9457)."""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from chatstream.errors import RequestError

MEDIA_TYPE = "application/problem+json"


class Problem(Struct, frozen=True, kw_only=True, rename="camel"):
    """What went wrong: `code` is stable, `detail` is for people, `errors` says what is wrong field by field.

    The server's log has more under `requestId`.
    """

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: Mapping[str, str] | UnsetType = UNSET


def document(error: RequestError, request_id: str) -> bytes:
    """The problem document for `error`, as JSON."""
    problem = Problem(
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        errors=error.fields or UNSET,
    )
    return msgspec.json.encode(problem)
