"""The tree of a run: undone steps are marked as that, and what the run waits for is said once."""

from typing import Any

from gateway.cli.workflows.tree import tree_lines

RUN = {"id": "t_1", "workflow": "w", "state": "TASK_STATE_FAILED", "note": "", "paused": None, "summary": "It failed."}


def step(pointer: str, key: str = "0:", **more: Any) -> dict[str, Any]:
    return {"step": pointer, "key": key, "target": "tool", "seconds": 1, "attempt": 1, **more}


def test_an_undone_step_is_marked_and_its_undoing_has_no_line() -> None:
    undo = step("/do/0/reserve/metadata/gateway/compensate/call")
    lines = tree_lines(RUN | {"steps": [step("/do/0/reserve"), step("/do/1/pay"), undo]})
    assert lines[1:] == ["├─ ✓ reserve  tool  1 s  undone", "└─ ✓ pay  tool  1 s", "It failed."]


def test_a_step_whose_undoing_failed_says_why() -> None:
    undo = step("/do/0/reserve/metadata/gateway/compensate/call", fault={"detail": "it is closed"})
    assert "not undone: it is closed" in tree_lines(RUN | {"steps": [step("/do/0/reserve"), undo]})[1]


def test_only_the_round_of_a_loop_that_was_undone_is_marked() -> None:
    rounds = [step("/do/0/each/do/0/reserve", f"{number}:") for number in (0, 1)]
    undo = step("/do/0/each/do/0/reserve/metadata/gateway/compensate", "1:")
    assert ["undone" in line for line in tree_lines(RUN | {"steps": [*rounds, undo]})[1:3]] == [False, True]


def test_what_a_run_waits_for_is_said_once() -> None:
    lines = tree_lines(RUN | {"steps": [], "note": "/do/0/ask: Which?", "summary": "The run waits. /do/0/ask: Which?. 0 steps"})
    assert "\n".join(lines).count("Which?") == 1
