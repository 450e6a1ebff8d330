"""The sources that the authority depends on: verified claims, stored grants, and the current roles, ceilings and kills."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policies.delegation.chain import Delegation, Principal
from policies.delegation.kills import Kills
from policies.delegation.permissions import NO_PERMISSIONS, Permissions
from policies.delegation.rights import permissions_of_roles
from policies.delegation.run_as import SERVICE_ISSUER
from policies.tokens.claims import DEVELOPMENT_ISSUER


class RolesNow(Protocol):
    """The current roles of a person: of development users from the settings, of others as their issuer vouched."""

    def __call__(self, issuer: str, subject: str, vouched: Sequence[str]) -> tuple[str, ...]: ...


class CeilingNow(Protocol):
    """The current ceiling of an agent; None when it may not act (unknown, pending, quarantined)."""

    def __call__(self, tenant: str, agent: str) -> Permissions | None: ...


class MemoryNow(Protocol):
    """What an agent may do with memory, as its entry says now: none, read or write."""

    def __call__(self, tenant: str, agent: str, /) -> str: ...


class ClearanceNow(Protocol):
    """The current clearance of an agent: the highest sensitivity of data that it may receive."""

    def __call__(self, tenant: str, agent: str, /) -> int: ...


MEMORY_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "readMemory": ("read", "write"),
    "writeMemory": ("write",),
}  # action -> entries that allow it


def _no_service(_name: str) -> Permissions:
    return NO_PERMISSIONS


def _no_memory(_tenant: str, _agent: str) -> str:
    return "none"


@dataclass(frozen=True, slots=True)
class RulingEnvironment:
    """What rulings depend on beside policies: current roles, ceilings and clearances, kills, ids, and the clock (seconds).

    `is_fresh` tells whether the process's caches are up to date.
    """

    roles_now: RolesNow
    ceiling_now: CeilingNow
    role_permissions: Mapping[str, Permissions]
    new_id: Callable[[str], str]
    now: Callable[[], float]
    is_fresh: Callable[[], bool]
    clearance_now: ClearanceNow
    kills: Kills
    task_ttl: float = 0.0  # seconds for which a person's tasks may outlive the token
    service_ceiling: Callable[[str], Permissions] = _no_service  # of a service principal, as the settings have it
    run_ttl: float = 0.0  # the longest authority of a run of a workflow, in seconds
    roles_ttl: float = math.inf  # seconds for which roles count in a run that only a provider's token vouches for
    memory_now: MemoryNow = _no_memory

    def has_permission(self, principal: Principal, scope: Permissions, permission: str) -> bool:
        """Whether the roles of a person and the scope of their token cover a permission. Policies are not asked."""
        return scope.covers(permission) and permissions_of_roles(self.role_permissions, principal.roles).covers(permission)

    def missing_memory(self, delegation: Delegation, action: str) -> str:
        """What the entry of the acting agent lacks for an act on memory; empty for a person, and for other acts."""
        allowing = MEMORY_ACTIONS.get(action)
        if allowing is None or not delegation.path or self.memory_now(delegation.principal.tenant, delegation.actor) in allowing:
            return ""
        return f"memory: {allowing[0]} (agent {delegation.actor})"

    def roles_until(self, issuer: str) -> float:
        """Until when roles count that a person of this issuer has now. Those of development users and services are in the settings."""
        return math.inf if issuer in (DEVELOPMENT_ISSUER, SERVICE_ISSUER) else self.now() + self.roles_ttl
