"""Names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.names import BadName, check_name, derive_name


@pytest.mark.parametrize("name", ["", "Sales", "a_b", "a.b", "a/b", "a b", "é", "x" * 65, "sandbox", "memory", "virtual", "a\n"])
def test_a_name_that_can_not_be_is_refused(name: str) -> None:
    with pytest.raises(BadName):
        check_name(name)


def test_a_name_is_made_of_the_title() -> None:
    assert derive_name("  Sales Agent (EU) – Zürich  ") == "sales-agent-eu-zurich"


@given(st.text())
def test_a_derived_name_is_always_a_name(title: str) -> None:
    try:
        name = derive_name(title)
    except BadName:
        return
    assert re.fullmatch("[a-z0-9-]{1,64}", name)
