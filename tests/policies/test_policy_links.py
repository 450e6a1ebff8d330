"""Grants to single people: templates in the operator's files, filled in by links.yaml."""

from pathlib import Path

import pytest

from policies.cedar import BadPolicy, CedarQuestion, PolicyEngine, load
from policies.grant import Act, calling
from policies.principal import Principal

TEMPLATES = """
@id("may-call") permit(principal == ?principal, action == Action::"callTool", resource == ?resource);
@id("holiday") forbid(principal in ?principal, action, resource);
@id("on-server") permit(principal == ?principal, action, resource is Tool in ?resource) when { context.input.n < 3 };
"""
CAROL = Principal("acme", "https://idp", "carol")
ALICE = Principal("default", "interlock-development", "alice", ("sales",))
RESERVE, CHECK = calling("inventory", "reserve"), calling("inventory", "check")


def engine(folder: Path, links: str) -> PolicyEngine:
    (folder / "ours.cedar").write_text(TEMPLATES)
    (folder / "links.yaml").write_text(links)
    return PolicyEngine({"sales": ["agent:*"]}, folder)


def asked(rules: PolicyEngine, person: Principal, act: Act = RESERVE, **arguments: int) -> tuple[bool, tuple[str, ...]]:
    verdict = rules.decide(CedarQuestion(person, act, person.tenant, input=arguments))
    return verdict.allowed, verdict.policies


def test_a_link_grants_one_person_one_thing_and_is_named_where_it_decides(tmp_path: Path) -> None:
    links = """links:
    - {template: may-call, principal: alice, resource: 'Tool::"inventory.reserve"'}
    - {template: may-call, principal: "acme|https://idp|carol", resource: 'Tool::"inventory.check"', id: carol-checks}
    - {template: on-server, principal: alice, resource: 'Server::"shop"'}
    """
    rules = engine(tmp_path, links)
    assert asked(rules, ALICE) == (True, ("may-call@1",))
    assert asked(rules, ALICE, CHECK) == (False, ())
    assert asked(rules, CAROL, CHECK) == (True, ("carol-checks",))
    assert asked(rules, Principal("default", "https://idp", "alice")) == (False, ())
    assert asked(rules, ALICE, calling("shop", "buy"), n=2) == (True, ("on-server@3",))
    assert asked(rules, ALICE, calling("shop", "buy"), n=3) == (False, ())


def test_a_template_for_a_role_meets_all_who_have_it(tmp_path: Path) -> None:
    links = """links:
    - {template: holiday, principal: 'Role::"sales"'}
    - {template: may-call, principal: alice, resource: 'Tool::"inventory.reserve"'}
    """
    rules = engine(tmp_path, links)
    assert asked(rules, ALICE) == (False, ("holiday@1",))


def test_a_template_that_nothing_fills_in_is_doubted(tmp_path: Path) -> None:
    rules = engine(tmp_path, "links: [{template: holiday, principal: alice}]")
    assert [doubt[:14] for doubt in rules.doubts] == ["ours.cedar:2: ", "ours.cedar:4: "]
    assert all("nothing in links.yaml" in doubt for doubt in rules.doubts)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{template: may-cal, principal: alice}", "did you mean 'may-call'"),
        ("{template: may-call, principal: alice}", "needs a resource"),
        ("{template: holiday, principal: alice, resource: 'Server::\"x\"'}", "takes no resource"),
        ("{template: holiday, principle: alice}", "did you mean 'principal'"),
        ("{template: holiday, principal: [alice]}", "has texts"),
        ("{principal: alice}", "names its template"),
        ("{template: holiday, principal: 'Rol::\"x\"'}", "not of the form"),
        ("{template: holiday, principal: 'a|b'}", "not of the form"),
        ("{template: may-call, principal: alice, resource: inventory.check}", "not of the form"),
        ("{template: may-call, principal: 'Server::\"x\"', resource: 'Tool::\"a.b\"'}", "applicable action"),
        ("just text", "has texts"),
    ],
)
def test_a_link_that_can_not_be_used_is_refused_with_its_line(tmp_path: Path, entry: str, problem: str) -> None:
    with pytest.raises(BadPolicy, match=problem) as refused:
        engine(tmp_path, f"links:\n\n  - {entry}\n")
    assert (refused.value.file, refused.value.line) == ("links.yaml", 3)


@pytest.mark.parametrize("text", ["links: {}", "- a", "link: []", "links: [", "a: &a [*a]\nlinks: []", "\x00"])
def test_what_is_no_list_of_links_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadPolicy) as refused:
        engine(tmp_path, text)
    assert refused.value.file == "links.yaml"


def test_two_links_can_not_have_one_name_and_none_that_of_a_policy(tmp_path: Path) -> None:
    with pytest.raises(BadPolicy, match="taken by"):
        engine(tmp_path, "links: [{template: holiday, principal: alice, id: x}, {template: holiday, principal: bob, id: x}]")
    with pytest.raises(BadPolicy, match="taken by invariants"):
        engine(tmp_path, "links: [{template: holiday, principal: alice, id: inv-user}]")


def test_a_link_that_goes_takes_its_grant_with_it(tmp_path: Path) -> None:
    rules = engine(tmp_path, "links: [{template: may-call, principal: alice, resource: 'Tool::\"inventory.reserve\"'}]")
    assert asked(rules, ALICE)[0] and not rules.outdated
    (tmp_path / "links.yaml").write_text("links: []")
    assert rules.outdated
    rules.reload()
    assert asked(rules, ALICE) == (False, ())
    (tmp_path / "links.yaml").unlink()
    rules.reload()
    assert load({}, tmp_path).names
