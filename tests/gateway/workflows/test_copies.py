"""Which steps a redriven run does not repeat, and what estimates make of figures."""

from typing import Any

import pytest

from gateway.workflows.engine.continuation.copies import repeated_unknowns, steps_to_redrive, undone_among
from gateway.workflows.interpreter.compensations import BEGUN, ORDER, PLACE
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.interpreter.errors import OUTCOME_UNKNOWN, Fault
from gateway.workflows.runs.estimates import shares_of, tokens_of
from gateway.workflows.runs.journal import CALL, CLAIM, DUE, LIMIT, RECORD, Result, StepRow

NO = Fault("urn:tests:no", 500, instance="/do/1/b")


def step(
    pointer: str, started: int, ended: int, *, kind: str = CALL, fault: Fault | None = None, value: Any = 1, attempt: int = 0
) -> StepRow:
    result = Result(value=value) if fault is None else Result(fault=fault)
    return StepRow(f"{pointer}:{attempt}{kind}", kind, "", started, ended, result, StepKey(pointer, (0,), (attempt,)))


def kept(steps: list[StepRow], fault: Fault | None) -> list[str]:
    return [each.key for each in steps_to_redrive(steps, fault)]


def test_only_the_last_attempt_of_the_failed_step_is_repeated() -> None:
    steps = [step("/do/0/a", 1, 2), step("/do/1/b", 2, 3, fault=NO), step("/do/1/b", 3, 4, fault=NO, attempt=1)]
    assert kept(steps, NO) == [steps[0].key, steps[1].key]


def test_a_step_whose_output_did_not_pass_is_repeated() -> None:
    steps = [step("/do/0/a", 1, 2), step("/do/1/b/function", 2, 3)]
    assert kept(steps, NO) == [steps[0].key]


def test_a_fault_that_no_step_raised_repeats_none() -> None:
    steps = [step("/do/0/a", 1, 2), step("/do/2/c", 2, 3)]
    assert kept(steps, NO) == kept(steps, None) == [steps[0].key, steps[1].key]


def test_a_redriven_run_takes_its_claims_itself() -> None:
    denied = Fault("urn:interlock:error:claim-denied", 409, instance="/do/2/c/metadata/gateway/claim")
    granted, refused = step("/do/0/a/metadata/gateway/claim", 1, 1, kind=CLAIM), step(denied.instance, 4, 9, kind=CLAIM, fault=denied)
    waited, caught = step(denied.instance, 4, 4, kind=DUE, value=9), step("/do/1/b/metadata/gateway/claim", 2, 2, kind=CLAIM, fault=NO)
    assert kept([granted, caught, waited, refused], denied) == [caught.key]


def test_time_limits_and_open_waits_begin_anew() -> None:
    ended, limit = step("/do/0/w", 1, 1, kind=DUE, value=2), step("/do/0/a", 1, 1, kind=LIMIT, value=9)
    steps = [ended, limit, step("/do/1/b", 3, 5), step("/do/2/w", 5, 5, kind=DUE, value=99)]
    assert kept(steps, None) == [ended.key, steps[2].key]


def test_what_followed_an_undone_step_is_repeated_but_not_what_ran_beside_it() -> None:
    before, undone, beside, after = (
        step(f"/do/{each}", *times) for each, times in zip("abcd", ((1, 2), (2, 4), (3, 6), (4, 5)), strict=True)
    )
    begun = step(f"/do/b{PLACE}/{BEGUN}", 7, 7, kind=RECORD, value="undo")
    undoing = step(f"/do/b{PLACE}", 7, 8)
    order = step("/compensations", 6, 6, kind=RECORD)
    assert kept([before, undone, after, beside, order, begun, undoing], None) == [before.key, beside.key]


def test_what_a_plan_is_going_to_undo_counts_as_undone() -> None:
    steps = [step("/do/0/a", 1, 2), step("/do/1/b", 2, 3)]
    planned = {"pointer": "/do/1/b", "visits": [0], "attempts": [0], "function": "undo", "input": 0, "output": 0}
    value = {"fault": {"type": "urn:tests:no", "status": 500}, "context": 0, "steps": [planned], "values": [None]}
    plan = StepRow(str(ORDER), RECORD, "", 4, 4, Result(value=value), ORDER)
    assert undone_among([*steps, plan], steps) == steps[1:]
    assert undone_among([*steps, plan], steps[:1]) == undone_among(steps, steps) == []


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [("", None), ("{}", None), ('{"input_tokens": 3, "output_tokens": 4}', 7), ('{"total_tokens": 9, "input_tokens": 3}', 9), ("[]", None)],
)
def test_usage_that_was_not_reported_is_unknown(usage: str, tokens: int | None) -> None:
    assert tokens_of(usage) == tokens


@pytest.mark.parametrize(("values", "p50", "p95"), [([5], 5, 5), ([1, 2], 1, 2), (list(range(1, 101)), 50, 95)])
def test_shares_are_values_that_were_seen(values: list[float], p50: float, p95: float) -> None:
    assert shares_of(values) == {"p50": p50, "p95": p95}


def test_a_step_of_unknown_outcome_is_named_when_it_is_repeated() -> None:
    unknown = step("/do/1/b", 2, 3, fault=Fault(OUTCOME_UNKNOWN, 500, instance="/do/1/b"))
    steps = [step("/do/0/a", 1, 2), unknown]
    assert repeated_unknowns(steps, steps_to_redrive(steps, unknown.result.fault or None)) == ["/do/1/b"]
    assert repeated_unknowns(steps, steps) == []
