"""MCP on the wire: JSON-RPC envelopes of both eras, checked answers, and what a server may be told and may refuse."""

import base64
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from adapters.contract import Failure, UpstreamFault
from adapters.mcp_client.wire.peer import McpPeer
from adapters.mcp_client.wire.reserved_meta import without_reserved_meta
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
INVALID_PARAMS: Final = -32602
META_PREFIX: Final = "io.modelcontextprotocol/"
VERSION_KEY: Final = META_PREFIX + "protocolVersion"
CAPABILITIES_KEY: Final = META_PREFIX + "clientCapabilities"
LEVEL_KEY: Final = META_PREFIX + "logLevel"
LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_PUBLIC_TEXTS: Final = {
    -32601: "The server does not offer this method",
    INVALID_PARAMS: "The server has no such thing, or does not take these arguments",
    -32603: "The server failed inside",
    RESOURCE_NOT_FOUND: "The server has no such resource",
    MISSING_CAPABILITY: "The server needs a capability that the client did not declare",
    URL_REQUIRED: "The server needs the person to visit an address first",
}
_NOT_RELAYED: Final = frozenset(  # codes that speak of the gateway's own request, or that the gateway itself gives
    {-32700, -32600, HEADER_MISMATCH, UNSUPPORTED_VERSION, *range(-32017, -32009)}
)
_HEADER_SAFE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")

RequestId = int | str
Members = dict[str, Raw]
encode: Final = msgspec.json.Encoder().encode
_decode_members: Final = msgspec.json.Decoder(Members).decode


class McpRefused(Exception):
    """The server answered with a JSON-RPC error. `public` is for clients: ours, or what adapters/mcp_client/redaction.py lets pass.

    `said` and `server_data` are what the server wrote, `detail` is for the log. `data` is what the client gets: `requiredCapabilities`,
    `elicitations` or the `uri` that was not found, without which it can't go on, or what the server adds to its error.
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
        """Whether the client can do something and make the request again."""
        return isinstance(self.data, dict) and not self.data.keys().isdisjoint(("requiredCapabilities", "elicitations", "uri"))


class BadAnswer(UpstreamFault):
    """The server's answer is no JSON-RPC answer to our request."""

    failure = Failure.INVALID


class HeadersDiffer(UpstreamFault):
    """The server's tool has other headers than the gateway knows (-32020): its list may have changed. Nothing was done for the call."""


@dataclass(frozen=True, slots=True)
class McpRequest:
    """A request to one server as the door took it in, with the upstream's own names already in `raw` and `params`.

    `raw` is the whole envelope and `params` its member (an object), both checked JSON; `modern` is the era of the door's client.
    `name` is what `Mcp-Name` says (tool, prompt, URI or task id; may be empty). `headers` may hold the client's `Mcp-Param-*` headers.
    Without a `peer` nothing but the answer is wanted. `session` names the front's session of the initialize era: it gets one of its own
    with a server of that era, which needs the same `peer.capabilities` at every request. `level` is the logging level that the client
    set there; a modern client says it in `params`.
    """

    id: RequestId
    name: str
    raw: bytes
    params: bytes
    is_modern: bool
    method: str = "tools/call"
    headers: Mapping[str, str] = field(default_factory=dict)
    peer: McpPeer | None = None
    client_session: str = ""
    log_level: str = ""


@dataclass(frozen=True, slots=True)
class McpAnswer:
    """`result`: the JSON object of the result in the era of the request, as the server wrote it where nothing had to change.

    `decision`: the one that allowed it, where people had to approve or an errand counted it; what comes after it goes on from there.
    """

    result: bytes
    decision_id: str = ""


@dataclass(frozen=True, slots=True)
class ClientNotification:
    """A notification of a client's session. With a `token` (JSON) it is progress, for the server whose question had that."""

    body: bytes
    progress_token: bytes = b""

    def is_for(self, expected_tokens: Container[bytes]) -> bool:
        return not self.progress_token or self.progress_token in expected_tokens


class WireError(Struct, frozen=True):
    code: int
    message: str = ""
    data: Any = None


class Envelope(Struct, frozen=True):
    """Any JSON-RPC message. An answer has no method, and either a result or an error."""

    jsonrpc: str
    id: RequestId | None = None
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: WireError | UnsetType = UNSET


_decode_envelope: Final = msgspec.json.Decoder(Envelope).decode


def read_envelope(body: bytes) -> Envelope:
    """One JSON-RPC 2.0 message of a server, without what only the gateway says. Raises BadAnswer for anything else."""
    try:
        body.decode("utf-8")  # msgspec would pass bad bytes through in a Raw
        envelope = _decode_envelope(without_reserved_meta(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer("The server's answer is not JSON-RPC", str(error)[:200]) from None
    if envelope.jsonrpc != "2.0":
        raise BadAnswer("The server's answer is not JSON-RPC", "not version 2.0")
    return envelope


def read_answer(body: bytes, answer_id: RequestId) -> Envelope:
    """The answer to the request `expected`: that id, and a result (an object) or an error, never both. Raises BadAnswer."""
    return check_answer(read_envelope(body), answer_id)


def check_answer(envelope: Envelope, answer_id: RequestId) -> Envelope:
    """See read_answer. An error may have the id null: the server did not get as far as the id."""
    if envelope.method is not UNSET or (envelope.result is UNSET) == (envelope.error is UNSET):
        raise BadAnswer("The server's answer is not JSON-RPC", "neither a result nor an error, or both")
    same = envelope.id == answer_id and type(envelope.id) is type(answer_id)
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


def members_of(text: bytes | Raw) -> Members:
    """The members of a JSON object, undecoded. Raises UpstreamFault for anything else."""
    try:
        return _decode_members(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UpstreamFault("The message can't be translated", str(error)[:200]) from None


def notification_of(method: str, params: Any = None) -> bytes:
    """A notification."""
    return encode({"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params}))


def reply_of(request_id: RequestId, result: Any) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def error_of(request_id: RequestId, code: int, message: str) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}})
