"""One JSON-RPC message of a client, as the endpoint received it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from msgspec import Struct

from adapters.mcp_client.wire.messages import CAPABILITIES_KEY, INVALID_PARAMS, LEVEL_KEY
from gateway.ingress.http.asgi import Scope
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.sessions import McpSession
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller

MODES = ("all", "search")  # values of the query parameter `mode`
VIRTUAL_PREFIX = "virtual/"  # of a path below /mcp that names a virtual server


class ResponseReceived(Exception):
    """The message is a response, which clients of the legacy era send to requests of a server."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__("an answer")
        self.document = document


class BatchReceived(Exception):
    """The body is a batch of messages."""

    def __init__(self, items: list[Any]) -> None:
        super().__init__("a batch")
        self.items = items


class ClientMessage(Struct, frozen=True):
    """A message of a client.

    `id` is None for a notification. `resource` is the path of the request. `session` is set in the legacy era, if the client has one.
    """

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
    is_rewritten: bool = False  # the call comes from call_tool or through a virtual server's override, so no Mcp-Param header matches it
    original_params: Any = None  # the client's parameters, where a virtual server changed them

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """Returns the capabilities that the client declared in the request, or when it opened its session."""
        if self.is_modern:
            declared: Mapping[str, Any] = self.params["_meta"][CAPABILITIES_KEY]
            return declared
        return self.session.capabilities if self.session is not None else {}

    @property
    def version(self) -> str:
        """Returns the revision of the client's session; empty without one, as in 2026-07-28."""
        return self.session.version if self.session is not None else ""

    @property
    def may_be_in_search_mode(self) -> bool:
        """Returns whether the query turns on the search mode, or a virtual server may."""
        return self.server_path.startswith(VIRTUAL_PREFIX) or modes_in_query(self.scope) == ["search"]

    def params_object(self) -> dict[str, Any]:
        """Returns the parameters. Raises BadEnvelope unless they and `_meta` are objects."""
        params = self.params if self.params is not None else {}
        if not isinstance(params, dict) or not isinstance(params.get("_meta", {}), dict):
            raise BadEnvelope(INVALID_PARAMS, "params and params._meta must be objects")
        return params

    def string_param(self, name: str) -> str:
        """Returns a string parameter. Raises BadEnvelope."""
        value = self.params_object().get(name)
        if not isinstance(value, str):
            raise BadEnvelope(INVALID_PARAMS, f"params.{name} must be a string")
        return value


def parse_envelope(document: Any) -> tuple[Any, str, Any]:
    """Returns (id or None, method, params). Raises InvalidRequest, ResponseReceived and BatchReceived."""
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
    """Returns whether a modern client wants no notifications, can't be asked anything, and continues no earlier request."""
    meta = params["_meta"]
    return not meta[CAPABILITIES_KEY] and "progressToken" not in meta and LEVEL_KEY not in meta and "requestState" not in params


def check_mode(scope: Scope) -> None:
    """Raises InvalidRequest where the `mode` of the address is not one of MODES, or stands twice."""
    modes = modes_in_query(scope)
    if modes and (len(modes) > 1 or modes[0] not in MODES):
        raise InvalidRequest(f"the address has a mode that is not known, or two; the modes are {' and '.join(MODES)}")


def modes_in_query(scope: Scope) -> list[str]:
    """Returns the values of the query parameter `mode`."""
    query = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1"), keep_blank_values=True).get("mode", []) if query else []
