"""Operators' policies beside the tools that are registered: what doesn't fit is said, and never takes good rules away."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from policies.cedar.actions import group_actions
from policies.cedar.engine import BadPolicy, CedarQuestion, KnownTool, PolicyEngine, load_rules
from policies.cedar.files.review import Policy, Review, review_policies
from policies.cedar.role_rules import ACTIONS
from policies.cedar.schema import argument_types_by_action
from policies.delegation.chain import Principal
from policies.delegation.rulings import act_of_calling_tool

ROLES = {"sales": ["tool:*"]}
ALICE = Principal("default", "https://idp", "alice", ("sales",))


def tool(name: str, properties: dict[str, Any], *required: str, server: str = "inventory") -> KnownTool:
    return KnownTool("default", server, name, {"type": "object", "properties": properties, "required": list(required)})


RESERVE = tool("reserve", {"quantity": {"type": "integer"}, "note": {"type": "string"}, "price": {"type": "number"}}, "quantity")
CHECK = tool("check", {"item": {"type": "string"}})
LOOSE = tool("loose", {"n": {"type": ["integer", "string"]}})
TOOLS = (RESERVE, CHECK, LOOSE)
HEAD = 'forbid(principal, action == Action::"callTool", resource == Tool::"inventory.reserve")'


def refused(folder: Path, text: str, tools: tuple[KnownTool, ...] = TOOLS) -> BadPolicy:
    (folder / "ours.cedar").write_text(text)
    with pytest.raises(BadPolicy) as found:
        load_rules(ROLES, folder, tools, ())
    return found.value


def doubts(folder: Path, text: str, tools: tuple[KnownTool, ...] = TOOLS) -> tuple[str, ...]:
    (folder / "ours.cedar").write_text(text)
    return load_rules(ROLES, folder, tools, ()).warnings


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("context.input.quantty > 3", "did you mean 'quantity'"),
        ("context.input has quantty && context.input.quantty > 3", "did you mean 'quantity'"),
        ('context.input["quantty"] > 3', "did you mean 'quantity'"),
        ('context.input.quantity == "3"', "not compatible"),
        ("context.input.quantity.unit == 3", "'quantity.unit'"),
        ('context.input.note == "x"', "optional attribute `input.note`"),
        ("context.input has price && context.input.price > 3", "decimal"),
    ],
)
def test_a_policy_that_names_or_compares_arguments_wrongly_is_refused_with_its_line(tmp_path: Path, condition: str, problem: str) -> None:
    error = refused(tmp_path, f'// first\n\n@id("limit")\n{HEAD}\nwhen {{ {condition} }};')
    assert (error.file, error.line) == ("ours.cedar", 3)
    assert problem in error.problem and "limit" in error.problem


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD} when {{ context.input.quantity > 3 }};",
        f'{HEAD} when {{ context has input && context.input has note && context.input.note like "x*" }};',
        f'{HEAD} when {{ context.input has price && context.input.price.lessThan(decimal("3.0")) }};',
        'forbid(principal, action == Action::"inventory.reserve", resource) when { context.input.quantity > 3 };',
        'forbid(principal, action in [Action::"inventory.reserve", Action::"readAudit"], resource in Server::"inventory")'
        " when { context has input && context.input has quantity };",
        'forbid(principal, action == Action::"callTool", resource) when { context.input has quantity && context.input.quantity > 3 };',
        'forbid(principal, action == Action::"getPrompt", resource) when { context.input.anything == "x" };',
        "forbid(principal, action, resource) when { context has input && context.input has item };",
        f'{HEAD} when {{ action == Action::"callTool" && context.depth > 1 }};',
    ],
)
def test_a_policy_that_fits_its_tools_is_neither_refused_nor_doubted(tmp_path: Path, text: str) -> None:
    tools = (RESERVE, CHECK)
    assert doubts(tmp_path, text, tools) == ()


def test_an_argument_that_cedar_has_no_type_for_is_a_doubt(tmp_path: Path) -> None:
    text = 'forbid(principal, action == Action::"callTool", resource == Tool::"inventory.loose") when { context.input.n == 1 };'
    (doubt,) = doubts(tmp_path, text)
    assert doubt == "ours.cedar:1: context.input.n of inventory.loose is not checked: it can be of several types"


def test_an_unregistered_tool_is_a_warning_and_its_arguments_are_not_checked(tmp_path: Path) -> None:
    text = 'forbid(principal, action == Action::"callTool", resource == Tool::"inventory.reserv") when { context.input.x == 1 };'
    (doubt,) = doubts(tmp_path, text)
    assert doubt == "ours.cedar:1: Tool::\"inventory.reserv\" is not registered (did you mean 'inventory.reserve'?)"
    (doubt,) = doubts(tmp_path, 'permit(principal, action == Action::"inventory.chek", resource);')
    assert "did you mean 'inventory.check'" in doubt


def test_each_tool_is_an_action_of_its_own_in_the_group_of_all(tmp_path: Path) -> None:
    (tmp_path / "ours.cedar").write_text(
        '@id("own") forbid(principal, action == Action::"inventory.reserve", resource);'
        '@id("group") forbid(principal, action, resource) when { action == Action::"callTool" && principal.subject == "bob" };'
        '@id("others") forbid(principal, action, resource) when { action != Action::"callTool" };'
    )
    engine = PolicyEngine(ROLES, tmp_path)

    def ruled(name: str, person: Principal = ALICE) -> tuple[str, ...]:
        return engine.decide(CedarQuestion(person, act_of_calling_tool("inventory", name), "default")).policies

    assert ruled("reserve") == ("own",)
    assert ruled("check") == ("role:sales",)
    assert ruled("check", Principal("default", "https://idp", "bob", ("sales",))) == ("group",)


def test_a_change_of_the_registry_never_takes_good_rules_away(tmp_path: Path) -> None:
    tools: list[KnownTool] = [RESERVE]
    text = f"{HEAD} when {{ context.input.quantity > 3 }};"
    (tmp_path / "ours.cedar").write_text(text)
    engine = PolicyEngine(ROLES, tmp_path, lambda: tools)
    assert engine.recheck_tools() == () and engine.is_healthy
    version = engine.version
    tools[:] = [tool("reserve", {"amount": {"type": "integer"}})]
    (doubt,) = engine.recheck_tools()
    assert "'quantity'" in doubt and doubt.startswith("ours.cedar:1: ")
    assert engine.is_healthy and engine.version == version and engine.rules.warnings == (doubt,)
    assert engine.recheck_tools() == ()
    (tmp_path / "ours.cedar").write_text(text + "\npermit(principal, action, resource);")  # what is new is held to the tools of now
    engine.reload()
    assert engine.is_healthy and engine.version != version
    assert PolicyEngine(ROLES, tmp_path, lambda: tools).is_healthy  # and so does a start


def test_a_file_refused_for_a_tool_is_loaded_once_the_tool_has_changed(tmp_path: Path) -> None:
    tools: list[KnownTool] = [RESERVE]
    (tmp_path / "ours.cedar").write_text("")
    engine = PolicyEngine(ROLES, tmp_path, lambda: tools)
    version = engine.version
    (tmp_path / "ours.cedar").write_text(f"{HEAD} when {{ context.input.amount > 3 }};")
    engine.reload()
    assert not engine.is_healthy and engine.version == version
    tools[:] = [tool("reserve", {"amount": {"type": "integer"}}, "amount")]
    engine.recheck_tools()
    assert engine.is_healthy and engine.version != version


def policy(conditions: str = "", head: str = "permit(principal, action, resource)") -> Policy:
    text = f"{head} {conditions};"
    found: Policy = group_actions(json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"])
    return {**found, "annotations": {"id": text}}


class Validator:
    """Complains of nothing, or of every policy; keeps what it was shown."""

    def __init__(self, *complaints: str) -> None:
        self.shown: list[tuple[dict[str, Policy], dict[str, Any]]] = []
        self._complaints = complaints

    def __call__(self, policies: Mapping[str, Policy], schema: str) -> dict[str, list[str]]:
        self.shown.append((dict(policies), json.loads(schema)[""]))
        return {key: list(self._complaints) for key in policies} if self._complaints else {}

    def actions(self, which: int) -> set[str]:
        """Those that the schema had."""
        return set(self.shown[which][1]["actions"])


TYPES = argument_types_by_action(TOOLS)
READER = policy("when { context.input.quantity > 3 }", HEAD)
PLAIN = policy('when { principal.subject == "x" }')


def test_nothing_is_put_to_the_validator_where_there_is_nothing() -> None:
    validator = Validator("bad")
    assert review_policies({}, TYPES, validator) == Review({}, {}, {})
    assert validator.shown == []


def test_what_reads_no_arguments_is_wrong_or_right_whatever_is_registered() -> None:
    for tools in ({}, TYPES):
        validator = Validator("bad")
        assert review_policies({"p": PLAIN}, tools, validator) == Review({"p": ["bad"]}, {}, {})
        ((shown, schema),) = validator.shown
        assert shown == {"p": PLAIN}
        assert not [name for name in schema["actions"] if "." in name]  # no tool has a part in it


def test_what_reads_arguments_fits_the_tools_it_can_meet_or_not() -> None:
    validator = Validator("bad")
    assert review_policies({"r": READER, "p": PLAIN}, TYPES, validator) == Review({"p": ["bad"]}, {"r": ["bad"]}, {})
    assert [list(shown) for shown, _ in validator.shown] == [["p"], ["r"]]
    assert validator.actions(1) - validator.actions(0) == {"inventory.reserve"}
    names = {entity["id"] for entity in validator.shown[1][0]["r"]["action"]["entities"]}
    assert names == {"inventory.reserve"}
    assert {**validator.shown[1][0]["r"], "action": READER["action"]} == READER


def test_a_policy_on_any_arguments_is_reviewed_with_every_kind_of_described_action() -> None:
    validator = Validator()
    wide = policy("when { context has input && context.input has quantity }", "forbid(principal, action, resource)")
    assert review_policies({"r": wide}, TYPES, validator).mismatches == {}
    ((shown, _),) = validator.shown
    scope = shown["r"]["action"]
    assert scope["op"] == "in" and {entity["type"] for entity in scope["entities"]} == {"Action"}
    described = {"inventory.reserve", "inventory.check"}  # which stands for inventory.loose, without a quantity too
    assert {entity["id"] for entity in scope["entities"]} == (ACTIONS - {"callTool", "getPrompt"}) | described


def test_tools_with_equal_arguments_where_a_policy_reads_are_reviewed_once() -> None:
    same = [tool(f"a{number}", {"quantity": {"type": "integer"}, f"other{number}": {"type": "string"}}) for number in range(20)]
    unlike = [tool("needed", {"quantity": {"type": "integer"}}, "quantity"), tool("odd", {"quantity": {"type": "string"}})]
    without = [tool(f"b{number}", {f"other{number}": {"type": "string"}}) for number in range(20)]
    condition = 'when { context has input && context.input has quantity } unless { resource == Tool::"inventory.a7" }'
    reads = policy(condition, "forbid(principal, action, resource)")
    validator = Validator()
    review_policies({"r": reads}, argument_types_by_action((*same, *unlike, *without)), validator)
    ((shown, _),) = validator.shown
    reviewed = {entity["id"] for entity in shown["r"]["action"]["entities"]}
    assert {name for name in reviewed if "." in name} == {f"inventory.{name}" for name in ("a0", "a7", "needed", "odd", "b0")}


def test_actions_of_a_list_are_shown_beside_the_tools() -> None:
    validator = Validator()
    head = 'forbid(principal, action in [Action::"inventory.check", Action::"readAudit", Action::"getPrompt"], resource)'
    review_policies({"r": policy('when { context.input.item == "x" }', head)}, TYPES, validator)
    ((shown, _),) = validator.shown
    assert [entity["id"] for entity in shown["r"]["action"]["entities"]] == ["readAudit", "inventory.check"]


def test_what_reads_arguments_of_prompts_alone_is_not_shown_at_all() -> None:
    validator = Validator("bad")
    head = 'forbid(principal, action == Action::"getPrompt", resource)'
    assert review_policies({"r": policy("when { context.input.x == 1 }", head)}, TYPES, validator) == Review({}, {}, {})
    assert validator.shown == []


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (HEAD, "inventory.reserve has no argument 'quantitty' (did you mean 'quantity'?)"),
        (
            'forbid(principal, action == Action::"callTool", resource in Server::"inventory")',
            "no tool that this policy applies to has an argument 'quantitty' (did you mean 'quantity'?)",
        ),
    ],
)
def test_an_argument_that_no_tool_has_is_told_apart_from_one_that_some_have(head: str, sentence: str) -> None:
    validator = Validator("bad")
    tools = argument_types_by_action((RESERVE, CHECK))
    unknown = policy("when { context.input.quantitty > 3 && context.input.quantity > 3 }", head)
    assert review_policies({"r": unknown}, tools, validator) == Review({}, {"r": [sentence]}, {})
    assert validator.shown == []
    assert review_policies({"r": policy("when { context.input.quantity > 3 }", head)}, tools, validator).mismatches == {"r": ["bad"]}


def test_a_tool_that_takes_what_it_likes_may_have_any_argument() -> None:
    anything = argument_types_by_action([KnownTool("default", "inventory", "reserve", {"type": "object"})])
    found = review_policies({"r": READER}, anything, Validator("bad"))
    assert (found.errors, found.mismatches) == ({}, {})
    (doubt,) = found.warnings["r"]
    assert doubt == "context.input.quantity of inventory.reserve is not checked: it may have any members"


def test_three_doubts_are_told_and_how_many_more_there_are() -> None:
    loose = [KnownTool("default", "inventory", f"t{number}", {"type": "object"}) for number in range(5)]
    wide = policy("when { context.input.n == 1 }", 'forbid(principal, action == Action::"callTool", resource)')

    def doubts_of(count: int) -> list[str]:
        return list(review_policies({"r": wide}, argument_types_by_action(loose[:count]), Validator()).warnings["r"])

    assert [len(doubts_of(count)) for count in (1, 3, 4, 5)] == [1, 3, 4, 4]
    assert doubts_of(4)[-1] == "and 1 more are not checked" and doubts_of(5)[-1] == "and 2 more are not checked"
    assert all("context.input.n of inventory.t" in doubt for doubt in doubts_of(3))


def test_all_arguments_at_once_are_called_the_input() -> None:
    loose = argument_types_by_action([KnownTool("default", "inventory", "reserve", {"type": "object"})])
    found = review_policies({"r": policy("when { [context.input].contains({a: 1}) }", HEAD)}, loose, Validator())
    assert found.warnings == {"r": ["context.input of inventory.reserve is not checked: it may have any members"]}


def test_what_is_named_and_not_registered_is_doubted_where_anything_is() -> None:
    stranger = policy('when { resource == Tool::"inventory.reserv" && action == Action::"shop.buy" && principal in Role::"a.b" }')
    found = review_policies({"p": stranger}, TYPES, Validator())
    assert found.warnings == {
        "p": [
            "Tool::\"inventory.reserv\" is not registered (did you mean 'inventory.reserve'?)",
            'Action::"shop.buy" is not registered',
        ]
    }
    assert review_policies({"p": stranger}, {}, Validator()).warnings == {}
    assert review_policies({"p": PLAIN}, TYPES, Validator()).warnings == {}


def test_single_tools_are_all_tools_where_arguments_do_not_matter() -> None:
    validator = Validator()
    given = policy(
        'when { action == Action::"inventory.check" && resource != Tool::"inventory.check" }',
        'permit(principal, action in [Action::"inventory.reserve", Action::"readAudit"], resource)',
    )
    review_policies({"p": {**given, "annotations": {"type": "Action", "id": "a.b"}}}, TYPES, validator)
    shown = json.dumps(validator.shown[0][0]["p"])
    assert "inventory.reserve" not in shown and '"Tool", "id": "inventory.check"' in shown.replace('"type": ', "")
    assert shown.count('"id": "callTool"') == 2 and '"readAudit"' in shown
    assert validator.shown[0][0]["p"]["annotations"] == {"type": "Action", "id": "a.b"}  # which are no part of what is said


def test_what_policies_count_and_add_up_is_in_the_schema_of_each() -> None:
    counting = policy('when { context.history.calls["tool:a.b"] > 1 && context.history.calls has "agent:c" }')
    adding = {**policy("when { context.history.totals.amount > 1 }"), "annotations": {"id": "x", "total": "amount"}}
    validator = Validator()
    review_policies({"c": counting, "a": adding, "r": READER}, TYPES, validator)
    for _, schema in validator.shown:
        history = schema["actions"]["readAudit"]["appliesTo"]["context"]["attributes"]["history"]["attributes"]
        assert list(history["calls"]["attributes"]) == ["agent:c", "tool:a.b"]
        assert list(history["totals"]["attributes"]) == ["amount"]
    assert len(validator.shown) == 2


def test_a_policy_that_is_unclear_for_one_tool_is_held_to_the_others() -> None:
    validator = Validator()
    both = argument_types_by_action((tool("t1", {"n": {"type": "integer"}}), tool("t2", {"n": {"type": ["integer", "string"]}})))
    wide = policy("when { context.input.n == 1 }", 'forbid(principal, action == Action::"callTool", resource)')
    found = review_policies({"r": wide}, both, validator)
    assert found.warnings == {"r": ["context.input.n of inventory.t2 is not checked: it can be of several types"]}
    ((shown, _),) = validator.shown
    assert [entity["id"] for entity in shown["r"]["action"]["entities"]] == ["inventory.t1"]
    only = {"inventory.t2": both["inventory.t2"]}
    again = Validator("bad")
    assert review_policies({"r": wide}, only, again).mismatches == {} and again.shown == []


def test_what_reads_arguments_of_no_tool_is_held_to_what_it_can_meet() -> None:
    head = 'forbid(principal, action in [Action::"readAudit", Action::"invokeAgent"], resource)'
    for tools in ({}, TYPES):
        validator = Validator("bad")
        assert review_policies({"r": policy("when { context.input.x == 1 }", head)}, tools, validator).mismatches == {"r": ["bad"]}
        assert [entity["id"] for entity in validator.shown[0][0]["r"]["action"]["entities"]] == ["invokeAgent", "readAudit"]


def test_what_is_unclear_for_all_its_tools_is_held_to_nothing() -> None:
    loose = argument_types_by_action([KnownTool("default", "inventory", "reserve", {"type": "object"})])
    validator = Validator("bad")
    assert (
        review_policies({"r": policy("when { context.input.x == 1 }", "forbid(principal, action, resource)")}, loose, validator).mismatches
        == {}
    )
    assert validator.shown == []


def test_an_argument_within_another_is_named_by_both() -> None:
    nested = tool("reserve", {"a": {"type": "object", "properties": {"b": {"type": ["integer", "string"]}}}})
    found = review_policies({"r": policy("when { context.input.a.b == 1 }", HEAD)}, argument_types_by_action([nested]), Validator())
    assert found.warnings == {"r": ["context.input.a.b of inventory.reserve is not checked: it can be of several types"]}
