"""The gateway's own agent, `interlock`: routes each message to the registered agent that fits best and that the caller may use."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, select

from adapters.task import Message
from gateway.calls.limits.slices import Slices
from gateway.storage.database import Database
from gateway.storage.paging import with_index
from gateway.storage.tables import tasks
from policies.callers import Caller
from policies.delegation.rulings import Act, act_of_invoking_agent
from registry.cards.card import Family, Registration, RegistrationStatus, Skill
from registry.cards.reader import SKILLS_MAX, read_card
from registry.names import FRONT_DOOR
from registry.search.routing import Routes
from registry.store import Registry

ROUTE_SKILL = {
    "id": "route",
    "name": "Find the right agent",
    "description": "Hands a message to the registered agent whose skills fit it best, with the rights of the caller.",
    "tags": ["routing", "discovery"],
}
CARDS_MAX = 256  # registrations of the front door that are remembered, one for all callers with equal rights
LOOKS_AT_ONCE = 100  # agents without a ruling that are looked at as one item of a slice
CARD_DOCUMENT: dict[str, Any] = {
    "name": "Interlock",
    "description": "The front door of this gateway: say what you need, and the agent that does it gets your message.",
    "version": "1",
    "supportedInterfaces": [{"url": "http://localhost/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
    "capabilities": {"streaming": True},
    "defaultInputModes": ["text/plain", "application/json"],
    "defaultOutputModes": ["text/plain", "application/json"],
}


class NoAgentFits(Exception):
    """No agent that the caller may use has a skill that fits the message."""


class FrontDoor:
    """Chooses the agent for a message. The task and the decision belong to the chosen agent; the front door has no rights of its own."""

    def __init__(
        self,
        registry: Registry,
        database: Database,
        could_allow: Callable[[Caller, Act], bool],
        rights_of: Callable[[Caller], Hashable] = lambda _caller: None,
    ) -> None:
        """`rights_of` returns a value that is equal for callers who see the same agents, and changes with what they see; None: unknown."""
        self._rights_of = rights_of
        self._registrations: OrderedDict[tuple[int, Hashable], Registration] = OrderedDict()
        self._registry = registry
        self._routes = Routes(registry)
        self._database = database
        self._could_allow = could_allow

    async def route(self, text: str, caller: Caller, skill: str = "") -> str | None:
        """Returns the name of the agent that fits best among those that the caller may use, or None.

        An agent that is down is chosen only if no active agent fits. The agents are ruled on in the order of their rank until one is
        allowed. Other requests run between slices of rulings.
        """
        async for entry in Slices(self._routes.rank(caller.principal.tenant, text, skill)):
            if entry is not None and self._could_allow(caller, act_of_invoking_agent(entry.name)):
                return entry.name
        return None

    async def agent_for(self, caller: Caller, message: Message, skill: str = "") -> str:
        """Returns the agent that has the task or the conversation already, else the agent that fits best. Raises NoAgentFits."""
        known = await self._find_current_agent(caller, message)
        if known is None or not self._could_allow(caller, act_of_invoking_agent(known)):
            text = "\n".join(part.text for part in message.parts if part.text)
            known = await self.route(text, caller, skill)
        if known is None:
            raise NoAgentFits
        return known

    async def registration_for(self, caller: Caller) -> Registration:
        """Returns the front door with the skills of the agents that the caller may use, as many as a card may have.

        Other requests run between slices of rulings. The caller's token may expire meanwhile: the card is for all with equal rights.
        """
        rights = self._rights_of(caller)
        key = (self._registry.generation, rights)
        known = self._registrations.get(key) if rights is not None else None
        if known is None:
            known = self.registration(caller.principal.tenant, await self._list_skills(replace(caller, expires=math.inf)))
            if rights is not None:
                self._registrations[key] = known
                while len(self._registrations) > CARDS_MAX:
                    self._registrations.popitem(last=False)
        return known

    async def _list_skills(self, caller: Caller) -> list[dict[str, Any]]:
        """Returns the skills of the agents that the caller may use. Of several with one id, the first one."""
        skills: dict[str, dict[str, Any]] = {str(ROUTE_SKILL["id"]): ROUTE_SKILL}
        async for skill in Slices(self._skill_candidates(caller, skills)):
            if skill is not None:
                skills[skill.id] = {"id": skill.id, "name": skill.name, "description": skill.description, "tags": list(skill.tags)}
            if len(skills) == SKILLS_MAX:
                break
        return list(skills.values())

    def registration(self, tenant: str, skills: Sequence[Mapping[str, Any]] = (ROUTE_SKILL,)) -> Registration:
        """Returns the front door as a registered agent."""
        document = {**CARD_DOCUMENT, "skills": list(skills)}
        return Registration(
            tenant=tenant,
            name=FRONT_DOOR,
            family=Family.AGENT,
            kind="a2a",
            status=RegistrationStatus.ACTIVE,
            url="",
            owner="operator",
            ceiling=("*",),
            delegation="none",
            upstream={},
            facts={},
            client_id="",
            card=read_card(document),
            card_text="",
            tools=(),
            card_hash="",
            created=0,
            updated=0,
        )

    def _skill_candidates(self, caller: Caller, known: Mapping[str, object]) -> Iterator[Skill | None]:
        """Yields each skill of the active agents that the caller may use, and None after other rulings and some looks at agents.

        Agents are not ruled on if the ids of all of their skills are among the known ones.
        """
        for number, entry in enumerate(self._registry.list(caller.principal.tenant, Family.AGENT)):
            skills = [skill for skill in (entry.card.skills if entry.card else ()) if skill.id not in known]
            if not skills or entry.status is not RegistrationStatus.ACTIVE:
                if number % LOOKS_AT_ONCE == 0:
                    yield None
                continue
            if not self._could_allow(caller, act_of_invoking_agent(entry.name)):
                yield None
                continue
            for skill in skills:
                yield skill if self._could_allow(caller, act_of_invoking_agent(entry.name, skill.id)) else None

    async def _find_current_agent(self, caller: Caller, message: Message) -> str | None:
        """Returns the agent of the task that the message names, or of the last task in its conversation, if the caller owns it."""
        if not (message.task_id or message.context_id):
            return None
        of_caller = (tasks.c.tenant == caller.principal.tenant, tasks.c.owner == caller.principal.owner_key)
        named = tasks.c.id == message.task_id if message.task_id else tasks.c.context_id == message.context_id
        query = select(tasks.c.agent).where(*of_caller, named).order_by(tasks.c.id.desc()).limit(1)
        if not message.task_id:
            query = with_index(query, tasks, "tasks_context")

        def work(connection: Connection) -> str | None:
            return connection.execute(query).scalar()

        return await self._database.read(work)
