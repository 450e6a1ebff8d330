"""Translates URIs of resources to /mcp and back: `ui://{rest}` becomes `ui://{server}/{rest}`, any other `{server}+{uri}`."""

import re
from typing import Any

import msgspec

from adapters.contract import UpstreamFault
from policies.strict_json import BadJson, parse

UI = "ui://"
_STARTS_LIKE_NO_SCHEME = re.compile(r"x*[0-9-]")  # a scheme begins with a letter (RFC 3986 s3.1), a server's name may not
_ESCAPED = re.compile(r"x+[0-9-]")
encode = msgspec.json.Encoder().encode


def public_uri(server: str, uri: str) -> str:
    """Returns the URI on /mcp of a server's resource or template."""
    if uri.startswith(UI):
        return f"{UI}{server}/{uri[len(UI) :]}"
    return f"{'x' if _STARTS_LIKE_NO_SCHEME.match(server) else ''}{server}+{uri}"


def split_public_uri(uri: str) -> tuple[str, str]:
    """Returns the server and its own URI for a URI on /mcp, or two empty strings for any other URI."""
    if uri.startswith(UI):
        server, slash, rest = uri[len(UI) :].partition("/")
        return (server, UI + rest) if slash else ("", "")
    scheme, plus, rest = uri.partition("+")
    if not plus:
        return "", ""
    return (scheme[1:] if _ESCAPED.match(scheme) else scheme), rest


def rewrite_result(server: str, result: bytes) -> bytes:
    """Returns a server's result with all URIs rewritten to those on /mcp; a result without URIs is returned unchanged.

    Raises UpstreamFault for a result that is not strict JSON.
    """
    if b'"uri' not in result and b"esourceUri" not in result:
        return result
    try:
        document = parse(result)
    except BadJson as bad:
        raise UpstreamFault("The server's answer is not valid JSON", str(bad)) from None
    return encode(rewrite_document(server, document))


def rewrite_document(server: str, document: Any) -> Any:
    """Returns a parsed result, definition or notification with all URIs rewritten to those on /mcp."""
    if not isinstance(document, dict):
        return document
    found = {**document}
    for name in ("uri", "resourceUri", "ui/resourceUri", "uriTemplate"):
        if isinstance(found.get(name), str):
            found[name] = public_uri(server, found[name])
    for name in ("_meta", "ui", "resource"):
        if name in found:
            found[name] = rewrite_document(server, found[name])
    for name in ("content", "contents", "messages"):
        if name in found:
            inner = found[name]
            found[name] = [rewrite_document(server, each) for each in inner] if isinstance(inner, list) else rewrite_document(server, inner)
    return found
