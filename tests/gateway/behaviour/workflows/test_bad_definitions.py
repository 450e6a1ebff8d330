"""Definitions that would never end, and people without the right to answer: each is refused with its place."""

import pytest

from tests.fakes.house import House
from tests.fakes.workflows import Workflows

SET = "do:\n- say: {set: {said: true}}\n"
APPROVE = "do:\n- ask: {call: gateway.approve, with: {prompt: May it?}}\n"
CHOOSE = "do:\n- ask: {call: gateway.choose, with: {prompt: Which?, options: [a, b]}}\n"
ASK = """do:
- sub:
    call: gateway.agent
    with: {agent: last, input: {}}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


def running(name: str) -> str:
    return f"do:\n- sub: {{run: {{workflow: {{namespace: tests, name: {name}, version: latest}}}}}}\n"


@pytest.mark.parametrize(("body", "path"), [(running("last"), "/do/0/sub/run/workflow/name"), (ASK, "/do/0/sub/with/agent")])
async def test_workflows_that_run_each_other_in_a_circle_are_refused(workflows: Workflows, body: str, path: str) -> None:
    await workflows.add("first", SET)
    await workflows.add("middle", SET)
    await workflows.add("last", running("middle"))
    await workflows.add("middle", running("first"))  # after `last`, which does not know of it
    (problem,) = await workflows.refused("first", body)
    assert (problem["path"], problem["line"] > 0) == (path, True) and "leads back to this workflow" in problem["reason"]
    (itself,) = await workflows.refused("first", running("first"))
    assert itself["reason"] == "calls the workflow itself"


async def test_runs_within_runs_end_at_the_greatest_depth(workflows: Workflows) -> None:
    await workflows.add("flow0", SET)
    for number in range(1, 8):
        await workflows.add(f"flow{number}", running(f"flow{number - 1}"))
    shallow, deep = await workflows.start("flow2"), await workflows.start("flow7")
    assert await workflows.output(shallow) == {"said": True}
    shown = await workflows.ended(deep)
    assert shown["state"] == "TASK_STATE_FAILED" and shown["fault"]["instance"] == "/do/0/sub"
    assert shown["fault"]["type"].startswith(("urn:interlock:error:", "https://open-workflow-specification.org/"))


@pytest.mark.parametrize("body", [APPROVE, CHOOSE])
async def test_people_without_the_right_answer_no_checkpoint(workflows: Workflows, body: str) -> None:
    await workflows.add("flow", body)
    run = await workflows.start("flow")
    await workflows.reached(run, "SUSPENDED", "INPUT_REQUIRED")
    (checkpoint,) = await workflows.checkpoints("alice")
    answer = await workflows.answer(checkpoint["id"], {"approved": True}, "bob")
    assert (answer.status_code, answer.json()["reason_id"]) == (404, "unknown")
    assert [each["state"] for each in (await workflows.show(run))["checkpoints"]] == ["pending"]
