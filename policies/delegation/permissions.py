"""Permissions: sets of strings such as `tool:crm.read`, where `*` is alone or follows a separator."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Self

from msgspec import Struct

KINDS = frozenset({"agent", "tool", "resource", "prompt", "state", "memory", "workflow", "registry", "approval", "audit", "policy"})
PERMISSION = re.compile(r"\*|[a-z]+:(?:[A-Za-z0-9._/:-]*[./:])?\*|[a-z]+:[A-Za-z0-9][A-Za-z0-9._/:@-]*")


class BadPermission(ValueError):
    """The text is not a permission; `text` is the input."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text[:100]!r} is not a permission such as agent:sales, tool:crm.* or *")
        self.text = text


def is_meant_as_permission(text: str) -> bool:
    """Whether a scope in a foreign token refers to the gateway's permissions, valid or not: `*`, or one of KINDS before a colon."""
    kind, colon, _ = text.partition(":")
    return text == "*" or (bool(colon) and kind.lower() in KINDS)


@lru_cache(maxsize=8192)
def _covers(pattern: str, permission: str) -> bool:
    if pattern.endswith("*"):
        return permission.startswith(pattern[:-1])
    below = permission.startswith(pattern + "/")  # `agent:sales` covers its skill `agent:sales/quote`; likewise `state:read:team`
    return below and not pattern.startswith(("tool:", "prompt:"))  # tool and prompt names come from servers and may contain a slash


class Permissions(Struct, frozen=True):
    """A set of permission patterns. An empty set permits nothing."""

    patterns: frozenset[str]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Reads permission strings. Raises BadPermission for anything else, without trimming or normalization."""
        patterns = frozenset(texts)
        for text in patterns:
            if not isinstance(text, str) or len(text) > 256 or not PERMISSION.fullmatch(text):
                raise BadPermission(str(text))
        return cls(patterns)

    def covers(self, permission: str) -> bool:
        """Whether this set permits `permission`, which may itself be a pattern."""
        patterns = self.patterns
        return permission in patterns or "*" in patterns or any(_covers(pattern, permission) for pattern in patterns)

    def intersect(self, other: "Permissions") -> "Permissions":
        """The permissions that both sets cover: of two patterns the narrower, when one covers the other."""
        if self == ALL_PERMISSIONS:
            return other
        if other == ALL_PERMISSIONS:
            return self
        patterns = {mine for mine in self.patterns if other.covers(mine)}
        patterns |= {theirs for theirs in other.patterns if self.covers(theirs)}
        return Permissions(frozenset(patterns))

    def is_within(self, other: "Permissions") -> bool:
        """Whether `other` covers everything that this set covers."""
        return all(other.covers(pattern) for pattern in self.patterns)

    def overlaps(self, permission: str) -> bool:
        """Whether any pattern in this set is at, below or above `permission`. Names match as a whole: `agent:sales` is not
        `agent:sales-eu`.
        """
        stem = permission.removesuffix("*") if permission.endswith("*") else f"{permission}/"
        return self.covers(permission) or any(pattern.startswith(stem) for pattern in self.patterns)

    def __str__(self) -> str:
        return " ".join(sorted(self.patterns))


@lru_cache(maxsize=4096)
def parse_ceiling(texts: tuple[str, ...]) -> Permissions:
    """The ceiling of a registration, parsed once per value. Raises BadPermission."""
    return Permissions.parse(texts)


ALL_PERMISSIONS = Permissions(frozenset({"*"}))
NO_PERMISSIONS = Permissions(frozenset())
