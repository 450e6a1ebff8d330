"""Rulings for lists: one ruling stands for all acts of a class, which no policy tells apart, and for all people with equal rights."""

from collections.abc import Callable, Collection, Hashable
from typing import Any, Final, Protocol

from policies.cache import BoundedCache
from policies.delegation.chain import Delegation, Principal
from policies.delegation.kills import Kills
from policies.delegation.rulings import Act

CACHED_SECONDS: Final = 60.0
RuleAlone = Callable[[], tuple[bool, bool]]  # whether the act could be allowed, and whether that is certain: no policy failed


class ListedFor(Protocol):
    """The caller whom a list is made for (policies/callers.py)."""

    @property
    def principal(self) -> Principal: ...

    @property
    def delegation(self) -> Delegation: ...

    @property
    def expires(self) -> float: ...

    @property
    def ruling_key(self) -> str: ...


class Classes(Protocol):
    """What the current policies tell apart (ActClasses in policies/cedar/syntax.py)."""

    tells_people_apart: bool

    def class_of(self, act: Act, roles: Collection[str]) -> tuple[Any, ...] | None: ...


class ClassRulings:
    """Remembers whether acts of a class could be allowed, as far as policies decide. `clock` counts seconds."""

    def __init__(self, classes: Callable[[], Classes], kills: Kills, clock: Callable[[], float]) -> None:
        self._classes = classes
        self._kills = kills
        self._clock = clock
        self._known: BoundedCache[Hashable, bool] = BoundedCache(50_000, clock)
        self.clear = self._known.clear

    def rights_key(self, caller: ListedFor) -> Hashable:
        """A value that is equal for callers who may do the same, unless they are stopped or their token has expired.

        People with equal roles and scopes share it, unless a policy tells them apart; an agent that acts for a person has its own.
        """
        if caller.delegation.path or caller.delegation.task_id or self._classes().tells_people_apart:
            return caller.ruling_key
        return caller.principal.tenant, caller.principal.roles, caller.delegation.scope

    def could_allow(self, caller: ListedFor, act: Act, rule_alone: RuleAlone) -> bool:
        """Whether the act could be allowed. Scope, ceilings, kills and expiry are compared for each act; policies once for a class."""
        classes, delegation = self._classes(), caller.delegation
        act_class = classes.class_of(act, caller.principal.roles)
        if act_class is None or caller.expires <= self._clock() or self._kills.stops(delegation, act):
            return rule_alone()[0]
        if not delegation.scope.covers(act.permission) or not all(hop.ceiling.covers(act.permission) for hop in delegation.path):
            return False
        key = (classes, self.rights_key(caller), act_class)
        known = self._known.get(key)
        if known is None:
            known, is_certain = rule_alone()
            if is_certain:
                self._known.put(key, known, CACHED_SECONDS)
        return known
