"""Builds the body of an error: `error.data` for A2A and MCP, problem details (RFC 9457) for /api. Each names the trace of its request."""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.ingress.http.asgi import Header, Send, respond
from gateway.ingress.http.errors import ErrorReport, describe
from gateway.telemetry.spans import current_trace_id

PROBLEM_MEDIA_TYPE = b"application/problem+json"
A2A_DOMAIN = "a2a-protocol.org"
OUR_DOMAIN = "interlock"


def a2a_details(said: ErrorReport) -> list[dict[str, Any]]:
    """Returns `error.data` of A2A 1.0 (s9.5): google.rpc details."""
    row = said.mapping
    info: dict[str, Any] = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": row.a2a_reason or row.reason_id.upper().replace("-", "_"),
        "domain": A2A_DOMAIN if row.a2a_reason else OUR_DOMAIN,
    }
    if metadata := _info_metadata(said):
        info["metadata"] = metadata
    if said.field:
        violation = {"field": said.field, "description": said.problem}
        return [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}, info]
    if said.retry_after:
        return [info, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{said.retry_after}s"}]
    if said.decision is not None:
        return [info, {"@type": "interlock/decision", **said.decision}]
    return [info]


def _info_metadata(said: ErrorReport) -> dict[str, str]:
    """Returns `metadata` of an ErrorInfo, a map of strings: trace id, upstream failure, blocking task and decision."""
    metadata = trace_data()
    if said.failure:
        metadata["failure"] = said.failure
    if said.task_id:
        metadata["taskId"] = said.task_id
    if said.decision is not None:
        metadata |= {"decision_id": said.decision["id"], "reason_id": said.decision["reason_id"]}
    return metadata


def trace_data() -> dict[str, str]:
    """Returns the member `trace_id` of an error's data; empty outside a request."""
    trace_id = current_trace_id()
    return {"trace_id": trace_id} if trace_id else {}


def mcp_data(said: ErrorReport) -> dict[str, Any]:
    """Returns `error.data` for MCP clients."""
    data: dict[str, Any] = {"reason_id": said.mapping.reason_id, **trace_data()}
    if said.retry_after:
        data["retryAfter"] = said.retry_after  # seconds
    if said.failure:
        data["failure"] = said.failure
    if said.task_id:
        data["taskId"] = said.task_id
    if said.decision is not None:
        data |= {"decision_id": said.decision["id"], **said.decision}
    if said.approval is not None:
        data["approval"] = said.approval
    return data


async def respond_problem(send: Send, error: Exception, headers: Iterable[Header] = ()) -> None:
    """Answers with the problem document of an error, and with Retry-After where the error has one."""
    said = describe(error)
    retry: list[Header] = [(b"retry-after", str(said.retry_after).encode())] if said.retry_after else []
    await respond(send, said.mapping.status, msgspec.json.encode(problem(said)), [*retry, *headers], PROBLEM_MEDIA_TYPE)


def problem(said: ErrorReport, trace_id: str = "") -> dict[str, Any]:
    """Returns the problem details (RFC 9457) of an error of /api. `trace_id` is for a request that was refused before its trace began."""
    decision = said.decision or {}
    return {
        "type": "about:blank",
        "title": said.mapping.reason_id.replace("-", " ").capitalize(),
        "status": said.mapping.status,
        "detail": said.detail,
        "reason_id": decision.get("reason_id", said.mapping.reason_id),
        "decision_id": decision.get("id", ""),
        "task_id": decision.get("task_id", said.task_id),
        **({"trace_id": trace} if (trace := current_trace_id() or trace_id) else {}),
        **({"decision": decision} if decision else {}),
        **({"approval": said.approval} if said.approval else {}),
    }
