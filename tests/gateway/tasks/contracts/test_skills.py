"""Claims about what a contract may be declared for: skills that the agent has, or all of them."""

import pytest

from gateway.tasks.contracts.skills import SKILLS_NAMED_MAX, BadContract, check_skill_names
from registry.cards.card import Skill

SIDE = {"input": {}}


def skills(*ids: str) -> tuple[Skill, ...]:
    return tuple(Skill(each, each, "", ()) for each in ids)


def refused_field(contracts: dict[str, object], *ids: str) -> str:
    """The field that a refusal names; empty where the contracts are accepted."""
    try:
        check_skill_names(contracts, skills(*ids))
    except BadContract as refused:
        return refused.field
    return ""


@pytest.mark.parametrize("contracts", [{}, {"": SIDE}, {"quote": SIDE}, {"quote": SIDE, "order": SIDE, "": SIDE}])
def test_a_contract_is_of_a_skill_on_the_card_or_of_all(contracts: dict[str, object]) -> None:
    assert refused_field(contracts, "quote", "order") == ""


@pytest.mark.parametrize(
    ("contracts", "known", "field", "says"),
    [
        ({"qoute": SIDE}, ("order", "quote"), "contracts.qoute", ("did you mean `quote`?", "It has: order, quote")),
        ({"quote": SIDE, "xyz": SIDE}, ("quote",), "contracts.xyz", ("is no skill", "It has: quote")),
        ({"quote": SIDE}, (), "contracts.quote", ("It has none", "an empty name is for all")),
        ({"a b\n": SIDE}, ("\x1b[2J",), "contracts.a b?", ("It has: ?[2J",)),
        ({"x": SIDE}, tuple(map(str, range(SKILLS_NAMED_MAX + 1))), "contracts.x", (f"{SKILLS_NAMED_MAX - 1}, …",)),
    ],
)
def test_another_is_refused_with_those_that_there_are(
    contracts: dict[str, object], known: tuple[str, ...], field: str, says: tuple[str, ...]
) -> None:
    with pytest.raises(BadContract) as refused:
        check_skill_names(contracts, skills(*known))
    assert refused.value.field == field and all(words in refused.value.problem for words in says)


def test_nothing_is_meant_where_nothing_is_near() -> None:
    with pytest.raises(BadContract) as refused:
        check_skill_names({"xyz": SIDE}, skills("quote"))
    assert "did you mean" not in refused.value.problem
