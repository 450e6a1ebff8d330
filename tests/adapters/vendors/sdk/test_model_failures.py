"""A service's code for a failed turn has one ending, wherever in the error object it stands."""

from typing import Any

import pytest

from adapters.vendors.sdk.faults import BUSY, FAILED, TOO_MANY
from adapters.vendors.sdk.model_failures import AGENT_BUDGET, REFUSED, SPENT, TOO_LONG, WITHHELD, failure_in


@pytest.mark.parametrize(
    ("error", "reason", "kind", "rejected"),
    [
        ({"code": "insufficient_quota", "message": "m"}, SPENT, AGENT_BUDGET, False),
        ({"type": "billing_error", "message": "m"}, SPENT, AGENT_BUDGET, False),
        ({"code": 429, "type": "rate_limit_exceeded"}, TOO_MANY, BUSY, False),
        ({"code": "content_filter"}, WITHHELD, "", True),
        ({"code": "bio_policy"}, REFUSED, "", True),
        ({"code": "context_length_exceeded", "type": "invalid_request_error"}, TOO_LONG, "", False),
        ({"code": "another", "type": ["x"]}, FAILED, "", False),
        ("a text", FAILED, "", False),
        (None, FAILED, "", False),
    ],
)
def test_a_code_has_one_ending(error: Any, reason: str, kind: str, rejected: bool) -> None:
    failure = failure_in(error)
    assert (failure.reason, failure.kind, failure.rejected) == (reason, kind, rejected)
    assert failure.detail == str(error) and not failure.retryable
