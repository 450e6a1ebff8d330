"""How agents and servers answered when they were looked at, as lists and single entries show it."""

from collections.abc import Mapping
from typing import Any

from gateway.cli import output as screen


def describe_health(entry: Mapping[str, Any]) -> str:
    """Whether an entry of a list answered when it was looked at last."""
    answered = entry.get("healthy")
    return "" if answered is None else "ok" if answered else "problem"


def probe_fields(entry: Mapping[str, Any]) -> list[tuple[str, object]]:
    """When an agent or a server was looked at, and what was wrong; the cause is told to operators alone."""
    found = entry.get("health") or {}
    state = (
        "" if found.get("ok") is None else "ok" if found["ok"] else f"no answer, {screen.format_count(found['failures'], 'time')} in a row"
    )
    times = [(label, screen.format_time(found.get(name) or "")) for label, name in (("looked at", "checked"), ("next look", "next"))]
    return [("health", state), ("problem", found.get("problem")), ("cause", found.get("cause")), *times]
