"""Suggests effects of tools from their names and schemas. People confirm them: nothing follows from a suggestion by itself."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from registry.cards.card import McpTool

EFFECT_BY_WORD: Final[Mapping[str, str]] = {  # by a word of the tool's name; the first one counts
    "email": "outbound-email",
    "mail": "outbound-email",
    "sms": "outbound-message",
    "message": "outbound-message",
    "notify": "outbound-message",
    "call": "outbound-call",
    "dial": "outbound-call",
    "refund": "refund",
    "charge": "charge",
    "pay": "payment",
    "cancel": "cancel",
    "close": "close",
    "resolve": "close",
    "delete": "delete",
    "remove": "delete",
    "create": "create",
    "update": "update",
    "set": "update",
    "assign": "assign",
    "schedule": "schedule",
    "ship": "ship",
    "send": "outbound-message",
}
ID_WORDS: Final = frozenset({"id", "number", "no", "key"})
KIND_BY_WORD: Final[Mapping[str, str]] = {"client": "customer", "case": "ticket", "issue": "ticket", "invoice": "invoice"}
WORDS: Final = re.compile(r"[a-z0-9]+|[A-Z][a-z0-9]*")
PURPOSE_CHARS: Final = 100


def suggest_effects(tools: Iterable[McpTool]) -> dict[str, dict[str, Any]]:
    """Declarations that may fit, by tool. A tool that says it only reads, or whose arguments name no subject, has none."""
    found = {tool.name: _suggestion(tool) for tool in tools}
    return {name: suggestion for name, suggestion in found.items() if suggestion is not None}


def _suggestion(tool: McpTool) -> dict[str, Any] | None:
    definition = tool.definition
    annotations, schema = definition.get("annotations"), definition.get("inputSchema")
    if isinstance(annotations, Mapping) and annotations.get("readOnlyHint") is True:
        return None
    words = _words_of(tool.name)
    effect = next((EFFECT_BY_WORD[word] for word in EFFECT_BY_WORD if word in words), None)
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if effect is None or not isinstance(properties, Mapping):
        return None
    required = schema.get("required") if isinstance(schema, Mapping) else None
    names = sorted(map(str, properties), key=lambda name: (not isinstance(required, list) or name not in required, name))
    subject = next(filter(None, map(_subject_of, names)), None)
    return None if subject is None else {"subject": subject, "effect": effect, "purpose": _purpose_of(definition)}


def _subject_of(argument: str) -> str | None:
    """`customer:{arguments.customer_id}` for an argument customer_id or customerId; None for another argument."""
    words = _words_of(argument)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", argument) or not 1 < len(words) <= 3 or words[-1] not in ID_WORDS:
        return None
    kind = words[-2]
    return f"{KIND_BY_WORD.get(kind, kind)}:{{arguments.{argument}}}" if kind.isalpha() and kind not in ID_WORDS else None


def _words_of(name: str) -> list[str]:
    return [word.lower() for word in WORDS.findall(name[:200])]


def _purpose_of(definition: Mapping[str, Any]) -> str:
    """The first line of the tool's description, as far as it can be shown."""
    lines = str(definition.get("description") or "").strip().splitlines()
    return "".join(letter for letter in (lines[0] if lines else "") if letter.isprintable())[:PURPOSE_CHARS]
