"""A recorded run as a case of a rehearsal."""

from typing import Any

import pytest

from gateway.workflows.dsl.loading import read_document, read_source
from gateway.workflows.rehearsal.recording import NotRecorded, case_of_run, rehearsal_of
from gateway.workflows.rehearsal.rehearse import rehearse
from gateway.workflows.rehearsal.script import Rehearsal

TWICE = """
document: {dsl: 1.0.3, namespace: tests, name: twice, version: 1.0.0}
do:
- each:
    for: {in: .ids}
    do:
    - look: {call: gateway.tool, with: {tool: stock.check, arguments: {id: '${ $item }'}}}
"""
LOOK = "/do/0/each/do/0/look"


def step(second: int, **outcome: Any) -> dict[str, Any]:
    at = f"2026-11-22T10:00:0{second}Z"
    return {"step": LOOK, "key": f"0.{second}:", "task_id": "", "started": at, "ended": at, **outcome}


def run_of(state: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"id": "t_1", "workflow": "twice", "state": f"TASK_STATE_{state}", "input": {"ids": [1, 2]}, "steps": list(steps)}


def completed(output: Any) -> dict[str, Any]:
    return {"artifacts": [{"parts": [{"data": output}]}], "status": {}}


async def problems_of(case: dict[str, Any], text: str = TWICE) -> tuple[str, ...]:
    outcomes = await rehearse(read_document(read_source(text)), Rehearsal.model_validate(rehearsal_of([case])))
    return outcomes[0].problems


async def test_answers_of_a_loop_are_given_in_their_order() -> None:
    case = case_of_run(run_of("COMPLETED", step(2, value={"n": 2}), step(1, value={"n": 1})), completed({"n": 2}))
    assert case["answers"] == {LOOK: [{"output": {"n": 1}}, {"output": {"n": 2}}]}
    assert await problems_of(case) == ()


async def test_another_path_differs_from_the_recorded_one() -> None:
    case = case_of_run(run_of("COMPLETED", step(1, value={"n": 1}), step(2, value={"n": 2})), completed({"n": 2}))
    assert await problems_of(case, TWICE.replace(".ids}", "'.ids + [3]'}")) == (f"{LOOK} was called 3 times, expected 2",)


async def test_the_fault_of_a_run_is_expected() -> None:
    fault = {"type": "urn:tests:gone", "status": 410, "detail": "it is gone"}
    task = {"artifacts": [], "status": {"message": {"parts": [{"text": "it is gone"}, {"data": fault | {"instance": LOOK}}]}}}
    case = case_of_run(run_of("FAILED", step(1, fault=fault)), task)
    assert case["expect"]["error"] == {"type": "urn:tests:gone", "status": 410, "instance": LOOK}
    assert await problems_of(case) == ()


@pytest.mark.parametrize("state", ["WORKING", "CANCELED", "INPUT_REQUIRED"])
def test_a_run_without_an_ending_of_its_own_is_no_case(state: str) -> None:
    with pytest.raises(NotRecorded, match="neither completed nor failed"):
        case_of_run(run_of(state), completed(None))


def test_a_run_that_was_stopped_from_outside_is_no_case() -> None:
    with pytest.raises(NotRecorded, match="stopped from outside"):
        case_of_run(run_of("FAILED"), {"artifacts": [], "status": {"message": {"parts": [{"text": "too long"}]}}})


def test_a_case_replaces_answers_that_all_cases_share() -> None:
    shared = {"answers": {"a": {"output": 1}, "b": {"output": 2}}, "cases": [{"name": "one", "answers": {"b": {"output": 3}}}]}
    answers = Rehearsal.model_validate(shared).cases[0].answers
    assert [(name, each.output) for name, each in answers.items() if not isinstance(each, list)] == [("a", 1), ("b", 3)]
