"""Converts arguments to Cedar values: without nulls, numbers as Long or decimal, and no member with a name that Cedar reserves."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from policies.cedar.argument_types import RESERVED

LONG_LIMIT = 1 << 63
DECIMAL_LIMIT = 1 << 63  # ten-thousandths


class NotExpressible(ValueError):
    """A value that Cedar can't compare faithfully, so no policy may rule on it. `path` names the members that lead to it."""

    def __init__(self, problem: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(problem)
        self.path = path


def cedar_value(value: Any) -> Any:
    """Converts parsed JSON to Cedar's JSON form, without members that are null. Raises NotExpressible.

    JSON has one kind of number, so 4.0 becomes the Long 4: otherwise it would evade a policy that forbids 4.
    """
    match value:
        case bool() | str():
            return value
        case int():
            if not -LONG_LIMIT <= value < LONG_LIMIT:
                raise NotExpressible("an integer needs more than 64 bits")
            return value
        case float():
            return cedar_value(int(value)) if value.is_integer() else decimal_value(_decimal_digits(value))
        case Mapping():
            if not RESERVED.isdisjoint(value):
                raise NotExpressible("a member has a name that Cedar reserves")
            return {name: _cedar_member(name, member) for name, member in value.items() if member is not None}
        case list() | tuple():
            return [cedar_value(item) for item in value if item is not None]
    raise NotExpressible(f"{type(value).__name__} is not JSON")


def _cedar_member(name: str, value: Any) -> Any:
    try:
        return cedar_value(value)
    except NotExpressible as error:
        raise NotExpressible(str(error), (name, *error.path)) from None


def decimal_value(digits: str) -> dict[str, Any]:
    """A decimal in Cedar's JSON form. Raises NotExpressible for one out of Cedar's range."""
    if not -DECIMAL_LIMIT <= Decimal(digits) * 10_000 < DECIMAL_LIMIT:
        raise NotExpressible("a number is too large for a decimal")
    return {"__extn": {"fn": "decimal", "arg": digits}}


def _decimal_digits(number: float) -> str:
    """The number with four decimals, the most that Cedar supports. Raises NotExpressible where that would round it."""
    exact = Decimal(repr(number))
    text = f"{exact:.4f}"
    if not exact.is_finite() or Decimal(text) != exact:
        raise NotExpressible("a number is not a decimal with at most four digits after the point")
    return text
