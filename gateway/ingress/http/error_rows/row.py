"""The type of a row in the table of errors: what an exception is in each protocol."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorMapping:
    """How each protocol reports one class of exceptions.

    `status` is the HTTP status. `public_text` is what callers read; when it is empty, they read the exception's own message.
    `rpc_code_override` names a google.rpc code; when it is empty, the code follows from `status`. `keeps_http_status`: an A2A answer over
    JSON-RPC has `status` too, where it has 200 otherwise. `is_mcp_http_200`: an MCP answer has status 200, since the upstream failed and
    not the request.
    """

    status: int
    jsonrpc_code: int
    reason_id: str
    public_text: str = ""
    a2a_reason: str = ""  # the ErrorInfo reason, where A2A 1.0 s5.4 names the error
    rpc_code_override: str = ""
    keeps_http_status: bool = False
    is_mcp_http_200: bool = False

    @property
    def rpc_code(self) -> str:
        return self.rpc_code_override or RPC_CODES.get(self.status, "UNKNOWN")


FAILED_PRECONDITION = "FAILED_PRECONDITION"
RPC_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    421: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    431: "INVALID_ARGUMENT",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
}
UNEXPECTED_ERROR = ErrorMapping(
    500, -32603, "internal", "The gateway failed; its log has the details under the trace id.", keeps_http_status=True
)
