"""The extended card of an agent: the published card with only the skills that the caller may use (A2A 1.0 s3.1.11)."""

from collections.abc import Callable
from typing import Any

from gateway.calls.targets.front_door import FrontDoor
from policies.callers import Caller
from policies.delegation.permissions import parse_ceiling
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_invoking_agent
from registry.cards.card import Family, Registration, Skill
from registry.cards.server_card import with_card
from registry.names import FRONT_DOOR

PublishCardWithSkills = Callable[[Registration, Callable[[Skill], bool]], dict[str, Any]]


class ExtendedCards:
    """Builds extended cards. `publish` returns the signed card of an agent with the skills that a predicate selects."""

    def __init__(self, publish: PublishCardWithSkills, front_door: FrontDoor, could_allow: Callable[[Caller, Act], bool]) -> None:
        self._publish = publish
        self._front_door = front_door
        self._could_allow = could_allow

    def extended_card(self, registration: Registration, caller: Caller) -> dict[str, Any]:
        """Returns the extended card for a caller that may see the agent."""
        if registration.name == FRONT_DOOR:
            return self._publish(self._front_door.registration(registration.tenant, caller), lambda skill: True)
        name = registration.name
        if registration.family is Family.SERVER:
            ceiling = parse_ceiling(registration.ceiling)
            acts = {tool.name: act_of_calling_tool(name, tool.name) for tool in registration.tools}
            return self._publish(
                with_card(registration, with_tools=True),
                lambda skill: ceiling.covers(acts[skill.id].permission) and self._could_allow(caller, acts[skill.id]),
            )
        return self._publish(registration, lambda skill: self._could_allow(caller, act_of_invoking_agent(registration.name, skill.id)))
