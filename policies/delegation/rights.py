"""Rights of a person by their roles, and what those let them and their agents know of."""

from collections.abc import Iterable, Mapping

from policies.delegation.chain import Delegation
from policies.delegation.permissions import ALL, NONE, Permissions
from policies.delegation.rulings import SERVED, Act, Link


def rights_of(known: Mapping[str, Permissions], roles: Iterable[str]) -> Permissions:
    """What the roles permit, as far as they are known."""
    return Permissions(frozenset().union(*(known.get(role, NONE).patterns for role in roles)))


def visible(rights: Permissions, delegation: Delegation, act: Act) -> bool:
    """Whether the caller may know of the resource: a right of the person's touches it, or the acting agent's ceiling does."""
    family = act.permission.partition(":")[0]
    whole = f"{family}:{act.parent}" + (".*" if act.kind in SERVED else "")
    if rights.touches(whole):
        return True
    path = delegation.path
    return bool(path) and path[-1].ceiling != ALL and path[-1].ceiling.touches(whole)


def links(rights: Permissions, delegation: Delegation) -> tuple[Link, ...]:
    """Each agent of the chain, with what it could do at most for this person."""
    found: list[Link] = []
    held = rights.meet(delegation.scope)
    for hop in delegation.path:
        held = held.meet(hop.ceiling)
        found.append(Link(hop.agent, tuple(sorted(held.patterns))))
    return tuple(found)
