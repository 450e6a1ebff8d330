"""Converts exceptions to JSON-RPC errors and their HTTP status, as the client's MCP era has them."""

from dataclasses import dataclass
from typing import Any

from adapters.contract import InvalidAnswer, UpstreamFault
from adapters.mcp_client.wire.messages import McpRefused
from adapters.mcp_client.wire.reserved_meta import RESERVED_PREFIX
from gateway.ingress.http.error_bodies import mcp_data, trace_data
from gateway.ingress.http.errors import ErrorReport, describe
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.sessions import UnknownSession
from gateway.telemetry.spans import current_trace_id

TRACE_KEY = RESERVED_PREFIX + "trace_id"  # in the data of a server's error, which may have a `trace_id` of its own
HTTP_STATUS = {-32601: 404, -32021: 400}  # HTTP status of servers' errors for clients of 2026-07-28; others have 200


@dataclass(frozen=True, slots=True)
class JsonRpcError:
    """An error as an MCP client gets it. `reason` is for metrics and logs; `report` has the HTTP headers."""

    status: int
    code: int
    message: str
    data: Any
    reason: str
    report: ErrorReport | None = None

    @property
    def error(self) -> dict[str, Any]:
        """Returns the member `error` of the answer."""
        return {"code": self.code, "message": self.message} | ({"data": self.data} if self.data not in (None, {}) else {})


def json_rpc_error_of(error: BaseException, *, legacy: bool = False) -> JsonRpcError:
    """Returns the JSON-RPC error of an exception.

    For a client of the legacy era 404 means that its session is gone, so errors of its calls have status 200.
    """
    if isinstance(error, BadEnvelope):
        return JsonRpcError(200 if legacy else error.status, error.code, str(error), _with_trace_id(error.data), "bad-envelope")
    if isinstance(error, McpRefused):
        data = _with_trace_id(error.data, is_servers=error.server_data is not None)
        return JsonRpcError(200 if legacy else HTTP_STATUS.get(error.code, 200), error.code, error.public, data, "upstream")
    if isinstance(error, UnknownSession):
        return JsonRpcError(404, -32600, "there is no such session; initialize again", trace_data(), "unknown-session")
    if isinstance(error, InvalidAnswer):
        plain = UpstreamFault(error.public, error.detail, error.failure)  # InvalidAnswer maps to a code of A2A
        plain.address, plain.shows_cause, error = error.address, error.shows_cause, plain
    report = describe(error)  # type: ignore[arg-type]  # a BaseException is reported as unexpected
    return JsonRpcError(
        report.mcp_status(legacy), report.mapping.jsonrpc_code, report.detail, mcp_data(report), report.mapping.reason_id, report
    )


def _with_trace_id(data: Any, *, is_servers: bool = False) -> Any:
    """Returns the data of an error with the trace id beside a server's own members.

    Data that is no object is returned unchanged; then only the response header names the trace.
    """
    if data is None:
        return trace_data()
    trace_id = current_trace_id()
    if not isinstance(data, dict) or not trace_id:
        return data
    return {**data, TRACE_KEY if is_servers or TRACE_KEY in data else "trace_id": trace_id}
