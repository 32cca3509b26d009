"""Strange JSON: it is refused completely, or accepted with its exact meaning."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.conftest import MARK, Target
from tests.support.client import API
from tests.support.examples import examples

pytestmark = pytest.mark.xdist_group("hostile")  # these tests share a server

# Bodies sent for each example. Several, since making an example takes longer than the server takes to refuse a body.
BODIES = 20
EXAMPLES = examples(40)

KEYS = ["id", "title", "systemPrompt", "model", "initialMessage", "content", "clientMessageId", "messageId"]
STRANGE_KEYS = [
    "",
    "\0",
    "$gt",
    "$where",
    "a.b",
    "_id",
    "__proto__",
    "constructor",
    "role",
    "userId",
    "status",
    MARK,
]
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-0", "1" * 400, "0.1e-400", "01", "+1", "0x10", "1_000", "१"]
TEXTS = ['"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\x00"', '"\t"', '"\\x"', "'a'", '"', '"\\u00"', f'"{MARK}"']

strange_text = st.text(max_size=30) | st.sampled_from(["\u2028", "\ufeff", "\r\n\r\n", MARK, "../../etc", "🏴󠁧󠁢" * 9])
keys = st.sampled_from(KEYS) | st.sampled_from(STRANGE_KEYS) | st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | strange_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def written(value: Any) -> bytes:
    """The value as JSON, with Python's extensions (NaN)."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


objects = st.dictionaries(keys, values, max_size=5).map(written)
# Objects with a repeated key, and with values that are not JSON.
raw_objects = st.lists(st.tuples(keys.map(json.dumps), st.sampled_from(NUMBERS + TEXTS)), max_size=4).map(
    lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid body with some bytes changed."""
    body = bytearray(written({draw(st.sampled_from(KEYS)): draw(strange_text), "content": "Hi"}))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(body) - 1))
        body[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
        body = body or bytearray(b"{")
    return bytes(body)


nested = st.tuples(st.sampled_from(["[", '{"a":', '{"content":[']), st.integers(1, 3000)).map(
    lambda nest: (nest[0] * nest[1]).encode()
)
bodies = st.one_of(
    objects,
    raw_objects.map(lambda text: text.encode("utf-8", "surrogatepass")),
    damaged(),
    nested,
    values.map(written),
    st.binary(max_size=60),
    st.tuples(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "utf-7"]), raw_objects).map(
        lambda x: x[1].encode(x[0])
    ),
)
types = st.sampled_from(
    ["application/json"] * 12 + ["application/json; charset=utf-16", "text/plain", "", "application/xml"]
)


@pytest.mark.timeout(300)
def test_a_strange_body_is_refused_whole_or_taken_for_what_it_says(target: Target) -> None:
    one = f"{API}/{target.conversation}"
    routes = [("POST", API), ("PATCH", one), ("POST", f"{one}/messages"), ("POST", f"{one}/stop")]
    conversations, messages = target.stored()
    begun = target.http.sent

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.sampled_from(routes), types, bodies), min_size=BODIES, max_size=BODIES))
    def attack(requests: list[tuple[tuple[str, str], str, bytes]]) -> None:
        nonlocal conversations, messages
        for (method, path), type_, body in requests:
            reply = target.http.exchange(target.request(method, path, f"Content-Type: {type_}", body=body))
            if reply.accepted and reply.status == 201:
                conversations += path == API
                messages += path != API or "initialMessage" in json.loads(reply.body)
        assert target.stored() == (conversations, messages)

    attack()
    assert target.http.sent - begun >= BODIES * EXAMPLES
