"""A workflow is an agent and a run is its task: started over A2A or /api, with the rights of the person who started it."""

import asyncio
import sys

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Gate, Workflows, document, output_of

AI = """
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""

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

RETRY = """
do:
- attempt:
    try:
    - ask:
        call: gateway.agent
        with: {agent: flaky, input: please}
        metadata: {gateway: {kind: ai}}
        input: {schema: {document: {}}}
        output: {schema: {document: {}}}
    catch: {errors: {with: {status: 500}}, retry: {limit: {attempt: {count: 5}}}}
"""
CATCH = """
do:
- attempt:
    try:
    - ask:
        call: gateway.agent
        with: {agent: broken, input: please}
        metadata: {gateway: {kind: ai}}
        input: {schema: {document: {}}}
        output: {schema: {document: {}}}
    catch:
      do:
      - handle: {set: {instead: '${ $error.detail | split(":")[0] }'}}
"""
FORK = """
do:
- both:
    fork:
      branches:
      - l:
          call: gateway.agent
          with: {agent: left, input: l}
          metadata: {gateway: {kind: ai}}
          input: {schema: {document: {}}}
          output: {schema: {document: {}}}
      - r:
          call: gateway.agent
          with: {agent: right, input: r}
          metadata: {gateway: {kind: ai}}
          input: {schema: {document: {}}}
          output: {schema: {document: {}}}
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


# Names and errors that others need; they import neither the engine nor its libraries.
LIGHT_MODULES = [
    "gateway.workflows.problems",
    "gateway.workflows.publishing",
    "gateway.workflows.publishing.files",
    "gateway.workflows.runs",
    "gateway.workflows.runs.tables",
]


async def test_the_engine_is_not_imported_without_a_workflow() -> None:
    program = (
        "import sys, gateway.server.app;"
        "print(sorted(name for name in sys.modules if name.startswith('gateway.workflows.') or name in ('jq', 'jsonschema_rs')))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0].decode().strip() == str(LIGHT_MODULES)


async def test_a_failed_step_ends_the_run_with_its_place_and_reason(home: House, workflows: Workflows) -> None:
    broken = await home.agent(CallbackAgent("broken"))
    broken.state = "TASK_STATE_FAILED"
    await workflows.add("failing", "do:\n- ask:\n    call: gateway.agent\n    with: {agent: broken, input: hi}\n" + AI)
    task = await workflows.run("failing")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    said = task["status"]["message"]["parts"]
    assert "Runtime Error at /do/0/ask: agent broken" in said[0]["text"]
    assert said[1]["data"]["instance"] == "/do/0/ask"


async def test_a_failed_step_is_retried_under_a_key_of_its_own(home: House, workflows: Workflows) -> None:
    answers = iter(["TASK_STATE_FAILED", "TASK_STATE_FAILED", "TASK_STATE_COMPLETED"])
    flaky = CallbackAgent("flaky")

    async def act(_token: str, text: str) -> str:
        flaky.state = next(answers)
        return text

    flaky.act = act
    await home.agent(flaky)
    await workflows.add("persistent", RETRY)
    run = await workflows.start("persistent")
    assert await workflows.output(run) == "please"
    assert len(flaky.requests) == 3
    assert len({step["task_id"] for step in (await workflows.show(run))["steps"]}) == 3


async def test_a_caught_error_is_handled_by_the_document(home: House, workflows: Workflows) -> None:
    broken = await home.agent(CallbackAgent("broken"))
    broken.state = "TASK_STATE_FAILED"
    await workflows.add("handling", CATCH)
    assert output_of(await workflows.run("handling")) == {"instead": "agent broken"}


async def test_branches_of_a_fork_run_at_once(home: House, workflows: Workflows) -> None:
    left, right = Gate(), Gate()
    await home.agent(CallbackAgent("left", left.act))
    await home.agent(CallbackAgent("right", right.act))
    await workflows.add("both", FORK)
    run = await workflows.start("both")
    await asyncio.gather(left.reached.wait(), right.reached.wait())
    left.opened.set()
    right.opened.set()
    assert await workflows.output(run) == ["done: l", "done: r"]


async def test_the_slower_branch_of_a_competition_is_canceled(home: House, workflows: Workflows) -> None:
    slow = Gate()
    await home.agent(CallbackAgent("left", slow.act))
    await home.agent(CallbackAgent("right"))
    await workflows.add("race", FORK.replace("fork:", "fork:\n      compete: true"))
    run = await workflows.start("race")
    assert await workflows.output(run) == "right got: r"
    tasks = (await workflows.desk.ask("GET", "/api/tasks", "alice")).json()["items"]
    assert {each["agent"]: each["state"] for each in tasks if each["parent_id"] == run}["left"] == "TASK_STATE_CANCELED"


async def test_a_step_is_refused_what_its_starter_may_not(workflows: Workflows) -> None:
    await workflows.add("reserve", "do:\n- take:\n    call: gateway.tool\n    with: {tool: inventory.reserve, arguments: {}}\n")
    assert (await workflows.run("reserve", user="alice"))["status"]["state"] == "TASK_STATE_COMPLETED"
    refused = await workflows.run("reserve", user="bob")
    assert refused["status"]["state"] == "TASK_STATE_FAILED"
    assert "Authorization Error at /do/0/take" in refused["status"]["message"]["parts"][0]["text"]


async def test_the_author_lends_no_rights_beyond_the_document(workflows: Workflows) -> None:
    await workflows.add("offer", CHAIN)
    entry = workflows.home.gateway.registry.find("default", "offer")
    assert entry.ceiling == ("agent:sales", "tool:inventory.check")
    token = workflows.home.token("nora")
    answer = await workflows.home.send(token, "offer", "hello")
    assert answer["error"]["code"] == -32011


async def test_an_input_that_breaks_the_schema_is_refused_before_the_run(workflows: Workflows) -> None:
    await workflows.add("offer", CHAIN)
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"data": {}}]}
    answer = await workflows.home.rpc(
        "/agents/offer", workflows.home.token("alice"), "SendMessage", {"message": message}, **{"A2A-Version": "1.0"}
    )
    assert answer.json()["error"]["data"][0]["@type"].endswith("BadRequest")


async def test_a_canceled_run_cancels_its_steps(home: House, workflows: Workflows) -> None:
    gate = Gate()
    await home.agent(CallbackAgent("left", gate.act))
    await workflows.add("long", "do:\n- ask:\n    call: gateway.agent\n    with: {agent: left, input: hi}\n" + AI)
    run = await workflows.start("long")
    await gate.reached.wait()
    assert (await workflows.desk.ask("POST", f"/api/runs/{run}/cancel", "alice")).status_code == 204
    assert (await workflows.show(run))["state"] == "TASK_STATE_CANCELED"
    tasks = (await workflows.desk.ask("GET", "/api/tasks", "alice")).json()["items"]
    assert {each["state"] for each in tasks} == {"TASK_STATE_CANCELED"}


async def test_a_workflow_runs_another_workflow(workflows: Workflows) -> None:
    await workflows.add("inner", "do:\n- ask:\n    call: gateway.agent\n    with: {agent: sales, input: '${ .text }'}\n" + AI)
    added = await workflows.add(
        "outer", "do:\n- sub:\n    run: {workflow: {namespace: tests, name: inner, version: latest, input: {text: deep}}}\n"
    )
    assert added["ceiling"] == ["agent:inner", "agent:sales"]
    assert output_of(await workflows.run("outer")) == "sales got: deep"


async def test_a_running_run_keeps_its_version(home: House, workflows: Workflows) -> None:
    gate = Gate()
    await home.agent(CallbackAgent("left", gate.act))
    body = "do:\n- ask:\n    call: gateway.agent\n    with: {agent: left, input: hi}\n" + AI + "- last:\n    set: {version: %s}\n"
    await workflows.add("versioned", body % "first")
    run = await workflows.start("versioned")
    await gate.reached.wait()
    await workflows.add("versioned", body % "second")
    gate.opened.set()
    assert await workflows.output(run) == {"version": "first"}
    assert output_of(await workflows.run("versioned")) == {"version": "second"}
    shown = (await workflows.desk.ask("GET", "/api/workflows/versioned")).json()
    assert len(shown["versions"]) == 2


async def test_a_repeated_start_is_the_same_run(workflows: Workflows) -> None:
    await workflows.add("offer", CHAIN)
    desk, body = workflows.home.http, {"workflow": "offer", "input": {"sku": "1"}}
    headers = {"authorization": f"Bearer {workflows.home.token('alice')}", "idempotency-key": "k1"}
    first, second = [(await desk.post("/api/runs", json=body, headers=headers)).json()["id"] for _ in range(2)]
    assert first == second
    await workflows.ended(first)


async def test_runs_of_others_are_not_shown(workflows: Workflows) -> None:
    await workflows.add("offer", CHAIN)
    run = await workflows.start("offer", {"sku": "1"})
    await workflows.ended(run)
    assert (await workflows.desk.ask("GET", f"/api/runs/{run}", "bob")).status_code == 404
    assert (await workflows.desk.ask("GET", "/api/runs", "bob")).json()["items"] == []
    assert [each["id"] for each in (await workflows.desk.ask("GET", "/api/runs", "alice")).json()["items"]] == [run]


async def test_uploading_needs_the_right_to_write_the_registry(workflows: Workflows) -> None:
    answer = await workflows.desk.post("/api/workflows", "alice", document=document("offer", CHAIN))
    assert answer.status_code == 403


async def test_a_refused_document_names_every_problem_with_its_line(workflows: Workflows) -> None:
    problems = await workflows.refused(
        "bad",
        "schedule: {every: PT1H}\ndo:\n- ask:\n    call: gateway.agent\n    with: {agent: nobody, input: hi}\n"
        + AI
        + "- tool:\n    call: gateway.tool\n    with: {tool: inventory.absent}\n- say:\n    emit: {event: {with: {type: '${ .x }'}}}\n",
    )
    assert [(each["line"], each["path"]) for each in problems] == [
        (3, "/schedule"),
        (7, "/do/0/ask/with/agent"),
        (14, "/do/1/tool/with/tool"),
        (16, "/do/2/say/emit/event/with"),
    ]
    assert "`nobody`, which is not registered" in problems[1]["reason"]


async def test_a_removed_workflow_ends_its_suspended_runs(workflows: Workflows) -> None:
    await workflows.add("waiting", "do:\n- pause: {wait: PT1H}\n")
    run = await workflows.start("waiting")
    await workflows.reached(run, "SUSPENDED")
    assert (await workflows.desk.ask("DELETE", "/api/workflows/waiting?force=true")).status_code == 204
    assert (await workflows.ended(run))["state"] == "TASK_STATE_FAILED"
