"""Finds texts in cards and tools that are made for a model to obey and for a person to overlook."""

import re
from collections.abc import Iterator
from typing import Any

from registry.cards.card import HIDDEN_IN_TEXT

FOUND_MAX = 50
LENGTH_MAX = 5_000  # characters; ordinary descriptions are shorter
_MODEL_ORDERS = re.compile(
    r"<\s*+(?:/\s*+)?(?:important|system|secret|instructions?|assistant|admin)\b|\bignore (?:all |any )?(?:previous|prior|above)\b"
    r"|\bdo not (?:tell|mention|show|reveal)\b|\bbefore (?:using|calling) (?:this|any)\b",
    re.IGNORECASE,
)


def find_suspicions(document: Any, length_max: int | None = LENGTH_MAX) -> list[str]:
    """One sentence for each suspicious text, beginning with its path. `length_max`: None where length is no sign."""
    found: list[str] = []
    for path, text in _texts(document, ""):
        if HIDDEN_IN_TEXT.search(text):
            found.append(f"{path} has hidden characters")
        if _MODEL_ORDERS.search(text):
            found.append(f"{path} has instructions for a model rather than a description")
        if length_max is not None and len(text) > length_max:
            found.append(f"{path} is {len(text)} characters long")
        if len(found) >= FOUND_MAX:
            break
    return found[:FOUND_MAX]


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yields path and text of all texts, except signatures."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _texts(entry, f"{path}[{number}]")
    elif isinstance(value, dict):
        for key, member in value.items():
            if path or key != "signatures":
                yield from _texts(member, f"{path}.{key}" if path else str(key))
