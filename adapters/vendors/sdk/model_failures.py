"""Endings for services that run models: which codes mean an exhausted budget, a refusal, or a withheld or truncated answer."""

from typing import Any, Final

from adapters.contract import Failed
from adapters.task import Message
from adapters.vendors.sdk.faults import (
    AGENT_BUSY,
    AGENT_FAILED_TEXT,
    LOST_RESPONSE,
    SESSION_LOST,
    SESSION_LOST_TEXT,
    TOO_MANY_REQUESTS_TEXT,
)

AGENT_BUDGET: Final = "AGENT_BUDGET"  # the kind of a Failed: the agent's owner has to raise the limit
BUDGET_SPENT_TEXT: Final = "The agent's spending limit is reached"
REFUSED_TEXT: Final = "The agent refuses to do this"
CONTENT_FILTERED_TEXT: Final = "A content filter of the agent withheld the answer"
INCOMPLETE_TEXT: Final = "The agent's answer is incomplete"
CONVERSATION_TOO_LONG_TEXT: Final = "The conversation is too long for the agent's model"
UNSUPPORTED_ACTION_TEXT: Final = "The agent requires an action that the gateway can't perform"

BUDGET_CODES: Final = frozenset(
    {
        "billing_error",
        "billing_not_active",
        "budget_reached",
        "credit_balance_exhausted",
        "insufficient_quota",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
        "session_budget_exceeded",
        "usage_limit_exceeded",
    }
)
REFUSAL_CODES: Final = frozenset(
    {"bio_policy", "cyber_policy", "image_content_policy_violation", "misalignment_policy_violation", "refusal"}
)
FILTER_CODES: Final = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})
BUSY_CODES: Final = frozenset({"flex_unavailable", "rate_limit_exceeded", "server_overloaded"})
LENGTH_CODES: Final = frozenset({"length", "max_messages", "max_output_tokens", "max_tokens", "model_length"})


def failure_for_code(code: str | None, detail: str, explanation: Message | None = None) -> Failed:
    """The ending for a service's error code. `explanation`: the agent's own words on a refusal."""
    if code in BUDGET_CODES:
        return Failed(BUDGET_SPENT_TEXT, detail=detail, kind=AGENT_BUDGET)
    if code in REFUSAL_CODES:
        return Failed(REFUSED_TEXT, explanation, rejected=True, detail=detail)
    if code in FILTER_CODES:
        return Failed(CONTENT_FILTERED_TEXT, rejected=True, detail=detail)
    if code in BUSY_CODES:
        return Failed(TOO_MANY_REQUESTS_TEXT, detail=detail, kind=AGENT_BUSY)  # not retryable: tools may have run before
    if code in LENGTH_CODES:
        return Failed(INCOMPLETE_TEXT, detail=detail)
    if code == LOST_RESPONSE:
        return Failed(SESSION_LOST_TEXT, detail=detail, kind=SESSION_LOST, retryable=True)
    if code == "context_length_exceeded":
        return Failed(CONVERSATION_TOO_LONG_TEXT, detail=detail)
    return Failed(AGENT_FAILED_TEXT, detail=detail)


def failure_from_error(error: Any) -> Failed:
    """The ending for an error object (`{"code", "message", …}` or `{"type", "message", …}`), or for any other value."""
    members = error if isinstance(error, dict) else {}
    codes = [members[name] for name in ("code", "type") if isinstance(members.get(name), str)]
    known = (each for each in codes if failure_for_code(each, "").reason != AGENT_FAILED_TEXT)
    return failure_for_code(next(known, None), str(error))
