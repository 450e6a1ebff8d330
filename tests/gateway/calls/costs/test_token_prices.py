"""Prices of tokens come from data on this machine; what is not in it is unknown, and not nothing."""

from decimal import Decimal
from typing import Any

import pytest

from gateway.calls.costs.contract_prices import TokenPrice, price_by_contract
from gateway.calls.costs.token_prices import price_in_dollars


def test_tokens_of_a_known_model_have_an_exact_price() -> None:
    found = price_in_dollars({"model": "gpt-4o", "input_tokens": 1000, "output_tokens": 500})
    assert found == Decimal("0.0075")


def test_tokens_read_from_a_cache_cost_less() -> None:
    usage = {"model": "gpt-4o", "input_tokens": 1000, "output_tokens": 0}
    cached, whole = price_in_dollars({**usage, "cache_read_tokens": 800}), price_in_dollars(usage)
    assert cached is not None and whole is not None and cached < whole


@pytest.mark.parametrize(
    "usage",
    [
        {"model": "a-model-that-nobody-has", "input_tokens": 1, "output_tokens": 1},
        {"model": "gpt-4o", "input_tokens": 5, "output_tokens": 1, "cache_read_tokens": 50},
    ],
)
def test_unknown_models_and_impossible_figures_have_no_price(usage: dict[str, Any]) -> None:
    assert price_in_dollars(usage) is None


@pytest.mark.parametrize(
    ("usage", "millionths"),
    [
        ({"input_tokens": 1000, "output_tokens": 500}, 6000),
        ({"input_tokens": 1000, "output_tokens": 500, "cache_read_tokens": 800}, 4800),
        ({"input_tokens": 1, "output_tokens": 0}, 2),
        ({"input_tokens": 1000}, None),
        ({"input_tokens": 5, "output_tokens": 1, "cache_read_tokens": 50}, None),
    ],
)
def test_a_contract_prices_the_tokens_of_its_model(usage: dict[str, Any], millionths: int | None) -> None:
    prices = {"our-model": TokenPrice(2_000_000, 8_000_000, 500_000)}
    assert price_by_contract(prices, {"model": "our-model", **usage}) == millionths
    assert price_by_contract(prices, {"model": "gpt-4o", **usage}) is None
