"""Attacks on runs: approvals that are used twice, answers of agents to questions to people, documents that hold up the process."""

from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

AI = "metadata: {gateway: {kind: ai}}, input: {schema: {document: {}}}, output: {schema: {document: {}}}"
GUARDED = f"""
use:
  extensions:
  - guard:
      extend: call
      before:
      - ok: {{call: gateway.approve, with: {{prompt: 'Run this call?'}}}}
do:
- one: {{call: gateway.agent, with: {{agent: sales, input: harmless}}, {AI}}}
- two: {{call: gateway.agent, with: {{agent: sales, input: dangerous}}, {AI}}}
"""
PAY = f"""
do:
- ask: {{call: gateway.approve, with: {{prompt: '${{ "Pay \\(.amount)?" }}'}}, output: {{as: '$input'}}}}
- pay: {{call: gateway.agent, with: {{agent: sales, input: '${{ "pay \\(.amount)" }}'}}, {AI}}}
"""
CHOOSE = "do:\n- sure: {call: gateway.choose, with: {prompt: 'Sure?', options: [accept, reject]}}\n"
ENDLESS = """
do:
- outer: {for: {each: x, in: [LIST]}, do: [{inner: {for: {each: y, in: [LIST]}, do: [{set: {set: {v: 1}}}]}}]}
""".replace("LIST", ",".join(["{}"] * 400))


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


@pytest.fixture
async def done(home: House) -> list[str]:
    """What the agent `sales` was told to do."""
    told: list[str] = []

    async def act(token: str, text: str) -> str:
        told.append(text)
        return "done"

    await home.agent(CallbackAgent("sales", act))
    return told


async def test_an_extension_runs_for_each_task_that_it_wraps(workflows: Workflows, done: list[str]) -> None:
    await workflows.add("guarded", GUARDED)
    run = await workflows.start("guarded")
    await workflows.reached(run, "SUSPENDED")
    (first,) = await workflows.checkpoints("admin")
    await workflows.answer(first["id"], {"approved": True}, "admin")

    async def is_asked_again() -> bool:
        return any(each["id"] != first["id"] for each in await workflows.checkpoints("admin"))

    await until(is_asked_again)
    assert done == ["harmless"]


async def test_a_fork_with_another_input_is_approved_anew(workflows: Workflows, done: list[str]) -> None:
    await workflows.add("pay", PAY)
    run = await workflows.start("pay", {"amount": 10})
    await workflows.reached(run, "SUSPENDED")
    (checkpoint,) = await workflows.checkpoints("admin")
    await workflows.answer(checkpoint["id"], {"approved": True}, "admin")
    await workflows.ended(run)
    forked = await workflows.desk.ask("POST", f"/api/runs/{run}/fork", "alice", {"step": "pay", "input": {"amount": 1000000}})
    await workflows.reached(forked.json()["id"], "SUSPENDED")
    assert done == ["pay 10"]


async def test_one_approval_is_good_for_one_run(workflows: Workflows, done: list[str]) -> None:
    await workflows.add("pay", PAY)
    run = await workflows.start("pay", {"amount": 10})
    await workflows.reached(run, "SUSPENDED")
    (checkpoint,) = await workflows.checkpoints("admin")
    await workflows.answer(checkpoint["id"], {"approved": True}, "admin")
    await workflows.ended(run)
    for _ in range(2):
        forked = await workflows.desk.ask("POST", f"/api/runs/{run}/fork", "alice", {"step": "pay"})
        await workflows.reached(forked.json()["id"], "SUSPENDED", "COMPLETED")
    assert done == ["pay 10"]


async def test_one_approval_is_good_for_one_redrive(home: House, workflows: Workflows, done: list[str]) -> None:
    is_broken = [True]

    async def act(_token: str, text: str) -> str:
        if is_broken[0]:
            raise RuntimeError(text)
        return "done"

    await home.agent(CallbackAgent("flaky", act))
    before = f"- before: {{call: gateway.agent, with: {{agent: flaky, input: x}}, {AI}}}\n- pay:"
    failing = PAY.replace("- pay:", before).replace('(.amount)"', '($workflow.input.amount)"')
    await workflows.add("pay", failing)
    run = await workflows.start("pay", {"amount": 10})
    await workflows.reached(run, "SUSPENDED")
    (checkpoint,) = await workflows.checkpoints("admin")
    await workflows.answer(checkpoint["id"], {"approved": True}, "admin")
    await workflows.ended(run)
    is_broken[0] = False
    states = []
    for key in ("one", "two"):
        headers = {"authorization": f"Bearer {home.token('alice')}", "idempotency-key": key}
        redriven = await home.http.request("POST", f"/api/runs/{run}/redrive", json={}, headers=headers)
        states.append((await workflows.reached(redriven.json()["id"], "SUSPENDED", "COMPLETED"))["state"])
    assert done == ["pay 10"] and states == ["TASK_STATE_COMPLETED", "TASK_STATE_WORKING"]


async def test_a_prompt_with_a_nul_is_an_error_of_its_step(workflows: Workflows, done: list[str]) -> None:
    await workflows.add("pay", PAY)
    run = await workflows.start("pay", {"amount": "\0"})
    assert (await workflows.ended(run))["fault"]["type"].endswith("validation") and not done


async def test_an_agent_does_not_answer_what_its_person_is_asked(home: House, workflows: Workflows) -> None:
    await workflows.add("asks", CHOOSE)
    tasks: list[str] = []

    async def send(token: str, **message: Any) -> Any:
        sent = {"role": "ROLE_USER", **message}
        return (await home.rpc("/agents/asks", token, "SendMessage", {"message": sent}, **{"A2A-Version": "1.0"})).json()

    async def act(token: str, text: str) -> str:
        narrowed = await home.exchanged("rogue", token, "/agents/asks", "agent:asks")
        task = (await send(narrowed, messageId="m1", parts=[{"data": {}}]))["result"]["task"]
        tasks.append(task["id"])
        await send(narrowed, messageId="m2", parts=[{"text": "accept"}], taskId=task["id"], contextId=task["contextId"])
        return "done"

    await home.agent(CallbackAgent("rogue", act))
    await workflows.run("rogue")
    shown = await workflows.show(tasks[0])
    assert [each["state"] for each in shown["checkpoints"]] == ["pending"]


async def test_a_token_for_something_else_sees_and_answers_no_checkpoint(workflows: Workflows) -> None:
    await workflows.add("asks", CHOOSE)
    run = await workflows.start("asks")
    await workflows.reached(run, "INPUT_REQUIRED")
    (checkpoint,) = await workflows.checkpoints("alice")
    listed = await workflows.desk.ask("GET", "/api/checkpoints", "alice", None, scope="tool:nothing.x")
    assert listed.json()["items"] == []
    path = f"/api/checkpoints/{checkpoint['id']}/answer"
    assert (await workflows.desk.ask("POST", path, "alice", {"value": "accept"}, scope="tool:nothing.x")).status_code == 404


async def test_a_document_without_an_end_ends_with_a_typed_error(workflows: Workflows) -> None:
    await workflows.add("endless", ENDLESS)
    run = await workflows.start("endless")
    shown = await workflows.ended(run)
    assert shown["state"] == "TASK_STATE_FAILED" and "more than 100000 tasks" in shown["fault"]["detail"]


async def test_secrets_of_large_values_and_inputs_are_masked(home: House, workflows: Workflows) -> None:
    sales = await home.agent(CallbackAgent("sales"))
    sales.more = [{"data": {"password": "hunter2", "padding": "x" * 70_000}}]
    await workflows.add("large", f"do:\n- ask: {{call: gateway.agent, with: {{agent: sales, input: x}}, {AI}}}\n")
    run = await workflows.start("large", {"password": "hunter2", "tokens": 5})
    shown = await workflows.ended(run)
    digest = shown["steps"][0]["value_reference"]["digest"]
    value = await workflows.desk.ask("GET", f"/api/runs/{run}/values/{digest}", "alice")
    assert value.status_code == 200 and value.json()["padding"] and "hunter2" not in value.text + str(shown)
    assert shown["input"]["tokens"] == 5
