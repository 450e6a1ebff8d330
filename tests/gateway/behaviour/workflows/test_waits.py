"""Runs that wait: for time, for people and for the people that an agent asks. They hold no process, and go on where they stopped."""

import asyncio
from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.waiting import until
from tests.fakes.workflows import Gate, Workflows, output_of

CONTRACT = """
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
PAUSE = """
do:
- before:
    call: gateway.agent
    with: {agent: sales, input: before}
@
- pause: {wait: PT1H}
- after:
    call: gateway.agent
    with: {agent: sales, input: '${ "after " + . }'}
@
""".replace("@", CONTRACT.strip("\n"))
CHOOSE = """
do:
- which:
    call: gateway.choose
    with: {prompt: 'Which size?', options: [small, large], expires: P2D}
- result: {set: {size: "${ . }"}}
"""
APPROVE = """
do:
- allow:
    call: gateway.approve
    with: {prompt: 'Pay 100 EUR?'}
- result: {set: {paid: "${ .approved }"}}
"""
FORM = """
do:
- address:
    call: gateway.form
    with:
      prompt: Where to?
      schema: {type: object, properties: {city: {type: string}}, required: [city]}
"""
DEFAULT = "do:\n- which:\n    call: gateway.choose\n    with: {prompt: 'Which?', options: [a, b], expires: PT1H, default: b}\n"
EXPIRED = "do:\n- which:\n    call: gateway.choose\n    with: {prompt: 'Which?', options: [a, b], expires: PT1H}\n"
LATE = """
do:
- attempt:
    try:
    - ask:
        call: gateway.choose
        with: {prompt: 'Which?', options: [a]}
        timeout: {after: PT1H}
    catch:
      errors: {with: {status: 408}}
      do:
      - late: {set: {late: true}}
"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


async def test_a_run_waits_without_a_runner_and_goes_on_in_time(home: House, workflows: Workflows) -> None:
    sales = await home.agent(CallbackAgent("sales"))
    await workflows.add("pause", PAUSE)
    run = await workflows.start("pause")
    shown = await workflows.reached(run, "SUSPENDED")
    assert "waits until 20" in shown["note"]

    async def has_no_runner() -> bool:
        return not (await home.gateway.stores.tasks.find("default", shown["owner"], run)).runner

    await until(has_no_runner)
    assert await home.gateway.takeover.run_once() == 0
    await workflows.pass_time(3500)
    assert (await workflows.show(run))["state"] == "TASK_STATE_WORKING"
    await workflows.pass_time(101)
    assert await workflows.output(run) == "sales got: after sales got: before"
    assert len(sales.requests) == 2


async def test_the_owner_chooses_by_a_reply_to_the_run(workflows: Workflows) -> None:
    await workflows.add("choose", CHOOSE)
    task = await workflows.run("choose")
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert task["status"]["message"]["parts"][0]["text"] == "Which size?"
    token = workflows.home.token("alice")
    refused = await workflows.home.send(token, "choose", "medium", taskId=task["id"], messageId="m2")
    assert refused["error"]["code"] == -32602
    answered = await workflows.home.send(token, "choose", "large", taskId=task["id"], messageId="m3")
    assert output_of(answered["result"]["task"]) == {"size": "large"}


async def test_a_checkpoint_is_answered_once(workflows: Workflows) -> None:
    await workflows.add("choose", CHOOSE)
    run = await workflows.start("choose")
    await workflows.reached(run, "INPUT_REQUIRED")
    (checkpoint,) = await workflows.checkpoints("alice")
    assert checkpoint["run"] == run
    assert (await workflows.answer(checkpoint["id"], "medium", "alice")).status_code == 422
    assert (await workflows.answer(checkpoint["id"], "small", "bob")).status_code == 404
    assert (await workflows.answer(checkpoint["id"], "small", "alice")).status_code == 200
    assert (await workflows.answer(checkpoint["id"], "large", "alice")).status_code == 409
    assert await workflows.output(run) == {"size": "small"}
    assert await workflows.checkpoints("alice") == []


BESIDE_WORK = """
do:
- both:
    fork:
      branches:
      - which: {call: gateway.choose, with: {prompt: 'Which size?', options: [small, large], expires: P2D}}
      - ask:
          call: gateway.agent
          metadata: {gateway: {kind: ai}}
          input: {schema: {document: {}}}
          with: {agent: sales, input: hello}
          output: {schema: {document: {}}}
"""


async def test_an_answer_that_comes_while_another_branch_works_is_not_lost(home: House, workflows: Workflows) -> None:
    gate = asyncio.Event()

    async def act(token: str, text: str) -> str:
        await gate.wait()
        return "done"

    await home.agent(CallbackAgent("sales", act))
    await workflows.add("beside", BESIDE_WORK)
    run = await workflows.start("beside")

    async def is_asked() -> bool:
        return bool(await workflows.checkpoints("alice"))

    await until(is_asked)
    (checkpoint,) = await workflows.checkpoints("alice")
    assert (await workflows.answer(checkpoint["id"], "small", "alice")).status_code == 200
    gate.set()
    assert await workflows.output(run) == ["small", "done"]


async def test_the_starter_of_a_run_can_not_approve_it(workflows: Workflows) -> None:
    await workflows.add("pay", APPROVE)
    run = await workflows.start("pay")
    await workflows.reached(run, "SUSPENDED")
    (checkpoint,) = await workflows.checkpoints("admin")
    assert (await workflows.answer(checkpoint["id"], {"approved": True}, "alice")).status_code == 403
    assert (await workflows.answer(checkpoint["id"], {"approved": True}, "bob")).status_code == 404
    assert (await workflows.answer(checkpoint["id"], {"approved": True}, "admin")).status_code == 200
    assert await workflows.output(run) == {"paid": True}


async def test_a_denial_ends_the_run_with_the_reason(workflows: Workflows) -> None:
    await workflows.add("pay", APPROVE)
    run = await workflows.start("pay")
    await workflows.reached(run, "SUSPENDED")
    (checkpoint,) = await workflows.checkpoints("admin")
    await workflows.answer(checkpoint["id"], {"approved": False, "reason": "too much"}, "admin")
    await workflows.ended(run)
    task = (await workflows.desk.ask("GET", f"/api/tasks/{run}", "alice")).json()
    assert "Denied at /do/0/allow: a person denied it: too much" in task["status"]["message"]["parts"][0]["text"]


async def test_a_form_is_checked_against_its_schema(workflows: Workflows) -> None:
    await workflows.add("form", FORM)
    run = await workflows.start("form")
    await workflows.reached(run, "INPUT_REQUIRED")
    (checkpoint,) = await workflows.checkpoints("alice")
    assert (await workflows.answer(checkpoint["id"], {"town": "Bern"}, "alice")).status_code == 422
    await workflows.answer(checkpoint["id"], {"city": "Bern"}, "alice")
    assert await workflows.output(run) == {"city": "Bern"}


@pytest.mark.parametrize(("body", "outcome"), [(DEFAULT, "b"), (EXPIRED, None), (LATE, {"late": True})])
async def test_waiting_for_people_ends(workflows: Workflows, body: str, outcome: Any) -> None:
    await workflows.add("patient", body)
    run = await workflows.start("patient")
    await workflows.reached(run, "INPUT_REQUIRED")
    await workflows.pass_time(3601)
    if outcome is None:
        assert (await workflows.ended(run))["state"] == "TASK_STATE_FAILED"
    else:
        assert await workflows.output(run) == outcome


async def test_an_agents_question_reaches_the_owner_of_the_run(home: House, workflows: Workflows) -> None:
    asking = CallbackAgent("asking")
    states = iter(["TASK_STATE_INPUT_REQUIRED", "TASK_STATE_COMPLETED"])

    async def act(_token: str, text: str) -> str:
        asking.state = next(states)
        asking.message = {"messageId": "q", "role": "ROLE_AGENT", "parts": [{"text": "which size?"}]}
        return f"heard {text}"

    asking.act = act
    await home.agent(asking)
    await workflows.add("ask", "do:\n- ask:\n    call: gateway.agent\n    with: {agent: asking, input: hi}" + CONTRACT)
    task = await workflows.run("ask")
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert task["status"]["message"]["parts"][0]["text"] == "which size?"
    await home.send(home.token("alice"), "ask", "large", taskId=task["id"], messageId="m2")
    assert await workflows.output(task["id"]) == "heard large"
    assert len(asking.requests) == 2


async def test_a_suspended_run_ends_with_the_rights_of_its_starter(home: House, workflows: Workflows) -> None:
    await workflows.add("pause", "do:\n- pause: {wait: PT1H}\n")
    run = await workflows.start("pause")
    shown = await workflows.reached(run, "SUSPENDED")
    row = await home.gateway.stores.tasks.find("default", shown["owner"], run)
    answer = await workflows.desk.ask("DELETE", f"/api/grants/{row.grant_id}", "admin")
    assert answer.status_code in (200, 204), answer.text
    await workflows.pass_time(3601)
    assert (await workflows.ended(run))["state"] == "TASK_STATE_FAILED"


async def test_a_step_that_takes_too_long_is_canceled(home: House, workflows: Workflows) -> None:
    slow = Gate()
    await home.agent(CallbackAgent("slow", slow.act))
    body = "do:\n- ask:\n    call: gateway.agent\n    with: {agent: slow, input: hi}\n    timeout: {after: PT0.3S}" + CONTRACT
    await workflows.add("timed", body)
    task = await workflows.run("timed")
    assert "Timeout Error at /do/0/ask" in task["status"]["message"]["parts"][0]["text"]
    tasks = (await workflows.desk.ask("GET", "/api/tasks", "alice")).json()["items"]
    assert {each["agent"]: each["state"] for each in tasks}["slow"] == "TASK_STATE_CANCELED"
