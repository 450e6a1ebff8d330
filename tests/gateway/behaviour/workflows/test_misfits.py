"""A workflow that no longer fits the registry starts no new runs and says why; runs under way go on, and it fits again once mended."""

from typing import Any

import pytest

from registry.cards.card import RegistrationStatus
from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Workflows, document

AI = "metadata: {gateway: {kind: ai}}\n    input: {schema: {document: {}}}\n    output: {schema: {document: {}}}\n"
BODY = f"""
do:
- pause: {{wait: PT1H}}
- stock:
    call: gateway.tool
    with: {{tool: inventory.check, arguments: {{sku: A-1}}}}
- quote:
    call: gateway.agent
    with: {{agent: sales, skill: quote, input: {{sku: A-1}}}}
    {AI}"""
SCHEMA = {"type": "object", "properties": {"sku": {}}, "required": ["sku"], "additionalProperties": False}


@pytest.fixture
async def workflows(home: House) -> Workflows:
    await home.agent(CallbackAgent("sales"))
    await home.server("inventory", "check", schema=SCHEMA)
    made = Workflows(home)
    await made.add("offer", BODY)
    return made


async def refusal(workflows: Workflows) -> str:
    """Why a new run is refused."""
    task = await workflows.run("offer")
    assert task["status"]["state"] == "TASK_STATE_REJECTED", task
    return str(task["status"]["message"]["parts"][0]["text"])


async def shown(workflows: Workflows) -> dict[str, Any]:
    (listed,) = (await workflows.desk.ask("GET", "/api/workflows", "alice")).json()["items"]
    one = (await workflows.desk.ask("GET", "/api/workflows/offer", "alice")).json()
    assert {name: one[name] for name in listed} == listed
    return dict(listed)


async def test_a_workflow_that_fits_says_so(workflows: Workflows) -> None:
    found = await shown(workflows)
    assert (found["fits"], found["problems"]) == (True, [])


async def test_a_removed_agent_stops_new_runs_and_not_those_under_way(workflows: Workflows) -> None:
    run = await workflows.start("offer")
    await workflows.reached(run, "SUSPENDED")
    home = workflows.home
    await home.gateway.registry.set_status("default", "sales", RegistrationStatus.QUARANTINED)
    await home.gateway.database.refresh_epochs()
    found = await shown(workflows)
    assert found["fits"] is False
    assert [(each["path"], each["line"]) for each in found["problems"]] == [("/do/2/quote/with/agent", 11)]
    assert "names the agent `sales`, which is quarantined" in await refusal(workflows)
    await home.gateway.registry.set_status("default", "sales", RegistrationStatus.ACTIVE)
    await home.gateway.database.refresh_epochs()
    assert (await shown(workflows))["fits"] is True
    await workflows.pass_time(3601)
    await workflows.output(run)


async def test_a_changed_tool_is_checked_against_the_document(home: House, workflows: Workflows) -> None:
    await home.gateway.registry.remove("default", "inventory")
    await home.server("inventory", "check", schema={**SCHEMA, "required": ["sku", "warehouse"]})
    assert "(line 8) lacks `warehouse`, which the tool `inventory.check` needs" in await refusal(workflows)


async def test_a_changed_contract_is_checked_against_the_document(home: House, workflows: Workflows) -> None:
    contract = {
        "quote": {"input": {"type": "object", "properties": {"quantity": {}}, "required": ["quantity"], "additionalProperties": False}}
    }
    changed = await workflows.desk.ask("PATCH", "/api/agents/sales", body={"contracts": contract})
    assert changed.status_code == 200, changed.text
    await home.gateway.database.refresh_epochs()
    said = await refusal(workflows)
    assert "lacks `quantity`, which the contract of `sales` needs" in said
    assert "has `sku`, which the contract of `sales` does not know" in said


async def test_a_workflow_that_calls_more_than_before_stops_those_that_run_it(workflows: Workflows) -> None:
    await workflows.add("inner", "do:\n- say: {set: {x: 1}}\n")
    await workflows.add("outer", "do:\n- sub: {run: {workflow: {namespace: tests, name: inner, version: latest}}}\n")
    await workflows.add("inner", "do:\n- stock: {call: gateway.tool, with: {tool: inventory.check, arguments: {sku: x}}}\n")
    one = (await workflows.desk.ask("GET", "/api/workflows/outer", "alice")).json()
    assert "which by now calls tool:inventory.check too" in one["problems"][0]["reason"]
    await workflows.add("outer", "do:\n- sub: {run: {workflow: {namespace: tests, name: inner, version: latest}}}\n")
    assert (await workflows.desk.ask("GET", "/api/workflows/outer", "alice")).json()["fits"] is True


async def test_an_upload_is_checked_in_the_same_way(workflows: Workflows) -> None:
    body = BODY.replace("arguments: {sku: A-1}", "arguments: {skv: A-1}").replace("skill: quote", "skill: sing")
    answer = await workflows.desk.post("/api/workflows", document=document("other", body))
    assert [each["path"] for each in answer.json()["problems"]] == ["/do/1/stock/with/arguments"] * 2 + ["/do/2/quote/with/skill"]
