"""Translates requests, results, notifications and questions between the eras of MCP."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.messages import (
    CAPABILITIES_KEY,
    CLIENT_INFO,
    LEVEL_KEY,
    LOG_LEVELS,
    META_PREFIX,
    MODERN,
    RESOURCE_NOT_FOUND,
    URL_REQUIRED,
    VERSION_KEY,
    McpRefused,
    McpRequest,
    Members,
    RequestId,
    WireError,
    encode,
    envelope_of,
    members_of,
)
from adapters.mcp_client.wire.peer import McpPeer

PROGRESS_KEY: Final = "progressToken"
_PROGRESS_HINT: Final = PROGRESS_KEY.encode()
_MODERN_META: Final = {
    VERSION_KEY: MODERN,
    CAPABILITIES_KEY: {},
    META_PREFIX + "clientInfo": CLIENT_INFO,
}
_MODERN_ONLY: Final = frozenset({*_MODERN_META, LEVEL_KEY})
_COMPLETE: Final = b'"complete"'
_INPUT_REQUIRED: Final = b'"input_required"'
_TASK_RESULT: Final = b'"task"'
_LEGACY_TASK_MEMBERS: Final = {"ttlMs": "ttl", "pollIntervalMs": "pollInterval"}
_CAPABILITIES_BY_METHOD: Final = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
_decode_text: Final = msgspec.json.Decoder(str).decode


def modern_params(params: Mapping[str, Any], peer: McpPeer | None = None, level: str = "") -> dict[str, Any]:
    """Parameters with the `_meta` of a modern request: the gateway's members, with the peer's capabilities, override existing ones."""
    meta = params.get("_meta")
    client_meta = members_of(meta) if isinstance(meta, Raw) else {}
    gateway_meta: dict[str, Any] = dict(_MODERN_META)
    if peer is not None:
        gateway_meta[CAPABILITIES_KEY] = peer.capabilities
    if level:
        gateway_meta[LEVEL_KEY] = level
    return {**params, "_meta": {**client_meta, **gateway_meta}}


def modern_body(request: McpRequest) -> bytes:
    """The envelope for a modern server: the client's own bytes if it is modern too."""
    if request.is_modern:
        return request.raw
    return envelope_of(request.id, request.method, modern_params(members_of(request.params), request.peer, _log_level(request)))


def _log_level(request: McpRequest) -> str:
    """The log level for a modern server: an older client that set none gets all logs."""
    return request.log_level or (LOG_LEVELS[0] if request.peer is not None else "")


def retry_body(request: McpRequest, number: int, answers: Mapping[str, Any]) -> bytes:
    """Repetition `number` of a request for a modern server, with `inputResponses` and `requestState` (MRTR)."""
    params = modern_params(members_of(request.params), request.peer, _log_level(request))
    return envelope_of(f"{request.id}/{number}", request.method, {**params, **answers})


def legacy_body(request: McpRequest, request_id: RequestId) -> bytes:
    """The envelope for a session of the legacy era, with a request id of that session, without the modern `_meta`.

    The request id also replaces the progress token, which two clients of a session may have chosen alike.
    """
    if not request.is_modern and (request.peer is None or _PROGRESS_HINT not in request.params):
        return envelope_of(request_id, request.method, Raw(request.params))
    return envelope_of(request_id, request.method, legacy_params(request, request_id))


def legacy_params(request: McpRequest, progress_token: RequestId | None = None) -> dict[str, Any]:
    """The parameters without modern `_meta` members. `progress_token` replaces the client's."""
    params: dict[str, Any] = dict(members_of(request.params))
    meta: dict[str, Any] = dict(members_of(params.pop("_meta", Raw(b"{}"))))
    meta = {name: value for name, value in meta.items() if name not in _MODERN_ONLY}
    if progress_token is not None and request.peer is not None and PROGRESS_KEY in meta:
        meta[PROGRESS_KEY] = progress_token
    return {**params, "_meta": meta} if meta else params


class NotificationWishes(Struct, frozen=True):
    """The notifications that a client wants: progress with its token, logs from `log_level` on (None: none; empty: all)."""

    progress_token: Raw | None
    log_level: str | None


def parse_wishes(request: McpRequest) -> NotificationWishes:
    meta: Members = {}
    if _PROGRESS_HINT in request.params or (request.is_modern and b"logLevel" in request.params):
        meta = members_of(members_of(request.params).get("_meta", Raw(b"{}")))
    if not request.is_modern:
        level = request.log_level
        return NotificationWishes(meta.get(PROGRESS_KEY), level if level and level in LOG_LEVELS else "")
    level = json_string(meta.get(LEVEL_KEY, Raw(b'""')))
    return NotificationWishes(meta.get(PROGRESS_KEY), level if level in LOG_LEVELS else None)


def translate_result(request: McpRequest, result: bytes, from_modern: bool) -> bytes:
    """A result of a server of one era (`from_modern`) for a client of the other. Raises McpRefused if it can't be translated."""
    if request.is_modern == from_modern:
        return result
    members: dict[str, Any] = dict(members_of(result))
    if request.is_modern:
        cached = {"ttlMs": 0, "cacheScope": "private"} if request.method == "resources/read" else {}
        return encode({**cached, **members, "resultType": "complete"})
    kind = members.pop("resultType", Raw(_COMPLETE))
    if bytes(kind) == _TASK_RESULT and "taskId" in members:  # SEP-2663, in the form of the 2025-11-25 experiment
        return encode({"task": {_LEGACY_TASK_MEMBERS.get(name, name): value for name, value in members.items() if name != "_meta"}})
    if bytes(kind) != _COMPLETE:
        raise McpRefused(-32603, "an unfinished result for a client of the legacy era")
    return encode({name: value for name, value in members.items() if name not in ("ttlMs", "cacheScope")})


def input_required_members(result: bytes | Raw) -> Members | None:
    """The members of an InputRequiredResult, or None for any other result."""
    if _INPUT_REQUIRED not in bytes(result):
        return None
    members = members_of(result)
    return members if bytes(members.get("resultType", Raw(b""))) == _INPUT_REQUIRED else None


def refusal_from(request: McpRequest, error: WireError, detail: str) -> McpRefused:
    """A server's JSON-RPC error in the client's era, with the members of `data` that the client needs to continue."""
    code, data, server_message = error.code, error.data, error.message
    if request.method == "resources/read" and code in (RESOURCE_NOT_FOUND, -32602):
        return McpRefused(-32602 if request.is_modern else RESOURCE_NOT_FOUND, detail, {"uri": request.name}, server_message)
    known = data if isinstance(data, dict) else {}
    for member, kind in (("requiredCapabilities", dict), ("elicitations", list)):
        if isinstance(known.get(member), kind):
            return McpRefused(code, detail, {member: known[member]}, server_message)
    if code in (RESOURCE_NOT_FOUND, URL_REQUIRED):
        return McpRefused(-32602 if code == RESOURCE_NOT_FOUND else -32603, detail, None, server_message, data)
    return McpRefused(code, detail, None, server_message, data)


def missing_capabilities(peer: McpPeer, method: str, params: Members) -> dict[str, Any] | None:
    """The capabilities that a question needs and the client did not declare; None if it has them, `{}` for an unknown method."""
    name = _CAPABILITIES_BY_METHOD.get(method)
    if name is None:
        return {}
    declared = peer.capabilities.get(name)
    if not isinstance(declared, Mapping):
        return {name: {}}
    if name == "elicitation":
        by_url = json_string(params.get("mode", Raw(b'"form"'))) == "url"
        if ("url" not in declared) if by_url else ("url" in declared and "form" not in declared):
            return {name: {"url" if by_url else "form": {}}}
    return None


def translate_question(modern_client: bool, modern_server: bool, method: str, params: Members) -> Raw:
    """The parameters of a server's question in the client's era: only in the older one, an elicitation by URL has an id."""
    members: dict[str, Any] = dict(params)
    if method == "elicitation/create" and json_string(params.get("mode", Raw(b'""'))) == "url":
        if modern_client and not modern_server:
            members.pop("elicitationId", None)
        elif modern_server and not modern_client:
            members.setdefault("elicitationId", secrets.token_urlsafe(16))
    return Raw(encode(members))


def json_string(text: Raw | bytes) -> str:
    """The text of a JSON string; empty for anything else."""
    try:
        return _decode_text(text)
    except msgspec.MsgspecError:
        return ""


def is_severe_enough(params: Members, level: str) -> bool:
    """Whether a log message reaches `level`; an empty level includes all."""
    message_level = json_string(params.get("level", Raw(b'""')))
    return not level or (message_level in LOG_LEVELS and LOG_LEVELS.index(message_level) >= LOG_LEVELS.index(level))


def decode_checked(text: Raw | bytes, reader: Callable[[bytes], Any]) -> Any:
    """Decodes JSON from a server with `reader`. Raises UpstreamFault."""
    try:
        return reader(bytes(text))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UpstreamFault("The server's message is not valid", type(error).__name__) from None
