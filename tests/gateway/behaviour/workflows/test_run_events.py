"""Events of a run: changes of its state and steps that ended, as they happen, and again from any of them."""

import json
from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import Workflows

AI = """
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
TWO = "do:" + "".join(f"\n- {name}:\n    call: gateway.agent\n    with: {{agent: sales, input: {name}}}" + AI for name in ("one", "two"))


@pytest.fixture
async def run(home: House) -> str:
    workflows = Workflows(home)
    await home.agent(CallbackAgent("sales"))
    await workflows.add("two", TWO)
    begun = await workflows.start("two")
    await workflows.output(begun)
    return begun


async def events(home: House, run: str, last: str = "", user: str = "alice") -> list[dict[str, Any]]:
    """The events of the stream, which ends with the run."""
    headers = {"authorization": f"Bearer {home.token(user)}", "accept": "text/event-stream", "last-event-id": last}
    answer = await home.http.request("GET", f"/api/runs/{run}/events", headers=headers)
    assert answer.status_code == 200, answer.text
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


async def test_a_stream_has_every_state_and_step_of_a_run_in_order(home: House, run: str) -> None:
    found = await events(home, run)
    assert [event["step"] for event in found if event["kind"] == "step"] == ["/do/0/one", "/do/1/two"]
    assert found[-1]["state"] == "TASK_STATE_COMPLETED"
    assert len({event["id"] for event in found}) == len(found)


async def test_a_stream_goes_on_after_any_event(home: House, run: str) -> None:
    found = await events(home, run)
    for index, event in enumerate(found):
        assert await events(home, run, event["id"]) == found[index + 1 :]


@pytest.mark.parametrize("last", ["x", "1", "-1.2", "1.x", "²." + "1", "9" * 30 + ".1"])
async def test_a_place_that_is_none_is_the_beginning(home: House, run: str, last: str) -> None:
    assert len(await events(home, run, last.encode("ascii", "replace").decode())) == len(await events(home, run))
