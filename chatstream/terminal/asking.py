"""Asks at a terminal what a tool call waits for: an approval, or the answer to the tool's question."""

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from chatstream.terminal.screen import printable

Typed = Callable[[str], str | None]
"""Shows a prompt and reads a line; None at the input's end."""


def decision(typed: Typed) -> dict[str, Any] | None:
    """Ask whether a call is approved; None at the input's end."""
    line = _one_of(("y", "yes", "n", "no"), "approve? y/n ", typed)
    return None if line is None else {"decision": "approve" if line.startswith("y") else "deny"}


def answer(question: dict[str, Any], typed: Typed) -> dict[str, Any] | None:
    """Ask what a tool asks the user, field by field; None at the input's end."""
    url = question.get("url")
    line = _one_of(("y", "yes", "n", "no"), f"{printable(url)}\nopened? y/n " if url else "answer? y/n ", typed)
    if line is None:
        return None
    said: dict[str, Any] = {"question": question["id"], "action": "accept" if line.startswith("y") else "decline"}
    if said["action"] == "decline" or url:
        return said
    schema = question.get("schema") or {}
    content = {}
    for name, about in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        line = typed(f"{printable(_prompt(name, about, required=required))}: ")
        if line is None:
            return None
        if line or (required and about.get("type") == "string"):
            content[name] = _value(line, about)
    return said | {"content": content}


def _prompt(name: str, about: dict[str, Any], *, required: bool) -> str:
    one = about.get("items", {}) if about.get("type") == "array" else about
    values = one.get("enum") or [each.get("const") for each in one.get("oneOf") or one.get("anyOf") or ()]
    if about.get("type") == "boolean":
        values = ["y", "n"]
    kind = " | ".join(map(str, values)) or about.get("type", "")
    many = ", several with commas" if about.get("type") == "array" else ""
    return f"{about.get('title', name)} ({kind}{many}{'' if required else ', may be empty'})"


def _value(line: str, about: dict[str, Any]) -> Any:
    """The typed text converted to the field's type. If that is impossible, the text itself, which the server then
    refuses.
    """
    match about.get("type"):
        case "boolean" if line.lower() in ("y", "yes", "n", "no"):
            return line.lower().startswith("y")
        case "array":
            return [one.strip() for one in line.split(",")]
        case "integer" | "number":
            try:
                number = float(line)
                if isfinite(number):
                    return int(line) if line.lstrip("+-").isdigit() else number
            except ValueError:
                pass
    return line


def _one_of(answers: Sequence[str], prompt: str, typed: Typed) -> str | None:
    """Ask until one of these answers is typed; None at the input's end."""
    line: str | None = ""
    while line is not None and line.lower() not in answers:
        line = typed(prompt)
    return None if line is None else line.lower()
