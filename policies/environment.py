"""What the authority asks others: who a token stands for, what a grant says, and how things are at this moment."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policies.delegation.chain import Delegation
from policies.delegation.kills import Kills
from policies.delegation.permissions import Permissions
from policies.tokens.verifier import Claims


class ClaimsSource(Protocol):
    """policies/tokens/verifier.py."""

    def find_cached(self, token: str, audiences: Collection[str]) -> Claims | None: ...

    async def verify(self, token: str, audiences: Collection[str]) -> Claims: ...


class GrantRows(Protocol):
    """policies/delegation/grants.py."""

    async def find(self, tenant: str, grant_id: str) -> Delegation: ...

    def invalidate(self, tenant: str = "", grant_id: str = "") -> None: ...


class RolesNow(Protocol):
    """The roles of a person as of this moment: of development users from the settings, of others as their issuer vouched."""

    def __call__(self, issuer: str, subject: str, vouched: Sequence[str]) -> tuple[str, ...]: ...


class CeilingNow(Protocol):
    """An agent's ceiling as of this moment; None when it may not act at all (unknown, pending, quarantined)."""

    def __call__(self, tenant: str, agent: str) -> Permissions | None: ...


class ClearanceNow(Protocol):
    """The most sensitive that an agent may be told, as of this moment."""

    def __call__(self, tenant: str, agent: str, /) -> int: ...


@dataclass(frozen=True, slots=True)
class RulingEnvironment:
    """What the authority asks others: roles and ceilings of today, ids, the clock (seconds), what is stopped, and whether caches may be
    believed.
    """

    roles_now: RolesNow
    ceiling_now: CeilingNow
    role_permissions: Mapping[str, Permissions]
    new_id: Callable[[str], str]
    now: Callable[[], float]
    is_fresh: Callable[[], bool]
    clearance_now: ClearanceNow
    kills: Kills
    task_ttl: float = 0.0  # seconds that what a person begins may go on for, though their token expires before
