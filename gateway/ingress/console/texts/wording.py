"""Words of pages: states, people, moments, amounts, and the commands that do the same."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

# A chip has a word and a colour; the colour says no more than the word.
CHIP_KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("completed", "active", "ok", "allowed", "approved", "healthy", "answered", "used", "yes", "passes", "allow"), "good"),
    **dict.fromkeys(("working", "submitted", "running", "pending", "waiting"), "busy"),
    **dict.fromkeys(("input required", "auth required", "paused", "asks", "down", "expired", "void", "unknown", "canceled", "ask"), "warn"),
    **dict.fromkeys(("failed", "rejected", "refused", "quarantined", "denied", "unhealthy", "killed", "stops here", "no", "deny"), "bad"),
    "sound": "good",
    "not sound": "bad",
}


def format_state(name: str) -> str:
    """Returns `TASK_STATE_INPUT_REQUIRED` as `input required`."""
    return str(name).removeprefix("TASK_STATE_").replace("_", " ").lower()


def person_name(owner: str | None) -> str:
    """Returns the subject of `tenant|issuer|subject`."""
    return (owner or "").split("|", 2)[-1]


def format_moment(text: str | None) -> str:
    """Returns an RFC 3339 moment as people read it, in UTC."""
    if not text:
        return "—"
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%d %b %Y %H:%M:%S UTC")
    except ValueError:
        return text


def format_duration(seconds: float | None) -> str:
    """Returns seconds as people read them."""
    if seconds is None:
        return "—"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_cost(cost: Mapping[str, Any] | None) -> str:
    """Returns an amount with what is not in it, such as `0.42 USD + 2 unpriced`."""
    if not cost:
        return "—"
    unpriced = cost.get("unpriced", 0)
    lacking = f"{unpriced} unpriced" if unpriced else ""
    if cost.get("amount") is None:
        return f"unknown ({lacking})" if lacking else "unknown"
    return f"{cost['amount']} {cost['currency']}" + (f" + {lacking}" if lacking else "")


def shell_command(words: Sequence[str]) -> str:
    """Returns a command line that a person can paste."""
    return shlex.join(words)
