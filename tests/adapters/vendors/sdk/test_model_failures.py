"""A service's code for a failed turn has one ending, wherever in the error object it stands."""

from typing import Any

import pytest

from adapters.vendors.sdk.faults import AGENT_BUSY, AGENT_FAILED_TEXT, TOO_MANY_REQUESTS_TEXT
from adapters.vendors.sdk.model_failures import (
    AGENT_BUDGET,
    BUDGET_SPENT_TEXT,
    CONTENT_FILTERED_TEXT,
    CONVERSATION_TOO_LONG_TEXT,
    REFUSED_TEXT,
    failure_from_error,
)


@pytest.mark.parametrize(
    ("error", "reason", "kind", "rejected"),
    [
        ({"code": "insufficient_quota", "message": "m"}, BUDGET_SPENT_TEXT, AGENT_BUDGET, False),
        ({"type": "billing_error", "message": "m"}, BUDGET_SPENT_TEXT, AGENT_BUDGET, False),
        ({"code": 429, "type": "rate_limit_exceeded"}, TOO_MANY_REQUESTS_TEXT, AGENT_BUSY, False),
        ({"code": "content_filter"}, CONTENT_FILTERED_TEXT, "", True),
        ({"code": "bio_policy"}, REFUSED_TEXT, "", True),
        ({"code": "context_length_exceeded", "type": "invalid_request_error"}, CONVERSATION_TOO_LONG_TEXT, "", False),
        ({"code": "another", "type": ["x"]}, AGENT_FAILED_TEXT, "", False),
        ("a text", AGENT_FAILED_TEXT, "", False),
        (None, AGENT_FAILED_TEXT, "", False),
    ],
)
def test_a_code_has_one_ending(error: Any, reason: str, kind: str, rejected: bool) -> None:
    failure = failure_from_error(error)
    assert (failure.reason, failure.kind, failure.rejected) == (reason, kind, rejected)
    assert failure.detail == str(error) and not failure.retryable
