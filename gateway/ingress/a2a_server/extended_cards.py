"""The extended card of an agent: the published card with only the skills that the caller may use (A2A 1.0 s3.1.11)."""

from collections.abc import Callable
from typing import Any

from gateway.calls.limits.slices import Slices
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

    async def extended_card(self, registration: Registration, caller: Caller) -> dict[str, Any]:
        """Returns the extended card for a caller that may see the agent. Other requests run between slices of rulings."""
        if registration.name == FRONT_DOOR:
            return self._publish(await self._front_door.registration_for(caller), lambda skill: True)
        name = registration.name
        if registration.family is Family.SERVER:
            ceiling = parse_ceiling(registration.ceiling)
            acts = [(tool.name, act_of_calling_tool(name, tool.name)) for tool in registration.tools]
            acts = [(tool, act) for tool, act in acts if ceiling.covers(act.permission)]
            shown = with_card(registration, with_tools=True)
        else:
            skills = registration.card.skills if registration.card else ()
            acts, shown = [(skill.id, act_of_invoking_agent(name, skill.id)) for skill in skills], registration
        usable = {skill async for skill, act in Slices(acts) if self._could_allow(caller, act)}
        return self._publish(shown, lambda skill: skill.id in usable)
