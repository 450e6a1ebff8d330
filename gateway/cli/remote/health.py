"""Health of agents and servers in lists and details."""

from collections.abc import Mapping
from typing import Any

from gateway.cli import output as screen


def describe_health(entry: Mapping[str, Any]) -> str:
    """Returns the outcome of the last probe of an entry, or "" before the first one."""
    answered = entry.get("healthy")
    return "" if answered is None else "ok" if answered else "problem"


def probe_fields(entry: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Returns the fields of the last probe; only operators get the cause."""
    found = entry.get("health") or {}
    state = (
        "" if found.get("ok") is None else "ok" if found["ok"] else f"no answer, {screen.format_count(found['failures'], 'time')} in a row"
    )
    times = [(label, screen.format_time(found.get(name) or "")) for label, name in (("looked at", "checked"), ("next look", "next"))]
    return [("health", state), ("problem", found.get("problem")), ("cause", found.get("cause")), *times]
