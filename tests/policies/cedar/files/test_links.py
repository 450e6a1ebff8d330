"""Grants to single people: templates in the operator's files, filled in by links.yaml."""

from pathlib import Path
from typing import Any

import pytest

from policies.cedar.engine import BadPolicy, CedarQuestion, PolicyEngine, load_rules
from policies.cedar.files.links import TemplateLink, fill_templates
from policies.delegation.chain import Principal
from policies.delegation.rulings import Act, act_of_calling_tool

TEMPLATES = """
@id("may-call") permit(principal == ?principal, action == Action::"callTool", resource == ?resource);
@id("holiday") forbid(principal in ?principal, action, resource);
@id("on-server") permit(principal == ?principal, action, resource is Tool in ?resource) when { context.input.n < 3 };
"""
CAROL = Principal("acme", "https://idp", "carol")
ALICE = Principal("default", "interlock-development", "alice", ("sales",))
RESERVE, CHECK = act_of_calling_tool("inventory", "reserve"), act_of_calling_tool("inventory", "check")


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
    assert asked(rules, ALICE, act_of_calling_tool("shop", "buy"), n=2) == (True, ("on-server@3",))
    assert asked(rules, ALICE, act_of_calling_tool("shop", "buy"), n=3) == (False, ())


def test_a_template_for_a_role_meets_all_who_have_it(tmp_path: Path) -> None:
    links = """links:
    - {template: holiday, principal: 'Role::"sales"'}
    - {template: may-call, principal: alice, resource: 'Tool::"inventory.reserve"'}
    """
    rules = engine(tmp_path, links)
    assert asked(rules, ALICE) == (False, ("holiday@1",))


def test_a_template_that_nothing_fills_in_is_doubted(tmp_path: Path) -> None:
    rules = engine(tmp_path, "links: [{template: holiday, principal: alice}]")
    assert [doubt[:14] for doubt in rules.rules.warnings] == ["ours.cedar:2: ", "ours.cedar:4: "]
    assert all("nothing in links.yaml" in doubt for doubt in rules.rules.warnings)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{template: may-cal, principal: alice}", "did you mean 'may-call'"),
        ("{template: may-call, principal: alice}", "needs a resource"),
        ("{template: holiday, principal: alice, resource: 'Server::\"x\"'}", "takes no resource"),
        ("{template: holiday, principle: alice}", "did you mean 'principal'"),
        ("{template: holiday, principal: [alice]}", "must be texts"),
        ("{principal: alice}", "must name its template"),
        ("{template: holiday, principal: 'Rol::\"x\"'}", "not of the form"),
        ("{template: holiday, principal: 'a|b'}", "not of the form"),
        ("{template: may-call, principal: alice, resource: inventory.check}", "not of the form"),
        ("{template: may-call, principal: 'Server::\"x\"', resource: 'Tool::\"a.b\"'}", "applicable action"),
        ("just text", "must be texts"),
        ("{template: ''}", "must name its template"),
        ("{template: 3, principal: alice}", "must be texts"),
        ("{template: may-call, 3: alice}", "must be texts"),
        ("[" * 3000, "nested too deep"),
        ("{template: other, principal: alice}", "there is no template 'other'$"),
    ],
)
def test_a_link_that_can_not_be_used_is_refused_with_its_line(tmp_path: Path, entry: str, problem: str) -> None:
    with pytest.raises(BadPolicy, match=problem) as refused:
        engine(tmp_path, f"links:\n\n  - {entry}\n")
    assert (refused.value.file, refused.value.line) == ("links.yaml", 3)


FILLED = {"entity": {"type": "Server", "id": "x"}}


def policy(**scopes: Any) -> dict[str, Any]:
    return {"effect": "permit", "annotations": {"id": "t", "note": "n"}, "principal": {"op": "All"}, "resource": {"op": "All"}} | scopes


def made(template: dict[str, Any], entry: str) -> tuple[TemplateLink, dict[str, Any]]:
    ((link, found),) = fill_templates(f"links: [{{template: t, {entry}}}]", {"t": template}, "acme|https://idp")
    return link, found


def test_what_fills_a_slot_in_is_an_entity_in_its_place_and_nothing_else_changes() -> None:
    slot = {"op": "==", "slot": "?principal"}
    link, found = made(policy(principal=slot), "principal: alice")
    assert link == TemplateLink("t", "t@1", {"principal": ("User", "acme|https://idp|alice")}, 1)
    entity = {"type": "User", "id": "acme|https://idp|alice"}
    assert found == policy(annotations={"id": "t@1", "note": "n"}, principal={"op": "==", "entity": entity})
    _, found = made(policy(resource={"op": "in", "slot": "?resource"}), "resource: 'Server::\"a b\"', id: mine")
    assert found == policy(annotations={"id": "mine", "note": "n"}, resource={"op": "in", "entity": {"type": "Server", "id": "a b"}})
    typed = {"op": "is", "entity_type": "Tool", "in": {"slot": "?resource"}}
    _, found = made(policy(resource=typed), "resource: 'Server::\"x\"'")
    assert found["resource"] == {"op": "is", "entity_type": "Tool", "in": {"entity": {"type": "Server", "id": "x"}}}
    assert typed["in"] == {"slot": "?resource"}  # the template stays one


def test_a_scope_without_a_slot_takes_nothing_in() -> None:
    scopes: list[dict[str, Any]] = [{"op": "All"}, {"op": "==", **FILLED}, {"op": "is", "entity_type": "Tool", "in": FILLED}]
    for scope in scopes:
        with pytest.raises(BadPolicy, match="takes no resource"):
            made(policy(resource=scope), "resource: 'Tool::\"a.b\"'")


@pytest.mark.parametrize(
    ("written", "entity"),
    [
        ("alice", ("User", "acme|https://idp|alice")),
        ("other|https://two|bob", ("User", "other|https://two|bob")),
        ("other|https://two|b|ob", ("User", "other|https://two|b|ob")),
        ('User::"other|i|s"', ("User", "other|i|s")),
        ('Role::"sales"', ("Role", "sales")),
        ('Agent::"a:b c"', ("Agent", "a:b c")),
    ],
)
def test_whom_a_link_is_for_is_a_name_a_persons_full_name_or_an_entity(written: str, entity: tuple[str, str]) -> None:
    link, _ = made(policy(principal={"op": "==", "slot": "?principal"}), f"principal: '{written}'")
    assert link.values == {"principal": entity}


@pytest.mark.parametrize("written", ["", "a|b", 'a"b', "Role::sales", 'Role::""', 'role::"x"', 'Rol::"x"', 'Role::"x" ', 'Role::"a\\b"'])
def test_whom_nobody_could_mean_is_refused(written: str) -> None:
    with pytest.raises(BadPolicy, match=r"principal .* is not of the form tenant"):
        made(policy(principal={"op": "==", "slot": "?principal"}), f"principal: '{written}'")


@pytest.mark.parametrize("written", ["", "inventory.check", "a|b|c", 'Tol::"x"'])
def test_what_is_granted_is_an_entity(written: str) -> None:
    with pytest.raises(BadPolicy, match=r'resource .* is not of the form Tool::"inventory.check_stock"$'):
        made(policy(resource={"op": "==", "slot": "?resource"}), f"resource: '{written}'")


def test_links_are_numbered_and_an_empty_name_is_none() -> None:
    template = policy(principal={"op": "==", "slot": "?principal"})
    text = "links:\n- {template: t, principal: a}\n- {template: t, principal: b, id: ''}\n- {template: t, principal: c, id: own}\n"
    found = [(link.id, link.line, policy["annotations"]["id"]) for link, policy in fill_templates(text, {"t": template}, "acme|i")]
    assert found == [("t@1", 2, "t@1"), ("t@2", 3, "t@2"), ("own", 4, "own")]
    assert list(fill_templates("", {"t": template}, "acme|i")) == [] == list(fill_templates("# none yet", {}, "acme|i"))


@pytest.mark.parametrize("text", ["links: {}", "- a", "link: []", "links: [", "a: &a [*a]\nlinks: []", "\x00", "links: [2024-13-45]"])
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
    assert asked(rules, ALICE)[0] and not rules.is_outdated
    (tmp_path / "links.yaml").write_text("links: []")
    assert rules.is_outdated
    rules.reload()
    assert asked(rules, ALICE) == (False, ())
    (tmp_path / "links.yaml").unlink()
    rules.reload()
    assert load_rules({}, tmp_path).id_by_key
