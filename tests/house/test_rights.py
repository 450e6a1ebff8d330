"""Only the authority makes a Grant, and only `Delegation.narrow` makes a child."""

import ast

import pytest

from tests.house import rights
from tests.house.source import Source, assert_kept, product


def made(text: str, path: str = "gateway/made.py") -> Source:
    return Source(path, text)


def test_only_the_authority_makes_a_grant() -> None:
    assert_kept(rights.grants_made, product())


def test_only_narrow_makes_a_child_of_a_delegation() -> None:
    assert_kept(rights.delegations_made, product())


def test_the_authority_really_makes_one() -> None:
    """Else the rule above would hold because a name has changed."""
    authority = next(source for source in product() if source.module == rights.GRANT_MAKER)
    assert rights.makers_of("Grant", authority)
    narrower = next(source for source in product() if source.module == rights.NARROWER)
    assert any(isinstance(node, ast.FunctionDef) and node.name == "narrow" for node in ast.walk(narrower.tree))
    assert rights.copies(narrower, "delegation", rights.AUTHORITY)


@pytest.mark.parametrize(
    "text",
    [
        "grant = Grant(decision, delegation)",
        "grant = policies.grant.Grant(decision, delegation)",
        "grant = Grant.__new__(Grant)",
        "make = Grant\nmake(1, 2)",
        "partial(Grant, decision)(delegation)",
        "from policies.grant import Grant as Leave",
        "dataclasses.replace(grant, delegation=wider)",
        "replace(ruling, delegation=wider)",
        "replace(anything, **fields)",
    ],
)
def test_a_grant_made_elsewhere_is_found(text: str) -> None:
    assert rights.grants_made(made(text))


@pytest.mark.parametrize(
    "text",
    [
        "def f(grant: Grant) -> Grant | Denial: ...",
        "isinstance(ruling, Grant)",
        "isinstance(ruling, (Grant, Denial))",
        "match ruling:\n    case Grant(decision=d): pass",
        "Ruling = Grant | Denial",
        "rulings: dict[str, Grant] = {}",
        "from policies.grant import Grant",
        "name.replace('grant', 'x')",
    ],
)
def test_speaking_of_a_grant_is_fine(text: str) -> None:
    assert rights.grants_made(made(text)) == []


@pytest.mark.parametrize(
    "text", ["Delegation(p, ALL, 1e12)", "replace(caller.delegation, grant_id='')", "replace(d, scope=ALL)", "replace(d, path=())"]
)
def test_a_delegation_made_elsewhere_is_found(text: str) -> None:
    assert rights.delegations_made(made(text))
    assert rights.delegations_made(made(text, "policies/delegation/chain.py")) == []
