"""What a policy says, read from its JSON form: where in doubt it applies, and looks at the arguments."""

from typing import Any

import pytest

from policies.cedar.syntax import (
    action_and_group,
    ancestors_of,
    assume_unknown,
    counted_permission,
    find_misspelt_name,
    json_objects,
    may_apply,
    never_matching_principals,
    reads_context,
    reads_input,
    scope_matches,
    spelling_hint,
)
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_getting_prompt, act_of_invoking_agent, act_of_reading_resource
from tests.fakes.cedar_policies import ANYTHING, parsed, when

RESERVE, CHECK = act_of_calling_tool("inventory", "reserve"), act_of_calling_tool("inventory", "check")
SALES, QUOTE = act_of_invoking_agent("sales"), act_of_invoking_agent("sales", "quote")
GREET, FILES = act_of_getting_prompt("inventory", "greet"), act_of_reading_resource("inventory")
ACTS = (RESERVE, CHECK, SALES, QUOTE, GREET, FILES)


@pytest.mark.parametrize(
    ("act", "parent"),
    [
        (RESERVE, ("Server", "inventory")),
        (GREET, ("Server", "inventory")),
        (QUOTE, ("Agent", "sales")),
        (Act("invokeAgent", "Agent", "a/b/c", "agent:a/b/c", "a"), ("Agent", "a")),
        (SALES, None),
        (FILES, None),
        (Act("readState", "Key", "team/x", "state:read:team/x", "team"), ("Key", "team")),
        (Act("writeState", "Key", "team", "state:write:team", "team"), None),
        (Act("registerAgent", "Server", "shop", "registry:write", "write"), None),
        (Act("registerAgent", "Agent", "shop", "registry:write", "write"), None),
    ],
    ids=lambda each: getattr(each, "resource", None),
)
def test_a_tool_and_a_prompt_are_in_their_server_and_a_skill_is_in_its_agent(act: Act, parent: tuple[str, str] | None) -> None:
    assert ancestors_of(act) == ([parent] if parent else [])


def test_a_tool_is_an_action_in_the_group_of_all_and_other_actions_are_in_none() -> None:
    assert action_and_group(RESERVE) == (("Action", "inventory.reserve"), ("Action", "callTool"))
    assert action_and_group(GREET) == (("Action", "getPrompt"), None)


@pytest.mark.parametrize(
    ("scope", "applies"),
    [
        ("action, resource", ACTS),
        ('action == Action::"inventory.reserve", resource', (RESERVE,)),
        ('action == Action::"getPrompt", resource', (GREET,)),
        ('action == Action::"callTool", resource', ()),  # a tool's action is in it; policy_actions has made it `in`
        ('action in Action::"callTool", resource', (RESERVE, CHECK)),
        ('action in [Action::"callTool", Action::"getPrompt"], resource', (RESERVE, CHECK, GREET)),
        ('action in [Action::"inventory.check", Action::"readAudit"], resource', (CHECK,)),
        ('action, resource == Tool::"inventory.reserve"', (RESERVE,)),
        ('action, resource == Agent::"sales"', (SALES,)),
        ('action, resource == Prompt::"inventory.reserve"', ()),
        ('action, resource in Server::"inventory"', (RESERVE, CHECK, GREET, FILES)),
        ('action, resource in Agent::"sales"', (SALES, QUOTE)),
        ('action, resource in Agent::"sales/quote"', (QUOTE,)),
        ('action, resource in Agent::"sale"', ()),
        ("action, resource is Agent", (SALES, QUOTE)),
        ("action, resource is Server", (FILES,)),
        ('action, resource is Tool in Server::"inventory"', (RESERVE, CHECK)),
        ('action, resource is Prompt in Server::"shop"', ()),
        ('action == Action::"inventory.check", resource is Prompt', ()),
        ('action == Action::"inventory.check", resource is Tool in Server::"inventory"', (CHECK,)),
    ],
)
def test_a_policy_may_apply_to_what_its_scope_names_and_to_what_is_in_that(scope: str, applies: tuple[Act, ...]) -> None:
    policy = parsed(f"forbid(principal, {scope});")
    assert tuple(act for act in ACTS if may_apply(policy, act)) == applies


@pytest.mark.parametrize(
    "scope",
    [
        {"op": "All"},
        {"op": "==", "slot": "?resource"},
        {"op": "in", "slot": "?resource"},
        {"op": "is", "entity_type": "Tool", "in": {"slot": "?resource"}},
        {"op": "unheard of", "entity": {"type": "Tool", "id": "x"}},
    ],
)
def test_a_scope_that_is_not_understood_may_apply(scope: dict[str, Any]) -> None:
    assert scope_matches(scope, [("Tool", "a.b"), ("Server", "a")]) is True


def test_the_type_of_a_scope_is_that_of_the_resource_itself() -> None:
    kind = {"op": "is", "entity_type": "Server"}
    assert scope_matches(kind, [("Server", "a"), None]) is True
    assert scope_matches(kind, [("Tool", "a.b"), ("Server", "a")]) is False
    assert scope_matches(kind, [None]) is False


READING = [
    "context.input.amount <= 500",
    "context has input",
    'context["input"] has x',
    "context has input.x",
    '[context].contains({"input": 1})',
    "{a: context} == {a: principal}",
    '(if principal.subject == "x" then context else {a: 1}) has input',
    'context == {"Var": 1}',
    "{annotations: context.input}.annotations == 1",
    'context.depth == 1 || !(context.task like "x*" && context.input.a == 1)',
]
NOT_READING = [
    'context.tenant == "acme"',
    "context has depth",
    "context.history.repeats > 1",
    'context["task"] == "input"',
    'principal.subject == "context.input"',
    'principal == User::"context"',
    '{Var: "context", input: 1} has input',
    "{input: context.depth}.input == 1",
]


@pytest.mark.parametrize("condition", READING)
def test_any_other_use_of_the_context_counts_as_reading_the_arguments(condition: str) -> None:
    assert reads_input(when(condition)["conditions"]) is True


@pytest.mark.parametrize("condition", NOT_READING)
def test_reading_something_else_is_not_reading_the_arguments(condition: str) -> None:
    assert reads_input(when(condition)["conditions"]) is False


def test_what_is_read_of_the_context_is_read_by_its_name() -> None:
    conditions = when("context.history.taint > 1 && context has depth")["conditions"]
    assert [name for name in ("history", "depth", "input", "taint", "") if reads_context(conditions, name)] == ["history", "depth"]
    assert not reads_context([], "history")
    assert all(reads_context(when("context == {depth: 1}")["conditions"], name) for name in ("history", "depth", "input"))


@pytest.mark.parametrize(
    ("condition", "call"),
    [
        ('context.history.calls["tool:a.b"] > 1', "tool:a.b"),
        ('context.history.calls has "tool:a.b"', "tool:a.b"),
        ('context["history"]["calls"] has x', "x"),
        ('context.history.totals["tool:a.b"] > 1', ""),
        ('context.calls["tool:a.b"] > 1', ""),
        ('context.input.calls["tool:a.b"] > 1', ""),
        ('principal.history.calls["x"] > 1', ""),
        ("context.history.calls == {}", ""),
        ("{calls: 1}.calls == 1", ""),
    ],
)
def test_calls_that_a_policy_counts_are_known_by_their_names(condition: str, call: str) -> None:
    assert [name for node in json_objects(when(condition)) if (name := counted_permission(node)) != ""] == [call] * bool(call)


def rewritten(text: str, favourable: bool, *blind: str) -> dict[str, Any]:
    return assume_unknown({"p": parsed(text)}, blind or ("input", "history"), favourable)


@pytest.mark.parametrize(
    ("conditions", "clear"),
    [
        ("", ""),
        ("when { context.depth == 1 }", "when { context.depth == 1 }"),
        ("when { context.input.n < 3 }", ""),
        ("unless { context.history.repeats > 1 }", ""),
        ("when { context.depth == 1 } unless { context.input.n < 3 }", "when { context.depth == 1 }"),
        ("when { context.depth == 1 && context.input.n < 3 }", "when { context.depth == 1 }"),
        (
            'when { context.input has n && context.depth == 1 && context.input.n < 3 && context.task == "t" }',
            'when { context.depth == 1 } when { context.task == "t" }',
        ),
        ("unless { context.input.n < 3 || context.depth == 1 }", "unless { context.depth == 1 }"),
        ("when { context.input.n < 3 || context.depth == 1 }", ""),
        ("unless { context.input.n < 3 && context.depth == 1 }", ""),
        ("when { !(context.input.n < 3 && context.depth == 1) }", ""),
        ("when { context == {} && context.depth == 1 }", "when { context.depth == 1 }"),
    ],
)
def test_what_depends_on_what_is_not_known_is_taken_as_best_or_as_worst(conditions: str, clear: str) -> None:
    """At best a permit's unknown conditions hold and a forbid's don't, at worst the other way round."""
    head = f"({ANYTHING}) "
    known = parsed(f"permit{head}{conditions};")["conditions"] == parsed(f"permit{head}{clear};")["conditions"]
    for effect, favourable in (("permit", True), ("forbid", False)):
        assert rewritten(f"{effect}{head}{conditions};", favourable) == {"p": parsed(f"{effect}{head}{clear};")}
    for effect, favourable in (("permit", False), ("forbid", True)):
        kept = rewritten(f"{effect}{head}{conditions};", favourable)
        assert kept == ({"p": parsed(f"{effect}{head}{conditions};")} if known else {})


def test_only_what_is_not_known_is_taken_so() -> None:
    text = f"permit({ANYTHING}) when {{ context.input.n < 3 }} when {{ context.history.taint < 2 }};"
    assert rewritten(text, True, "history") == {"p": when("context.input.n < 3")}
    assert rewritten(text, True, "task") == {"p": parsed(text)}
    assert rewritten(text, False, "task") == {"p": parsed(text)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("when { context.inputs.x == 1 }", "context has no attribute 'inputs' (did you mean 'input'?); it has chain, depth,"),
        ("when { context has zzzzz }", "context has no attribute 'zzzzz'; it has"),
        ("unless { {annotations: context.inputs}.annotations == 1 }", "'inputs'"),
        ("when { principal.subjct == 1 }", "principal has no attribute 'subjct' (did you mean 'subject'?); it has issuer, subject, tenant"),
        ("when { principal has permission }", "principal has no attribute 'permission'"),
        ("when { resource.subject == 1 }", "resource has no attribute 'subject'; it has permission, tenant"),
        ("when { resource has owner }", "resource has no attribute 'owner'"),
        ('when { resource == Tol::"x" }', "there is no entity type 'Tol'; there are Action, Agent, Key,"),
        ("when { resource is Tol }", "there is no entity type 'Tol'"),
        (
            'when { action == Action::"callTools" }',
            "there is no action 'callTools' (did you mean 'callTool'?); there are callTool, decideApproval,",
        ),
        ('when { action in [Action::"callTool", Action::"zzz"] }', "there is no action 'zzz'; there are"),
    ],
)
def test_a_name_that_nothing_has_is_said_with_the_one_that_may_be_meant(text: str, problem: str) -> None:
    assert problem in find_misspelt_name(parsed(f"forbid({ANYTHING}) {text};"))


@pytest.mark.parametrize(
    "scope",
    [
        'principal == Usr::"x", action, resource',
        "principal is Usr, action, resource",
        'principal, action == Action::"call", resource',
        'principal, action, resource in Srver::"x"',
        'principal, action, resource is Tool in Srver::"x"',
    ],
)
def test_a_scope_is_held_to_the_same_names(scope: str) -> None:
    assert find_misspelt_name(parsed(f"forbid({scope});")).startswith("there is no ")


@pytest.mark.parametrize(
    "condition",
    [
        "context.input.anything == context.history.totals.anything",
        'principal.tenant == resource.tenant && resource has permission && principal has "issuer"',
        'action == Action::"inventory.reserve" || action == Action::"readAudit"',
        'principal in Role::"whatever" && resource in Server::"whatever" && resource is Virtual',
        "{inputs: 1}.inputs == 1 && {subjct: principal}.subjct == principal",
        '"Tol" == "context.inputs"',
        "context.input.type == 1 && {type: 1, id: 2} == {type: 1}",
    ],
)
def test_names_that_something_has_are_not_misspelt(condition: str) -> None:
    assert find_misspelt_name(when(condition)) == ""


def test_annotations_say_nothing_of_anybody() -> None:
    policy = parsed(f'@type("Usr") @id("bob") forbid({ANYTHING});')
    assert find_misspelt_name(policy) == "" and list(never_matching_principals(policy, ())) == []
    assert list(never_matching_principals(parsed(f'@type("User") @id("bob") forbid({ANYTHING});'), ())) == []


def test_the_nearest_name_is_suggested_and_none_where_nothing_is_near() -> None:
    assert spelling_hint("quantty", ["quality", "quantity", "unit"]) == " (did you mean 'quantity'?)"
    assert spelling_hint("xyz", ["quantity"]) == spelling_hint("a", []) == ""


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ('principal == User::"bob"', ['User::"bob" matches no principal']),
        ('principal == User::"acme|bob"', ['User::"acme|bob" matches no principal']),
        ('principal == User::"acme|https://idp|bob"', []),
        ('principal == User::"acme|https://idp|b|ob"', []),
        ('principal in Role::"sails"', ['Role::"sails" has no permissions']),
        ('principal in Role::"sales"', []),
        ('resource == Tool::"bob" || context.task == "User"', []),
        ('principal in [User::"x", Role::"y", User::"z"]', ['User::"x"', 'Role::"y"', 'User::"z"']),
    ],
)
def test_whoever_nobody_will_ever_be_is_said(condition: str, said: list[str]) -> None:
    found = list(never_matching_principals(when(condition), {"sales": []}))
    assert len(found) == len(said) and all(part in sentence for part, sentence in zip(said, found, strict=True))


def test_a_scope_that_names_nobody_is_said_with_what_to_write() -> None:
    (sentence,) = never_matching_principals(parsed('forbid(principal == User::"bob", action, resource);'), ())
    assert 'principal.subject == "bob"' in sentence
