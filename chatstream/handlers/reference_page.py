"""Renders the OpenAPI document as plain HTML, without scripts or external resources."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent);
        --soft: color-mix(in srgb, currentColor 7%, transparent); --accent: light-dark(#0b6e4f, #63d0a5);
        --quiet: light-dark(#4a4a4a, #bdbdbd); }
* { box-sizing: border-box; }
html { background: Canvas; color: CanvasText; }
body { margin: 0 auto; max-width: 56rem; padding: 1rem 1rem 4rem; font: 16px/1.55 system-ui, sans-serif;
       overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 1rem 0 .25rem; }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.25rem; text-transform: capitalize; }
section { border: 1px solid var(--line); border-radius: .7rem; padding: 1rem; margin: .8rem 0; }
h3 { margin: 0; font-size: 1.05rem; }
h4, .label { margin: 1rem 0 .25rem; font-weight: bold; font-size: .8rem; text-transform: uppercase;
             letter-spacing: .06em; color: var(--quiet); }
p { margin: .5rem 0; }
a { color: var(--accent); }
nav ul { list-style: none; padding: 0; margin: 0; columns: 20rem; }
nav a { text-decoration: none; }
pre { overflow-x: auto; background: var(--soft); border-radius: .4rem; padding: .6rem .8rem; margin: .3rem 0; }
pre code { background: none; padding: 0; overflow-wrap: normal; }
code { font: .9em ui-monospace, monospace; background: var(--soft); border-radius: .25rem; padding: .05em .3em; }
.route { font: 600 .95rem ui-monospace, monospace; margin: .3rem 0; }
.route b { color: var(--accent); }
dl { margin: 0; }
dt { margin-top: .5rem; }
dd { margin: 0 0 0 1rem; }
dd p { margin: .1rem 0; }
.note { color: var(--quiet); font-size: .9rem; }
:target { outline: 3px solid var(--accent); outline-offset: 2px; }
"""


def policy() -> str:
    """The page's Content-Security-Policy: allows only its style sheet."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def page(document: Mapping[str, Any]) -> str:
    """The page of `document`."""
    info, components = document["info"], document["components"]
    by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method != "head":  # HEAD is the same as GET
                by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    paragraphs = "".join(f"<p>{_text(paragraph)}</p>" for paragraph in info["description"].split("\n\n"))
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(info['title'])} API</title><style>{_STYLE}</style>",
            f"<header><h1>{_text(info['title'])} API</h1>",
            f'<p class="note">Version {_text(info["version"])} · ',
            f'<a href="openapi.json">OpenAPI</a></p>{paragraphs}',
            "<p>In the examples <code>$SERVER</code> is where this page comes from, without a path, "
            "<code>$TOKEN</code> a token, and <code>derby</code> a conversation's id.</p></header><main>",
            f"<nav>{''.join(_contents(tag, found) for tag, found in by_tag.items())}</nav>",
            *(
                f"<h2>{_text(tag)}</h2>{''.join(_operation(*one, components) for one in found)}"
                for tag, found in by_tag.items()
            ),
            "<h2>Tokens</h2>",
            *(_scheme(name, scheme) for name, scheme in components["securitySchemes"].items()),
            "<h2>Refusals</h2>",
            *(_refusal(status, refusal) for status, refusal in components["responses"].items()),
            "<h2>Shapes</h2>",
            *(_shape(name, schema) for name, schema in sorted(components["schemas"].items())),
            "</main></html>\n",
        ]
    )


def _contents(tag: str, found: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    items = (
        f'<li><a href="#{operation["operationId"]}">{_text(operation["summary"])}</a></li>' for _, _, operation in found
    )
    return f"<p class=label>{_text(tag)}</p><ul>{''.join(items)}</ul>"


def _operation(method: str, path: str, operation: Mapping[str, Any], components: Mapping[str, Any]) -> str:
    refusals = [status for status, response in operation["responses"].items() if "$ref" in response]
    parts = [
        f'<section id="{operation["operationId"]}"><h3>{_text(operation["summary"])}</h3>',
        f'<p class="route"><b>{method}</b> {_text(path)}</p>',
        f"<p>{_text(operation['description'])}</p>" if "description" in operation else "",
    ]
    if parameters := operation.get("parameters"):
        parts.append(f"<h4>Parameters</h4><dl>{''.join(map(_parameter, parameters))}</dl>")
    if body := operation.get("requestBody"):
        optional = "" if body["required"] else " (may be left out)"
        parts.append(f"<h4>Body</h4>{_bodies(body['content'])}{optional}")
    replies = (_reply(status, reply) for status, reply in operation["responses"].items() if "$ref" not in reply)
    parts.append(f"<h4>Replies</h4><dl>{''.join(replies)}</dl>")
    if refusals:
        links = " · ".join(f'<a href="#refusal-{status}">{status}</a>' for status in refusals)
        parts.append(f"<h4>Refusals</h4>{links}")
    example = html.escape(_example(method, path, operation))
    parts.append(f'<h4>Example</h4><pre tabindex="0"><code>{example}</code></pre>')
    if names := [name for scheme in operation["security"] for name in scheme]:
        links = " or ".join(f'<a href="#token-{name}">{_text(name)}</a>' for name in names)
        parts.append(f"<h4>Token</h4>{links}")
    return "".join([*parts, "</section>"])


# An example of an id made by the database (an erasure's).
_EXAMPLE_KEY = "6b06f718bcab1449ce4875a6"


def _example(method: str, path: str, operation: Mapping[str, Any]) -> str:
    """An example request as a shell command."""
    words = ["curl"]
    if any("text/event-stream" in reply.get("content", {}) for reply in operation["responses"].values()):
        words.append("-N")
    if method != "GET":
        words.append(f"-X {method}")
    if operation["security"]:
        words.append('-H "Authorization: Bearer $TOKEN"')
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        words.append(f"-H 'Content-Type: {media_type}' -d '{json.dumps(body.get('example', {}))}'")
    needed = "&".join(
        f"{one['name']}={_EXAMPLE_KEY}"
        for one in operation.get("parameters", ())
        if one["in"] == "query" and one.get("required")
    )
    return " ".join([*words, f'"$SERVER{path.replace("{id}", "derby")}{needed and "?"}{needed}"'])


def _parameter(parameter: Mapping[str, Any]) -> str:
    return (
        f"<dt><code>{_text(parameter['name'])}</code></dt><dd><p class=note>in the {parameter['in']} · "
        f"{_type(parameter['schema'])}</p><p>{_text(parameter['description'])}</p></dd>"
    )


def _reply(status: str, reply: Mapping[str, Any]) -> str:
    headers = "".join(f" <code>{_text(name)}</code>" for name in reply["headers"])
    return (
        f"<dt><code>{status}</code> {_text(reply['description'])}</dt>"
        f"<dd><p>{_bodies(reply.get('content', {}))}</p><p class=note>Headers:{headers}</p></dd>"
    )


def _items(schema: dict[str, Any]) -> str:
    """The unit of a stream: events or lines."""
    if "properties" in schema:
        return f"events, each with <code>data</code>: {_type(schema['properties']['data'])}"
    return f"lines, each: {_type(schema)}"


def _bodies(content: Mapping[str, Any]) -> str:
    return "<br>".join(
        f"<code>{_text(media_type)}</code> "
        + (_type(body["schema"]) if "schema" in body else _items(body["itemSchema"]))
        for media_type, body in content.items()
    )


def _scheme(name: str, scheme: Mapping[str, Any]) -> str:
    how = f"the query parameter {scheme['name']}" if "name" in scheme else "Authorization: Bearer …"
    return (
        f'<section id="token-{name}"><h3>{_text(name)}</h3><p class=route>{_text(how)}</p>'
        f"<p>{_text(scheme['description'])}</p></section>"
    )


def _refusal(status: str, refusal: Mapping[str, Any]) -> str:
    [(media_type, body)] = refusal["content"].items()
    codes = " ".join(f"<code>{_text(code)}</code>" for code in body["schema"]["allOf"][1]["properties"]["code"]["enum"])
    headers = " ".join(f"<code>{_text(name)}</code>" for name in refusal["headers"])
    return (
        f'<section id="refusal-{status}"><h3>{status}</h3><p>{_text(refusal["description"])}</p>'
        f"<p>Codes: {codes}</p><p class=note>{_text(media_type)} · "
        f'<a href="#Problem">Problem</a> · Headers: {headers}</p></section>'
    )


def _shape(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f'<section id="{name}"><h3>{_text(name)}</h3>']
    if "description" in schema:
        parts.append(f"<p>{_text(schema['description'])}</p>")
    if "properties" in schema:
        required = schema.get("required", ())
        fields = "".join(_field(name, each, name in required) for name, each in schema["properties"].items())
        parts.append(f"<dl>{fields}</dl>")
    else:
        parts.append(f"<p>{_type(schema)}</p>")
    return "".join([*parts, "</section>"])


def _field(name: str, schema: Mapping[str, Any], required: bool) -> str:
    optional = "" if required else " · optional"
    description = f"<p>{_text(schema['description'])}</p>" if "description" in schema else ""
    return f"<dt><code>{_text(name)}</code></dt><dd><p class=note>{_type(schema)}{optional}</p>{description}</dd>"


_WORDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "from {}",
    "maximum": "to {}",
    "pattern": "like {}",
    "format": "{}",
    "default": "by default {}",
}


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{_text(name)}</a>'
    if "contentSchema" in schema:
        return _type(schema["contentSchema"])
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        what = " or ".join(f"<code>{_text(str(value))}</code>" for value in schema["enum"])
    elif schema.get("type") == "array":
        what = f"list of {_type(schema['items'])}" if "items" in schema else "list"
    else:
        what = _text(str(schema.get("type", "anything")))
    limits = (
        words.format(f"<code>{_text(str(schema[name]))}</code>")
        for name, words in _WORDS.items()
        if schema.get(name) is not None
    )
    return ", ".join([what, *limits])


def _text(text: str) -> str:
    """The text as HTML: escaped, with text in backquotes as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
