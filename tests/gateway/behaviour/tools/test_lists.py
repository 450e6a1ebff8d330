"""Lists are kept for each caller until anything that they follow from changes, and a thousand tools are listed in no time."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace as with_

from gateway.ingress.mcp_server.catalogue.cached_lists import LISTS_MAX, CachedLists
from gateway.ingress.mcp_server.catalogue.tools import ToolCatalogue
from gateway.ingress.mcp_server.catalogue.visible import VisibleEntries
from registry.cards.card import Family, McpPrompt, McpTool, RegistrationStatus
from registry.rows import Candidate
from registry.seeds import virtual_candidate
from registry.virtual.selection import Selection
from tests.fakes.house import CAPABILITIES, TRACE, House

SCHEMA = {"type": "object", "properties": {f"p{n}": {"type": "string", "description": "One of the arguments."} for n in range(4)}}


def server(name: str, count: int) -> Candidate:
    tools = [McpTool(f"t{n}", {"name": f"t{n}", "description": f"Does the thing number {n}.", "inputSchema": SCHEMA}) for n in range(count)]
    where: dict[str, Any] = {"tenant": "default", "url": "http://127.0.0.1:9/mcp", "owner": "operator", "status": RegistrationStatus.ACTIVE}
    return Candidate(name=name, family=Family.SERVER, kind="mcp", facts={"era": "modern"}, tools=tuple(tools), **where)


async def names(home: House, user: str = "mel") -> list[str]:
    answer = await home.rpc("/mcp", home.token(user), "tools/list", {})
    return [tool["name"] for tool in answer.json()["result"]["tools"]]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_thousand_tools_of_fifty_servers_are_listed(home: House) -> None:
    for number in range(50):
        await home.gateway.registry.add(server(f"s{number:02}", 20))
    await home.gateway.database.refresh_epochs()
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    answer = await home.rpc("/mcp", home.token("mel"), "tools/list", {"_meta": CAPABILITIES}, **headers)
    assert len(answer.json()["result"]["tools"]) == 1000


async def test_every_change_is_seen_in_the_next_list(home: House) -> None:
    registry, refresh = home.gateway.registry, home.gateway.database.refresh_epochs
    assert await names(home) == []
    await registry.add(server("crm", 2))
    assert await names(home) == ["crm_t0", "crm_t1"]
    await registry.update(replace(registry.find("default", "crm"), ceiling=("tool:crm.t1",)))
    assert await names(home) == ["crm_t1"]
    await registry.set_status("default", "crm", RegistrationStatus.QUARANTINED)
    assert await names(home) == []
    await registry.set_status("default", "crm", RegistrationStatus.ACTIVE)
    await refresh()
    assert await names(home) == ["crm_t1"] and await names(home, "nora") == []
    home.gateway.rulings.authority.invalidate()  # as after a change of the policies
    assert await names(home) == ["crm_t1"]


async def test_a_server_that_does_not_answer_is_missing_by_name(home: House) -> None:
    for name in ("crm", "inventory"):
        await home.gateway.registry.add(server(name, 1))
    await home.gateway.registry.set_status("default", "crm", RegistrationStatus.DOWN)
    for path, user, missing in (("/mcp", "mel", ["crm"]), ("/mcp", "alice", None), ("/mcp/inventory", "mel", None)):
        result = (await home.rpc(path, home.token(user), "tools/list", {})).json()["result"]
        assert result.get("_meta") == (missing and {"dev.interlock/unavailable": missing}), (path, user)
        assert [tool["name"] for tool in result["tools"]] == (["t0"] if path != "/mcp" else ["inventory_t0"])


@pytest.mark.parametrize("status", [RegistrationStatus.DOWN, RegistrationStatus.QUARANTINED])
async def test_a_server_that_is_not_reachable_is_told_apart_where_it_may_be_known(home: House, status: RegistrationStatus) -> None:
    await home.gateway.registry.add(server("crm", 1))
    await home.gateway.registry.set_status("default", "crm", status)
    asks = [
        ("/mcp", "tools/call", {"name": "crm_t0", "arguments": {}}),
        ("/mcp/crm", "tools/call", {"name": "t0", "arguments": {}}),
        ("/mcp/crm", "tools/list", {}),
        ("/mcp/crm", "initialize", {}),
        ("/mcp", "prompts/get", {"name": "crm_p"}),
        ("/mcp", "resources/read", {"uri": "crm+note://one"}),
    ]
    for path, method, params in asks:
        known = await home.rpc(path, home.token("mel"), method, params)
        data = {"reason_id": "not-reachable", "trace_id": TRACE} | ({"retryAfter": 2} if status is RegistrationStatus.DOWN else {})
        assert (known.status_code, known.json()["error"]["data"]) == (200, data), (path, method)
        assert known.json()["error"]["message"].startswith("`crm` is not reachable now"), (path, method)
        hidden = await home.rpc(path, home.token("alice"), method, params)
        unknown = await home.rpc(path.replace("crm", "none"), home.token("alice"), method, eval(repr(params).replace("crm", "none")))
        assert (hidden.status_code, hidden.json()) == (unknown.status_code, unknown.json()), (path, method)


async def test_what_a_virtual_server_selects_is_told_apart_too_where_it_is_not_reachable(home: House) -> None:
    registry = home.gateway.registry
    await registry.add(replace(server("crm", 1), prompts=(McpPrompt("p", {"name": "p"}),)))
    await registry.add(server("inventory", 1))
    await registry.add(virtual_candidate("default", "operator", "desk", Selection(tools=("crm.*", "inventory.*"), prompts=("crm.*",))))
    await registry.set_status("default", "crm", RegistrationStatus.DOWN)
    for method, params in (("tools/call", {"name": "crm_t0", "arguments": {}}), ("prompts/get", {"name": "crm_p"})):
        error = (await home.rpc("/mcp/virtual/desk", home.token("mel"), method, params)).json()["error"]
        assert error["data"] == {"reason_id": "not-reachable", "trace_id": TRACE, "retryAfter": 2}, method
        gone = (await home.rpc("/mcp/virtual/desk", home.token("mel"), method, {**params, "name": "crm_none"})).json()["error"]
        assert gone["data"]["reason_id"] == "unknown", method
    await registry.set_status("default", "inventory", RegistrationStatus.DOWN)
    for user, reason in (("mel", "not-reachable"), ("nora", "unknown")):
        answer = (await home.rpc("/mcp/virtual/desk", home.token(user), "tools/list", {})).json()
        assert answer["error"]["data"]["reason_id"] == reason


async def test_an_agent_that_is_down_is_missing_by_name_and_told_apart_as_a_tool(home: House) -> None:
    await home.registered("sales", "http://127.0.0.1:9/")
    await home.gateway.registry.set_status("default", "sales", RegistrationStatus.DOWN)
    listed = (await home.rpc("/mcp", home.token("alice"), "tools/list", {})).json()["result"]
    assert listed["_meta"] == {"dev.interlock/unavailable": ["sales"]}
    called = {"name": "sales", "arguments": {"message": "hi"}}
    for user, reason in (("alice", "not-reachable"), ("nora", "unknown")):
        error = (await home.rpc("/mcp", home.token(user), "tools/call", called)).json()["error"]
        assert error["data"]["reason_id"] == reason


async def test_what_is_kept_is_made_once(home: House) -> None:
    await home.gateway.registry.add(server("crm", 3))
    offers = VisibleEntries(home.gateway.registry, home.gateway.rulings.authority, home.gateway.entry_refresher.absences)
    tools, caller = ToolCatalogue(offers, "_"), await home.gateway.rulings.caller_resolver.authenticate(home.token("mel"), [home.url])
    first = await tools.list_definitions(caller, "")
    assert await tools.list_definitions(caller, "") is first
    home.gateway.rulings.authority.invalidate()
    again = await tools.list_definitions(caller, "")
    assert again is not first and again == first and again[0] is first[0]  # the definitions are shared


async def test_cached_lists_are_bounded_and_not_used_without_generations() -> None:
    current: tuple[int, int] | None = (1, 1)
    lists = CachedLists(lambda: current)
    for number in range(LISTS_MAX + 10):
        await lists.find_or_make(("tools", "", str(number)), list)
    assert len(lists._lists) == LISTS_MAX
    key, entry = ("tools", "", "x"), msgspec.Raw(b"{}")
    current = None
    assert await lists.find_or_make(key, lambda: [entry]) == [entry]
    assert await lists.find_or_make(key, list) == []
    current = (1, 1)
    assert await lists.find_or_make(key, lambda: [entry]) == [entry]


async def test_a_list_is_made_as_far_as_its_pages_need_it() -> None:
    made: list[int] = []

    def entries() -> Iterator[msgspec.Raw | None]:
        for number in range(1000):
            made.append(number)
            yield None if number % 2 else msgspec.Raw(b"%d" % number)

    lists, key = CachedLists(lambda: (1, 1, 1)), ("tools", "", "x")
    assert [bytes(one) for one in (await lists.find_or_make(key, entries, 3))[:3]] == [b"0", b"2", b"4"] and len(made) == 5
    assert len(await lists.find_or_make(key, entries, 11)) == 11 and len(made) == 21
    assert len(await lists.find_or_make(key, entries, 2)) == 11 and len(made) == 21
    whole = await lists.find_or_make(key, entries)
    assert len(whole) == 500 and made == list(range(1000))
    assert await lists.find_or_make(key, entries, 10_000) is whole and len(made) == 1000


async def test_the_digest_of_a_list_is_that_of_its_whole() -> None:
    lists = CachedLists(lambda: (1, 1, 1))
    entries = [msgspec.Raw(b"%d" % number) for number in range(50)]
    await lists.find_or_make(("tools", "", "x"), lambda: entries, 3)
    assert await lists.digest(("tools", "", "x"), lambda: entries) == await lists.digest(("tools", "", "y"), lambda: entries)


async def test_a_list_that_failed_half_way_is_made_anew() -> None:
    failures = [ConnectionError()]

    def entries() -> Iterator[msgspec.Raw | None]:
        yield msgspec.Raw(b"1")
        if failures:
            raise failures.pop()
        yield msgspec.Raw(b"2")

    lists, key = CachedLists(lambda: (1, 1, 1)), ("tools", "", "x")
    assert len(await lists.find_or_make(key, entries, 1)) == 1
    with pytest.raises(ConnectionError):
        await lists.find_or_make(key, entries)
    assert len(await lists.find_or_make(key, entries)) == 2


async def test_people_with_equal_rights_share_a_list_that_outlives_a_token(home: House) -> None:
    await home.gateway.registry.add(server("crm", 3))
    offers = VisibleEntries(home.gateway.registry, home.gateway.rulings.authority, home.gateway.entry_refresher.absences)
    tools, resolve = ToolCatalogue(offers, "_"), home.gateway.rulings.caller_resolver.authenticate
    mel, alice = [await resolve(home.token(user), [home.url]) for user in ("mel", "alice")]
    principal = replace(mel.principal, subject="twin")
    delegation = with_(mel.delegation, principal=principal)
    twin = with_(mel, principal=principal, delegation=delegation, ruling_key="twin", expires=0.0)
    first = await tools.list_definitions(twin, "", 1)
    assert len(first) >= 1 and await tools.list_definitions(mel, "") is first and len(first) >= 3
    assert await tools.list_definitions(alice, "") is not first
