"""Long lists of the registry are ruled on in slices, whatever takes the rulings: many entries, or one server with many tools."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute

from gateway.calls.limits.slices import SLICE
from gateway.calls.targets.front_door import FrontDoor
from gateway.ingress.a2a_server.extended_cards import ExtendedCards
from gateway.ingress.admin.registry import discovery
from gateway.ingress.admin.registry.access import RegistryAccess, RegistryPermissions
from gateway.ingress.http.empty_lists import EmptyListReasons
from gateway.ingress.mcp_server.catalogue.prompts import PromptCatalogue
from gateway.ingress.mcp_server.catalogue.resources import ResourceCatalogue
from gateway.ingress.mcp_server.catalogue.tools import ToolCatalogue
from gateway.ingress.mcp_server.catalogue.visible import VisibleEntries
from gateway.ingress.mcp_server.subscriptions.notifications import ChangeBroadcast, Interest, NotificationFeed, Subscriber
from gateway.telemetry.spans import TraceContext
from policies.authority import WRITE_REGISTRY
from policies.callers import Caller, HypotheticalCaller, hypothetical_caller
from policies.delegation.chain import Principal
from policies.delegation.permissions import Permissions
from policies.delegation.rulings import Act
from registry.cards.card import Family, McpPrompt, McpResource, McpTool, Registration, RegistrationStatus
from registry.cards.reader import SKILLS_MAX, read_card
from registry.rows import Candidate
from registry.search.agents import AgentSearch, SearchQuery
from registry.store import UnknownName
from tests.fakes.slices import StepCounter

MANY = 3 * SLICE
PERSON = hypothetical_caller(HypotheticalCaller(Principal("default", "idp", "alice", ("sales",)), Permissions.parse(["call:nothing/*"])))
MINE: Any = {"tenant": "default", "owner": "operator", "url": "http://127.0.0.1:9/", "status": RegistrationStatus.ACTIVE}


def entry_of(candidate: Candidate) -> Registration:
    given = {field.name: getattr(candidate, field.name) for field in fields(candidate) if field.name != "jwks"}
    return Registration(**given, card_hash="", client_id="c", created=0, updated=0)


def agent(number: int) -> Registration:
    name, skill = f"agent-{number:04d}", {"id": f"quote-{number}", "name": "Quote", "description": "Quotes.", "tags": ["sales"]}
    document = {"name": name, "description": "Answers.", "version": "1", "url": MINE["url"], "skills": [skill]}
    card = read_card({**document, "defaultInputModes": ["text/plain"]})
    return entry_of(Candidate(name=name, family=Family.AGENT, kind="a2a", card=card, **MINE))


def server(name: str, count: int = 1) -> Registration:
    return entry_of(
        Candidate(
            name=name,
            family=Family.SERVER,
            kind="mcp",
            tools=tuple(McpTool(f"t{number}", {"name": f"t{number}"}) for number in range(count)),
            prompts=tuple(McpPrompt(f"p{number}", {"name": f"p{number}"}) for number in range(count)),
            resources=tuple(McpResource(f"note://{number}", {"uri": f"note://{number}"}) for number in range(count)),
            **MINE,
        )
    )


AGENTS = [agent(number) for number in range(MANY)]
SERVERS = [server(f"server-{number:04d}") for number in range(MANY)]
BIG = server("big", MANY)


class Entries:
    """A registry of given entries; `find` is counted."""

    def __init__(self, entries: list[Registration], counter: StepCounter) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._counter = counter
        self.generation = 1

    def list(self, tenant: str, family: Family | None = None) -> list[Registration]:
        return [entry for entry in self._entries.values() if family is None or entry.family is family]

    def find(self, tenant: str, name: str) -> Registration:
        self._counter.count()
        if name not in self._entries:
            raise UnknownName(name)
        return self._entries[name]

    def change(self, entry: Registration) -> None:
        self._entries[entry.name] = entry
        self.generation += 1

    async def read(self, work: object) -> tuple[str, ...]:
        """Answers the query of the search index: all names match."""
        return tuple(self._entries)


class CountedEntries(Entries):
    """Counts the entries of lists."""

    def list(self, tenant: str, family: Family | None = None) -> Iterator[Registration]:  # type: ignore[override]  # lazy, to be counted
        for entry in super().list(tenant, family):
            self._counter.count()
            yield entry


class Rulings:
    """Counts rulings, and allows the permissions of `allowed`."""

    def __init__(self, counter: StepCounter, allowed: tuple[str, ...]) -> None:
        self._counter = counter
        self._allowed = allowed
        self.generations, self.is_fresh = (1, 0), True
        self.class_rulings = SimpleNamespace(rights_key=lambda caller: caller.ruling_key)

    def could_allow(self, caller: Caller, act: Act) -> bool:
        if act == WRITE_REGISTRY:
            return False  # asked once for each entry, and cheap for people who are no operators
        self._counter.count()
        return any(act.permission.startswith(prefix) for prefix in self._allowed)

    can_see = could_allow


class Desk:
    """Everything that lists entries, over one fake registry and one fake authority."""

    def __init__(self, counter: StepCounter, entries: list[Registration], *allowed: str) -> None:
        self.registry = Entries(entries, counter)
        registry: Any = self.registry
        rulings: Any = Rulings(counter, allowed)
        unused: Any = SimpleNamespace(find=lambda *_: None)
        permissions = RegistryPermissions(rulings.could_allow, unused, unused, lambda: 1)
        reasons = EmptyListReasons(lambda: ("sales",), lambda *_: None)
        search = AgentSearch(registry, registry)
        self.access = RegistryAccess(registry, permissions, search, unused, empty_list_reasons=reasons)
        self.door = FrontDoor(registry, unused, rulings.could_allow)
        self.discovery = discovery.routes(self.access, authenticate, "https://gateway.example")
        counted: Any = CountedEntries(entries, counter)
        self.catalog = discovery.catalog_routes(counted, self.door, "https://gateway.example")
        self.visible = VisibleEntries(registry, rulings, unused)
        self.cards = ExtendedCards(_skills_shown, self.door, rulings.could_allow)

    def feed(self) -> NotificationFeed:
        catalogue: Any = SimpleNamespace(tools=ToolCatalogue(self.visible, "_"))
        unused: Any = None
        return NotificationFeed(unused, catalogue, ChangeBroadcast(), unused)


async def authenticate(_request: Request) -> Caller:
    return PERSON


def _skills_shown(entry: Registration, is_offered: Callable[[Any], bool]) -> dict[str, Any]:
    assert entry.card is not None
    return {"skills": [skill.id for skill in entry.card.skills if is_offered(skill)]}


async def extended(desk: Desk, entry: Registration, who: Caller) -> Mapping[str, Any]:
    return await desk.cards.extended_card(entry, who)


async def ask_ard(desk: Desk, who: Caller, route: str, body: object) -> object:
    """Calls a route of ARD that reads a body."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    return await endpoint_of(desk.discovery, route)(who, Request({"type": "http", "headers": []}, receive))


def endpoint_of(router: APIRouter, name: str) -> Any:
    return next(route.endpoint for route in router.routes if isinstance(route, APIRoute) and route.name == name)


Read = Callable[[Desk, Caller], Awaitable[object]]
READS: dict[str, tuple[list[Registration], Read]] = {
    "agents": (AGENTS, lambda desk, who: desk.access.list_page(who, Family.AGENT, "", 10)),
    "servers": (SERVERS, lambda desk, who: desk.access.list_page(who, Family.SERVER, "", 10)),
    "one big server": ([BIG], lambda desk, who: desk.access.list_page(who, Family.SERVER, "", 10)),
    "why there are no agents": (AGENTS, lambda desk, who: desk.access.empty_reason(who, Family.AGENT, ())),
    "search by words": (AGENTS, lambda desk, who: desk.access.search_page(who, SearchQuery("quote"), "", 10)),
    "search by skill": (AGENTS, lambda desk, who: desk.access.search_page(who, SearchQuery(tag="sales"), "", 10)),
    "search of ARD": (AGENTS, lambda desk, who: ask_ard(desk, who, "ard_search", {"query": {"text": "quote"}})),
    "facets of ARD": (AGENTS, lambda desk, who: ask_ard(desk, who, "ard_explore", {"resultType": {"facets": [{"field": "tags"}]}})),
    "list of ARD": (AGENTS, lambda desk, who: endpoint_of(desk.discovery, "ard_agents")(who, "", "displayName", 10, "")),
    "public catalog": (AGENTS, lambda desk, who: endpoint_of(desk.catalog, "ai_catalog")()),
    "all entries": ([*AGENTS, *SERVERS], lambda desk, who: desk.access.list_visible(who)),
    "tools of a server": ([BIG], lambda desk, who: desk.access.visible_tools(who, BIG)),
    "prompts of a server": ([BIG], lambda desk, who: desk.access.visible_prompts(who, BIG)),
    "the front door's choice": (AGENTS, lambda desk, who: desk.door.route("quote", who)),
    "the front door's card": (AGENTS, lambda desk, who: desk.door.registration_for(who)),
    "a server's card": ([BIG], lambda desk, who: extended(desk, BIG, who)),
    "tools": ([*AGENTS, BIG], lambda desk, who: ToolCatalogue(desk.visible, "_").list_definitions(who, "")),
    "prompts": ([*SERVERS, BIG], lambda desk, who: PromptCatalogue(desk.visible, "_").list_definitions(who, "")),
    "resources": (SERVERS, lambda desk, who: ResourceCatalogue(desk.visible).list_definitions(who, "")),
    "unreachable entries": (
        [replace(entry, status=RegistrationStatus.DOWN) for entry in AGENTS],
        lambda desk, who: desk.visible.unreachable_names(who, ""),
    ),
    "servers to watch": (SERVERS, lambda desk, who: desk.visible.visible_servers(who, "")),
}
RULINGS_PER_ITEM = {"servers to watch": 3}


@pytest.mark.parametrize("name", READS)
async def test_a_long_list_is_ruled_on_in_slices(name: str) -> None:
    entries, read = READS[name]
    counter = StepCounter()
    desk = Desk(counter, entries)
    async with counter.watch():
        await read(desk, PERSON)
    assert counter.total >= MANY
    assert counter.most_in_one_iteration <= SLICE * RULINGS_PER_ITEM.get(name, 1)


async def test_a_page_after_a_cursor_rules_on_no_entry_before_it() -> None:
    counter = StepCounter()
    page, following = await Desk(counter, AGENTS, "agent:").access.list_page(PERSON, Family.AGENT, "agent-0099", 10)
    assert [entry.name for entry in page] == [f"agent-{number:04d}" for number in range(100, 110)]
    assert (counter.total, following) == (11, "agent-0109")


async def test_pages_of_a_search_by_words_follow_each_other() -> None:
    access = Desk(StepCounter(), AGENTS, "agent:").access
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page, cursor = await access.search_page(PERSON, SearchQuery("quote"), cursor, 40)
        names += [entry.name for entry in page]
    assert names == [entry.name for entry in AGENTS]


async def test_a_search_of_ard_rules_on_the_agents_of_its_page_and_the_next_one() -> None:
    counter = StepCounter()
    await ask_ard(Desk(counter, AGENTS, "agent:"), PERSON, "ard_search", {"query": {"text": "quote"}, "pageSize": 10})
    assert counter.total == MANY + 11  # each finding is looked up in the registry


async def test_a_visible_server_is_ruled_on_until_one_tool_shows_it() -> None:
    counter = StepCounter()
    page, _ = await Desk(counter, [BIG], "tool:").access.list_page(PERSON, Family.SERVER, "", 10)
    assert ([entry.name for entry in page], counter.total) == (["big"], 1)


async def test_the_front_door_has_as_many_skills_as_a_card_may_have() -> None:
    many = [agent(number) for number in range(SKILLS_MAX + 1)]
    card = (await Desk(StepCounter(), many, "agent:").door.registration_for(PERSON)).card
    assert card is not None
    assert [skill.id for skill in card.skills] == ["route", *(f"quote-{number}" for number in range(SKILLS_MAX - 1))]


async def test_listeners_of_one_view_rule_once_after_a_change() -> None:
    counter = StepCounter()
    desk = Desk(counter, AGENTS, "agent:")
    feed, heard = desk.feed(), Counter[str]()
    listeners = [Subscriber(PERSON, "", TraceContext(), lambda method, _: heard.update([method]), {}) for _ in range(10)]

    async def notify_all(previous: Mapping[str, str]) -> list[dict[str, str]]:
        return await asyncio.gather(*(feed._notify_changed_lists(each, Interest(tools=True), previous) for each in listeners))

    async with counter.watch():
        first = await notify_all({})
    assert (counter.total, heard.total()) == (2 * MANY, 0)  # each agent and its skill
    desk.registry.change(agent(MANY))
    async with counter.watch():
        second = await notify_all(first[0])
    assert counter.total == 2 * MANY + 2 * (MANY + 1)
    assert counter.most_in_one_iteration <= SLICE
    assert heard == {"notifications/tools/list_changed": 10}
    assert await notify_all(second[0]) == second
    assert heard.total() == 10
