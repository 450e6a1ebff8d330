"""Faults for HTTP statuses of agents: a fixed public sentence, and the details for the log."""

from collections.abc import Mapping
from typing import Final

from adapters.contract import AgentFault, Failure
from adapters.upstream.retry_after import parse_retry_after

AGENT_BUSY: Final = "AGENT_BUSY"
AGENT_REFUSES: Final = "AGENT_REFUSES"
UPSTREAM: Final = "UPSTREAM"
SESSION_LOST: Final = "SESSION_LOST"  # the kind of a Failed: the agent no longer has the conversation
CREDENTIAL_REFUSED_TEXT: Final = "The agent refused the gateway's credential"
SESSION_BUSY_TEXT: Final = "The agent is busy with another turn of this conversation"
TOO_MANY_REQUESTS_TEXT: Final = "The agent accepts no more requests at the moment"
LOST_RESPONSE: Final = "previous_response_not_found"  # the code of a service that no longer has the response that a request continues
SESSION_LOST_TEXT: Final = "The agent no longer has this conversation"
UNKNOWN_RESOURCE_TEXT: Final = "The agent does not have the requested resource"
NOT_ACCEPTED_TEXT: Final = "The agent did not accept the request"
REDIRECTED_TEXT: Final = "The agent has moved: it answers with a redirect, which is not followed"
AGENT_FAILED_TEXT: Final = "The agent failed"
REFUSAL_TEXTS: Final = frozenset({CREDENTIAL_REFUSED_TEXT, REDIRECTED_TEXT, NOT_ACCEPTED_TEXT})  # the agent did nothing
DETAIL_MAX: Final = 500


def fault_for_status(status: int, headers: Mapping[str, str], body: bytes) -> AgentFault:
    """The fault for a status other than success. `headers` have lower-case names."""
    fault = _classify_status(status, headers, body)
    fault.failure = Failure.BUSY if fault.kind == AGENT_BUSY else None
    fault.had_no_effect = fault.retryable or fault.public in REFUSAL_TEXTS
    fault.is_callers_mistake = fault.public == NOT_ACCEPTED_TEXT
    return fault


def unsupported_content_fault(detail: str, public: str = NOT_ACCEPTED_TEXT) -> AgentFault:
    """The fault for a message that the adapter can't send."""
    fault = AgentFault(UPSTREAM, public, detail)
    fault.had_no_effect = fault.is_callers_mistake = True
    return fault


def _classify_status(status: int, headers: Mapping[str, str], body: bytes) -> AgentFault:
    detail = f"status {status}: {body[:DETAIL_MAX].decode('utf-8', 'replace')}"
    after = parse_retry_after(headers.get("retry-after", ""))
    if status in (401, 403):
        return AgentFault(AGENT_REFUSES, CREDENTIAL_REFUSED_TEXT, detail)
    if status in (409, 423):
        return AgentFault(AGENT_BUSY, SESSION_BUSY_TEXT, detail, True, after)
    if status == 429 or (status == 503 and after is not None):
        return AgentFault(AGENT_BUSY, TOO_MANY_REQUESTS_TEXT, detail, True, after)
    if 300 <= status < 400:
        return AgentFault(UPSTREAM, REDIRECTED_TEXT, detail)
    if status in (404, 410):
        return AgentFault(UPSTREAM, UNKNOWN_RESOURCE_TEXT, detail)
    if 400 <= status < 500:
        return AgentFault(UPSTREAM, NOT_ACCEPTED_TEXT, detail)
    return AgentFault(UPSTREAM, AGENT_FAILED_TEXT, detail)
