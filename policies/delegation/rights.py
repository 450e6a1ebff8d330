"""Permissions of a person by their roles, and the resources that those make visible to them and their agents."""

from collections.abc import Iterable, Mapping

from policies.delegation.chain import Delegation
from policies.delegation.permissions import ALL_PERMISSIONS, NO_PERMISSIONS, Permissions
from policies.delegation.rulings import SERVER_KINDS, STATE_ACTIONS, Act, ChainLink

MEMORY_KIND = "Memory"  # everybody may know that people and workflows have one


def permissions_of_roles(role_permissions: Mapping[str, Permissions], roles: Iterable[str]) -> Permissions:
    """The union of the permissions of all known roles."""
    return Permissions(frozenset().union(*(role_permissions.get(role, NO_PERMISSIONS).patterns for role in roles)))


def is_visible(user_permissions: Permissions, delegation: Delegation, act: Act) -> bool:
    """Whether the caller may know of the resource: a permission of the person, or the acting agent's ceiling, concerns it."""
    if act.action in STATE_ACTIONS or act.kind == MEMORY_KIND:  # the caller names it, and a refusal does not say whether it has a value
        return True
    family = act.permission.partition(":")[0]
    pattern = f"{family}:{act.parent}" + (".*" if act.kind in SERVER_KINDS else "")
    if user_permissions.overlaps(pattern):
        return True
    path = delegation.path
    return bool(path) and path[-1].ceiling != ALL_PERMISSIONS and path[-1].ceiling.overlaps(pattern)


def chain_links(user_permissions: Permissions, delegation: Delegation) -> tuple[ChainLink, ...]:
    """Each agent of the chain, with the most that it could do for this person."""
    found: list[ChainLink] = []
    held = user_permissions.intersect(delegation.scope)
    for hop in delegation.path:
        held = held.intersect(hop.ceiling)
        found.append(ChainLink(hop.agent, tuple(sorted(held.patterns))))
    return tuple(found)
