"""What an agent's HTTP status means: a fixed sentence for everybody, and the details for the log."""

from collections.abc import Mapping
from typing import Final

from adapters.contract import AgentFault, Failure
from adapters.upstream.retry_after import retry_after

BUSY: Final = "AGENT_BUSY"
REFUSES: Final = "AGENT_REFUSES"
UPSTREAM: Final = "UPSTREAM"
SESSION_LOST: Final = "SESSION_LOST"  # the kind of a Failed: the agent no longer has the conversation
CREDENTIAL: Final = "The agent refuses the credential that the gateway shows it"
SESSION_BUSY: Final = "The agent is busy with another turn of this conversation"
TOO_MANY: Final = "The agent takes no more requests at the moment"
LOST: Final = "The agent no longer has this conversation"
UNKNOWN: Final = "The agent does not know what it was asked for"
NOT_TAKEN: Final = "The agent does not take the request"
MOVED: Final = "The agent has moved: it answers with a redirect, which is not followed"
FAILED: Final = "The agent failed"
DETAIL_MAX: Final = 500


def fault_of(status: int, headers: Mapping[str, str], body: bytes) -> AgentFault:
    """For an answer whose status is not of a success. `headers` have lower-case names."""
    fault = _fault_of(status, headers, body)
    fault.failure = Failure.BUSY if fault.kind == BUSY else None
    fault.undone = fault.retryable or fault.public in (CREDENTIAL, MOVED, NOT_TAKEN)
    fault.unfit = fault.public == NOT_TAKEN
    return fault


def not_taken(detail: str, public: str = NOT_TAKEN) -> AgentFault:
    """For a message that the adapter has no way to send."""
    fault = AgentFault(UPSTREAM, public, detail)
    fault.undone = fault.unfit = True
    return fault


def _fault_of(status: int, headers: Mapping[str, str], body: bytes) -> AgentFault:
    detail = f"status {status}: {body[:DETAIL_MAX].decode('utf-8', 'replace')}"
    after = retry_after(headers.get("retry-after", ""))
    if status in (401, 403):
        return AgentFault(REFUSES, CREDENTIAL, detail)
    if status in (409, 423):
        return AgentFault(BUSY, SESSION_BUSY, detail, True, after)
    if status == 429 or (status == 503 and after is not None):
        return AgentFault(BUSY, TOO_MANY, detail, True, after)
    if 300 <= status < 400:
        return AgentFault(UPSTREAM, MOVED, detail)
    if status in (404, 410):
        return AgentFault(UPSTREAM, UNKNOWN, detail)
    if 400 <= status < 500:
        return AgentFault(UPSTREAM, NOT_TAKEN, detail)
    return AgentFault(UPSTREAM, FAILED, detail)
