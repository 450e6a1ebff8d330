"""Annotations of policies: @ask makes a forbid subject to approval by people, @total names an argument to be added up."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

APPROVALS_MAX = 5
PROMPT_MAX = 500
DEFAULT_SECONDS = 3600
SECONDS_MAX = 7 * 86_400
ASK_OPTIONS = ("approvals", "expires")  # annotations that belong to @ask
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_TOTAL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class AskAnnotation(Struct, frozen=True):
    """The question, the number of approvals that it needs, and how long they are valid, in seconds."""

    prompt: str
    approvals: int = 1
    seconds: int = DEFAULT_SECONDS


def parse_ask(policy: Mapping[str, Any]) -> AskAnnotation | None:
    """The @ask annotation of a policy, or None. Raises ValueError for an annotation that is invalid or in the wrong place."""
    annotations = policy.get("annotations", {})
    if "ask" not in annotations:
        if misplaced := [name for name in ASK_OPTIONS if name in annotations]:
            raise ValueError(f"@{misplaced[0]} needs an @ask beside it")
        return None
    if policy["effect"] != "forbid":
        raise ValueError("@ask belongs on a forbid, not on a permit")
    prompt = annotations["ask"] or ""
    if not prompt.strip() or len(prompt) > PROMPT_MAX or not prompt.isprintable():
        raise ValueError(f"@ask needs one line of text, of at most {PROMPT_MAX} characters")
    approvals = annotations.get("approvals", "1")
    if approvals not in {str(count) for count in range(1, APPROVALS_MAX + 1)}:
        raise ValueError(f"@approvals must be a number from 1 to {APPROVALS_MAX}")
    return AskAnnotation(prompt, int(approvals), _parse_span(annotations.get("expires", "1h")))


def parse_total(policy: Mapping[str, Any]) -> str:
    """The argument that a policy's @total names, or the empty string. Raises ValueError."""
    name = policy.get("annotations", {}).get("total")
    if name is None:
        return ""
    if not _TOTAL.fullmatch(name):
        raise ValueError("@total must name one argument, such as amount")
    return str(name)


def combine_asks(asks: Iterable[AskAnnotation]) -> AskAnnotation:
    """One question for several policies: all prompts, the highest number of approvals, the shortest validity."""
    found = list(asks)
    prompts = dict.fromkeys(ask.prompt for ask in found)
    return AskAnnotation(" ".join(prompts), max(ask.approvals for ask in found), min(ask.seconds for ask in found))


def _parse_span(text: str | None) -> int:
    found = _SPAN.fullmatch(text) if text else None
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= SECONDS_MAX:
        raise ValueError("@expires must be a duration such as 30m, 1h or 2d, of at most seven days")
    return seconds
