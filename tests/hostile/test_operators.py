"""Input that a database or a JavaScript engine could take for more than data; and ids of other users, which reveal
nothing.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chatstream import auth
from tests.hostile.conftest import Target
from tests.support.client import API
from tests.support.processes import SECRET
from tests.support.raw import Reply

pytestmark = pytest.mark.xdist_group("hostile")  # one server for all of them

# The fields of the bodies, and the other fields of the documents, which no client may set.
FIELDS = {
    "POST conversations": ["id", "title", "systemPrompt", "model", "initialMessage"],
    "PATCH conversation": ["title", "systemPrompt", "model"],
    "POST messages": ["content", "clientMessageId"],
    "POST stop": ["messageId"],
}
ASSIGNED = [
    *(
        "_id",
        "key",
        "userId",
        "user_id",
        "owner",
        "role",
        "seq",
        "nextSeq",
        "status",
        "createdAt",
        "updatedAt",
        "attempt",
    ),
    *("replyTo", "error", "usage", "pieces", "length", "recommendations", "unseen", "conversationId", "stopRequested"),
    *("$set", "$where", "$inc", "title.x", "content.0", "a.$b", "__proto__", "constructor", "prototype", "toString"),
    *("__class__", "__init__", "model_config", "model_fields_set", "system_prompt", "client_message_id", "", "\0"),
]
OPERATORS: list[Any] = [
    *({"$gt": ""}, {"$ne": None}, {"$regex": ".*"}, {"$where": "sleep(1000)"}, {"$in": ["a"]}, {"$set": {"role": "x"}}),
    *({"__proto__": {"admin": True}}, {"constructor": {"prototype": {}}}, [{"$gt": ""}], [["a"]], [], {}, 1, True, 0.5),
    *({"$oid": "0" * 24}, {"$date": 0}, {"$code": "x"}, {"$numberLong": "1"}, {"a.b": 1}, {"": ""}),
]

# The profiler's fields that measure an operation's work.
COST = ["planSummary", "keysExamined", "docsExamined", "nreturned", "ndeleted", "nModified"]


def send(target: Target, what: str, body: Any) -> Reply:
    method, name = what.split()
    path = {"conversations": "", "conversation": f"/{target.conversation}"}.get(name, f"/{target.conversation}/{name}")
    headers = "Content-Type: application/json"
    return target.http.exchange(target.request(method, API + path, headers, body=json.dumps(body).encode()))


def refused(reply: Reply) -> set[str]:
    """The fields that a refusal names."""
    assert not reply.accepted
    assert reply.status == 422, reply
    return {*json.loads(reply.body)["errors"]}


def good(what: str) -> dict[str, Any]:
    return {"content": "Hi"} if what == "POST messages" else {}


@pytest.mark.parametrize("what", FIELDS)
def test_an_operator_is_no_value(target: Target, what: str) -> None:
    before = target.everything()
    for field in FIELDS[what]:
        for operator in OPERATORS:
            assert refused(send(target, what, good(what) | {field: operator})) == {field}
    assert target.everything() == before


@pytest.mark.parametrize("what", FIELDS)
def test_nobody_sets_what_is_not_theirs_to_set(target: Target, what: str) -> None:
    before = target.everything()
    for field in ASSIGNED:
        for value in ("system", *OPERATORS[:2]):
            assert refused(send(target, what, good(what) | {field: value})) == {field or "body"}
    everything = dict.fromkeys(filter(None, ASSIGNED), "x")
    assert refused(send(target, what, good(what) | everything)) == {*everything}
    assert target.everything() == before


def test_a_prototype_in_the_query_or_the_path_changes_nothing(target: Target) -> None:
    before = target.everything()
    for text in (
        "id[$ne]=x",
        "limit[$gt]=0",
        "before[]=1",
        "__proto__[admin]=1",
        "constructor.prototype.x=1",
        "$where=1",
    ):
        for path in (API, f"{API}/{target.conversation}", f"{API}/{target.conversation}/messages"):
            plain, reply = (target.http.exchange(target.request("GET", url)) for url in (path, f"{path}?{text}"))
            assert (reply.status, reply.body) == (200, plain.body)  # such parameter names have no effect
    for id_ in ("$ne", "[$ne]", "%7B%22$gt%22:%22%22%7D", "a.b", "__proto__.x", "%24where"):
        assert target.http.exchange(target.request("GET", f"{API}/{id_}")).status == 400
    for id_ in ("__proto__", "constructor", "toString", "null", "undefined", "NaN"):  # ids like any other
        assert target.http.exchange(target.request("GET", f"{API}/{id_}")).status == 404
    assert target.everything() == before


@pytest.fixture
def commands(target: Target) -> Iterator[Any]:
    """The database commands about conversations since the last call, with their cost."""
    target.database.command("profile", 2)
    seen = 0

    def look() -> list[Any]:
        nonlocal seen
        entries = list(
            target.database["system.profile"].find({"ns": f"{target.database.name}.conversations"}).sort("ts")
        )
        new, seen = entries[seen:], len(entries)
        return [(entry["op"], shape(entry["command"]), [entry.get(what) for what in COST]) for entry in new]

    yield look
    target.database.command("profile", 0)


def shape(command: Any) -> Any:
    """The command without its values, to compare its form."""
    if not isinstance(command, dict):
        return type(command).__name__
    return {name: shape(value) for name, value in command.items() if name not in ("lsid", "$clusterTime", "txnNumber")}


def test_what_belongs_to_someone_else_costs_and_says_the_same_as_what_does_not_exist(
    target: Target, commands: Any
) -> None:
    """No time is measured: if the commands and the database's work are the same, no timing can tell the cases apart."""
    theirs = target.create(auth.mint(SECRET, "somebody-else", 3600))
    json_type = "Content-Type: application/json"
    commands()
    for method, suffix, body in [
        ("GET", "", b""),
        ("PATCH", "", b'{"title": "Mine"}'),
        ("DELETE", "", b""),
        ("GET", "/stream", b""),
        ("GET", "/messages", b""),
        ("POST", "/messages", b'{"content": "Hi"}'),
        ("POST", "/stop", b"{}"),
        ("POST", "/regenerate", b""),
    ]:
        seen = []
        for id_ in (theirs, "0" * len(theirs)):
            reply = target.http.exchange(target.request(method, f"{API}/{id_}{suffix}", json_type, body=body))
            problem = json.loads(reply.body)
            assert (reply.status, problem.pop("requestId")) == (404, reply.headers["x-request-id"])
            headers = {name: value for name, value in reply.headers.items() if name not in ("date", "x-request-id")}
            seen.append((problem, headers, commands()))
        assert seen[0] == seen[1], (method, suffix)
        assert len(seen[0][2]) == 1  # the conversation was really looked up
