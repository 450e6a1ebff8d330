"""MCP on the wire: JSON-RPC envelopes of both eras, checked answers, and the crossing of a tool call from one era to the other."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from adapters.contract import UpstreamFault
from adapters.mcp_peer import Peer
from adapters.version import VERSION

MODERN: Final = "2026-07-28"
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
CLIENT_INFO: Final = {"name": "interlock", "version": VERSION}
ACCEPT: Final = {"accept": "application/json, text/event-stream", "content-type": "application/json"}

HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
RESOURCE_NOT_FOUND: Final = -32002  # of the initialize era; -32602 in the modern one
URL_REQUIRED: Final = -32042  # 2025-11-25: the request can be made again after an elicitation by URL
_META: Final = "io.modelcontextprotocol/"
_MODERN_META: Final = {
    _META + "protocolVersion": MODERN,
    _META + "clientCapabilities": {},
    _META + "clientInfo": CLIENT_INFO,
}
_MODERN_ONLY: Final = frozenset({*_MODERN_META, _META + "logLevel"})
_PUBLIC: Final = {
    -32601: "The server does not offer this method",
    -32602: "The server has no such thing, or does not take these arguments",
    -32603: "The server failed inside",
    RESOURCE_NOT_FOUND: "The server has no such resource",
    MISSING_CAPABILITY: "The server needs a capability that the client did not declare",
    URL_REQUIRED: "The server needs the person to visit an address first",
}
_HEADER_SAFE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")

RequestId = int | str
Members = dict[str, Raw]
encode: Final = msgspec.json.Encoder().encode
_members: Final = msgspec.json.Decoder(Members).decode


class McpRefused(Exception):
    """The server answered with a JSON-RPC error. `public` is ours: what the upstream wrote is in `detail`, for the log only.

    `data` is what the client needs to go on: `requiredCapabilities`, `elicitations` or the `uri` that was not found.
    """

    def __init__(self, code: int, detail: str = "", data: Mapping[str, Any] | None = None) -> None:
        self.code = code if code in _PUBLIC else -32603
        self.public = _PUBLIC.get(code, "The server refused the call")
        self.detail = detail
        self.data = data
        super().__init__(self.public)


class BadAnswer(UpstreamFault):
    """The server's answer is no JSON-RPC answer to our request."""


@dataclass(frozen=True, slots=True)
class McpRequest:
    """A request to one server as the door took it in, with the upstream's own names already in `raw` and `params`.

    `raw` is the whole envelope and `params` its member (an object), both checked JSON; `modern` is the era of the door's client.
    `name` is what `Mcp-Name` says (tool, prompt, URI or task id; may be empty). `headers` may hold the client's `Mcp-Param-*` headers.
    Without a `peer` nothing but the answer is wanted. `session` names the front's session of the initialize era: it gets one of its own
    with a server of that era, which needs the same `peer.capabilities` at every request.
    """

    id: RequestId
    name: str
    raw: bytes
    params: bytes
    modern: bool
    method: str = "tools/call"
    headers: Mapping[str, str] = field(default_factory=dict)
    peer: Peer | None = None
    session: str = ""


@dataclass(frozen=True, slots=True)
class McpAnswer:
    """`result`: the JSON object of the result in the era of the request, as the server wrote it where nothing had to change."""

    result: bytes


class WireError(Struct, frozen=True):
    code: int
    message: str = ""
    data: Any = None


class Envelope(Struct, frozen=True):
    """Any JSON-RPC message. An answer has no method, and either a result or an error."""

    jsonrpc: str
    id: RequestId | None = None
    method: str | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: WireError | UnsetType = UNSET


_envelope: Final = msgspec.json.Decoder(Envelope).decode


def read_envelope(body: bytes) -> Envelope:
    """One JSON-RPC 2.0 message. Raises BadAnswer for anything else."""
    try:
        body.decode("utf-8")  # msgspec would pass bad bytes through in a Raw
        envelope = _envelope(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer("The server's answer is not JSON-RPC", str(error)[:200]) from None
    if envelope.jsonrpc != "2.0":
        raise BadAnswer("The server's answer is not JSON-RPC", "not version 2.0")
    return envelope


def read_answer(body: bytes, expected: RequestId) -> Envelope:
    """The answer to the request `expected`: that id, and a result (an object) or an error, never both. Raises BadAnswer."""
    return check_answer(read_envelope(body), expected)


def check_answer(envelope: Envelope, expected: RequestId) -> Envelope:
    """See read_answer. An error may have the id null: the server did not get as far as the id."""
    if envelope.method is not UNSET or (envelope.result is UNSET) == (envelope.error is UNSET):
        raise BadAnswer("The server's answer is not JSON-RPC", "neither a result nor an error, or both")
    same = envelope.id == expected and type(envelope.id) is type(expected)
    if not same and not (envelope.id is None and envelope.error is not UNSET):
        raise BadAnswer("The server answered another request", "the id differs")
    if envelope.result is not UNSET and bytes(memoryview(envelope.result)[:1]) != b"{":
        raise BadAnswer("The server's answer is not a result", "the result is not an object")
    return envelope


def envelope_of(request_id: RequestId, method: str, params: Any) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def modern_headers(method: str, name: str = "") -> dict[str, str]:
    """The routing headers of 2026-07-28, which must say the same as the body."""
    headers = {**ACCEPT, "mcp-protocol-version": MODERN, "mcp-method": method}
    if name:
        headers["mcp-name"] = header_text(name)
    return headers


def header_text(text: str) -> str:
    """`text` as a header value; in base64 where it has anything but visible ASCII, or looks like base64 already."""
    if _HEADER_SAFE.fullmatch(text) and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def modern_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the `_meta` that every modern request needs; ours wins over what was there."""
    meta = params.get("_meta")
    kept = _members(meta) if isinstance(meta, Raw) else {}
    return {**params, "_meta": {**kept, **_MODERN_META}}


def modern_body(request: McpRequest) -> bytes:
    """The envelope for a modern server: the client's own bytes when it is modern too."""
    if request.modern:
        return request.raw
    return envelope_of(request.id, request.method, modern_params(_object(request.params)))


def legacy_body(request: McpRequest, request_id: RequestId) -> bytes:
    """The envelope for a session of the `initialize` era, under an id of that session, without the modern `_meta`."""
    if not request.modern:
        return envelope_of(request_id, request.method, Raw(request.params))
    return envelope_of(request_id, request.method, plain_params(request))


def plain_params(request: McpRequest) -> dict[str, Any]:
    """The parameters without what only the modern envelope has."""
    params = _object(request.params)
    meta = {name: value for name, value in _object(params.pop("_meta", Raw(b"{}"))).items() if name not in _MODERN_ONLY}
    return {**params, "_meta": meta} if meta else dict(params)


def result_for(request: McpRequest, result: bytes, modern: bool) -> bytes:
    """A result of a server of one era (`modern`) for a client of the other. Raises McpRefused when it can't cross."""
    if request.modern == modern:
        return result
    members: dict[str, Any] = dict(_object(result))
    if request.modern:
        return encode({**members, "resultType": "complete"})
    kind = members.pop("resultType", Raw(b'"complete"'))
    if bytes(kind) != b'"complete"':
        raise McpRefused(-32603, "an unfinished result for a client of the initialize era")
    return encode({name: value for name, value in members.items() if name not in ("ttlMs", "cacheScope")})


def _object(text: bytes | Raw) -> Members:
    try:
        return _members(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UpstreamFault("The message can't be translated", str(error)[:200]) from None
