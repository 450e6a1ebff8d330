"""The MCP wire format: JSON-RPC envelopes of both eras, response checks, and requests and errors towards servers."""

import base64
import re
from collections.abc import Container, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from adapters.contract import Failure, UpstreamFault
from adapters.mcp_client.wire.peer import McpPeer
from adapters.mcp_client.wire.reserved_meta import ESCAPED_LETTER, RESERVED_NAME, without_reserved_meta
from adapters.version import VERSION

MODERN: Final = "2026-07-28"
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
CLIENT_INFO: Final = {"name": "interlock", "version": VERSION}
ACCEPT: Final = {"accept": "application/json, text/event-stream", "content-type": "application/json"}

HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
RESOURCE_NOT_FOUND: Final = -32002  # of the legacy era; -32602 in the modern one
URL_REQUIRED: Final = -32042  # 2025-11-25: repeat the request after an elicitation by URL
INVALID_PARAMS: Final = -32602
META_PREFIX: Final = "io.modelcontextprotocol/"
VERSION_KEY: Final = META_PREFIX + "protocolVersion"
CAPABILITIES_KEY: Final = META_PREFIX + "clientCapabilities"
LEVEL_KEY: Final = META_PREFIX + "logLevel"
LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_PUBLIC_TEXTS: Final = {
    -32601: "The server does not offer this method",
    INVALID_PARAMS: "The server does not have the requested item, or refused the arguments",
    -32603: "The server had an internal error",
    RESOURCE_NOT_FOUND: "The server has no such resource",
    MISSING_CAPABILITY: "The server needs a capability that the client did not declare",
    URL_REQUIRED: "The server requires the person to open a URL first",
}
_NOT_RELAYED: Final = frozenset(  # codes about the gateway's own request, or that the gateway uses itself
    {-32700, -32600, HEADER_MISMATCH, UNSUPPORTED_VERSION, *range(-32017, -32009)}
)
_OPENING_BRACE: Final = ord("{")
_HEADER_SAFE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")

RequestId = int | str
Members = dict[str, Raw]
encode: Final = msgspec.json.Encoder().encode
_decode_members: Final = msgspec.json.Decoder(Members).decode


class McpRefused(Exception):
    """The server responded with a JSON-RPC error. `public` is for clients: a fixed text, or the server's redacted one.

    `server_message` and `server_data` are the server's; `detail` is for the log. `data` is for the client: members that it needs to
    continue (`requiredCapabilities`, `elicitations`, the `uri` that was not found), or the server's redacted data.
    """

    def __init__(self, code: int, detail: str = "", data: Any = None, server_message: str = "", server_data: Any = None) -> None:
        self.code = -32603 if code in _NOT_RELAYED else code
        self.public = _PUBLIC_TEXTS.get(code, "The server refused the call")
        self.detail = detail
        self.data = data
        self.server_message = server_message
        self.server_data = server_data
        super().__init__(self.public)

    @property
    def has_next_step(self) -> bool:
        """Whether the client can act on the error and repeat the request."""
        return isinstance(self.data, dict) and not self.data.keys().isdisjoint(("requiredCapabilities", "elicitations", "uri"))


class BadAnswer(UpstreamFault):
    """The response is not a JSON-RPC response to the request."""

    failure = Failure.INVALID


class HeadersDiffer(UpstreamFault):
    """The server expects other tool headers than the gateway knows (-32020): its list may have changed. Nothing was done for the call."""


class McpRequest(Struct, frozen=True):
    """A request to one server as the gateway received it, with the upstream's names in `raw` and `params`.

    `is_modern` is the era of the gateway's client. `raw` is the whole envelope of a modern client, which modern servers get, and empty for
    a legacy client. `params` is the member of that name, an object. Both are checked JSON.
    `name` is the value of `Mcp-Name` (tool, prompt, URI or task id, or empty). `headers` may hold the client's `Mcp-Param-*` headers.
    Without a `peer` only the response is wanted. `client_session` is the client's session of the legacy era, which has its own session
    with such a server; it needs the same `peer.capabilities` in every request. `log_level` is the level set there; modern clients send it
    in `params`.
    """

    id: RequestId
    name: str
    raw: bytes
    params: bytes
    is_modern: bool
    method: str = "tools/call"
    headers: Mapping[str, str] = {}
    peer: McpPeer | None = None
    client_session: str = ""
    log_level: str = ""


class McpAnswer(Struct, frozen=True):
    """A result. `result` is its JSON object in the request's era, unchanged where no translation was needed.

    `decision_id`: the decision that allowed the request, where people approved or the transaction counted it; later acts continue it.
    """

    result: bytes
    decision_id: str = ""


def answer_with(request: McpRequest, result: Mapping[str, Any]) -> McpAnswer:
    """The answer of a tool that the gateway runs itself, in the era of the request."""
    return McpAnswer(encode({**result, "resultType": "complete"} if request.is_modern else result))


class ClientNotification(Struct, frozen=True):
    """A notification of a client's session. With a `progress_token` (JSON), only for the server whose question has that token."""

    body: bytes
    progress_token: bytes = b""

    def is_for(self, expected_tokens: Container[bytes]) -> bool:
        return not self.progress_token or self.progress_token in expected_tokens


class WireError(Struct, frozen=True):
    code: int
    message: str = ""
    data: Any = None


class Envelope(Struct, frozen=True):
    """Any JSON-RPC message. A response has no method, and either a result or an error."""

    jsonrpc: str
    id: RequestId | None = None
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: WireError | UnsetType = UNSET


_decode_envelope: Final = msgspec.json.Decoder(Envelope).decode


def read_envelope(body: bytes) -> Envelope:
    """Parses one JSON-RPC 2.0 message of a server, without reserved metadata. Raises BadAnswer."""
    try:
        body.decode("utf-8")  # msgspec would pass invalid UTF-8 through in a Raw
        # one character is searched first, since every message passes here
        if (b"_" in body and RESERVED_NAME in body) or (b"\\" in body and ESCAPED_LETTER.search(body)):
            body = without_reserved_meta(body)
        envelope = _decode_envelope(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer("The server's answer is not JSON-RPC", str(error)[:200]) from None
    if envelope.jsonrpc != "2.0":
        raise BadAnswer("The server's answer is not JSON-RPC", "not version 2.0")
    return envelope


def read_answer(body: bytes, answer_id: RequestId) -> Envelope:
    """Parses the response to the request `answer_id`: the same id, and either a result (an object) or an error. Raises BadAnswer."""
    return check_answer(read_envelope(body), answer_id)


def check_answer(envelope: Envelope, answer_id: RequestId) -> Envelope:
    """Checks a response, see read_answer. An error may have the id null, if the server could not read the id."""
    if envelope.method is not UNSET or (envelope.result is UNSET) == (envelope.error is UNSET):
        raise BadAnswer("The server's answer is not JSON-RPC", "neither a result nor an error, or both")
    same = envelope.id == answer_id and type(envelope.id) is type(answer_id)
    if not same and not (envelope.id is None and envelope.error is not UNSET):
        raise BadAnswer("The server answered another request", "the id differs")
    if envelope.result is not UNSET and memoryview(envelope.result)[0] != _OPENING_BRACE:
        raise BadAnswer("The server's answer is not a result", "the result is not an object")
    return envelope


def envelope_of(request_id: RequestId, method: str, params: Any) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def modern_headers(method: str, name: str = "") -> dict[str, str]:
    """The routing headers of 2026-07-28, which must match the body."""
    headers = {**ACCEPT, "mcp-protocol-version": MODERN, "mcp-method": method}
    if name:
        headers["mcp-name"] = header_text(name)
    return headers


def header_text(text: str) -> str:
    """A header value for `text`: in base64 where it has anything but visible ASCII, or looks like base64 already."""
    if _HEADER_SAFE.fullmatch(text) and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def members_of(text: bytes | Raw) -> Members:
    """The undecoded members of a JSON object. Raises UpstreamFault."""
    try:
        return _decode_members(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UpstreamFault("The message can't be translated", str(error)[:200]) from None


def notification_of(method: str, params: Any = None) -> bytes:
    """A JSON-RPC notification."""
    return encode({"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params}))


def reply_of(request_id: RequestId, result: Any) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def error_of(request_id: RequestId, code: int, message: str) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}})
