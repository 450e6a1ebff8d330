"""The documents of the benchmark are taken by the gateway, and its figures are those of steps."""

import json

import pytest

from gateway.workflows.dsl.loading import read_document, read_source
from tests.bench import figures
from tests.bench.answers import run_fault
from tests.bench.figures import Run, WaitingRuns, Whole, WorkflowFigures
from tests.bench.workflow_runs import STEPS, document_of, per_step
from tests.bench.workload import RUN_KINDS


def rows(database: str, agent_ms: float) -> list[Run]:
    kinds = (("workflow.fixed_step", 9.0), ("workflow.agent_step", agent_ms), ("a2a.send+by_hand", 2.0))
    return [Run("interlock", name, count, 200.0, ms, ms, 1.0, 0, database) for name, ms in kinds for count in (1, 10)]


@pytest.mark.parametrize("workload", STEPS)
def test_the_documents_are_workflows(workload: str) -> None:
    document = read_document(read_source(document_of(workload)))
    assert document.document.name == workload.replace("_", "-")
    assert set(STEPS) == set(RUN_KINDS)


def test_a_row_of_runs_becomes_one_of_steps() -> None:
    row = per_step(Run("interlock", "workflow.agent_run", 10, 6.0, 50.0, 90.0, 7000.0, 0), 10)
    assert row == Run("interlock", "workflow.agent_step", 10, 60.0, 5.0, 9.0, 700.0, 0)


def test_each_database_has_its_figures() -> None:
    whole = Whole(workflows={"sqlite": WorkflowFigures(190.0, WaitingRuns(10_000, 101.0, 1.5, 3.0, 60.0))})
    found = {figure.name: figure for figure in figures.figures([*rows("sqlite", 12.5), *rows("postgres", 11.0)], whole)}
    assert found["workflows on sqlite, fixed step, one run alone"].cells == ("9 ms", "<= 8", "MISSED")
    assert found["workflows on sqlite, fixed steps a second, 10 runs"].missed
    assert found["workflows on sqlite, agent step over the call by hand"].cells == ("10.5 ms", "<= 10", "MISSED")
    assert found["workflows on postgres, agent step over the call by hand"].cells == ("9 ms", "<= 10", "met")
    assert found["workflows on sqlite, memory of 10,000 waiting runs"].missed
    assert not found["workflows on sqlite, CPU of them"].missed
    assert found["workflows on postgres, memory at rest"].value is None


def test_rows_of_workflows_name_their_database() -> None:
    document = json.loads(json.dumps(figures.document(rows("postgres", 1.0), Whole(), {})))
    assert {row["database"] for row in document["runs"]} == {"postgres"}
    assert "workflow.fixed_step (postgres)" in figures.table(rows("postgres", 1.0), Whole())


def reply(state: str = "TASK_STATE_COMPLETED", text: str = "hello", number: int = 7) -> bytes:
    task = {"id": "t", "status": {"state": state}, "artifacts": [{"parts": [{"data": {"text": text, "total": 3}}]}]}
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": {"task": task}}).encode()


@pytest.mark.parametrize("wrong", [reply(state="TASK_STATE_FAILED"), reply(text="other"), reply(number=8), b"<html>"])
def test_a_run_that_did_not_do_its_steps_is_found_out(wrong: bytes) -> None:
    assert run_fault(reply(), 7, "hello") == ""
    assert run_fault(wrong, 7, "hello")
