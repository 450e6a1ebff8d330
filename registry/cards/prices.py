"""Prices of calls: decimal texts for people, whole millionths of the currency in rows and calculations."""

import re
from collections.abc import Mapping
from typing import Any, Final

ANY_CALL: Final = "*"  # the price of every call that has none of its own
MILLION: Final = 1_000_000
PRICES_MAX: Final = 2000  # of one server
_PRICE = re.compile(r"([0-9]{1,7})(?:\.([0-9]{1,6}))?")


class BadPrice(ValueError):
    """The text is no price; the message says what one looks like."""

    def __init__(self) -> None:
        super().__init__("must be an amount with at most 7 digits before and 6 after the point, such as 0.02")


def parse_price(text: str) -> int:
    """The millionths of an amount such as `0.02`. Raises BadPrice."""
    found = _PRICE.fullmatch(text)
    if found is None:
        raise BadPrice
    return int(found[1]) * MILLION + int((found[2] or "").ljust(6, "0"))


def as_price_text(value: Any) -> Any:
    """A number of a YAML file as the text that was written, so that no amount becomes a double. Anything else is unchanged."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def check_price(text: str) -> str:
    """Returns the text of a price. Raises BadPrice."""
    parse_price(text)
    return text


def parse_prices(texts: Mapping[str, str]) -> dict[str, int]:
    """The millionths by tool, or under ANY_CALL. Raises BadPrice."""
    return {name: parse_price(text) for name, text in texts.items()}


def format_price(millionths: int) -> str:
    """The amount as a decimal text, with two digits after the point or as many as it needs."""
    whole, rest = divmod(millionths, MILLION)
    return f"{whole}.{f'{rest:06}'.rstrip('0').ljust(2, '0')}"


def price_texts(prices: Mapping[str, int]) -> dict[str, str]:
    """The amounts by tool as decimal texts."""
    return {name: format_price(price) for name, price in prices.items()}
