"""What runs cost: each step, the whole with sub-runs, what plans have really cost, and the estimate. Unknown costs are shown as unknown."""

from typing import Any

import pytest

from gateway.cli.output import format_cost
from tests.fakes.house import CallbackAgent, House
from tests.fakes.planners import ScriptedPlanner, call_agent, plan_of
from tests.fakes.workflows import Workflows, output_of

GPT = {"usage": {"input_tokens": 1000, "output_tokens": 500, "model": "gpt-4o"}}  # 0.0075 USD
AI = """
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
ASK = f"""
do:
- ask:
    call: gateway.agent
    with: {{agent: sales, input: hello}}{AI}"""
BOTH = f"""{ASK}
- check:
    call: gateway.tool
    with: {{tool: inventory.check, arguments: {{}}}}
"""
SUB = """
do:
- below: {run: {workflow: {namespace: tests, name: ask, version: latest}}}
- check:
    call: gateway.tool
    with: {tool: inventory.check, arguments: {}}
"""
PLANNED = f"""
do:
- solve:
    call: gateway.plan
    with:
      agent: planner
      goal: restock
      input: 1
      among: {{agents: [sales, support]}}
      limits: {{cost: 1.5}}
      costs: {{sales: 1, support: 1}}
      replan: 2{AI}"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    (await home.agent(CallbackAgent("sales"))).metadata = GPT
    await home.server("inventory", "check", "reserve")
    return Workflows(home)


async def price(workflows: Workflows, path: str, **body: Any) -> None:
    assert (await workflows.desk.ask("PATCH", f"/api/{path}", body=body)).status_code == 200
    await workflows.home.gateway.database.refresh_epochs()


def step_costs(shown: dict[str, Any]) -> dict[str, Any]:
    return {step["step"]: (step["cost"]["amount"], step["cost"]["unpriced"]) for step in shown["steps"]}


async def test_each_step_has_its_cost_and_the_run_their_sum(workflows: Workflows) -> None:
    await price(workflows, "servers/inventory", prices={"check": "0.4125"})
    await workflows.add("both", BOTH)
    shown = await workflows.show((await workflows.run("both"))["id"])
    assert step_costs(shown) == {"/do/0/ask": ("0.0075", 0), "/do/1/check": ("0.4125", 0)}
    assert shown["cost"] == {"amount": "0.42", "currency": "USD", "unpriced": 0, "quarantined": 0}


async def test_unpriced_steps_are_counted_and_not_free(workflows: Workflows) -> None:
    await workflows.add("both", BOTH)
    shown = await workflows.show((await workflows.run("both"))["id"])
    assert step_costs(shown) == {"/do/0/ask": ("0.0075", 0), "/do/1/check": (None, 1)}
    assert format_cost(shown["cost"]) == "0.0075 USD + 1 unpriced step"


async def test_a_run_costs_what_its_sub_runs_cost(workflows: Workflows) -> None:
    await price(workflows, "servers/inventory", prices={"*": "0"})
    await workflows.add("ask", ASK)
    await workflows.add("outer", SUB)
    shown = await workflows.show((await workflows.run("outer"))["id"])
    assert step_costs(shown) == {"/do/0/below": ("0.0075", 0), "/do/1/check": ("0.00", 0)}
    assert (shown["cost"]["amount"], shown["cost"]["unpriced"]) == ("0.0075", 0)
    found = (await workflows.desk.ask("GET", "/api/cost?by=workflow", "alice")).json()["items"]
    assert [(each["workflow"], each["amount"], each["unpriced"]) for each in found] == [("outer", "0.0075", 0)]


async def test_a_run_costs_what_agents_below_its_steps_cost(home: House, workflows: Workflows) -> None:
    async def pass_on(token: str, text: str) -> str:
        hop = (await home.exchange("chief", token, "/agents/sales", "agent:sales")).json()["access_token"]
        await home.send(hop, "sales", text)
        return "done"

    await home.agent(CallbackAgent("chief", pass_on))
    await price(workflows, "agents/chief", price="0.1")
    by_chief = ASK.replace("ask:", "delegate:").replace("agent: sales", "agent: chief")
    await workflows.add("chain", by_chief + ASK.removeprefix("\ndo:\n"))
    shown = await workflows.show((await workflows.run("chain"))["id"])
    assert step_costs(shown) == {"/do/0/delegate": ("0.1075", 0), "/do/1/ask": ("0.0075", 0)}
    assert (shown["cost"]["amount"], shown["cost"]["unpriced"]) == ("0.115", 0)


async def test_the_estimate_tells_what_past_runs_cost(workflows: Workflows) -> None:
    await price(workflows, "servers/inventory", prices={"check": "0.0925"})
    await workflows.add("both", BOTH)
    for _ in range(2):
        await workflows.run("both")
    found = (await workflows.desk.ask("GET", "/api/workflows/both/estimate", "alice")).json()
    assert found["cost"] == {"p50": "0.10", "p95": "0.10", "currency": "USD"}
    assert found["unpriced_steps"] == {"p50": 0, "p95": 0}
    assert [step["cost"]["p95"] for step in found["by_step"]] == ["0.0075", "0.0925"]


async def test_plans_that_failed_count_by_what_they_really_cost(home: House, workflows: Workflows) -> None:
    support = await home.agent(CallbackAgent("support"))
    support.state = "TASK_STATE_FAILED"
    await price(workflows, "agents/support", price="0.3")
    failing, working = plan_of(help=call_agent("support", "hi")), plan_of(ask=call_agent("sales", "hi"))
    await home.agent(ScriptedPlanner("planner", failing, working))
    await workflows.add("planned", PLANNED)
    task = await workflows.run("planned")
    assert output_of(task) == "sales got: hi"


async def test_plans_that_cost_more_than_was_expected_leave_no_room(home: House, workflows: Workflows) -> None:
    support = await home.agent(CallbackAgent("support"))
    support.state = "TASK_STATE_FAILED"
    await price(workflows, "agents/support", price="0.6")
    failing, working = plan_of(help=call_agent("support", "hi")), plan_of(ask=call_agent("sales", "hi"))
    await home.agent(ScriptedPlanner("planner", failing, working))
    await workflows.add("planned", PLANNED)
    task = await workflows.run("planned")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert "up to 1 after 0.60 for earlier plans, more than 1.5" in task["status"]["message"]["parts"][0]["text"]


async def test_a_failed_plan_of_unknown_cost_counts_as_much_as_it_may_cost(home: House, workflows: Workflows) -> None:
    support = await home.agent(CallbackAgent("support"))
    support.state = "TASK_STATE_FAILED"
    failing, working = plan_of(help=call_agent("support", "hi")), plan_of(ask=call_agent("sales", "hi"))
    await home.agent(ScriptedPlanner("planner", failing, working))
    await workflows.add("planned", PLANNED)
    task = await workflows.run("planned")
    assert "up to 1 after 1 for earlier plans" in task["status"]["message"]["parts"][0]["text"]
