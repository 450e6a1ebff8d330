"""A run as a tree in the terminal: its steps below their tasks of the document, each with its outcome and time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.cli import output as screen

MARKS = {True: "✗", False: "✓"}
COMPENSATE = "/metadata/gateway/compensate"  # in the pointer of a step that undoes another
LINES_MAX = 200  # the newest steps; a long run does not fill the terminal


def tree_lines(run: Mapping[str, Any]) -> list[str]:
    """The lines of a run: its state, its steps in the order in which they ended, what it waits for, and what it has left open."""
    lines = [f"{run['workflow']}  {screen.format_state(run['state'])}  {run['id']}"]
    steps: Sequence[Mapping[str, Any]] = run["steps"]
    if len(steps) > LINES_MAX:
        lines.append(f"├─ … {len(steps) - LINES_MAX} earlier steps")
    below = [*_step_lines(steps[-LINES_MAX:]), *(f"○ {line}" for line in (run["note"] or "").splitlines())]
    below += [f"! left open: {name_of(each['step']) or each['target']}: {each['why']}" for each in run.get("open_effects", ())]
    lines += [f"{'└─' if index == len(below) - 1 else '├─'} {line}" for index, line in enumerate(below)]
    has_summary = run.get("summary") and not (run["note"] and not run.get("paused"))  # which only repeats what the run waits for
    return [*lines, run["summary"]] if has_summary else lines


def _step_lines(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for step, undoing in with_undoing(steps):
        again = f"  attempt {step['attempt']}" if step["attempt"] > 1 else ""
        after = f"  {undoing}" if undoing else ""
        said = f": {step['fault']['detail']}" if "fault" in step else ""
        yield f"{MARKS['fault' in step]} {name_of(step['step'])}  {step['target']}  {step['seconds']:g} s{again}{said}{after}"


def with_undoing(steps: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yields each step with what became of its undoing, empty where it was not begun; and each undo of a step that is not among them."""
    undos = [step for step in steps if COMPENSATE in step["step"]]
    others = [step for step in steps if COMPENSATE not in step["step"]]
    for step in steps:
        if COMPENSATE in step["step"]:
            if not any(_undoes(step, each) for each in others):
                yield step, f"undoes {name_of(step['step'].partition(COMPENSATE)[0])}"
        else:
            mine = [undo for undo in undos if _undoes(undo, step)]
            failed = next((undo["fault"]["detail"] for undo in mine if "fault" in undo), None)
            yield step, "" if not mine else "undone" if failed is None else f"not undone: {failed}"


def _undoes(undo: Mapping[str, Any], step: Mapping[str, Any]) -> bool:
    """Whether `undo` belongs to the undoing of a step, or of a task around it, in the same rounds of loops."""
    owner = undo["step"].partition(COMPENSATE)[0]
    rounds, mine = (each["key"].partition(":")[0].split(".") for each in (undo, step))
    is_same_round = all(left == right for left, right in zip(rounds, mine, strict=False))
    return is_same_round and (step["step"] == owner or step["step"].startswith(f"{owner}/"))


def name_of(pointer: str) -> str:
    """The path of names that leads to a task: `/do/0/ask/fork/branches/1/left` is `ask / left`."""
    parts = pointer.split("/")[1:]
    names = [part for place, part in enumerate(parts) if place and parts[place - 1].isdigit()]
    return " / ".join(names).replace("~1", "/").replace("~0", "~") or pointer
