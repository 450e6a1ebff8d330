"""One JSON-RPC message from a client, as the endpoint took it in."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from adapters.mcp_client.wire.messages import CAPABILITIES_KEY, INVALID_PARAMS, LEVEL_KEY
from gateway.calls.outgoing.upstreams import TraceContext
from gateway.ingress.http.asgi import Scope
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.sessions import McpSession
from policies.callers import Caller


class ResponseReceived(Exception):
    """The message is an answer, as a client of the initialize era gives it to what it was asked."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__("an answer")
        self.document = document


class BatchReceived(Exception):
    """The body has several messages."""

    def __init__(self, items: list[Any]) -> None:
        super().__init__("a batch")
        self.items = items


class ClientMessage(Struct, frozen=True):
    """`id` is None for a notification. `resource` is the path it came to; `session` is of the initialize era, where there is one."""

    caller: Caller
    server_path: str
    resource: str
    id: Any
    method: str
    params: Any
    raw: bytes
    is_modern: bool
    trace_context: TraceContext
    scope: Scope
    session: McpSession | None = None
    is_rewritten: bool = (
        False  # call_tool of the search mode names the tool, or a virtual server shows it otherwise: no header says anything
    )
    original_params: Any = None  # the parameters as the client wrote them, where a virtual server changed them

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """What its client declared: in the request itself, or when it opened its session."""
        if self.is_modern:
            declared: Mapping[str, Any] = self.params["_meta"][CAPABILITIES_KEY]
            return declared
        return self.session.capabilities if self.session is not None else {}

    @property
    def version(self) -> str:
        """The revision of its client's session; empty where there is none, as in 2026-07-28."""
        return self.session.version if self.session is not None else ""

    def params_object(self) -> dict[str, Any]:
        """The parameters, where they are an object with an object as `_meta`. Raises BadEnvelope."""
        params = self.params if self.params is not None else {}
        if not isinstance(params, dict) or not isinstance(params.get("_meta", {}), dict):
            raise BadEnvelope(INVALID_PARAMS, "params and params._meta must be objects")
        return params

    def string_param(self, name: str) -> str:
        """A parameter that has to be a text. Raises BadEnvelope."""
        value = self.params_object().get(name)
        if not isinstance(value, str):
            raise BadEnvelope(INVALID_PARAMS, f"params.{name} must be a string")
        return value


def parse_envelope(document: Any) -> tuple[Any, str, Any]:
    """(id or None, method, params). Raises InvalidRequest, Answered and Batched."""
    if not isinstance(document, dict) or document.get("jsonrpc") != "2.0" or not isinstance(document.get("method"), str):
        if isinstance(document, dict) and "method" not in document and ("result" in document) != ("error" in document):
            raise ResponseReceived(document)
        if isinstance(document, list):
            raise BatchReceived(document)
        raise InvalidRequest("one JSON-RPC 2.0 request object is expected")
    request_id = document.get("id")
    if "id" in document and (isinstance(request_id, bool) or not isinstance(request_id, str | int)):
        raise InvalidRequest("id must be a string or an integer")
    return request_id, document["method"], document.get("params")


def wants_only_result(params: dict[str, Any]) -> bool:
    """A modern request whose client wants nothing but the answer, can be asked nothing, and goes on with nothing."""
    meta = params["_meta"]
    return not meta[CAPABILITIES_KEY] and "progressToken" not in meta and LEVEL_KEY not in meta and "requestState" not in params
