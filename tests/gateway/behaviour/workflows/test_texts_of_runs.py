"""What people read about runs says what happened: why an answer comes too late, until when a run waits, what was undone."""

from typing import Any

import pytest

from tests.fakes.house import House
from tests.fakes.workflows import Workflows

ASK = "do:\n- ask: {call: gateway.choose, with: {prompt: 'Which?', options: [a, b], expires: PT1H, default: a}}\n- rest: {wait: PT2H}\n"
UNDONE = """
use:
  functions:
    release: {call: gateway.tool, with: {tool: inventory.release, arguments: {}}}
do:
- reserve:
    call: gateway.tool
    with: {tool: inventory.reserve, arguments: {}}
    metadata: {gateway: {compensate: release}}
- fail: {raise: {error: {type: 'https://a.example/e', title: Sold Out, status: 409}}}
"""


@pytest.fixture
async def workflows(home: House) -> Workflows:
    return Workflows(home)


@pytest.mark.parametrize(("end", "words"), [("answer", "answered already"), ("expire", "has expired"), ("cancel", "run of the checkpoint")])
async def test_an_answer_that_comes_too_late_is_told_why(workflows: Workflows, end: str, words: str) -> None:
    await workflows.add("asks", ASK)
    run = await workflows.start("asks")
    await workflows.reached(run, "INPUT_REQUIRED")
    (checkpoint,) = await workflows.checkpoints()
    if end == "answer":
        assert (await workflows.answer(checkpoint["id"], "a", "alice")).status_code == 200
    elif end == "expire":
        await workflows.pass_time(3601)
    else:
        await workflows.desk.ask("POST", f"/api/runs/{run}/cancel", "alice")
        await workflows.ended(run)
    answer = await workflows.answer(checkpoint["id"], "a", "alice")
    assert answer.status_code == 409 and words in answer.json()["detail"]


async def test_runs_are_listed_by_how_they_rest_and_with_their_fault(workflows: Workflows) -> None:
    await workflows.add("asks", ASK)
    await workflows.add("fails", "do:\n- fail: {raise: {error: {type: 'urn:tests:no', title: Sold Out, status: 409}}}\n")
    failed, waiting, paused = [await workflows.start(name) for name in ("fails", "asks", "asks")]
    await workflows.ended(failed)
    for run in (waiting, paused):
        await workflows.reached(run, "INPUT_REQUIRED")
    await workflows.desk.ask("POST", f"/api/runs/{paused}/pause", "alice")

    async def listed(state: str) -> list[dict[str, Any]]:
        return list((await workflows.desk.ask("GET", f"/api/runs?state={state}", "alice")).json()["items"])

    assert [[each["id"] for each in await listed(state)] for state in ("waiting", "paused")] == [[waiting], [paused]]
    assert [each["fault"]["title"] for each in await listed("TASK_STATE_FAILED")] == ["Sold Out"]


async def test_the_answer_to_a_paused_run_is_told_that_it_is_paused(workflows: Workflows) -> None:
    await workflows.add("asks", ASK)
    run = await workflows.start("asks")
    assert "Which?" in (await workflows.reached(run, "INPUT_REQUIRED"))["note"]
    await workflows.desk.ask("POST", f"/api/runs/{run}/pause", "alice")
    (checkpoint,) = await workflows.checkpoints()
    assert (await workflows.answer(checkpoint["id"], "a", "alice")).json()["paused"] is True
    shown = await workflows.show(run)
    assert shown["note"] == "" and f"interlock run resume {run}" in shown["summary"]


async def test_undoing_counts_as_no_step_of_the_run(home: House, workflows: Workflows) -> None:
    server = await home.server("inventory", "reserve", "release")
    await workflows.add("undone", UNDONE)
    shown = await workflows.ended(await workflows.start("undone"))
    assert [tool for tool, _ in server.calls] == ["reserve", "release"]
    assert "1 step had ended" in shown["summary"].lower()


@pytest.mark.parametrize(
    ("path", "words"),
    [("runs", "may not list the runs of all people"), ("tasks", "may not list the tasks of"), ("cost", "may not read the costs of")],
)
async def test_a_refused_look_at_all_people_is_told_in_a_sentence(workflows: Workflows, path: str, words: str) -> None:
    refused = await workflows.desk.ask("GET", f"/api/{path}?everybody=true", "alice")
    assert refused.status_code == 403 and words in refused.json()["detail"]
