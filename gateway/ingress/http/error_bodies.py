"""Builds the body of an error: `error.data` for A2A and MCP, problem details (RFC 9457) for /api. Each names the trace of its request."""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.ingress.http.asgi import Header, Send, respond
from gateway.ingress.http.errors import ErrorReport, describe
from gateway.telemetry.spans import current_trace_id

PROBLEM_MEDIA_TYPE = b"application/problem+json"
A2A_DOMAIN = "a2a-protocol.org"
TRACE_HEADER = b"interlock-trace-id"
OUR_DOMAIN = "interlock"


def a2a_details(report: ErrorReport) -> list[dict[str, Any]]:
    """Returns `error.data` of A2A 1.0 (s9.5): google.rpc details."""
    row = report.mapping
    info: dict[str, Any] = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": row.a2a_reason or row.reason_id.upper().replace("-", "_"),
        "domain": A2A_DOMAIN if row.a2a_reason else OUR_DOMAIN,
    }
    if metadata := _info_metadata(report):
        info["metadata"] = metadata
    if report.field:
        violation = {"field": report.field, "description": report.problem}
        return [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}, info]
    if report.retry_after:
        return [info, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{report.retry_after}s"}]
    if report.decision is not None:
        return [info, {"@type": "interlock/decision", **report.decision}]
    return [info]


def _info_metadata(report: ErrorReport) -> dict[str, str]:
    """Returns `metadata` of an ErrorInfo, a map of strings: trace id, upstream failure, blocking task and decision."""
    metadata = trace_data()
    if report.failure:
        metadata["failure"] = report.failure
    if report.task_id:
        metadata["taskId"] = report.task_id
    if report.decision is not None:
        metadata |= {"decision_id": report.decision["id"], "reason_id": report.decision["reason_id"]}
    return metadata


def trace_data() -> dict[str, str]:
    """Returns the member `trace_id` of an error's data; empty outside a request."""
    trace_id = current_trace_id()
    return {"trace_id": trace_id} if trace_id else {}


def trace_headers() -> list[Header]:
    """Returns the response header that names the trace, for answers whose body may not; empty outside a request."""
    trace_id = current_trace_id()
    return [(TRACE_HEADER, trace_id.encode())] if trace_id else []


def mcp_data(report: ErrorReport) -> dict[str, Any]:
    """Returns `error.data` for MCP clients."""
    data: dict[str, Any] = {"reason_id": report.mapping.reason_id, **trace_data()}
    if report.retry_after:
        data["retryAfter"] = report.retry_after  # seconds
    if report.failure:
        data["failure"] = report.failure
    if report.task_id:
        data["taskId"] = report.task_id
    if report.decision is not None:
        data |= {"decision_id": report.decision["id"], **report.decision}
    if report.approval is not None:
        data["approval"] = report.approval
    return data


async def respond_problem(send: Send, error: Exception, headers: Iterable[Header] = ()) -> None:
    """Answers with the problem document of an error, and with Retry-After where the error has one."""
    report = describe(error)
    retry: list[Header] = [(b"retry-after", str(report.retry_after).encode())] if report.retry_after else []
    await respond(send, report.mapping.status, msgspec.json.encode(problem(report)), [*retry, *headers], PROBLEM_MEDIA_TYPE)


def problem(report: ErrorReport, trace_id: str = "") -> dict[str, Any]:
    """Returns the problem details (RFC 9457) of an error of /api. `trace_id` is for a request that was refused before its trace began."""
    decision = report.decision or {}
    return {
        "type": "about:blank",
        "title": report.mapping.reason_id.replace("-", " ").capitalize(),
        "status": report.mapping.status,
        "detail": report.detail,
        "reason_id": decision.get("reason_id", report.mapping.reason_id),
        "decision_id": decision.get("id", ""),
        "task_id": decision.get("task_id", report.task_id),
        **({"field": report.field} if report.field else {}),
        **({"trace_id": trace} if (trace := current_trace_id() or trace_id) else {}),
        **({"decision": decision} if decision else {}),
        **({"approval": report.approval} if report.approval else {}),
    }
