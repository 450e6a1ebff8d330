"""/docs: the OpenAPI document as an HTML page, without scripts and without content of other hosts."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from gateway.ingress.admin.openapi import HTTP_METHODS

STYLESHEET: Final = """
:root { color-scheme: light dark; --line: #8884; --quiet: #8889; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
h3 { margin-top: 2rem; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { padding: .75rem; overflow-x: auto; border: 1px solid var(--line); border-radius: .25rem; }
table { border-collapse: collapse; }
td, th { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
nav ul { columns: 2; list-style: none; padding: 0; }
"""
_HASH: Final = base64.b64encode(hashlib.sha256(STYLESHEET.encode()).digest()).decode()
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def render_page(document: Mapping[str, Any]) -> str:
    """Returns the HTML page of an OpenAPI document: every operation by its tag, with parameters, body and required credentials."""
    by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in HTTP_METHODS:
                by_tag.setdefault((operation.get("tags") or ["other"])[0], []).append((method.upper(), path, operation))
    title = f"{escape(document['info']['title'])} {escape(document['info']['version'])}"
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLESHEET}</style></head><body>'
    body = (f"<h1>{title}</h1>", _introduction(document), _table_of_contents(by_tag), *_sections(by_tag), _schemas(document))
    return "".join((head, *body, "</body></html>"))


def _introduction(document: Mapping[str, Any]) -> str:
    return f'<p>{escape(document["info"].get("description", ""))}</p><p>For programs: <a href="/openapi.json">/openapi.json</a>.</p>'


def _table_of_contents(by_tag: Mapping[str, Any]) -> str:
    links = (f'<li><a href="#{escape(tag)}">{escape(tag)}</a></li>' for tag in by_tag)
    return f'<nav aria-label="Contents"><ul>{"".join(links)}<li><a href="#schemas">schemas</a></li></ul></nav>'


def _sections(by_tag: Mapping[str, list[tuple[str, str, Mapping[str, Any]]]]) -> Iterator[str]:
    for tag, operations in by_tag.items():
        yield f'<h2 id="{escape(tag)}">{escape(tag)}</h2>'
        for method, path, operation in operations:
            yield f"<h3>{_code(f'{method} {path}')}</h3><p>{escape(operation.get('summary', ''))}. {_security_text(operation)}</p>"
            yield _parameters(operation) + _body(operation)


def _security_text(operation: Mapping[str, Any]) -> str:
    if not operation["security"]:
        return "Public."
    ways = (" and ".join(map(_code, requirement)) for requirement in operation["security"])
    return f"Needs {', or '.join(ways)}."


def _parameters(operation: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td>{_code(each['name'])}</td><td>{escape(each['in'])}</td><td>{_code(_type_text(each.get('schema', {})))}</td></tr>"
        for each in operation.get("parameters", [])
    ]
    heads = "<tr><th>parameter</th><th>in</th><th>type</th></tr>"
    return f"<table><thead>{heads}</thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _type_text(schema: Mapping[str, Any]) -> str:
    return str(schema.get("type") or " or ".join(str(each.get("type", "object")) for each in schema.get("anyOf", ())) or "any")


def _body(operation: Mapping[str, Any]) -> str:
    contents = operation.get("requestBody", {}).get("content", {})
    return "".join(f"<p>Body: {_code(media)}</p>{_schema(content['schema'])}" for media, content in contents.items())


def _schema(schema: Mapping[str, Any]) -> str:
    """Returns a link to a named schema, and the JSON of any other."""
    name = escape(schema.get("$ref", "").rpartition("/")[2])
    return f'<p><a href="#schema-{name}">{name}</a></p>' if name else f"<pre>{escape(json.dumps(schema, indent=2))}</pre>"


def _schemas(document: Mapping[str, Any]) -> str:
    found = sorted(document["components"]["schemas"].items())
    each = (f'<h3 id="schema-{escape(name)}">{escape(name)}</h3>{_schema(schema)}' for name, schema in found)
    return f'<h2 id="schemas">schemas</h2>{"".join(each)}'
