"""A delegation: the person, and what remains of the person's authority after each agent in the chain."""

import math
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from policies.delegation.permissions import ALL_PERMISSIONS, Permissions

DEPTH_MAX = 4


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified user: a person of one tenant, authenticated by one issuer. `roles` are the current ones, not those of the token."""

    tenant: str
    issuer: str
    subject: str
    roles: tuple[str, ...] = ()

    @property
    def owner_key(self) -> str:
        """The owner key of everything that this person owns: the same subject of another issuer is another person."""
        return f"{self.tenant}|{self.issuer}|{self.subject}"


class Hop(Struct, frozen=True):
    """One agent of a chain and the ceiling that its operator set; unlimited by default."""

    agent: str
    ceiling: Permissions = ALL_PERMISSIONS


class CannotNarrow(Exception):
    """The next hop is refused, although the policies allow the act; `reason_id` says why."""

    def __init__(self, reason_id: str, missing: str = "") -> None:
        super().__init__(reason_id)
        self.reason_id = reason_id
        self.missing = missing


class Delegation(Struct, frozen=True):
    """The authority that the last agent of `path` acts with; with an empty path, the person's own.

    `scope` is what the token and later requests for less leave. `not_after` and `deadline` are seconds since 1970. `grant_id`, `task_id`
    and `txn` are empty for a person's own call, which has no row. `deadline` is the end of the turn that the authority is used in: calls
    made during the turn end by then.
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
    roles_until: float = math.inf  # seconds since 1970: until then the roles count that the person's issuer vouched for

    @property
    def actor(self) -> str:
        """The acting agent, or the empty string for the person."""
        return self.path[-1].agent if self.path else ""

    def with_principal(self, principal: Principal) -> "Delegation":
        """A copy with the current roles of the same person."""
        return replace(self, principal=principal)

    def with_ceilings(self, ceilings: "tuple[Permissions, ...]") -> "Delegation":
        """A copy under the current ceilings, which only narrow it. `ceilings` has one per hop of `path`."""
        hops = tuple(Hop(hop.agent, hop.ceiling.intersect(ceiling)) for hop, ceiling in zip(self.path, ceilings, strict=True))
        return replace(self, path=hops)

    def effective_permissions(self) -> Permissions:
        """The permissions that scope and ceilings leave. The person's own permissions are ruled on separately."""
        held = self.scope
        for hop in self.path:
            held = held.intersect(hop.ceiling)
        return held

    def narrow_scope(self, requested: Permissions) -> "Delegation":
        """A copy with a smaller scope. Raises CannotNarrow for a permission that the delegation does not have: nothing is trimmed."""
        if not requested.patterns or not requested.is_within(self.effective_permissions()):
            excess = [p for p in sorted(requested.patterns) if not self.effective_permissions().covers(p)]
            raise CannotNarrow("scope-exceeds-held", " ".join(excess))
        return replace(self, scope=self.scope.intersect(requested))

    def within(self, ceiling: Permissions) -> "Delegation":
        """A copy under the current ceiling of a service principal, which only narrows it."""
        return replace(self, scope=self.scope.intersect(ceiling))

    def lasting_until(self, not_after: float, roles_until: float) -> "Delegation":
        """A copy that does not end with the person's token: the authority of a run of a workflow.

        The roles count until `roles_until`, or until an earlier moment that this delegation already has.
        """
        return replace(self, not_after=not_after, roles_until=min(self.roles_until, roles_until))

    def with_deadline(self, deadline: float) -> "Delegation":
        """A copy for a turn that ends at `deadline`."""
        return replace(self, deadline=deadline)

    def with_ids(self, grant_id: str, task_id: str, txn: str) -> "Delegation":
        """A copy with the ids of its grant row, task and transaction."""
        return replace(self, grant_id=grant_id, task_id=task_id, txn=txn)

    def without_actor(self, agent: str) -> "Delegation":
        """A copy without the last hop if that is `agent`, so that the same agent can be called again with no more authority."""
        return replace(self, path=self.path[:-1]) if agent and self.actor == agent else self

    def narrow(self, agent: str, ceiling: Permissions, requested: Permissions, not_after: float) -> "Delegation":
        """The delegation for `agent`: an intersection, so never more than this one. Every child delegation is made here.

        Raises CannotNarrow for a loop or a chain that would be too long.
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
