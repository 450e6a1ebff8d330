"""A run as a tree in the terminal: its steps below their tasks of the document, each with its outcome and time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.cli import output as screen

MARKS = {True: "✗", False: "✓"}
LINES_MAX = 200  # the newest steps; a long run does not fill the terminal


def tree_lines(run: Mapping[str, Any]) -> list[str]:
    """The lines of a run: its state, its steps in the order in which they ended, what it waits for, and what it has left open."""
    lines = [f"{run['workflow']}  {screen.format_state(run['state'])}  {run['id']}"]
    steps: Sequence[Mapping[str, Any]] = run["steps"]
    if len(steps) > LINES_MAX:
        lines.append(f"├─ … {len(steps) - LINES_MAX} earlier steps")
    below = [*_step_lines(steps[-LINES_MAX:]), *(f"○ {line}" for line in (run["note"] or "").splitlines())]
    below += [f"! left open: {each['step'] or each['target']}: {each['why']}" for each in run.get("open_effects", ())]
    lines += [f"{'└─' if index == len(below) - 1 else '├─'} {line}" for index, line in enumerate(below)]
    return [*lines, run["summary"]] if run.get("summary") else lines


def _step_lines(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for step in steps:
        again = f"  attempt {step['attempt']}" if step["attempt"] > 1 else ""
        said = f": {step['fault']['detail']}" if "fault" in step else ""
        yield f"{MARKS['fault' in step]} {name_of(step['step'])}  {step['target']}  {step['seconds']:g} s{again}{said}"


def name_of(pointer: str) -> str:
    """The path of names that leads to a task: `/do/0/ask/fork/branches/1/left` is `ask / left`."""
    parts = pointer.split("/")[1:]
    names = [part for place, part in enumerate(parts) if place and parts[place - 1].isdigit()]
    return " / ".join(names).replace("~1", "/").replace("~0", "~") or pointer
