"""An MCP client that called a workflow as a tool gets its questions as elicitations, and its answer counts once."""

from typing import Any

import pytest
from mcp_types import ElicitResult

from tests.fakes.house import House
from tests.fakes.mcp_clients import client_of, text
from tests.fakes.workflows import Workflows

FORM = """
do:
- address:
    call: gateway.form
    with:
      prompt: Where to?
      schema: {type: object, properties: {city: {type: string}}, required: [city]}
"""
CHOOSE = "do:\n- which:\n    call: gateway.choose\n    with: {prompt: 'Which size?', options: [small, large]}\n"
MODES: list[Any] = ["legacy", "2026-07-28"]


class Answerer:
    """A person before an MCP client, who answers each form in turn."""

    def __init__(self, *answers: ElicitResult) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    async def elicited(self, _context: Any, params: Any) -> ElicitResult:
        self.asked.append(params)
        return self.answers.pop(0)


def accept(**content: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=content)


@pytest.fixture
async def workflows(open_home: House) -> Workflows:
    return Workflows(open_home)


async def answered_by(workflows: Workflows) -> list[str]:
    """Who answered each checkpoint of alice's latest run."""
    (run,) = (await workflows.desk.ask("GET", "/api/runs", "alice")).json()["items"]
    shown = await workflows.show(run["id"])
    return [each.get("answered_by", "") for each in shown["checkpoints"]]


@pytest.mark.parametrize("mode", MODES)
async def test_a_form_is_filled_in_by_elicitation(workflows: Workflows, mode: Any) -> None:
    await workflows.add("address", FORM)
    person = Answerer(accept(city="Bern"))
    async with client_of(workflows.home, "alice", mode, elicitation_callback=person.elicited) as client:
        result = await client.call_tool("address", {"message": "go"})
    assert "Bern" in text(result) and not result.is_error
    assert [(each.message, list(each.requested_schema["properties"])) for each in person.asked] == [("Where to?", ["city"])]
    assert await answered_by(workflows) == ["default|interlock-development|alice"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_choice_is_made_by_elicitation(workflows: Workflows, mode: Any) -> None:
    await workflows.add("choose", CHOOSE)
    person = Answerer(accept(answer="large"))
    async with client_of(workflows.home, "alice", mode, elicitation_callback=person.elicited) as client:
        assert "large" in text(await client.call_tool("choose", {"message": "go"}))
    assert person.asked[0].requested_schema["properties"]["answer"]["enum"] == ["small", "large"]


async def test_a_declined_question_stays_open_for_another_answer(workflows: Workflows) -> None:
    await workflows.add("choose", CHOOSE)
    person = Answerer(ElicitResult(action="decline"))
    async with client_of(workflows.home, "alice", "legacy", elicitation_callback=person.elicited) as client:
        await client.call_tool("choose", {"message": "go"})
    (checkpoint,) = await workflows.checkpoints("alice")
    assert (await workflows.answer(checkpoint["id"], "small", "alice")).status_code == 200
    assert await workflows.output(checkpoint["run"]) == "small"
    assert len(person.asked) == 1


async def test_an_answer_after_another_one_changes_nothing(workflows: Workflows) -> None:
    await workflows.add("choose", CHOOSE)
    workflow, late = workflows, accept(answer="large")

    class Slow(Answerer):
        async def elicited(self, context: Any, params: Any) -> ElicitResult:
            (checkpoint,) = await workflow.checkpoints("alice")
            assert (await workflow.answer(checkpoint["id"], "small", "alice")).status_code == 200
            await workflow.output(checkpoint["run"])
            return await super().elicited(context, params)

    async with client_of(workflows.home, "alice", "legacy", elicitation_callback=Slow(late).elicited) as client:
        assert "small" in text(await client.call_tool("choose", {"message": "go"}))
