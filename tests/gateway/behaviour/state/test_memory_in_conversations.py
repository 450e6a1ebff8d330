"""Memory in conversations: what was said in a context, and facts that a hand-off brings."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.calls.handoff import CONTEXT_KEY
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.memory import MEMORY_ROLES, taint_of
from tests.fakes.memory import MemoryDesk as Desk
from tests.fakes.workflows import Workflows
from tests.gateway.behaviour.authority.test_tickets import TicketAgent, basic

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, roles=MEMORY_ROLES) as built:
        yield built


@pytest.fixture
def desk(home: House) -> Desk:
    return Desk(home)


def answer_of(sent: Any) -> str:
    return str(sent["result"]["task"]["artifacts"][0]["parts"][0]["text"])


async def test_the_conversation_of_a_context_is_read_across_its_tasks(home: House, desk: Desk) -> None:
    await home.agent(CallbackAgent("first"))
    await home.agent(CallbackAgent("second"))
    for agent in ("first", "second"):
        await home.send(home.token("alice"), agent, f"hello {agent}", contextId="c-1")
    answer = (await desk.ask("GET", "/api/memory/contexts/c-1", "alice")).json()
    said = [(task["agent"], [(each["speaker"], each["text"]) for each in task["texts"]]) for task in answer["items"]]
    assert said == [(name, [("person", f"hello {name}"), (name, f"{name} got: hello {name}")]) for name in ("second", "first")]
    assert (await desk.ask("GET", "/api/memory/contexts/c-1", "bob")).status_code == 404
    first = (await desk.ask("GET", "/api/memory/contexts/c-1?limit=1", "alice")).json()
    rest = (await desk.ask("GET", f"/api/memory/contexts/c-1?limit=1&cursor={first['next']}", "alice")).json()
    assert first["items"] + rest["items"] == answer["items"] and rest["next"] is None


@sqlite_only
async def test_agents_read_only_the_conversation_that_they_work_in(home: House) -> None:
    async def act(ticket: dict[str, str]) -> str:
        headers = {**ticket, **basic(home, "reader")}
        read = [(await home.http.get(f"/api/memory/contexts/{context}", headers=headers)) for context in ("c-1", "c-2")]
        return " ".join(str(each.status_code) for each in read) + read[0].text

    await home.agent(CallbackAgent("plain"))
    await home.agent(TicketAgent("reader", act), memory="read", delegation="ticket")
    await home.send(home.token("alice"), "plain", "hello", contextId="c-2")
    await home.send(home.token("alice"), "plain", "hello plain", contextId="c-1")
    answer = answer_of(await home.send(home.token("alice"), "reader", "hello reader", contextId="c-1"))
    assert answer.startswith("200 404") and "plain got: hello plain" in answer


async def handed_facts(home: House, **callee: Any) -> list[dict[str, Any]] | None:
    """The facts in the summary that an agent gets with a message of another agent."""
    inner = await home.agent(CallbackAgent("sales"), context="summary", **callee)

    async def asks(token: str, _text: str) -> str:
        handed_on = await home.exchanged("support", token, "/agents/sales", "agent:sales memory:read:person")
        await home.send(handed_on, "sales", "where do deliveries go?")
        return "done"

    await home.agent(CallbackAgent("support", asks))
    await home.send(home.token("alice"), "support", "help me")
    summary = inner.requests[-1]["params"]["message"]["metadata"][CONTEXT_KEY]
    facts: list[dict[str, Any]] | None = summary.get("facts")
    return facts


@sqlite_only
async def test_a_hand_off_brings_related_facts_to_agents_that_use_memory(home: House, desk: Desk) -> None:
    await desk.put("Deliveries go to the back door", sensitivity=1)
    await desk.put("Drinks tea")
    await desk.put("Deliveries go to bob", user="bob")
    facts = await handed_facts(home, memory="read")
    assert facts is not None
    assert [(each["text"], each["source"]["written_by"]) for each in facts] == [("Deliveries go to the back door", "person")]
    assert await taint_of(home) == [1]


BARRED: list[tuple[dict[str, Any], list[Any] | None]] = [
    ({}, None),
    ({"memory": "read", "clearance": 0}, []),
    ({"memory": "read", "ceiling": ("agent:*",)}, []),
]


@sqlite_only
@pytest.mark.parametrize(("callee", "expected"), BARRED)
async def test_a_hand_off_brings_no_facts_that_the_agent_may_not_read(
    home: House, desk: Desk, callee: dict[str, Any], expected: list[Any] | None
) -> None:
    await desk.put("Deliveries go to the back door", sensitivity=1)
    assert await handed_facts(home, **callee) == expected
    assert await taint_of(home) == []


REMEMBER = """
do:
- keep: {call: gateway.tool, with: {tool: memory.put, arguments: {text: "The order is late", scope: "workflow:orders"}}}
- find: {call: gateway.tool, with: {tool: memory.search, arguments: {query: late, scope: "workflow:orders"}}}
"""


@sqlite_only
async def test_runs_use_the_memory_of_their_workflow_with_the_rights_of_their_person(home: House, desk: Desk) -> None:
    flows = Workflows(home)
    added = await flows.add("orders", REMEMBER)
    assert {"memory:read:person", "memory:write:workflow:orders"} <= set(added["ceiling"])
    found = await flows.output(await flows.start("orders", user="bob"), user="bob")
    assert "The order is late" in str(found)
    (fact,) = (await desk.page("late", "bob", "workflow:orders"))["items"]
    assert (fact["source"]["agent"], fact["source"]["author"].rpartition("|")[2]) == ("orders", "bob")
    shown = await flows.ended(await flows.start("orders", user="alice"))
    assert shown["state"] == "TASK_STATE_FAILED" and len((await desk.page("late", "bob", "workflow:orders"))["items"]) == 1
