"""What a client of MCP is told when its request fails: one JSON-RPC error and its HTTP status, in the manner of its era."""

from dataclasses import dataclass
from typing import Any

from adapters.contract import InvalidAnswer, UpstreamFault
from adapters.mcp_client.wire.messages import McpRefused
from gateway.ingress.http.error_bodies import mcp_data, trace_data
from gateway.ingress.http.errors import ErrorReport, describe
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.sessions import UnknownSession

HTTP_STATUS = {-32601: 404, -32021: 400}  # of HTTP, for errors of servers that a client of 2026-07-28 gets; others ride on 200


@dataclass(frozen=True, slots=True)
class JsonRpcError:
    """`reason` is for figures and logs; `told` is what a door says of HTTP beside it."""

    status: int
    code: int
    message: str
    data: Any
    reason: str
    report: ErrorReport | None = None

    @property
    def error(self) -> dict[str, Any]:
        """The member `error` of the answer."""
        return {"code": self.code, "message": self.message} | ({"data": self.data} if self.data not in (None, {}) else {})


def json_rpc_error_of(error: BaseException, *, legacy: bool = False) -> JsonRpcError:
    """To a client of the initialize era 404 would mean that its session is gone, and what went wrong with a call rides on 200."""
    if isinstance(error, BadEnvelope):
        return JsonRpcError(200 if legacy else error.status, error.code, str(error), {**(error.data or {}), **trace_data()}, "bad-envelope")
    if isinstance(error, McpRefused):
        data = trace_data() if error.data is None else error.data  # what a server says there is the server's
        return JsonRpcError(200 if legacy else HTTP_STATUS.get(error.code, 200), error.code, error.public, data, "upstream")
    if isinstance(error, UnknownSession):
        return JsonRpcError(404, -32600, "there is no such session; initialize again", trace_data(), "unknown-session")
    if isinstance(error, InvalidAnswer):
        plain = UpstreamFault(error.public, error.detail, error.failure)  # the code of the other is one of A2A
        plain.address, plain.shows_cause, error = error.address, error.shows_cause, plain
    said = describe(error)  # type: ignore[arg-type]  # what is no Exception is told of as unexpected
    return JsonRpcError(said.mcp_status(legacy), said.mapping.jsonrpc_code, said.detail, mcp_data(said), said.mapping.reason_id, said)
