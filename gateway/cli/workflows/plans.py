"""Plans of agents in a terminal."""

import json
from collections.abc import Iterator
from typing import Any

VALUE_MAX = 100  # characters of a value in one line


def plan_lines(steps: list[dict[str, Any]], indent: str = "  ") -> Iterator[str]:
    """The steps of a plan, one a line, those within others indented."""
    for item in steps:
        for name, step in item.items():
            yield f"{indent}{name}: {_words(step)}"
            yield from _within(step, indent + "  ")


def _words(step: dict[str, Any]) -> str:
    if "call" in step:
        given = step["with"]
        target = given.get("tool") or given.get("agent")
        return f"{target} {_short(given.get('arguments', given.get('input')))}"
    return f"set {_short(step['set'])}" if "set" in step else "at once" if "fork" in step else "one of" if "switch" in step else "do"


def _within(step: dict[str, Any], indent: str) -> Iterator[str]:
    yield from plan_lines(step.get("do", []), indent)
    yield from plan_lines(step.get("fork", {}).get("branches", []), indent)
    for case in step.get("switch", []):
        yield f"{indent}when {_short(case['when'])}" if case.get("when") else f"{indent}otherwise"
        yield from plan_lines(case["do"], indent + "  ")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_MAX else f"{text[:VALUE_MAX]}…"
