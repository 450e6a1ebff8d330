"""Errors never flow on: gates stop a run at a doubtful answer, and what was done before is undone in reverse order."""

from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Workflows

CONTRACT = "input: {schema: {document: {}}}\n    output: {schema: {document: {}}}\n"
SAGA = """
use:
  functions:
    unreserve:
      call: gateway.tool
      with: {tool: inventory.release, arguments: {what: '${ .output }'}}
do:
- first:
    call: gateway.tool
    with: {tool: inventory.reserve, arguments: {sku: one}}
    metadata: {gateway: {compensate: unreserve}}
    output: {as: one}
- second:
    call: gateway.tool
    with: {tool: inventory.reserve, arguments: {sku: two}}
    metadata: {gateway: {compensate: unreserve}}
    output: {as: two}
- fail: {raise: {error: {type: 'urn:tests:no', status: 409, title: No}}}
""".replace("as: one", "as: '\"one\"'").replace("as: two", "as: '\"two\"'")


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def failure(workflows: Workflows, name: str) -> str:
    task = await workflows.run(name)
    assert task["status"]["state"] == "TASK_STATE_FAILED", task
    return str(task["status"]["message"]["parts"][0]["text"])


async def test_finished_steps_are_undone_in_reverse_order(home: House, workflows: Workflows) -> None:
    server = await home.server("inventory", "reserve", "release")
    await workflows.add("saga", SAGA)
    assert "No at /do/2/fail" in await failure(workflows, "saga")
    released = [arguments["what"] for tool, arguments in server.calls if tool == "release"]
    assert released == ["two", "one"]


async def test_effects_that_could_not_be_undone_are_listed(home: House, workflows: Workflows) -> None:
    server = await home.server("inventory", "reserve", "release")
    plain = server.result

    def result(params: Any) -> Any:
        broken = params.get("name") == "release" and params["arguments"]["what"] == "one"
        return {"content": [], "isError": True, "resultType": "complete"} if broken else plain(params)

    server.result = result  # type: ignore[method-assign]  # one tool of it is broken
    await workflows.add("saga", SAGA)
    said = await failure(workflows, "saga")
    assert "not undone: /do/0/first" in said and "/do/1/second" not in said


@pytest.mark.parametrize(
    ("answer", "problem"),
    [({"confidence": 0.9}, ""), ({"confidence": 0.5}, "Low Confidence"), ({}, "no confidence"), ({"confidence": True}, "Low")],
)
async def test_an_answer_without_enough_confidence_stops_the_run(
    home: House, workflows: Workflows, answer: dict[str, Any], problem: str
) -> None:
    agent = await home.agent(CallbackAgent("judge"))
    agent.more = [{"data": answer}]
    body = (
        "do:\n- ask:\n    call: gateway.agent\n    with: {agent: judge, "
        "input: hi}\n    metadata: {gateway: {kind: ai, minConfidence: 0.8}}\n    "
    )
    await workflows.add("gated", body + CONTRACT)
    if problem:
        assert problem in await failure(workflows, "gated")
    else:
        assert (await workflows.run("gated"))["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_rule_that_does_not_hold_stops_the_run(home: House, workflows: Workflows) -> None:
    agent = await home.agent(CallbackAgent("judge"))
    agent.more = [{"data": {"total": 7}}]
    body = (
        "do:\n- ask:\n    call: gateway.agent\n    with: {agent: judge, input: hi}\n"
        "    metadata: {gateway: {kind: ai, check: {rule: '.total > 10'}}}\n    "
    )
    await workflows.add("checked", body + CONTRACT)
    assert "Check Failed at /do/0/ask" in await failure(workflows, "checked")


async def test_an_expression_without_end_stops_only_its_run(workflows: Workflows) -> None:  # attack WFL-01
    await workflows.add("endless", "do:\n- loop: {set: {x: '${ [limit(1; repeat(1) | select(. == 2))] }'}}\n")
    await workflows.add("plain", "do:\n- say: {set: {x: 1}}\n")
    assert "Expression Error at /do/0/loop" in await failure(workflows, "endless")
    assert (await workflows.run("plain"))["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_expressions_read_nothing_of_the_gateway(workflows: Workflows) -> None:  # attack WFL-01
    await workflows.add("nosy", "do:\n- read: {set: {env: '${ $ENV }'}}\n")
    task = await workflows.run("nosy")
    assert task["artifacts"][0]["parts"][0]["data"] == {"env": {}}
    await workflows.add("nosier", "do:\n- read: {set: {env: '${ env }'}}\n")
    assert "not available in a workflow" in await failure(workflows, "nosier")
