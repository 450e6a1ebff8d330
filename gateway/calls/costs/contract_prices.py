"""Prices of tokens that an operator has agreed on with a vendor, which count before the public price list."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from registry.cards.prices import MILLION


class TokenPrice(Struct, frozen=True):
    """What a million tokens of a model cost, in millionths of the currency. `cached` is the price of input that the vendor had cached."""

    input: int
    output: int
    cached: int


def price_by_contract(prices: Mapping[str, TokenPrice], usage: Mapping[str, Any]) -> int | None:
    """The price in millionths of the currency, of usage as USAGE_KEY of adapters/contract.py describes it.

    None for a model without a contract price, and where input or output tokens are missing or more were cached than sent.
    """
    price = prices.get(str(usage.get("model", "")))
    if price is None or not ("input_tokens" in usage and "output_tokens" in usage):
        return None
    cached = usage.get("cache_read_tokens", 0)  # the input tokens include them
    if cached > usage["input_tokens"]:
        return None
    whole = (usage["input_tokens"] - cached) * price.input + cached * price.cached + usage["output_tokens"] * price.output
    return int(whole + MILLION // 2) // MILLION
