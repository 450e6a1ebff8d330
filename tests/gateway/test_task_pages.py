"""Pages of tasks: their totals and their sizes tell of nothing that the caller may not see."""

from typing import Any

from tests.fakes.house import CallbackAgent, House

VERSION = {"A2A-Version": "1.0"}


async def listed(home: House, token: str, **params: Any) -> Any:
    """All tasks of the person, through the front door."""
    return (await home.rpc("/agents/interlock", token, "ListTasks", params, **VERSION)).json()["result"]


# attack LOG-06
async def test_totals_and_pages_count_only_what_the_token_reaches(home: House) -> None:
    for agent in ("sales", "billing"):
        await home.agent(CallbackAgent(agent))
    for agent in ("sales", "billing", "billing", "sales", "billing", "sales"):
        await home.send(home.token("alice"), agent, "hello")
    whole, narrowed = home.token("alice"), home.token("alice", "agent:sales agent:other")
    assert (await listed(home, whole))["totalSize"] == 6
    first = await listed(home, narrowed, pageSize=2)
    assert (first["totalSize"], len(first["tasks"])) == (3, 2)  # a short page would tell of what is left out
    second = await listed(home, narrowed, pageSize=2, pageToken=first["nextPageToken"])
    assert (second["totalSize"], len(second["tasks"]), second["nextPageToken"]) == (3, 1, "")
    for scope in ("tool:*", "agent:sales/quote", "agent:none"):
        nothing = await listed(home, home.token("alice", scope))
        assert (nothing["totalSize"], nothing["tasks"], nothing["nextPageToken"]) == (0, [], "")
    items = await home.http.get("/api/tasks", params={"limit": 2}, headers={"authorization": f"Bearer {narrowed}"})
    assert [item["agent"] for item in items.json()["items"]] == ["sales", "sales"]


# attack LOG-06
async def test_an_agents_pages_count_only_the_tasks_that_its_own_caused_and_it_may_reach(home: House) -> None:
    seen: list[Any] = []

    async def desk(token: str, _text: str) -> str:
        for agent in ("sales", "billing"):
            onward = await home.exchanged("desk", token, f"/agents/{agent}", f"agent:{agent}")
            await home.send(onward, agent, "hello")
        onward = await home.exchanged("desk", token, "/agents/interlock", "agent:sales")
        seen.append(await listed(home, onward))
        return "done"

    for agent in ("sales", "billing"):
        await home.agent(CallbackAgent(agent))
    await home.agent(CallbackAgent("desk", desk))
    await home.send(home.token("alice"), "sales", "of another errand")
    await home.send(home.token("alice"), "desk", "go")
    assert (seen[0]["totalSize"], len(seen[0]["tasks"])) == (1, 1)
