"""The small chaos of every test run, and that the judge of the chaos notices what must not happen."""

from pathlib import Path

import pytest

from tests.chaos import __main__ as command
from tests.chaos import report
from tests.chaos.__main__ import Plan, play
from tests.chaos.effects import BLUNT, SERVER, STEADY, Effect
from tests.chaos.judging import FAILED, ONCE, UNDONE, UNKNOWN, Ending, judge
from tests.chaos.rounds import Chance, Round

COMPLETED, FAILURE = "TASK_STATE_COMPLETED", "TASK_STATE_FAILED"
WORKING = ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
DONE = Ending("r1", False, COMPLETED, (*WORKING, COMPLETED))
UNDID = Ending("r1", True, FAILURE, (*WORKING, FAILURE), {"type": FAILED})


def act(step: str, who: str = STEADY, key: str = "") -> Effect:
    return Effect(who, key or f"r1:/do/{step}", f"{step} r1")


EFFECTS = [*(act(step) for step in ONCE if step != "check"), Effect(SERVER, "check r1", ""), act("right", BLUNT)]
UNDOS = [act(f"undo {step}", BLUNT) for step in UNDONE]


async def test_runs_survive_kills_of_their_only_process(tmp_path: Path) -> None:
    played = await play(Plan({"sqlite": 2}, runs=4, seed=14), "sqlite", tmp_path)
    assert [each.kind for each in played] == ["process", "process", "worker"]
    assert [problem for each in played for problem in each.verdict.problems] == []
    assert sum(each.interrupted for each in played) > 0


def test_a_run_that_did_all_it_should_is_no_problem() -> None:
    assert judge([DONE], EFFECTS).problems == []
    assert judge([UNDID], [*EFFECTS, *UNDOS]).problems == []


def test_an_effect_that_happened_twice_is_noticed() -> None:
    assert judge([DONE], [*EFFECTS, act("left", key="r1:/another")]).repeated == ["left of r1: 2 times"]
    again = judge([DONE], [*EFFECTS, act("right", BLUNT)])
    assert again.repeated == ["r1:/do/right of blunt: 2 times"]
    assert judge([DONE], [*EFFECTS, act("right", BLUNT, "r1:/do/right:1")]).problems == []  # a retry has a key of its own


def test_an_effect_that_never_happened_is_noticed() -> None:
    assert judge([DONE], EFFECTS[1:]).lost == ["reserve of r1 was never done"]
    assert judge([UNDID], [*EFFECTS, *UNDOS[1:]]).lost == ["reserve of r1 was never undone"]


def test_a_run_that_does_not_end_once_is_noticed() -> None:
    assert judge([Ending("r1", False, "TASK_STATE_WORKING", WORKING)], EFFECTS).stuck == ["r1 is TASK_STATE_WORKING"]
    twice = Ending("r1", False, COMPLETED, (*WORKING, COMPLETED, COMPLETED))
    assert len(judge([twice], EFFECTS).wrong) == 1
    held = Ending("r1", False, COMPLETED, (*WORKING, COMPLETED), runner="p1")
    assert len(judge([held], EFFECTS).wrong) == 1


def test_a_run_that_ends_otherwise_than_it_should_is_noticed() -> None:
    other = Ending("r1", False, FAILURE, (*WORKING, FAILURE), {"type": "urn:other"})
    assert len(judge([other], EFFECTS).wrong) == 1
    assert len(judge([UNDID], [*EFFECTS, *UNDOS]).wrong) == 0
    assert judge([DONE], [*EFFECTS, *UNDOS]).wrong == [f"{step} of r1 was undone, and the run completed" for step in UNDONE]


def test_only_steps_that_cannot_be_repeated_may_have_an_unknown_outcome() -> None:
    def failed_at(instance: str) -> Ending:
        return Ending("r1", False, FAILURE, (*WORKING, FAILURE), {"type": UNKNOWN, "instance": instance})

    assert (judge([failed_at("/do/2/check")], []).problems, judge([failed_at("/do/2/check")], []).unknown) == ([], 1)
    assert len(judge([failed_at("/do/4/both/fork/branches/1/right/try/0/rightAct")], []).wrong) == 1


def test_a_seed_decides_all_choices() -> None:
    assert Chance.of(3, 6, 2) == Chance.of(3, 6, 2) != Chance.of(4, 6, 2)


def test_settings_choose_rounds_and_faults(capsys: pytest.CaptureFixture[str]) -> None:
    plan = command.plan_of(["--postgres", "40", "--sqlite", "1", "--seed", "9"])
    kinds = [kind for kind, _ in plan.rounds("postgres")]
    assert (kinds.count("process"), kinds.count("worker"), kinds.count("database")) == (40, 2, 2)
    assert plan.rounds("sqlite") == [("process", 9), ("worker", 10)]
    with pytest.raises(SystemExit):
        command.plan_of(["--rounds"])


def test_the_report_has_the_published_shape_and_the_figures() -> None:
    slow = Round("process", 1, 6, 9.0, takeover=5.5, interrupted=2)
    slow.verdict.lost.append("left of r1 was never done")
    found = report.document({"postgres": [slow, Round("process", 2, 6, 9.0, takeover=2.5)], "sqlite": []}, {"seed": 1})
    assert found["rounds"] == {"postgres": 2, "sqlite": 0}
    assert (found["lost"], found["repeated"], found["stuck"]) == (1, 0, 0)
    assert found["takeover_s"] == {"p50": 2.5, "p95": 5.5, "max": 5.5}
    missed = [figure["name"] for figure in found["figures"] if figure["missed"]]
    assert missed == ["effects or runs lost", "takeover by another process, p95", "takeover by another process, max"]
    assert "postgres  process" in report.table({"postgres": [slow]})
