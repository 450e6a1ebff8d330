"""Arguments of a call as Cedar values: no nulls, numbers as Long or decimal, and nothing that Cedar would read as its own."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

LONG = 1 << 63
_ESCAPES = frozenset({"__entity", "__extn", "__expr"})  # Cedar's JSON would turn such an object into an entity or a function call


class NotExpressible(ValueError):
    """A value that Cedar can't compare faithfully, so no policy may rule on it."""


def cedar_value(value: Any) -> Any:
    """`value` (parsed JSON) in Cedar's JSON form; members that are null are left out. Raises NotExpressible."""
    match value:
        case bool() | str():
            return value
        case int():
            if not -LONG <= value < LONG:
                raise NotExpressible("an integer needs more than 64 bits")
            return value
        case float():
            return {"__extn": {"fn": "decimal", "arg": _decimal(value)}}
        case Mapping():
            if not _ESCAPES.isdisjoint(value):
                raise NotExpressible("a member has a name that Cedar reserves")
            return {name: cedar_value(member) for name, member in value.items() if member is not None}
        case list() | tuple():
            return [cedar_value(item) for item in value if item is not None]
    raise NotExpressible(f"{type(value).__name__} is not JSON")


def _decimal(number: float) -> str:
    """Digits with one to four decimals, as Cedar's decimal takes them; the range is checked by Cedar itself."""
    exact = Decimal(repr(number))
    if not exact.is_finite() or abs(exact) >= LONG:
        raise NotExpressible("a number is out of range")
    text = f"{exact:.4f}"
    if Decimal(text) != exact:
        raise NotExpressible("a number has more than four decimals")
    return text
