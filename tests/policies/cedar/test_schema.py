"""The schema that policies are held to, and that what the engine is told of an act is what the schema promises."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from policies.cedar.argument_types import ArgumentTypes, KnownTool
from policies.cedar.engine import BadPolicy, CedarQuestion, load_rules
from policies.cedar.question import context_json, entities_json
from policies.cedar.role_rules import ACTIONS
from policies.cedar.schema import CONTEXT_ATTRIBUTES, ENTITY_TYPES, argument_types_by_action, schema_document
from policies.cedar.syntax import action_and_group
from policies.delegation.chain import Principal
from policies.delegation.history import History
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_getting_prompt, act_of_invoking_agent, act_of_reading_resource

ALICE = Principal("acme", "https://idp", "alice", ("sales", "support"))
RESERVE = KnownTool("acme", "inventory", "reserve", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
TOOLS = argument_types_by_action([RESERVE])
OF_THE_GATEWAY = ("Task", "Key")
ACTS = [
    act_of_calling_tool("inventory", "reserve"),
    act_of_invoking_agent("sales"),
    act_of_invoking_agent("sales", "quote"),
    act_of_getting_prompt("inventory", "greet"),
    act_of_reading_resource("inventory"),
    Act("readState", "Key", "team/x", "state:read:team/x", "team/x"),
    Act("writeState", "Key", "team/x", "state:write:team/x", "team/x"),
    Act("runWorkflow", "Workflow", "orders", "workflow:orders", "orders"),
    *(Act("registerAgent", kind, "x", "registry:write", "x") for kind in ("Agent", "Server", "Virtual", "Key")),
    *(Act("decideApproval", kind, "x", "approval:decide", "x") for kind in OF_THE_GATEWAY),
    *(Act("readAudit", kind, "x", "audit:read", "x") for kind in OF_THE_GATEWAY),
    *(Act("writePolicy", kind, "x", "policy:write", "x") for kind in OF_THE_GATEWAY),
]


def allowed_by_schema(
    question: CedarQuestion, tools: Mapping[str, ArgumentTypes], arguments: Any = None, totals: Iterable[str] = ()
) -> bool:
    """Whether Cedar takes the question and its entities for what the schema says."""
    document = schema_document(tools, ["tool:crm.find"], totals)
    action, _ = action_and_group(question.act)
    request = {
        "principal": {"type": "User", "id": question.principal.owner_key},
        "action": {"type": action[0], "id": action[1]},
        "resource": {"type": question.act.kind, "id": question.act.resource},
        "context": context_json(question, arguments),
    }
    schema = cedarpy.Schema.from_json_str(json.dumps(document))
    entities = json.loads(entities_json(question))
    for parent in entities[2:]:
        if parent["attrs"]:
            parent["attrs"].setdefault("permission", "")  # which no policy can reach there
    result = cedarpy.is_authorized(request, "permit(principal, action, resource);", entities, schema)
    return bool(result.decision == cedarpy.Decision.Allow)


def question(act: Act, **totals: int) -> CedarQuestion:
    past = History(calls={"tool:crm.find": 1}, totals=totals, approvals=("tool:crm.find",), taint=1)
    return CedarQuestion(ALICE, act, "acme", ("*",), ("planner",), 1, "t_1", history=past.to_policy_context(act.permission, totals.keys()))


@pytest.mark.parametrize("act", ACTS, ids=lambda act: f"{act.action} {act.kind} {act.resource}")
def test_whatever_the_gateway_asks_is_in_the_schema(act: Act) -> None:
    arguments = {"n": 1} if act.kind == "Tool" else None
    assert allowed_by_schema(question(act), TOOLS, arguments)
    assert allowed_by_schema(question(act, amount=3), TOOLS, arguments, ["amount"])


@pytest.mark.parametrize(
    "changed",
    [
        {"act": Act("invokeAgent", "Tool", "a.b", "agent:a.b", "a")},
        {"act": Act("callAgent", "Agent", "sales", "agent:sales", "sales")},
        {"act": act_of_calling_tool("inventory", "check")},
        {"depth": 1.5},
        {"task": 1},
        {"scopes": (1,)},
        {"history": {}},
    ],
)
def test_the_schema_knows_nothing_else(changed: dict[str, Any]) -> None:
    assert not allowed_by_schema(replace(question(act_of_invoking_agent("sales")), **changed), TOOLS)


def test_arguments_are_there_for_tools_alone_and_of_the_types_of_their_schema() -> None:
    assert not allowed_by_schema(question(act_of_calling_tool("inventory", "reserve")), TOOLS)
    assert not allowed_by_schema(question(act_of_calling_tool("inventory", "reserve")), TOOLS, {"n": "1"})
    assert not allowed_by_schema(question(act_of_invoking_agent("sales")), TOOLS, {"n": 1})
    assert not allowed_by_schema(question(act_of_calling_tool("inventory", "reserve"), amount=1), TOOLS, {"n": 1}, ["amount", "other"])


def refusal(folder: Path, text: str) -> str:
    (folder / "ours.cedar").write_text(text)
    try:
        load_rules({}, folder, [RESERVE], ())
    except BadPolicy as problem:
        return problem.problem
    return ""


@pytest.mark.parametrize(
    "condition",
    [
        *(f'{name} == "x"' for name in ("context.tenant", "context.task", "resource.tenant", "resource.permission")),
        *(f'principal.{name} == "x"' for name in ("tenant", "issuer", "subject")),
        *(f'context.{name}.contains("x")' for name in ("scopes", "chain", "history.approvals")),
        *(f"context.{name} > 1" for name in ("depth", "history.repeats", "history.taint")),
        'context.history.calls has "tool:crm.find" && context.history.calls["tool:crm.find"] > 1',
        'principal in Role::"sales"',
    ],
)
def test_policies_of_any_act_may_speak_of_who_where_and_what_went_before(tmp_path: Path, condition: str) -> None:
    assert refusal(tmp_path, f"forbid(principal, action, resource) when {{ {condition} }};") == ""


def test_a_total_is_there_where_a_policy_wants_it_added_up(tmp_path: Path) -> None:
    text = "forbid(principal, action, resource) when { context.history.totals.amount > 5 };"
    assert refusal(tmp_path, f'@total("amount") {text}') == ""
    assert "amount" in refusal(tmp_path, text)


def test_calls_are_counted_where_there_were_any_so_a_policy_asks_first(tmp_path: Path) -> None:
    assert "optional" in refusal(tmp_path, 'forbid(principal, action, resource) when { context.history.calls["tool:a.b"] > 5 };')


MEMBERS = {("Tool", "Server"), ("Prompt", "Server"), ("Agent", "Agent"), ("Key", "Key")}


def test_each_action_has_its_resources_and_these_are_in_what_they_are_in(tmp_path: Path) -> None:
    document = schema_document(TOOLS)[""]
    applies = {name: set(action["appliesTo"]["resourceTypes"]) for name, action in document["actions"].items()}
    assert applies == {
        "invokeAgent": {"Agent"},
        "callTool": {"Tool"},
        "inventory.reserve": {"Tool"},
        "getPrompt": {"Prompt"},
        "readResource": {"Server"},
        "readState": {"Key"},
        "writeState": {"Key"},
        "runWorkflow": {"Workflow"},
        "registerAgent": {"Agent", "Server", "Virtual", "Key"},
        "decideApproval": {"Task", "Key"},
        "readAudit": {"Task", "Key"},
        "writePolicy": {"Task", "Key"},
    }
    assert {name for name, action in document["actions"].items() if "memberOf" in action} == {"inventory.reserve"}
    assert set(applies) == ACTIONS | {"inventory.reserve"}
    types = document["entityTypes"]
    assert {(kind, above) for kind, shape in types.items() for above in shape.get("memberOfTypes", [])} == MEMBERS | {("User", "Role")}
    assert all(action["appliesTo"]["principalTypes"] == ["User"] for action in document["actions"].values())
    assert ENTITY_TYPES == {*types, "Action"} == {*set().union(*applies.values()), "User", "Role", "Action"}


def test_a_context_has_what_the_schema_has_and_whatever_else_is_misspelt() -> None:
    contexts = [action["appliesTo"]["context"]["attributes"] for action in schema_document(TOOLS)[""]["actions"].values()]
    assert set().union(*contexts) == CONTEXT_ATTRIBUTES


def test_tools_are_known_by_their_actions_in_order() -> None:
    texts = KnownTool("acme", "a", "z", {"type": "object", "properties": {"t": {"type": "string"}}})
    assert list(argument_types_by_action([RESERVE, texts])) == ["a.z", "inventory.reserve"]
    assert argument_types_by_action([]) == {}
