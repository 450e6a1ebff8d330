"""A workflow is an agent and a run is its task: started over A2A or /api, with the rights of the person who started it."""

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Workflows, output_of

CHAIN = """
input:
  schema:
    document: {type: object, properties: {sku: {type: string}}, required: [sku]}
do:
- stock:
    call: gateway.tool
    with: {tool: inventory.check, arguments: {sku: "${ .sku }"}}
    output: {as: "${ fromjson }"}
- quote:
    call: gateway.agent
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {type: object}}}
    output: {schema: {document: {type: string}}}
    with: {agent: sales, input: '${ "quote for " + .sku }'}
- result:
    set: {answer: "${ . }"}
"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    await home.agent(CallbackAgent("sales"))
    await home.server("inventory", "check", "reserve")
    return Workflows(home)


async def test_a_chain_of_a_tool_and_an_agent_completes(workflows: Workflows) -> None:
    added = await workflows.add("offer", CHAIN)
    assert added["ceiling"] == ["agent:sales", "tool:inventory.check"]
    task = await workflows.run("offer", {"sku": "7"})
    assert task["status"]["state"] == "TASK_STATE_COMPLETED", task
    assert output_of(task) == {"answer": "sales got: quote for 7"}
    shown = await workflows.show(task["id"])
    assert [step["step"] for step in shown["steps"]] == ["/do/0/stock", "/do/1/quote"]
    assert all(step["task_id"] for step in shown["steps"])
