"""When a `try` runs its tasks again, and after how long."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.workflows.dsl.constructs import Backoff, RetryPolicy

COUNT: Final = 3  # retries of a policy that names no limit: the DSL leaves it open, and without end is no answer
LONGEST: Final = 3_600_000  # milliseconds to which delays grow by themselves; a `delay` or `maxDelay` that is longer counts as it stands


def limit_of(policy: RetryPolicy) -> int:
    """How many retries a policy allows."""
    attempts, whole = policy.limit.attempt.count, policy.limit.duration
    if attempts is not None:
        return attempts
    return COUNT if whole is None else 1000


def delay_before(attempt: int, delay: int, backoff: Backoff | None) -> int:
    """Milliseconds before the retry number `attempt`, the first being 1, without jitter.

    A backoff may name `factor` (exponential, 2 by default), `increment` (linear, the delay by default) and `maxDelay`.
    """
    if backoff is None or backoff.constant is not None:
        return delay
    options: Mapping[str, Any] = backoff.exponential or backoff.linear or {}
    longest = _number(options, "maxDelay", max(delay, LONGEST))
    if backoff.linear is not None:
        return round(min(delay + _number(options, "increment", delay) * (attempt - 1), longest))
    return round(min(delay * _number(options, "factor", 2) ** min(attempt - 1, 60), longest))


def _number(options: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = options.get(name, otherwise)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else otherwise
