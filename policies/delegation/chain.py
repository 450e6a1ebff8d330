"""A delegation: what is left of a person's authority after each agent it went through."""

import math

from msgspec import Struct
from msgspec.structs import replace

from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.delegation.principal import Principal

DEPTH_MAX = 4


class Hop(Struct, frozen=True):
    """One agent of a chain and the ceiling its operator set (no limit of its own by default)."""

    agent: str
    ceiling: Permissions = ALL_PERMISSIONS


class CannotNarrow(Exception):
    """The next hop is refused before any policy is asked; `reason_id` says why."""

    def __init__(self, reason_id: str, missing: str = "") -> None:
        super().__init__(reason_id)
        self.reason_id = reason_id
        self.missing = missing


class Delegation(Struct, frozen=True):
    """The authority that the last agent of `path` acts with; an empty path is the person themselves.

    `scope` is what the token and every request for less have left; `not_after` is in seconds since 1970.
    `grant_id`, `task_id` and `txn` are empty for a person's own call, which no row stands for yet. `deadline`, in seconds since 1970 too,
    is when the turn ends that it is acted in: nothing that is begun in a turn has more time than that has left.
    """

    principal: Principal
    scope: Permissions
    not_after: float
    path: tuple[Hop, ...] = ()
    depth_max: int = DEPTH_MAX
    txn: str = ""
    grant_id: str = ""
    task_id: str = ""
    deadline: float = math.inf

    @property
    def actor(self) -> str:
        """The agent that acts now, or the empty string for the person."""
        return self.path[-1].agent if self.path else ""

    def with_principal(self, principal: Principal) -> "Delegation":
        """The same authority of the same person, with the roles of today."""
        return replace(self, principal=principal)

    def with_ceilings(self, ceilings: "tuple[Permissions, ...]") -> "Delegation":
        """The same authority under the ceilings of today, which only ever take away. One per hop of `path`."""
        hops = tuple(Hop(hop.agent, hop.ceiling.intersect(ceiling)) for hop, ceiling in zip(self.path, ceilings, strict=True))
        return replace(self, path=hops)

    def effective_permissions(self) -> Permissions:
        """What scope and ceilings leave; the person's own rights are ruled on beside it."""
        held = self.scope
        for hop in self.path:
            held = held.intersect(hop.ceiling)
        return held

    def narrow_scope(self, requested: Permissions) -> "Delegation":
        """The same authority asked for with less. Asking for what is not held refuses: nothing is trimmed or defaulted."""
        if not requested.patterns or not requested.is_within(self.effective_permissions()):
            excess = [p for p in sorted(requested.patterns) if not self.effective_permissions().covers(p)]
            raise CannotNarrow("scope-exceeds-held", " ".join(excess))
        return replace(self, scope=self.scope.intersect(requested))

    def with_deadline(self, deadline: float) -> "Delegation":
        """The same authority in a turn that ends then."""
        return replace(self, deadline=deadline)

    def with_ids(self, grant_id: str, task_id: str, txn: str) -> "Delegation":
        """The same authority under the grant row that stands for it."""
        return replace(self, grant_id=grant_id, task_id=task_id, txn=txn)

    def without_actor(self, agent: str) -> "Delegation":
        """What the last agent, if it is this one, can be handed anew: no more than it has."""
        return replace(self, path=self.path[:-1]) if agent and self.actor == agent else self

    def narrow(self, agent: str, ceiling: Permissions, requested: Permissions, not_after: float) -> "Delegation":
        """The authority handed to `agent`: an intersection, so never more than this one. The only way to make a child.

        Raises CannotNarrow for a loop or a chain that gets too long.
        """
        if any(hop.agent == agent for hop in self.path):
            raise CannotNarrow("loop")
        if len(self.path) >= self.depth_max:
            raise CannotNarrow("too-deep")
        return replace(
            self,
            scope=self.scope.intersect(requested),
            path=(*self.path, Hop(agent, ceiling)),
            not_after=min(self.not_after, not_after),
            grant_id="",
        )
