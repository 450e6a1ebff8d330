"""What Cedar gets to see of an act: who asks in which roles, what it is in, and what is known of the way there."""

import json
from dataclasses import replace
from typing import Any

import pytest

from policies.cedar.question import CedarQuestion, Verdict, context_json, entities_json
from policies.delegation.chain import Principal
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_getting_prompt, act_of_invoking_agent, act_of_reading_resource

ALICE = Principal("acme", "https://idp", "alice", ("sales", "support"))
WHO = {
    "uid": {"type": "User", "id": "acme|https://idp|alice"},
    "attrs": {"tenant": "acme", "issuer": "https://idp", "subject": "alice"},
    "parents": [{"type": "Role", "id": "sales"}, {"type": "Role", "id": "support"}],
}


SALES = act_of_invoking_agent("sales")


def ask(act: Act = SALES, **rest: Any) -> CedarQuestion:
    return replace(CedarQuestion(ALICE, act, "globex"), **rest)


def test_a_question_that_says_no_more_is_of_no_chain_no_task_and_no_arguments() -> None:
    nothing = {"tenant": "globex", "scopes": [], "chain": [], "depth": 0, "task": ""}
    assert json.loads(context_json(ask(), None)) == nothing


def test_the_context_is_where_the_resource_lives_and_how_one_got_there() -> None:
    question = ask(scopes=("tool:*",), chain=("a", "b"), depth=2, task="t_1", history={"taint": 2})
    seen = {"tenant": "globex", "scopes": ["tool:*"], "chain": ["a", "b"], "depth": 2, "task": "t_1", "history": {"taint": 2}}
    assert json.loads(context_json(question, None)) == seen
    assert json.loads(context_json(question, {"n": 1})) == {**seen, "input": {"n": 1}}


def test_what_is_empty_is_there_and_what_is_not_known_is_not() -> None:
    context = json.loads(context_json(ask(history={}), {}))
    assert (context["input"], context["history"]) == ({}, {})


def test_arguments_are_seen_only_in_the_form_that_was_made_for_cedar() -> None:
    assert "input" not in json.loads(context_json(ask(input={"secret": 1}), None))


@pytest.mark.parametrize(
    ("act", "above"),
    [
        (act_of_calling_tool("inventory", "reserve"), ("Server", "inventory")),
        (act_of_getting_prompt("inventory", "greet"), ("Server", "inventory")),
        (act_of_invoking_agent("sales", "quote"), ("Agent", "sales")),
        (Act("registerAgent", "Server", "shop", "registry:write", "write"), None),
        (act_of_invoking_agent("sales"), None),
        (act_of_reading_resource("inventory"), None),
    ],
    ids=lambda each: getattr(each, "resource", None),
)
def test_a_resource_is_in_its_tenant_and_in_what_it_is_in(act: Act, above: tuple[str, str] | None) -> None:
    who, resource, *rest = json.loads(entities_json(ask(act)))
    parent = [{"type": above[0], "id": above[1]}] if above else []
    assert who == WHO
    assert resource == {
        "uid": {"type": act.kind, "id": act.resource},
        "attrs": {"tenant": "globex", "permission": act.permission},
        "parents": parent,
    }
    assert rest[: len(parent)] == [{"uid": uid, "attrs": {"tenant": "globex"}, "parents": []} for uid in parent]
    assert len(rest) == len(parent) + (act.kind == "Tool")


def test_the_action_of_a_tool_is_in_the_group_of_all() -> None:
    action = json.loads(entities_json(ask(act_of_calling_tool("inventory", "reserve"))))[-1]
    assert action == {
        "uid": {"type": "Action", "id": "inventory.reserve"},
        "attrs": {},
        "parents": [{"type": "Action", "id": "callTool"}],
    }


def test_somebody_without_roles_is_in_none() -> None:
    who = json.loads(entities_json(replace(ask(), principal=replace(ALICE, roles=()))))[0]
    assert who == {**WHO, "parents": []}


def test_a_verdict_says_no_more_than_it_was_told() -> None:
    assert Verdict(True) == Verdict(True, (), has_error=False, needs_approval=False)
    assert Verdict(False, ("a",)) not in (Verdict(False, ("a",), has_error=True), Verdict(False, ("a",), needs_approval=True))


def test_a_key_of_the_board_is_below_each_of_its_prefixes() -> None:
    act = Act("readState", "Key", "customer/42/status", "state:read:customer/42/status", "customer/42")
    _, *keys = json.loads(entities_json(ask(act)))
    assert [(each["uid"]["id"], [parent["id"] for parent in each["parents"]]) for each in keys] == [
        ("customer/42/status", ["customer/42"]),
        ("customer/42", ["customer"]),
        ("customer", []),
    ]
