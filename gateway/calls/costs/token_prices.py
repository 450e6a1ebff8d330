"""The price of an agent's tokens, from the price list of genai-prices, which is data of the package: nothing is requested."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from genai_prices import Usage, calc_price

COUNTED: Final = ("input_tokens", "output_tokens", "cache_read_tokens")


def price_in_dollars(usage: Mapping[str, Any]) -> Decimal | None:
    """The price in US dollars of `usage`, which USAGE_KEY of adapters/contract.py describes. None for unknown models and bad figures."""
    tokens = {name: usage[name] for name in COUNTED if name in usage}
    try:
        return calc_price(Usage(**tokens), model_ref=str(usage["model"])).total_price
    except (LookupError, ValueError, ArithmeticError):
        return None
