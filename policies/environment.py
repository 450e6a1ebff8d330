"""The sources that the authority depends on: verified claims, stored grants, and the current roles, ceilings and kills."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policies.delegation.kills import Kills
from policies.delegation.permissions import NO_PERMISSIONS, Permissions


class RolesNow(Protocol):
    """The current roles of a person: of development users from the settings, of others as their issuer vouched."""

    def __call__(self, issuer: str, subject: str, vouched: Sequence[str]) -> tuple[str, ...]: ...


class CeilingNow(Protocol):
    """The current ceiling of an agent; None when it may not act (unknown, pending, quarantined)."""

    def __call__(self, tenant: str, agent: str) -> Permissions | None: ...


class ClearanceNow(Protocol):
    """The current clearance of an agent: the highest sensitivity of data that it may receive."""

    def __call__(self, tenant: str, agent: str, /) -> int: ...


def _no_service(_name: str) -> Permissions:
    return NO_PERMISSIONS


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
