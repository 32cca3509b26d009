"""Assembles streamed fragments of tool calls into complete calls, in order. Pure.

An answer's log has one open part at a time. So while the arguments of one call arrive, fragments of other calls and
text are held until that call is complete.

Endpoints differ in how they mark the fragments of one call. Tried in this order: `index`, unless the id contradicts it;
a new id starts a new call; a name after complete arguments does, too; else the fragment continues the last call.
"""

import re
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chatstream.pieces import Kind, OpenToolCall

# Maximum number of tool calls in one response, and of characters in all their arguments: far more than any real model
# sends. They bound the memory.
_MOST_CALLS: Final = 128
_MOST_CHARACTERS: Final = 1_000_000
# Maximum number of characters of a call's `extra`: Gemini's signatures have some hundred, long encrypted reasoning
# 100,000.
_MOST_EXTRA: Final = 200_000
# Values that some endpoints send for a missing id.
_NO_IDS: Final = {"", "null", "none", "undefined"}
# Characters that are removed from a tool's name: endpoints refuse them when the call is sent back.
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 64
# The characters that decide where a JSON text ends.
_TELLING: Final = re.compile(r'["\\{}\[\]]')


class TooManyCalls(Exception):
    """The limit of calls or of their characters was exceeded."""


class Fragment(Struct, frozen=True):
    """A fragment of a call, as received. Missing fields are None."""

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    extra: Any = None


Said = tuple[Kind, str]
Ordered = OpenToolCall | Said


class _Slot(Struct):
    """A call, or text or reasoning that came after the first call began."""

    kind: Kind
    index: int | None = None
    id: str = ""
    name: str = ""
    extra: str | None = None
    size: int = 0  # length of the arguments so far
    arguments: list[str] = []  # the arguments so far
    held: list[str] = []  # text not yet returned
    begun: bool = False  # its opening was returned
    depth: int = 0
    in_string: bool = False
    escaped: bool = False
    whole: bool = False  # the arguments are complete JSON


class Calls:
    """Orders the calls of one request, and the text after the first one."""

    def __init__(self) -> None:
        self.begun = False  # there is at least one call
        self._slots: list[_Slot] = []
        self._current = 0  # the slot that is being returned
        self._numbers = 0
        self._size = 0

    def add(self, fragment: Fragment) -> list[Ordered]:
        """Add a fragment of a call. Return the parts of the answer that can now be sent in order. Raises
        `TooManyCalls`.
        """
        slot = self._slot_of(fragment)
        if _repeats(slot, fragment):
            return []
        if not slot.name and fragment.name:
            slot.name = fragment.name
        if not slot.id:
            slot.id = fragment.id or ""
        if fragment.extra is not None and slot.extra is None:
            slot.extra = _text_of(fragment.extra)
            self._grow(len(slot.extra or ""))
        if fragment.arguments:
            slot.size += len(fragment.arguments)
            slot.arguments.append(fragment.arguments)
            self._grow(len(fragment.arguments))
            slot.held.append(fragment.arguments)
            _scan(slot, fragment.arguments)
        return self._given()

    def say(self, kind: Kind, text: str) -> list[Ordered]:
        """Add text or reasoning that came after a call began. Return the parts of the answer that can now be sent in
        order.
        """
        if self._slots[-1].kind is not kind:
            self._slots.append(_Slot(kind, held=[]))
        self._slots[-1].held.append(text)
        self._grow(len(text))
        return self._given()

    def end(self) -> list[Ordered]:
        """End the answer: return the parts that are still held."""
        given: list[Ordered] = []
        while self._current < len(self._slots):
            given += self._release(self._slots[self._current])
            self._current += 1
        return given

    def _grow(self, more: int) -> None:
        self._size += more
        if self._size > _MOST_CHARACTERS:
            raise TooManyCalls

    def _slot_of(self, fragment: Fragment) -> _Slot:
        calls = [slot for slot in self._slots if slot.kind is Kind.TOOL_CALL]
        last = calls[-1] if calls else None
        if fragment.id is not None:
            named = [slot for slot in reversed(calls) if slot.id == fragment.id]
            # Some endpoints give all calls of a response the same id.
            again = next((slot for slot in named if _repeats(slot, fragment)), None)
            if again is not None:
                return again
            known = next((slot for slot in named if slot.index == fragment.index), named[0] if named else None)
            if known is not None and known.whole and fragment.name:
                return self._new(fragment)
            other = known is not None and None not in (known.index, fragment.index) and known.index != fragment.index
            if known is not None and not (other and fragment.name):
                return known
            # An id that comes late belongs to the call with this index that has no id yet.
            own = next((slot for slot in calls if slot.index == fragment.index and not slot.id), None)
            if own is not None and fragment.index is not None and not (fragment.name and own.whole):
                return own
            return self._new(fragment)
        if last is None:
            return self._new(fragment)
        own = last
        if fragment.index is not None:
            # Some endpoints use one index for several calls: continue the last one.
            found = next((slot for slot in reversed(calls) if slot.index == fragment.index), None)
            if found is None:
                return self._new(fragment)
            own = found
        begins = fragment.name is not None and own.whole
        return self._new(fragment) if begins else own

    def _new(self, fragment: Fragment) -> _Slot:
        if len(self._slots) >= _MOST_CALLS:
            raise TooManyCalls
        self.begun = True
        self._slots.append(_Slot(Kind.TOOL_CALL, index=fragment.index, held=[], arguments=[]))
        return self._slots[-1]

    def _given(self) -> list[Ordered]:
        given: list[Ordered] = []
        while self._current < len(self._slots):
            slot = self._slots[self._current]
            is_last = self._current == len(self._slots) - 1
            over = not is_last and (slot.kind is not Kind.TOOL_CALL or slot.whole)
            if slot.kind is Kind.TOOL_CALL and not slot.name and not over:
                break  # wait for its name
            given += self._release(slot)
            if not over:
                break
            self._current += 1
        return given

    def _release(self, slot: _Slot) -> list[Ordered]:
        given: list[Ordered] = []
        if slot.kind is Kind.TOOL_CALL and not slot.begun:
            self._numbers += 1
            given.append(OpenToolCall(id=str(self._numbers), name=_name(slot.name), extra=slot.extra))
        slot.begun = True
        given += [(slot.kind, text) for text in slot.held]
        slot.held.clear()
        return given


def _repeats(slot: _Slot, fragment: Fragment) -> bool:
    """Whether the fragment is a complete call that has come before."""
    same = slot.whole and fragment.id == slot.id and fragment.name == slot.name
    return same and (not fragment.arguments or fragment.arguments == "".join(slot.arguments))


def fragments_of(delta: dict[str, Any]) -> list[Fragment]:
    """The fragments of calls in a delta or a message, in any endpoint's form."""
    calls = delta.get("tool_calls")
    if isinstance(calls, dict):  # a single one, not in a list
        calls = [calls]
    found = [_fragment(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    if len(found) > 1 and all(each.index is None for each in found):  # numbered by their order
        found = [replace(each, index=number) for number, each in enumerate(found)]
    legacy = delta.get("function_call")
    if not found and isinstance(legacy, dict):
        found = [_fragment({"function": legacy})]
    return [each for each in found if each != Fragment(index=each.index)]


def _fragment(call: dict[str, Any]) -> Fragment:
    function = call.get("function")
    if not isinstance(function, dict):
        function = call if "name" in call or "arguments" in call else {}
    index, id_, name = call.get("index"), call.get("id"), function.get("name")
    arguments = function.get("arguments")
    if isinstance(arguments, dict | list):  # an object instead of JSON text
        arguments = msgspec.json.encode(arguments).decode()
    return Fragment(
        index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        id=id_ if isinstance(id_, str) and id_.strip().lower() not in _NO_IDS else None,
        name=name.strip() if isinstance(name, str) and name.strip() else None,
        arguments=arguments if isinstance(arguments, str) else "",
        extra=call.get("extra_content"),
    )


def _name(given: str) -> str:
    return _NOT_IN_NAMES.sub("_", given)[:_LONGEST_NAME] or "unnamed"


def _text_of(extra: Any) -> str | None:
    text = msgspec.json.encode(extra).decode()
    return text if len(text) <= _MOST_EXTRA else None


def _scan(slot: _Slot, text: str) -> None:
    """Set whether the arguments are complete JSON. Each character is examined once."""
    start = 0
    if slot.escaped:
        slot.escaped, start = False, 1
    position = start
    while found := _TELLING.search(text, position):
        sign, position = found[0], found.end()
        if slot.in_string:
            if sign == "\\":
                if position == len(text):
                    slot.escaped = True
                position += 1
            elif sign == '"':
                slot.in_string = False
        elif sign == '"':
            slot.in_string = True
        elif sign in "{[":
            slot.depth += 1
            slot.whole = False
        elif sign in "}]":
            slot.depth -= 1
            slot.whole = slot.depth <= 0
