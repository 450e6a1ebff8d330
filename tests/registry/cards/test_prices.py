"""Prices: decimal texts outside, whole millionths inside, and nothing that is no amount."""

import pytest

from registry.cards.prices import BadPrice, format_price, parse_price


@pytest.mark.parametrize(
    ("text", "millionths", "shown"),
    [("0.02", 20_000, "0.02"), ("0", 0, "0.00"), ("1.5", 1_500_000, "1.50"), ("0.000001", 1, "0.000001"), ("12", 12_000_000, "12.00")],
)
def test_amounts_are_exact(text: str, millionths: int, shown: str) -> None:
    assert parse_price(text) == millionths and format_price(millionths) == shown


@pytest.mark.parametrize("text", ["", "-1", "1e3", "0.0000001", "free", "1,5", ".5", "1.", "12345678", "٣", "1\n"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(BadPrice):
        parse_price(text)
