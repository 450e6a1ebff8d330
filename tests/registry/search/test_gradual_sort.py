"""A gradual sort orders like sorted(), in small steps."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.search.gradual_sort import SORTED_AT_ONCE, GradualSort

ITEMS = st.lists(st.tuples(st.integers(0, 9), st.integers()), max_size=5 * SORTED_AT_ONCE)


@given(ITEMS, st.booleans())
def test_the_order_is_that_of_sorted(items: list[tuple[int, int]], reverse: bool) -> None:
    gradual = GradualSort[tuple[int, int]](lambda item: item[0], reverse=reverse)
    for item in items:
        gradual.add(item)
    assert list(gradual) == sorted(items, key=lambda item: item[0], reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_no_step_looks_at_many_items(reverse: bool) -> None:
    looks = [0]

    def key(item: int) -> int:
        looks[-1] += 1
        return item * 7919 % 10_007

    gradual = GradualSort[int](key, reverse=reverse)
    for item in range(10_000):
        looks.append(0)
        gradual.add(item)
    looks.append(0)
    keys = []
    for item in gradual:
        looks.append(0)
        keys.append(item * 7919 % 10_007)
    assert max(looks) <= 2 * SORTED_AT_ONCE
    assert all((a >= b) if reverse else (a <= b) for a, b in pairwise(keys))
