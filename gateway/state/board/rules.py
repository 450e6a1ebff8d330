"""What operators say of prefixes of keys: their owners, what their values look like, how long they live, and which tools hold them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec
from msgspec import Struct

from gateway.state.board.problems import BadKey

ANY_SEGMENT: Final = "*"
SECOND_US: Final = 1_000_000
TTL_MAX: Final = 10 * 365 * 86_400  # seconds
OnMisfit = Literal["refuse", "hold", "ask"]


class ValueSchema(Protocol):
    """A compiled schema (gateway/state/schemas.py)."""

    def problem_of(self, value: Any) -> str: ...


class Backing(Struct, frozen=True):
    """The tools of a registered server that hold the values of a prefix. An empty tool name: values can't be read, or not be written.

    `arguments`: argument of both tools -> number of the key's segment that it takes, from 0. `value`: the argument of the write tool that
    takes the value. `result`: the member of the read tool's structured result that is the value; empty: the whole result.
    """

    server: str
    read: str = ""
    write: str = ""
    arguments: Mapping[str, int] = {}
    value: str = "value"
    result: str = ""


class PrefixRule(Struct, frozen=True):
    """One prefix, whose segments may be `*`. `ttl`: seconds that a value lives at most. `sensitivity`: of each value at least."""

    prefix: str
    owner: str = ""  # the role of the people who decide on values that are held back
    schema: Mapping[str, Any] | None = None
    ttl: int | None = None
    on_misfit: OnMisfit = "refuse"
    sensitivity: int = 0
    backing: Backing | None = None
    ask_seconds: int = 604_800  # for which people may answer a question about a value

    def covers(self, segments: Sequence[str]) -> bool:
        """Whether the key of these segments is the prefix, or below it."""
        own = self.prefix.split("/")
        return len(own) <= len(segments) and all(mine in (ANY_SEGMENT, theirs) for mine, theirs in zip(own, segments, strict=False))

    def expiry_of(self, ttl: int | None, now: int) -> int | None:
        """When a value expires: `ttl` seconds from now, and after the ttl of the prefix at the latest; None for never."""
        wanted = [seconds for seconds in (ttl, self.ttl) if seconds is not None]
        return now + min(wanted) * SECOND_US if wanted else None

    @property
    def rank(self) -> tuple[int, int]:
        """Of two rules that cover a key, the one with the higher rank counts: more segments, then fewer `*`."""
        own = self.prefix.split("/")
        return len(own), -own.count(ANY_SEGMENT)


NO_RULE: Final = PrefixRule("")


class PrefixRules:
    """Finds the rule of a key. `compile_schema` is called at the first use of a schema, since most gateways have none."""

    def __init__(self, rules: Sequence[PrefixRule], compile_schema: Callable[[Mapping[str, Any]], ValueSchema]) -> None:
        self._rules = sorted(rules, key=lambda rule: rule.rank, reverse=True)
        self._compile_schema = compile_schema
        self._schemas: dict[str, ValueSchema] = {}

    def rule_of(self, key: str) -> PrefixRule:
        """The most specific rule that covers a key; NO_RULE where none does."""
        if not self._rules:
            return NO_RULE
        segments = key.split("/")
        return next((rule for rule in self._rules if rule.covers(segments)), NO_RULE)

    def problem_of(self, key: str, value: str) -> str:
        """Says where a value (JSON) misses the schema of its key, without quoting the value; empty where it fits."""
        rule = self.rule_of(key)
        if rule.schema is None:
            return ""
        schema = self._schemas.get(rule.prefix)
        if schema is None:
            schema = self._schemas[rule.prefix] = self._compile_schema(rule.schema)
        return schema.problem_of(msgspec.json.decode(value))


def backing_arguments(backing: Backing, key: str) -> dict[str, Any]:
    """The arguments of a backing tool for a key. Raises BadKey where the key has too few segments."""
    segments = key.split("/")
    if any(number >= len(segments) for number in backing.arguments.values()):
        raise BadKey(f"The key {key} has too few segments for the server {backing.server}, which holds its values.")
    return {name: segments[number] for name, number in backing.arguments.items()}
