"""The registry as callers may see and change it. What they may not see is, in every answer, what does not exist."""

import re
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.calls.authorizer import InPerson
from gateway.ingress.admin.demand import demand
from gateway.ingress.http.empty_lists import EmptyLists
from gateway.registration.requests import BadRequest, Registrant
from gateway.storage.paging import BadCursor
from gateway.tasks.log import rfc3339
from policies.cache import BoundedCache
from policies.callers import Caller
from policies.delegation.administration import REGISTER
from policies.delegation.kills import Kills
from policies.delegation.rulings import Act, Grant, calling, getting, invoking, reading
from registry.cards.card import Family, Registration, Status
from registry.changes import Deed
from registry.search import Search, Wanted
from registry.store import Registry, UnknownName

_CURSOR = re.compile(r"(?:([0-9]{1,3})\.)?([a-z0-9-]{1,64})")  # relevance, where it was searched by words, and name
MOST = 100  # relevance
SEEN_MAX, SEEN_SECONDS = 50_000, 60.0
May = Callable[[Caller, Act], bool]
Allowed = Callable[[Caller, Act], Awaitable[Grant]]


def registering(verb: str, family: Family, name: str) -> Act:
    """An act of administration on one entry; whether it is allowed does not depend on which."""
    kind = family.value.capitalize() if name else REGISTER.kind
    return Act(REGISTER.action, kind, name or REGISTER.resource, REGISTER.permission, REGISTER.parent, verb)


@dataclass(frozen=True, slots=True)
class Ruling:
    """Whom the desk asks: `may` leaves no trace, `allowed` keeps its decision and raises Refused."""

    may: May
    allowed: Allowed
    check_in_person: InPerson
    generation: Callable[[], Hashable]  # differs whenever `may` could answer otherwise; None: nothing that was answered counts


class Desk:
    """An operator is whoever may write the registry."""

    def __init__(self, registry: Registry, ruling: Ruling, search: Search, kills: Kills, *, empty: EmptyLists) -> None:
        self._registry = registry
        self._empty = empty
        self._may = ruling.may
        self._allowed = ruling.allowed
        self._check_in_person = ruling.check_in_person
        self._generation = ruling.generation
        self._seen: BoundedCache[tuple[Hashable, ...], bool] = BoundedCache(SEEN_MAX, time.monotonic)
        self._search = search
        self._kills = kills

    async def registrant(self, caller: Caller, family: Family, name: str) -> Registrant:
        """A person may offer; a token that was narrowed to other things may not be used for it. `name` may be empty. Raises Refused."""
        await self._check_in_person(caller, registering("register", family, name))
        operator, deed, grant = self.operator(caller), Deed("register", caller.principal.owner), None
        if operator or not caller.delegation.held().covers(REGISTER.permission):
            grant = await self.granted(caller, registering("register", family, name))
            deed = deed_of(grant)
        return Registrant(caller.principal.tenant, caller.principal.owner, operator, deed, grant)

    def find(self, caller: Caller, family: Family, name: str) -> Registration:
        """Raises UnknownName."""
        found = self._registry.find(caller.principal.tenant, name)
        if found.family is not family or not self.sees(caller, found):
            raise UnknownName(name)
        return found

    def page(self, caller: Caller, family: Family, cursor: str, limit: int) -> tuple[Sequence[Registration], str | None]:
        """Entries after the name `cursor`, and the cursor of the next page. Raises BadCursor."""
        after = _position(cursor)[1]
        page: list[Registration] = []
        for entry in self._registry.list(caller.principal.tenant, family):
            if entry.name > after and self.sees(caller, entry):
                if len(page) == limit:
                    return page, page[-1].name
                page.append(entry)
        return page, None

    async def empty_reason(self, caller: Caller, family: Family, listed: Sequence[Registration]) -> dict[str, Any]:
        """The member `empty` of a list that has nothing in it because of the caller's token; no member of any other."""
        if listed:
            return {}

        def candidates(other: Caller) -> Iterator[Registration | None]:
            return (entry if self.sees(other, entry) else None for entry in self._registry.list(other.principal.tenant, family))

        reason = await self._empty.reason(caller, f"/api/{family.value}s", candidates)
        return {"empty": reason} if reason else {}

    async def found(self, caller: Caller, wanted: Wanted, cursor: str, limit: int) -> tuple[Sequence[Registration], str | None]:
        """Agents that fit, the best first, after `cursor`. Raises BadCursor."""
        after = _position(cursor)
        page: list[tuple[int, Registration]] = []
        for score, entry in await self._search.found(caller.principal.tenant, wanted):
            if (-score, entry.name) > after and self.sees(caller, entry):
                if len(page) == limit:
                    return [one for _, one in page], f"{page[-1][0]}.{page[-1][1].name}"
                page.append((score, entry))
        return [one for _, one in page], None

    def known(self, caller: Caller) -> list[Registration]:
        """All that the caller may know of."""
        return [entry for entry in self._registry.list(caller.principal.tenant) if self.sees(caller, entry)]

    async def visible(self, caller: Caller, wanted: Wanted) -> list[tuple[int, Registration]]:
        """(relevance, agent) of all that fit and may be seen, the best first."""
        scored = await self._search.found(caller.principal.tenant, wanted)
        return [(score, entry) for score, entry in scored if self.sees(caller, entry)]

    async def remove(self, caller: Caller, family: Family, name: str) -> None:
        """By operators, and by the person who registered it. Raises UnknownName, Refused and BadRequest."""
        found = self.find(caller, family, name)
        deed = await self.demand_control(caller, found, "remove")
        check_changeable(found)
        await self._registry.remove(found.tenant, name, deed)

    async def renew_secret(self, caller: Caller, family: Family, name: str) -> str:
        """Raises UnknownName, Refused, Outdated."""
        found = self.find(caller, family, name)
        return await self._registry.renew_secret(found.tenant, name, await self.demand_control(caller, found, "renew-secret"))

    def shown(self, caller: Caller, entry: Registration) -> dict[str, Any]:
        """What agents and servers have in common. Who registered an entry, and its client id, is for them and operators."""
        shown: dict[str, Any] = {"name": entry.name, "kind": entry.kind, "status": entry.status.value, "url": entry.url}
        shown |= {"delegation": entry.delegation, "ceiling": list(entry.ceiling), "clearance": entry.clearance}
        if self._kills.find(entry.tenant, "agent" if entry.family is Family.AGENT else "server", entry.name) is not None:
            shown["killed"] = True
        if self.controls(caller, entry):
            shown |= {"owner": entry.owner, "client_id": entry.client_id}
        return shown | {"created": rfc3339(entry.created), "updated": rfc3339(entry.updated)}

    def tools(self, caller: Caller, entry: Registration) -> list[str]:
        """The names of the tools of a server that a caller may know."""
        whole = self.controls(caller, entry)
        return [tool.name for tool in entry.tools if whole or self._may(caller, calling(entry.name, tool.name))]

    def prompts(self, caller: Caller, entry: Registration) -> list[str]:
        """The names of the prompts of a server that a caller may know."""
        whole = self.controls(caller, entry)
        return [prompt.name for prompt in entry.prompts if whole or self._may(caller, getting(entry.name, prompt.name))]

    def reads(self, caller: Caller, entry: Registration) -> bool:
        """Whether they may read a server's resources."""
        return self.controls(caller, entry) or self._may(caller, reading(entry.name))

    def operator(self, caller: Caller) -> bool:
        return self._may(caller, REGISTER)

    def controls(self, caller: Caller, entry: Registration) -> bool:
        """Whether they may know all of it: operators, and who registered it."""
        return self.operator(caller) or _owns(caller, entry)

    def sees(self, caller: Caller, entry: Registration) -> bool:
        """Whether they may know of it at all.

        Remembered: a server that shows a caller none of its many tools would take longer to be not found than one that is not there.
        """
        generation = self._generation()
        key = (caller.key, entry.tenant, entry.name, self._registry.generation, generation)
        known = self._seen.get(key) if generation is not None else None
        if known is None:
            known = self._looks(caller, entry)
            self._seen.put(key, known, SEEN_SECONDS)
        return known

    def _looks(self, caller: Caller, entry: Registration) -> bool:
        if self.controls(caller, entry):
            return True
        if entry.status not in (Status.ACTIVE, Status.DOWN):
            return False
        if entry.family is Family.AGENT:
            return self._may(caller, invoking(entry.name))
        if entry.selection is not None:
            touched = (one for one in self._registry.list(entry.tenant) if one.selection is None and entry.selection.touches(one.name))
            return any(self.sees(caller, one) for one in touched)
        return bool(self.tools(caller, entry) or self.prompts(caller, entry)) or self._may(caller, reading(entry.name))

    async def demand_control(self, caller: Caller, entry: Registration, verb: str) -> Deed:
        """An operator, or the very person who registered it with a token that was not narrowed to other things. Raises Refused."""
        if not (_owns(caller, entry) and caller.delegation.held().covers(REGISTER.permission)) or self.operator(caller):
            return await self.demand(caller, registering(verb, entry.family, entry.name))
        return Deed(verb, caller.principal.owner)

    async def demand(self, caller: Caller, act: Act) -> Deed:
        """As `granted`."""
        return deed_of(await self.granted(caller, act))

    async def granted(self, caller: Caller, act: Act) -> Grant:
        """Refuses with an explanation: whoever comes here knows of the entry. Raises Refused."""
        return await demand(caller, self._allowed, act)


def check_changeable(entry: Registration) -> None:
    """The gateway's own servers are as its settings say. Raises BadRequest."""
    if not entry.client_id:
        raise BadRequest("name", f"is {entry.name}, the gateway's own: settings say whether it is there, policies who may call it")


def _position(cursor: str) -> tuple[int, str]:
    """Where a page begins, in the order of lists. Raises BadCursor."""
    if not cursor:
        return -MOST - 1, ""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise BadCursor
    return -int(found[1] or MOST), found[2]


def deed_of(grant: Grant) -> Deed:
    return Deed(grant.decision.act.verb, grant.delegation.principal.owner, grant.decision.id)


def _owns(caller: Caller, entry: Registration) -> bool:
    """The person, not an agent on an errand of theirs."""
    return not caller.delegation.path and entry.owner == caller.principal.owner
