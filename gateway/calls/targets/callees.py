"""Finds the agent, server or front door that a call names, as far as the caller may know of it."""

from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.targets.front_door import FrontDoor
from policies.callers import Caller
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_invoking_agent
from registry.cards.card import KNOWN_STATUSES, Family, Registration, RegistrationStatus
from registry.cards.server_card import with_card
from registry.health.reachability import Absences
from registry.names import FRONT_DOOR
from registry.store import Registry, UnknownName


class Callees:
    """Finds callees by name. `absences` records requests for callees that are down."""

    def __init__(self, registry: Registry, authorizer: CallAuthorizer, front_door: FrontDoor, absences: Absences) -> None:
        self._registry = registry
        self._authorizer = authorizer
        self._front_door = front_door
        self._absences = absences

    def find(self, caller: Caller, name: str, family: Family) -> Registration:
        """Returns an agent or server that can be called, or the front door. A server can also be found as an agent.

        Raises UnknownName, and NotReachable for a callee that is down and that the caller may know of.
        """
        found = self.find_registered(caller, name, family)
        if found.status is RegistrationStatus.DOWN:
            self._check_visible(caller, found)
            raise self._absences.refuse(found)
        return found

    def find_visible(self, caller: Caller, agent: str) -> Registration:
        """Returns an agent that the caller may know of, even if it is down, for requests without a ruling. Raises UnknownName."""
        try:
            found = self.find_registered(caller, agent, Family.AGENT)
        except UnknownName:
            self._authorizer.can_see(caller, act_of_invoking_agent(agent))  # takes as long as for a hidden agent
            raise
        if agent != FRONT_DOOR:
            self._check_visible(caller, found)
        return found

    def find_registered(self, caller: Caller, name: str, family: Family) -> Registration:
        """Returns the registration, even if it is down or the caller may not know of it. Raises UnknownName."""
        if name == FRONT_DOOR and family is Family.AGENT:
            return self._front_door.registration(caller.principal.tenant)
        found = self._registry.find(caller.principal.tenant, name)
        if found.status not in KNOWN_STATUSES or found.family is Family.VIRTUAL:
            raise UnknownName(name)
        if family is Family.AGENT and found.family is Family.SERVER:
            return with_card(found)
        if found.family is not family:
            raise UnknownName(name)
        return found

    def _check_visible(self, caller: Caller, found: Registration) -> None:
        if not self._authorizer.can_see(caller, act_on(found)):
            raise UnknownName(found.name)


def act_on(found: Registration) -> Act:
    """Returns the act that decides whether a caller may know of an agent or server: to send it a message, or to call its tools."""
    return act_of_calling_tool(found.name, "*") if found.family is Family.SERVER else act_of_invoking_agent(found.name)
