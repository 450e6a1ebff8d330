"""Rights of a person by their roles, and what those let them and their agents know of."""

from collections.abc import Iterable, Mapping

from policies.delegation.chain import Delegation
from policies.delegation.permissions import ALL_PERMISSIONS, NO_PERMISSIONS, Permissions
from policies.delegation.rulings import SERVER_KINDS, Act, ChainLink


def permissions_of_roles(role_permissions: Mapping[str, Permissions], roles: Iterable[str]) -> Permissions:
    """What the roles permit, as far as they are known."""
    return Permissions(frozenset().union(*(role_permissions.get(role, NO_PERMISSIONS).patterns for role in roles)))


def is_visible(user_permissions: Permissions, delegation: Delegation, act: Act) -> bool:
    """Whether the caller may know of the resource: a right of the person's touches it, or the acting agent's ceiling does."""
    family = act.permission.partition(":")[0]
    whole = f"{family}:{act.parent}" + (".*" if act.kind in SERVER_KINDS else "")
    if user_permissions.overlaps(whole):
        return True
    path = delegation.path
    return bool(path) and path[-1].ceiling != ALL_PERMISSIONS and path[-1].ceiling.overlaps(whole)


def chain_links(user_permissions: Permissions, delegation: Delegation) -> tuple[ChainLink, ...]:
    """Each agent of the chain, with what it could do at most for this person."""
    found: list[ChainLink] = []
    held = user_permissions.intersect(delegation.scope)
    for hop in delegation.path:
        held = held.intersect(hop.ceiling)
        found.append(ChainLink(hop.agent, tuple(sorted(held.patterns))))
    return tuple(found)
