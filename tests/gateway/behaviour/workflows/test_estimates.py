"""Estimates of a workflow: steps, time and tokens of its past runs. What agents did not report is unknown, and not nothing."""

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Workflows

ASK = """
do:
- ask:
    call: gateway.agent
    with: {agent: sales, input: hello}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    found = Workflows(home)
    await home.agent(CallbackAgent("sales"))
    await found.add("ask", ASK)
    return found


async def test_a_workflow_without_runs_has_unknown_figures(workflows: Workflows) -> None:
    found = (await workflows.desk.ask("GET", "/api/workflows/ask/estimate", "alice")).json()
    assert (found["runs"], found["seconds"], found["tokens"], found["by_step"]) == (0, None, None, [])


async def test_past_runs_give_steps_and_time_and_unknown_tokens(workflows: Workflows) -> None:
    for _ in range(2):
        await workflows.output(await workflows.start("ask"))
    listed = (await workflows.desk.ask("GET", "/api/workflows/ask/runs", "alice")).json()["items"]
    found = (await workflows.desk.ask("GET", "/api/workflows/ask/estimate", "alice")).json()
    assert found["completed"] == len(listed) == 2
    assert found["steps"] == {"p50": 1, "p95": 1} and found["seconds"]["p95"] > 0
    assert found["tokens"] is None and found["unpriced_steps"] == {"p50": 1, "p95": 1}
    (step,) = found["by_step"]
    assert (step["step"], step["target"], step["count"], step["failed"]) == ("/do/0/ask", "agent sales", 2, 0)
