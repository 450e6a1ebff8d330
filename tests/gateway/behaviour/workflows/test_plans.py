"""Coordinators: an agent plans with what the run's starter may use; the plan is checked, may be approved, runs, and is planned anew."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, update

from gateway.storage.database import Batch
from gateway.workflows.engine.results import own_error
from gateway.workflows.runs.tables import workflow_steps
from tests.fakes.a2a_agents import serving
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.planners import ScriptedPlanner, call_agent, call_tool, plan_of
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows, output_of

STEP = """
do:
- solve:
    call: gateway.plan
    with:
      agent: planner
      goal: '${ "restock " + .sku }'
      input: '${ . }'
      among: {agents: [sales], tools: [inventory.check, inventory.reserve]}
@
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
GIVEN = {"sku": "7", "count": 3}
CHECKS = plan_of(
    look=call_tool("inventory.check", {"sku": {"from": "input", "path": "/sku"}}),
    say=call_agent("sales", {"from": "look"}),
)


def coordinator(*more: str) -> str:
    """A document with one step that plans, and further arguments of it."""
    return STEP.replace("@\n", "".join(f"      {line}\n" for line in more))


@pytest.fixture
async def workflows(home: House) -> Workflows:
    await home.agent(CallbackAgent("sales"))
    return Workflows(home)


def refusal_of(task: dict[str, Any]) -> str:
    assert task["status"]["state"] == "TASK_STATE_FAILED", task
    return str(task["status"]["message"]["parts"][0]["text"])


async def test_a_plan_runs_as_steps_of_the_run(home: House, workflows: Workflows) -> None:
    server = await home.server("inventory", "check", "reserve")
    planner = await home.agent(ScriptedPlanner("planner", CHECKS))
    added = await workflows.add("restock", coordinator())
    assert added["ceiling"] == ["agent:planner", "agent:sales", "tool:inventory.check", "tool:inventory.reserve"]
    task = await workflows.run("restock", GIVEN)
    assert output_of(task) == 'sales got: {"sku": "7"}'
    assert server.calls == [("check", {"sku": "7"})]
    told = planner.told[0]
    assert told["goal"] == "restock 7" and told["input"] == GIVEN
    assert [each["name"] for each in told["offers"]["tools"]] == ["inventory.check", "inventory.reserve"]
    shown = await workflows.show(task["id"])
    assert [step["step"] for step in shown["steps"]] == [
        "/do/0/solve/plans/0/planner",
        "/do/0/solve/plans/0/do/0/look",
        "/do/0/solve/plans/0/do/1/say",
    ]
    assert [(each["step"], each["number"], each["plan"]) for each in shown["plans"]] == [("/do/0/solve", 0, CHECKS)]
    tasks = (await workflows.desk.ask("GET", "/api/tasks", "alice")).json()["items"]
    assert {each["parent_id"] for each in tasks if each["id"] != task["id"]} == {task["id"]}


async def test_a_planner_is_offered_what_the_starter_may_use(home: House, workflows: Workflows) -> None:
    await home.server("inventory", "check", "reserve")
    planner = await home.agent(ScriptedPlanner("planner", CHECKS))
    await workflows.add("restock", coordinator())
    await workflows.run("restock", GIVEN, user="bob")
    offers = planner.told[0]["offers"]
    assert [each["name"] for each in offers["tools"]] == ["inventory.check"]
    assert [each["name"] for each in offers["agents"]] == ["sales"]


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (plan_of(look=call_tool("inventory.check"), take=call_tool("inventory.reserve")), "`inventory.reserve` was not offered"),
        (plan_of(look=call_tool("inventory.check"), ask=call_agent("nobody", "hi")), "`nobody` was not offered"),
        (plan_of(look=call_tool("inventory.check"), ask=call_agent("restock", "again")), "`restock` was not offered"),
        (plan_of(look=call_tool("inventory.check"), ask=call_agent("planner", "again")), "`planner` was not offered"),
        (plan_of(**{f"s{number}": call_tool("inventory.check") for number in range(150)}), "150 steps, more than 20"),
        (plan_of(look=call_tool("inventory.check", {"sku": "${ $workflow }"})), "has an expression"),
        ("First I would look, then I would reserve.", "is no JSON"),
    ],
)
async def test_a_plan_for_more_is_refused_before_any_step(  # attack WFL-02
    home: House, workflows: Workflows, plan: Any, reason: str
) -> None:
    server = await home.server("inventory", "check", "reserve")
    await home.agent(ScriptedPlanner("planner", plan))
    await workflows.add("restock", coordinator())
    refused = refusal_of(await workflows.run("restock", GIVEN, user="bob"))
    assert "Plan Refused at /do/0/solve" in refused and reason in refused
    assert server.calls == []


async def test_rights_that_end_after_the_offer_stop_the_plan(home: House, workflows: Workflows) -> None:  # attack WFL-02
    server = await home.server("inventory", "check", "reserve")
    planner = ScriptedPlanner("planner", plan_of(look=call_tool("inventory.check"), ask=call_agent("sales", "hi")))

    async def act(token: str, said: str) -> str:
        assert (await workflows.desk.post("/api/kill", kind="agent", name="sales")).status_code == 201
        await home.gateway.database.refresh_epochs()
        return await planner._plan(token, said)

    planner.act = act
    await home.agent(planner)
    await workflows.add("restock", coordinator())
    refused = refusal_of(await workflows.run("restock", GIVEN))
    assert "`sales` is refused (killed)" in refused
    assert server.calls == []


async def test_a_plan_that_costs_too_much_is_refused(home: House, workflows: Workflows) -> None:  # attack WFL-02
    server = await home.server("inventory", "check", "reserve")
    await home.agent(ScriptedPlanner("planner", CHECKS))
    body = coordinator("limits: {cost: 0.30}", "costs: {sales: 0.25, inventory.check: 0.10, inventory.reserve: 0}")
    await workflows.add("restock", body)
    assert "costs up to 0.35, more than 0.3" in refusal_of(await workflows.run("restock", GIVEN))
    assert server.calls == []


async def test_what_a_reference_leads_to_is_data(home: House, workflows: Workflows) -> None:  # attack WFL-02
    server = await home.server("inventory", "check", "reserve")
    await home.agent(ScriptedPlanner("planner", CHECKS))
    await workflows.add("restock", coordinator())
    assert (await workflows.run("restock", {"sku": "${ $workflow.id }"}))["status"]["state"] == "TASK_STATE_COMPLETED"
    assert server.calls == [("check", {"sku": "${ $workflow.id }"})]


async def test_people_approve_of_exactly_one_plan(home: House, workflows: Workflows) -> None:  # attack WFL-02
    server = await home.server("inventory", "check", "reserve")
    await home.agent(ScriptedPlanner("planner", CHECKS))
    await workflows.add("restock", coordinator("approve: true", 'prompt: \'${ "Restock " + .sku + "?" }\''))
    run = await workflows.start("restock", GIVEN)
    await workflows.reached(run, "SUSPENDED")
    assert server.calls == []
    (checkpoint,) = await workflows.checkpoints("admin")
    assert (checkpoint["prompt"], checkpoint["subject"]["plan"]) == ("Restock 7?", CHECKS)
    assert (await workflows.answer(checkpoint["id"], {"approved": True}, "alice")).status_code == 403
    await workflows.answer(checkpoint["id"], {"approved": True}, "admin")
    assert await workflows.output(run) == 'sales got: {"sku": "7"}'
    shown = await workflows.show(run)
    assert shown["plans"][0]["digest"] == checkpoint["subject"]["digest"]
    opened = (await workflows.desk.ask("GET", "/api/audit?kind=checkpoint-opened")).json()["items"]
    assert [len(record["subject_digest"]) for record in opened] == [64]
    assert shown["steps"][1]["step"] == f"/do/0/solve/plans/0/approve/{checkpoint['subject']['digest']}"


async def test_a_plan_that_was_changed_needs_another_approval(home: House, workflows: Workflows) -> None:  # attack WFL-02
    server = await home.server("inventory", "check", "reserve")
    await home.agent(ScriptedPlanner("planner", CHECKS))
    await workflows.add("restock", coordinator("approve: true"))
    run = await workflows.start("restock", GIVEN)
    await workflows.reached(run, "SUSPENDED")
    (first,) = await workflows.checkpoints("admin")

    def change(batch: Batch) -> None:
        replaced = update(workflow_steps).where(workflow_steps.c.kind == "plan")
        batch.connection.execute(replaced.values(result=func.replace(workflow_steps.c.result, "inventory.check", "inventory.reserve")))

    await home.gateway.database.write(change)
    await workflows.answer(first["id"], {"approved": True}, "admin")

    async def asks_again() -> bool:
        return [each["id"] for each in await workflows.checkpoints("admin")] not in ([], [first["id"]])

    await until(asks_again)
    assert server.calls == []
    assert (await workflows.show(run))["state"] == "TASK_STATE_WORKING"


async def test_rights_that_end_before_the_approval_stop_the_plan(home: House, workflows: Workflows) -> None:  # attack WFL-02
    server = await home.server("inventory", "check", "reserve")
    await home.agent(ScriptedPlanner("planner", CHECKS))
    await workflows.add("restock", coordinator("approve: true"))
    run = await workflows.start("restock", GIVEN)
    await workflows.reached(run, "SUSPENDED")
    (checkpoint,) = await workflows.checkpoints("admin")
    assert (await workflows.desk.post("/api/kill", kind="agent", name="sales")).status_code == 201
    await home.gateway.database.refresh_epochs()
    await workflows.answer(checkpoint["id"], {"approved": True}, "admin")
    assert (await workflows.ended(run))["state"] == "TASK_STATE_FAILED"
    assert server.calls == []


async def test_a_planner_is_told_the_size_of_a_large_output(home: House, workflows: Workflows) -> None:
    await home.server("inventory", "check", "reserve")
    broken = await home.agent(CallbackAgent("broken"))
    broken.state = "TASK_STATE_FAILED"
    large = plan_of(look=call_tool("inventory.check", {"note": {"from": "input", "path": "/note"}}), ask=call_agent("broken", "hi"))
    planner = await home.agent(ScriptedPlanner("planner", large, plan_of(say={"set": 1})))
    await workflows.add("restock", coordinator("replan: 1").replace("[sales]", "[broken]"))
    assert output_of(await workflows.run("restock", {"sku": "7", "note": "x" * 70_000})) == 1
    assert planner.told[1]["earlier"][0]["done"]["look"]["omittedBytes"] > 70_000


async def test_a_denied_plan_is_not_planned_anew(home: House, workflows: Workflows) -> None:
    planner = await home.agent(ScriptedPlanner("planner", CHECKS))
    await home.server("inventory", "check", "reserve")
    await workflows.add("restock", coordinator("approve: true", "replan: 2"))
    run = await workflows.start("restock", GIVEN)
    await workflows.reached(run, "SUSPENDED")
    (checkpoint,) = await workflows.checkpoints("admin")
    await workflows.answer(checkpoint["id"], {"approved": False, "reason": "not this month"}, "admin")
    assert (await workflows.ended(run))["state"] == "TASK_STATE_FAILED"
    assert len(planner.requests) == 1


async def test_a_failed_step_is_planned_around(home: House, workflows: Workflows) -> None:
    server = await home.server("inventory", "check", "reserve")
    broken = await home.agent(CallbackAgent("broken"))
    broken.state = "TASK_STATE_FAILED"
    first = plan_of(look=call_tool("inventory.check", {"sku": "7"}), ask=call_agent("broken", "hi"))
    planner = await home.agent(ScriptedPlanner("planner", first, plan_of(say=call_agent("sales", "instead"))))
    await workflows.add("restock", coordinator("replan: 1").replace("[sales]", "[sales, broken]"))
    task = await workflows.run("restock", GIVEN)
    assert output_of(task) == "sales got: instead"
    (earlier,) = planner.told[1]["earlier"]
    assert earlier["plan"] == first and earlier["done"] == {"look": '{"sku": "7"}'}
    assert earlier["failed"]["step"] == "ask" and "broken" in earlier["failed"]["detail"]
    assert [each["number"] for each in (await workflows.show(task["id"]))["plans"]] == [0, 1]
    assert len(server.calls) == 1


async def test_nothing_is_planned_anew_after_an_unknown_outcome(home: House, workflows: Workflows) -> None:
    await home.server("inventory", "check", "reserve")
    planner = await home.agent(ScriptedPlanner("planner", plan_of(take=call_tool("inventory.reserve"))))
    await workflows.add("restock", coordinator("replan: 2"))
    await home.gateway.workflows.load()
    steps = home.gateway.workflows._parts.steps
    plain = steps.run

    async def run(who: Any, key: Any, request: Any) -> Any:
        done = await plain(who, key, request)
        if request.agent == "inventory":  # the answer of the server gets lost
            raise own_error("outcome-unknown", 500, "Outcome Unknown", "lost", key.pointer)
        return done

    steps.run = run  # type: ignore[method-assign]  # the answer of the server gets lost
    assert "Outcome Unknown" in refusal_of(await workflows.run("restock", GIVEN))
    assert len(planner.requests) == 1


async def test_planning_anew_is_bounded(home: House, workflows: Workflows) -> None:
    server = await home.server("inventory", "check", "reserve")
    planner = await home.agent(ScriptedPlanner("planner", "no plan", plan_of(ask=call_agent("finance", "hi")), "still none"))
    await workflows.add("restock", coordinator("replan: 2"))
    assert "is no JSON" in refusal_of(await workflows.run("restock", GIVEN))
    assert len(planner.requests) == 3
    assert planner.told[2]["earlier"][1]["problems"] == ["/do/0/ask: the agent `finance` was not offered"]
    assert server.calls == []


async def test_earlier_plans_count_in_the_cost(home: House, workflows: Workflows) -> None:
    await home.server("inventory", "check", "reserve")
    sales = await home.agent(CallbackAgent("broken"))
    sales.state = "TASK_STATE_FAILED"
    await home.agent(ScriptedPlanner("planner", plan_of(ask=call_agent("broken", "hi"))))
    more = ("replan: 5", "limits: {cost: 0.5}", "costs: {broken: 0.2, inventory.check: 0, inventory.reserve: 0}")
    await workflows.add("restock", coordinator(*more).replace("[sales]", "[broken]"))
    refused = refusal_of(await workflows.run("restock", GIVEN))
    assert "costs up to 0.2 after 0.4 for earlier plans, more than 0.5" in refused
    assert len(sales.requests) == 2


async def test_a_plan_whose_step_waits_goes_on_where_it_was(home: House, workflows: Workflows) -> None:
    asking = CallbackAgent("asking")
    states = iter(["TASK_STATE_INPUT_REQUIRED", "TASK_STATE_COMPLETED"])

    async def act(_token: str, said: str) -> str:
        asking.state = next(states)
        asking.message = {"messageId": "q", "role": "ROLE_AGENT", "parts": [{"text": "which?"}]}
        return f"heard {said}"

    asking.act = act
    await home.agent(asking)
    server = await home.server("inventory", "check", "reserve")
    branches = [{"look": call_tool("inventory.check", {"sku": "7"})}, {"ask": call_agent("asking", "hi")}]
    plan = {"do": [{"both": {"fork": {"branches": branches}}}, {"all": {"set": {"heard": {"from": "both", "path": "/1"}}}}]}
    planner = await home.agent(ScriptedPlanner("planner", plan))
    await workflows.add("restock", coordinator().replace("[sales]", "[asking]"))
    task = await workflows.run("restock", GIVEN)
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    await home.send(home.token("alice"), "restock", "large", taskId=task["id"], messageId="m2")
    assert await workflows.output(task["id"]) == {"heard": "heard large"}
    assert len(server.calls) == 1 and len(planner.requests) == 1


async def test_an_approved_plan_runs_after_a_restart(tmp_path: Path, database_url: str) -> None:
    planner, sales = ScriptedPlanner("planner", plan_of(say=call_agent("sales", "hi"))), CallbackAgent("sales")
    async with serving(planner) as first, serving(sales) as second:
        async with house(tmp_path / "home", database_url) as before:
            await before.registered("planner", first)
            await before.registered("sales", second)
            await before.server("inventory", "check", "reserve")
            await Workflows(before).add("restock", coordinator("approve: true"))
            run = await Workflows(before).start("restock", GIVEN)
            await Workflows(before).reached(run, "SUSPENDED")
        async with house(tmp_path / "home", database_url) as after:
            (checkpoint,) = await Workflows(after).checkpoints("admin")
            await Workflows(after).answer(checkpoint["id"], {"approved": True}, "admin")
            assert await Workflows(after).output(run) == "sales got: hi"
    assert (len(planner.requests), len(sales.requests)) == (1, 1)


async def test_a_case_of_a_plan_is_chosen_by_an_earlier_output(home: House, workflows: Workflows) -> None:
    await home.server("inventory", "check", "reserve")
    few = {"when": {"value": {"from": "input", "path": "/count"}, "atMost": 2}, "do": [{"no": {"set": "too few"}}]}
    plan = {"do": [{"which": {"switch": [few, {"do": [{"yes": {"set": "enough"}}]}]}}]}
    await home.agent(ScriptedPlanner("planner", plan))
    await workflows.add("restock", coordinator())
    assert output_of(await workflows.run("restock", GIVEN)) == "enough"


async def test_a_document_that_offers_what_is_not_registered_is_refused(home: House, workflows: Workflows) -> None:
    await home.server("inventory", "check")
    problems = await workflows.refused("restock", coordinator("approve: yes"))
    assert {each["path"] for each in problems} == {"/do/0/solve/with/approve"}
    problems = await workflows.refused("restock", coordinator())
    assert [each["path"] for each in problems] == ["/do/0/solve/with/agent", "/do/0/solve/with/among/tools/1"]
