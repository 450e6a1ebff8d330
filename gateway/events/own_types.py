"""The types of events that only the gateway itself sends, and the names that are kept for them."""

import re
from collections.abc import Iterable
from typing import Final

OWN_SOURCE: Final = "urn:interlock:gateway"
TASK_ENDED: Final = "interlock.task.ended.v1"
RUN_ENDED: Final = "interlock.run.ended.v1"
RUN_WAITING: Final = "interlock.run.waiting.v1"
REGISTRY_CHANGED: Final = "interlock.registry.changed.v1"
KILL_SET: Final = "interlock.kill.set.v1"
KILL_LIFTED: Final = "interlock.kill.lifted.v1"
STATE_CHANGED: Final = "interlock.state.changed.v1"
CLAIM_CHANGED: Final = "interlock.claim.changed.v1"
_CHECKPOINT: Final = ("opened", "escalated", "answered", "expired", "relaxed", "withdrawn")
NOTICE_TYPES: Final = frozenset(  # told by the notices of gateway/tasks/notices too
    ("interlock.approval.requested.v1", "interlock.approval.decided.v1", *(f"interlock.checkpoint.{what}.v1" for what in _CHECKPOINT))
)
OWN_TYPES: Final = NOTICE_TYPES | {
    *(TASK_ENDED, RUN_ENDED, RUN_WAITING, REGISTRY_CHANGED),
    *(KILL_SET, KILL_LIFTED, STATE_CHANGED, CLAIM_CHANGED),
}
OWN_NAME: Final = "interlock"
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")


def is_reserved(kind: str) -> bool:
    """Whether only the gateway may send events of a type: its first word is `interlock`, in any case and before any separator."""
    words = [word for word in _SEPARATORS.split(kind.casefold()) if word]
    return bool(words) and words[0] == OWN_NAME


def matches_type(pattern: str, kind: str) -> bool:
    """Whether a type is the one of a pattern, or begins as a pattern does that ends in `*`."""
    return kind.startswith(pattern[:-1]) if pattern.endswith("*") else kind == pattern


def own_types_of(patterns: Iterable[str]) -> frozenset[str]:
    """The types of the gateway's own events that patterns name. `*` alone names those of others only."""
    named = [pattern for pattern in patterns if is_reserved(pattern)]
    return frozenset(kind for kind in OWN_TYPES if any(matches_type(pattern, kind) for pattern in named))


def is_wanted(patterns: Iterable[str], kind: str) -> bool:
    """Whether patterns name a type. Those of the gateway's own are never meant by a pattern such as `*` or `inter*`."""
    is_own = kind in OWN_TYPES
    return any(matches_type(pattern, kind) and (not is_own or is_reserved(pattern)) for pattern in patterns)
