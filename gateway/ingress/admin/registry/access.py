"""The registry as callers may see and change it. An entry that a caller may not see is answered like one that does not exist."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.calls.authorizer import RequireInPerson
from gateway.calls.limits.slices import Slices
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.admin.registry.preconditions import check_if_match
from gateway.ingress.admin.registry.visibility import CouldAllow, EntryVisibility, is_owner
from gateway.ingress.http.empty_lists import EmptyListReasons
from gateway.registration.requests import BadRequest, Registrant
from gateway.storage.paging import BadCursor
from gateway.tasks.log import to_rfc3339
from policies.authority import WRITE_REGISTRY
from policies.callers import Caller
from policies.delegation.kills import Kills
from policies.delegation.rulings import (
    Act,
    Grant,
    act_of_calling_tool,
    act_of_getting_prompt,
    act_of_reading_resource,
)
from registry.cards.card import WORKFLOW_KIND, Family, Registration, RegistrationStatus
from registry.changes import RegistryChange
from registry.search.agents import AgentSearch, Scored, SearchQuery, order_key
from registry.search.gradual_sort import GradualSort
from registry.store import Registry, UnknownName

_CURSOR_FORMAT = re.compile(r"(?:([0-9]{1,3})\.)?([a-z0-9-]{1,64})")  # relevance, for a search by words, and name
RELEVANCE_MAX = 100
Authorize = Callable[[Caller, Act], Awaitable[Grant]]
RemovalCheck = Callable[[], Awaitable[None]]


def act_of_registry_change(verb: str, family: Family, name: str) -> Act:
    """Returns the act of administration on one entry. Whether it is allowed does not depend on the entry."""
    kind = family.value.capitalize() if name else WRITE_REGISTRY.kind
    return Act(WRITE_REGISTRY.action, kind, name or WRITE_REGISTRY.resource, WRITE_REGISTRY.permission, WRITE_REGISTRY.parent, verb)


@dataclass(frozen=True, slots=True)
class RegistryPermissions:
    """The rulings that RegistryAccess needs. `could_allow` records nothing; `authorize` records its decision and raises CallRefused."""

    could_allow: CouldAllow
    authorize: Authorize
    check_in_person: RequireInPerson
    rulings_version: Callable[[], Hashable]  # changes whenever `could_allow` could; None: don't cache


Matches = Callable[[Registration], bool]


def match_all(_entry: Registration) -> bool:
    """The filter of a list of all entries."""
    return True


def is_callable(entry: Registration, kills: Kills) -> bool:
    """Returns whether an entry is active, and no operator has stopped it."""
    return entry.status is RegistrationStatus.ACTIVE and not _is_killed(kills, entry)


def _is_killed(kills: Kills, entry: Registration) -> bool:
    return kills.find(entry.tenant, "agent" if entry.family is Family.AGENT else "server", entry.name) is not None


EntryPage = tuple[Sequence[Registration], str | None]  # with the cursor of the next page


class RegistryAccess:
    """Reads and changes the registry on behalf of callers. An operator is a caller with registry:write."""

    def __init__(
        self,
        registry: Registry,
        permissions: RegistryPermissions,
        search: AgentSearch,
        kills: Kills,
        *,
        empty_list_reasons: EmptyListReasons,
    ) -> None:
        self._registry = registry
        self._empty_list_reasons = empty_list_reasons
        self._could_allow = permissions.could_allow
        self._authorize = permissions.authorize
        self._check_in_person = permissions.check_in_person
        self._visibility = EntryVisibility(registry, permissions.could_allow, permissions.rulings_version)
        self._search = search
        self.kills = kills

    async def authorize_registration(self, caller: Caller, family: Family, name: str, verb: str = "register") -> Registrant:
        """Returns the registrant. Every person may propose an entry, unless their token is narrowed to other permissions.

        `name` may be empty. `verb` is `preview` where nothing will be registered. Raises CallRefused.
        """
        await self._check_in_person(caller, act_of_registry_change(verb, family, name))
        operator, registry_change, grant = self.is_operator(caller), RegistryChange("register", caller.principal.owner_key), None
        if operator or not caller.delegation.effective_permissions().covers(WRITE_REGISTRY.permission):
            grant = await self.require_grant(caller, act_of_registry_change(verb, family, name))
            registry_change = registry_change_of(grant)
        return Registrant(caller.principal.tenant, caller.principal.owner_key, operator, registry_change, grant)

    def find(self, caller: Caller, family: Family, name: str) -> Registration:
        """Returns an entry that the caller may see. Raises UnknownName."""
        found = self._registry.find(caller.principal.tenant, name)
        if found.family is not family or not self._visibility.can_see(caller, found):
            raise UnknownName(name)
        return found

    async def list_page(self, caller: Caller, family: Family, cursor: str, limit: int, matches: Matches = match_all) -> EntryPage:
        """Returns entries after the name `cursor` that match, and the cursor of the next page. Raises BadCursor."""
        after, page = _parse_cursor(cursor)[1], list[Registration]()
        listed = self._registry.list(caller.principal.tenant, family)
        entries = (entry for entry in listed if entry.name > after and matches(entry))
        async for entry in Slices(self._visibility.rule_on(caller, entries)):
            if entry is not None:
                if len(page) == limit:
                    return page, page[-1].name
                page.append(entry)
        return page, None

    async def empty_reason(self, caller: Caller, family: Family, listed: Sequence[Registration]) -> dict[str, Any]:
        """Returns the member `empty` for a list that is empty because of the caller's token, else nothing."""
        if listed:
            return {}

        def candidates(other: Caller) -> Iterator[Registration | None]:
            return self._visibility.rule_on(other, self._registry.list(other.principal.tenant, family))

        reason = await self._empty_list_reasons.find_reason(caller, f"/api/{family.value}s", candidates)
        return {"empty": reason} if reason else {}

    async def search_page(self, caller: Caller, query: SearchQuery, cursor: str, limit: int) -> EntryPage:
        """Returns matching agents after `cursor`, the best first, and the cursor of the next page. Raises BadCursor."""
        after, page = _parse_cursor(cursor), list[Scored]()
        found = await self._find_matching(caller, query, lambda scored: order_key(scored) > after)
        async for scored in Slices(self._visibility.rule_on_findings(caller, found)):
            if scored is not None:
                if len(page) == limit:
                    return [entry for _, entry in page], f"{page[-1][0]}.{page[-1][1].name}"
                page.append(scored)
        return [entry for _, entry in page], None

    async def list_visible(self, caller: Caller) -> list[Registration]:
        """Returns all entries that the caller may know of."""
        entries = self._registry.list(caller.principal.tenant)
        return [entry async for entry in Slices(self._visibility.rule_on(caller, entries)) if entry is not None]

    async def search_visible(self, caller: Caller, query: SearchQuery, matches: Matches = match_all) -> AsyncIterator[Scored | None]:
        """Returns (relevance, agent) of the agents that match both, the best first, in slices; None in place of a ruling that shows none.

        Whether the caller may see an agent is ruled on when the iteration reaches it.
        """
        found = await self._find_matching(caller, query, lambda scored: matches(scored[1]))
        return Slices(self._visibility.rule_on_findings(caller, found))

    async def _find_matching(self, caller: Caller, query: SearchQuery, matches: Callable[[Scored], bool]) -> Iterable[Scored]:
        """Returns (relevance, agent) of the agents that match both, the best first, whether the caller may see them or not."""
        found = GradualSort(order_key)
        async for scored in Slices(await self._search.candidates(caller.principal.tenant, query)):
            if scored is not None and matches(scored):
                found.add(scored)
        return found

    async def remove(self, caller: Caller, family: Family, name: str, check: RemovalCheck | None, if_match: str | None = None) -> None:
        """Removes an entry after `check`, for operators and its owner. Raises what _check_removable raises, UnknownName, CallRefused."""
        found = self.find(caller, family, name)
        registry_change = await self.authorize_owner_change(caller, found, "remove")
        await _check_removable(found, check, if_match)
        await self._registry.remove(found.tenant, name, registry_change)

    async def renew_secret(self, caller: Caller, family: Family, name: str) -> str:
        """Returns a new client secret. Raises UnknownName, CallRefused, Outdated."""
        found = self.find(caller, family, name)
        return await self._registry.renew_secret(found.tenant, name, await self.authorize_owner_change(caller, found, "renew-secret"))

    def summary_document(self, caller: Caller, entry: Registration) -> dict[str, Any]:
        """Returns the members that agents and servers have in common. Only operators and the owner see `owner` and `client_id`."""
        shown: dict[str, Any] = {"name": entry.name, "kind": entry.kind, "status": entry.status.value, "url": entry.url}
        shown |= {"delegation": entry.delegation, "ceiling": list(entry.ceiling), "clearance": entry.clearance}
        if _is_killed(self.kills, entry):
            shown["killed"] = True
        if self.is_operator_or_owner(caller, entry):
            shown |= {"owner": entry.owner, "client_id": entry.client_id}
        return shown | {"created": to_rfc3339(entry.created), "updated": to_rfc3339(entry.updated)}

    async def visible_tools(self, caller: Caller, entry: Registration) -> list[str]:
        """Returns the names of a server's tools that the caller may know of."""
        if self.is_operator_or_owner(caller, entry):
            return [tool.name for tool in entry.tools]
        return await self._allowed_names(caller, {tool.name: act_of_calling_tool(entry.name, tool.name) for tool in entry.tools})

    async def visible_prompts(self, caller: Caller, entry: Registration) -> list[str]:
        """Returns the names of a server's prompts that the caller may know of."""
        if self.is_operator_or_owner(caller, entry):
            return [prompt.name for prompt in entry.prompts]
        return await self._allowed_names(caller, {prompt.name: act_of_getting_prompt(entry.name, prompt.name) for prompt in entry.prompts})

    async def _allowed_names(self, caller: Caller, acts: Mapping[str, Act]) -> list[str]:
        """Returns the names whose acts the caller could be allowed, ruled on in slices."""
        return [name async for name, allowed in Slices((name, self._could_allow(caller, act)) for name, act in acts.items()) if allowed]

    def can_read_resources(self, caller: Caller, entry: Registration) -> bool:
        """Returns whether the caller may read a server's resources."""
        return self.is_operator_or_owner(caller, entry) or self._could_allow(caller, act_of_reading_resource(entry.name))

    def is_operator(self, caller: Caller) -> bool:
        return self._visibility.is_operator(caller)

    def is_operator_or_owner(self, caller: Caller, entry: Registration) -> bool:
        """Returns whether the caller may know the whole entry."""
        return self._visibility.is_operator_or_owner(caller, entry)

    async def authorize_owner_change(self, caller: Caller, entry: Registration, verb: str) -> RegistryChange:
        """Authorizes an operator, or the person who registered the entry, with a token that is not narrowed to other permissions.

        Raises CallRefused.
        """
        if not (
            is_owner(caller, entry) and caller.delegation.effective_permissions().covers(WRITE_REGISTRY.permission)
        ) or self.is_operator(caller):
            return await self.authorize_change(caller, act_of_registry_change(verb, entry.family, entry.name))
        return RegistryChange(verb, caller.principal.owner_key)

    async def authorize_change(self, caller: Caller, act: Act) -> RegistryChange:
        """Returns the registry change that the ruling grants. Raises CallRefused with an explanation."""
        return registry_change_of(await self.require_grant(caller, act))

    async def require_grant(self, caller: Caller, act: Act) -> Grant:
        """Returns the Grant. Raises CallRefused with an explanation, since the caller already knows of the entry."""
        return await require_permission(caller, self._authorize, act)


async def _check_removable(entry: Registration, check: RemovalCheck | None, if_match: str | None) -> None:
    """A workflow is removed with a check of its runs only. Raises PreconditionFailed, BadRequest, and what `check` raises."""
    check_if_match(entry, if_match)
    check_changeable(entry)
    if check is not None:
        await check()
    elif entry.kind == WORKFLOW_KIND:
        name = entry.name
        raise BadRequest("name", f"is a workflow, which has runs: DELETE /api/workflows/{name}, or interlock workflow rm {name}")


def check_changeable(entry: Registration) -> None:
    """Raises BadRequest for the gateway's own servers, which follow the settings."""
    if not entry.client_id:
        raise BadRequest("name", f"is {entry.name}, a server of the gateway: change it in the settings, and access to it in policies")


def _parse_cursor(cursor: str) -> tuple[int, str]:
    """Returns the position after which a page begins, in the order of lists. Raises BadCursor."""
    if not cursor:
        return -RELEVANCE_MAX - 1, ""
    found = _CURSOR_FORMAT.fullmatch(cursor)
    if found is None:
        raise BadCursor
    return -int(found[1] or RELEVANCE_MAX), found[2]


def registry_change_of(grant: Grant) -> RegistryChange:
    return RegistryChange(grant.decision.act.verb, grant.delegation.principal.owner_key, grant.decision.id)
