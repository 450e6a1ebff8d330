"""Checks requests of the stateless revision 2026-07-28, whose body and headers must agree."""

import base64
import binascii
from typing import Any

from adapters.mcp_client.wire.messages import CAPABILITIES_KEY, HEADER_MISMATCH, INVALID_PARAMS, MODERN, UNSUPPORTED_VERSION, VERSION_KEY
from gateway.ingress.http.asgi import BadHeader, Scope, header, headers_by_name

_VERSION_BYTES = MODERN.encode()
NAME_PARAM_OF = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    **dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), "taskId"),
}


class BadEnvelope(Exception):
    """A request that contradicts itself or the revision. The error has `code`; a modern client also gets HTTP `status`."""

    def __init__(self, code: int, message: str, data: Any = None, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.status = status


def is_modern(scope: Scope, params: Any, legacy: tuple[str, ...]) -> bool:
    """Returns whether a request is of this era."""
    meta = params.get("_meta") if isinstance(params, dict) else None
    if isinstance(meta, dict) and VERSION_KEY in meta:
        return True
    version = routing_header(scope, b"mcp-protocol-version")
    return version is not None and version not in legacy


def check_request(scope: Scope, method: str, params: Any) -> None:
    """Raises BadEnvelope. The order of checks is the specification's: `_meta`, headers against body, version."""
    if not is_canonical(scope, method, params):
        check_step_by_step(scope, method, params)


def check_step_by_step(scope: Scope, method: str, params: Any) -> None:
    """Performs the checks of `check_request` one by one. Raises BadEnvelope."""
    meta = params.get("_meta") if isinstance(params, dict) else None
    if not isinstance(meta, dict):
        raise BadEnvelope(INVALID_PARAMS, f"params._meta must be an object with {VERSION_KEY} and {CAPABILITIES_KEY}")
    missing = [key for key in (VERSION_KEY, CAPABILITIES_KEY) if key not in meta]
    if missing:
        raise BadEnvelope(INVALID_PARAMS, f"params._meta lacks {', '.join(missing)}")
    version = meta[VERSION_KEY]
    if routing_header(scope, b"mcp-protocol-version") != version:
        raise BadEnvelope(HEADER_MISMATCH, "the MCP-Protocol-Version header does not match the body")
    if routing_header(scope, b"mcp-method") != method:
        raise BadEnvelope(HEADER_MISMATCH, "the Mcp-Method header does not match the body")
    name_key = NAME_PARAM_OF.get(method)
    if name_key is not None and decode_header(routing_header(scope, b"mcp-name")) != params.get(name_key):
        raise BadEnvelope(HEADER_MISMATCH, "the Mcp-Name header does not match the body")
    check_version(version)
    if not isinstance(meta[CAPABILITIES_KEY], dict):
        raise BadEnvelope(INVALID_PARAMS, f"{CAPABILITIES_KEY} must be an object")


def is_canonical(scope: Scope, method: str, params: Any) -> bool:
    """Returns whether headers and body are spelled as nearly all clients spell them, which makes the single checks unnecessary."""
    try:
        headers, meta, name_key = headers_by_name(scope), params["_meta"], NAME_PARAM_OF.get(method)
        same = (
            headers[b"mcp-protocol-version"] == _VERSION_BYTES
            and meta[VERSION_KEY] == MODERN
            and type(meta[CAPABILITIES_KEY]) is dict
            and headers[b"mcp-method"] == method.encode()
        )
        if not same or name_key is None:
            return same
        name: bytes = headers[b"mcp-name"]
        return name == params[name_key].encode() == name.strip(b" \t") and name.isascii() and not name.startswith(b"=?")
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
        return False


def check_notification(scope: Scope) -> None:
    """Raises BadEnvelope. The revision demands nothing else of a notification's headers."""
    version = routing_header(scope, b"mcp-protocol-version")
    if version is not None:
        check_version(version)


def check_version(version: Any) -> None:
    """Raises BadEnvelope for any version but 2026-07-28."""
    if version != MODERN:
        raise BadEnvelope(UNSUPPORTED_VERSION, "this protocol version is not supported", {"supported": [MODERN], "requested": version})


def routing_header(scope: Scope, name: bytes) -> str | None:
    """Returns a routing header. Raises BadEnvelope when it is sent twice, since it then contradicts itself."""
    try:
        return header(scope, name)
    except BadHeader as error:
        raise BadEnvelope(HEADER_MISMATCH, str(error)) from None


def decode_header(value: str | None) -> str | None:
    """Returns a routing header's text; `=?base64?…?=` encodes text that is not plain ASCII. Returns None for invalid base64."""
    if value is None or not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        raw = base64.b64decode(value[9:-2], validate=True)
        return raw.decode("utf-8") if base64.b64encode(raw).decode() == value[9:-2] else None
    except (binascii.Error, UnicodeDecodeError):
        return None
