"""Decisions of the past, ruled on again by other policies with what the audit kept of them."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.cedar.engine import CedarQuestion, PolicyEngine
from policies.delegation.chain import Principal
from policies.delegation.rulings import act_of_calling_tool
from policies.what_if.replay import DIGEST_ONLY, HISTORY, NOT_ASKED, OTHER_ARGUMENTS, Replay, ReplayOutcome

ROLES = {"sales": ["tool:inventory.*"]}


def record(**changes: Any) -> dict[str, Any]:
    """As policies/audit/log.py keeps it, of alice who was refused."""
    return {
        "decision_id": "d_1",
        "tenant": "acme",
        "principal": {"issuer": "https://idp", "subject": "alice"},
        "roles": ["sales"],
        "path": [],
        "action": "callTool",
        "resource": "inventory.reserve",
        "permission": "tool:inventory.reserve",
        "allowed": False,
        "reason_id": "policy-forbids",
        "policies": ["limit"],
        "arguments": "",
        "task_id": "",
        **changes,
    }


def again(folder: Path, text: str, past: dict[str, Any], arguments: Any = None) -> ReplayOutcome:
    (folder / "ours.cedar").write_text(text)
    return Replay(PolicyEngine(ROLES, folder)).rule_again(past, arguments)


LIMIT = '@id("limit") forbid(principal, action == Action::"callTool", resource) when { context.input.quantity > 3 };'


def test_a_denial_is_lifted_where_the_policy_is_gone(tmp_path: Path) -> None:
    assert again(tmp_path, "", record()) == ReplayOutcome("allow", ("role:sales",))
    assert again(tmp_path, "", record(roles=[])) == ReplayOutcome("deny")
    assert again(tmp_path, '@id("no") forbid(principal, action, resource);', record(allowed=True, reason_id="allowed")) == ReplayOutcome(
        "deny", ("no",)
    )


def test_what_depends_on_arguments_that_nobody_kept_is_not_made_up(tmp_path: Path) -> None:
    assert again(tmp_path, LIMIT, record()) == ReplayOutcome("unknown", (), DIGEST_ONLY)
    assert again(tmp_path, LIMIT, record(), {"quantity": 3}) == ReplayOutcome("allow", ("role:sales",))
    assert again(tmp_path, LIMIT, record(), {"quantity": 4}) == ReplayOutcome("deny", ("limit",))


def test_what_does_not_depend_on_them_is_told_without(tmp_path: Path) -> None:
    bobs = LIMIT.replace("{ context", '{ principal.subject == "bob" && context')
    assert again(tmp_path, bobs, record()) == ReplayOutcome("allow", ("role:sales",))
    assert again(tmp_path, LIMIT, record(roles=[])).ruling == "deny"
    unless = '@id("u") forbid(principal, action, resource) unless { principal.subject == "alice" || context.input.quantity < 3 };'
    assert again(tmp_path, unless, record()) == ReplayOutcome("allow", ("role:sales",))


def test_arguments_count_only_where_they_are_those_of_the_decision(tmp_path: Path) -> None:
    digest = hashlib.sha256(msgspec.json.encode({"quantity": 9})).hexdigest()
    assert again(tmp_path, LIMIT, record(arguments=digest), {"quantity": 9}) == ReplayOutcome("deny", ("limit",))
    assert again(tmp_path, LIMIT, record(arguments=digest), {"quantity": 1}) == ReplayOutcome("unknown", (), OTHER_ARGUMENTS)


@pytest.mark.parametrize("reason", ["scope-missing", "ceiling-exceeded", "token-expired", "loop", "own-task"])
def test_what_policies_did_not_decide_stays_as_it_was(tmp_path: Path, reason: str) -> None:
    assert again(tmp_path, "", record(reason_id=reason)) == ReplayOutcome("same", ("limit",), NOT_ASKED)


def test_the_scope_and_the_chain_of_then_are_looked_at(tmp_path: Path) -> None:
    narrow = '@id("n") forbid(principal, action, resource) unless { context.scopes.contains("*") };'
    assert again(tmp_path, narrow, record()).ruling == "allow"
    assert again(tmp_path, narrow, record(scope=["tool:*"])) == ReplayOutcome("deny", ("n",))
    agents = '@id("a") forbid(principal, action, resource) when { context.chain.contains("rogue") && context.depth == 1 };'
    assert again(tmp_path, agents, record(path=[{"agent": "rogue", "permissions": []}])) == ReplayOutcome("deny", ("a",))


def test_what_depends_on_the_history_is_not_made_up_either(tmp_path: Path) -> None:
    text = '@id("h") forbid(principal, action, resource) when { context.history.repeats > 3 };'
    assert again(tmp_path, text, record()) == ReplayOutcome("unknown", (), HISTORY)


def test_a_question_is_an_outcome_too(tmp_path: Path) -> None:
    text = '@id("q") @ask("May it?") forbid(principal, action, resource);'
    assert again(tmp_path, text, record()) == ReplayOutcome("ask", ("q",))
    assert again(tmp_path, "", record(reason_id="approval-denied")).ruling == "allow"


def test_an_act_of_administration_on_one_entry_is_read_back(tmp_path: Path) -> None:
    past = record(action="registerAgent", resource="sales", permission="registry:write", verb="approve")
    text = '@id("r") permit(principal, action == Action::"registerAgent", resource) when { resource.permission == "registry:write" };'
    assert again(tmp_path, text, past) == ReplayOutcome("allow", ("r",))
    assert again(tmp_path, '@id("r") permit(principal, action, resource == Agent::"sales");', past) == ReplayOutcome("allow", ("r",))


def test_what_is_not_known_is_taken_as_best_for_the_caller_or_as_worst(tmp_path: Path) -> None:
    (tmp_path / "ours.cedar").write_text(LIMIT)
    engine = PolicyEngine(ROLES, tmp_path)
    question = CedarQuestion(Principal("acme", "https://idp", "alice", ("sales",)), act_of_calling_tool("inventory", "reserve"), "acme")
    assert engine.with_unknown({"input"}, favourable=True).decide(question).allowed
    assert engine.with_unknown({"input"}, favourable=False).decide(question).policies == ("limit",)


def test_who_was_refused_by_whom_is_told_where_both_ways_come_to_the_same(tmp_path: Path) -> None:
    never = '@id("never") forbid(principal, action, resource);'
    assert again(tmp_path, never + LIMIT, record()) == ReplayOutcome("deny", ("limit", "never"))  # the worst for the caller
    free = '@id("free") permit(principal, action, resource) when { context.input.quantity < 3 };'
    assert again(tmp_path, free, record()) == ReplayOutcome("allow", ("free", "role:sales"))  # the best


def test_an_agent_was_sent_for_by_a_task_that_was_not_there_yet(tmp_path: Path) -> None:
    agents = {"action": "invokeAgent", "resource": "sales", "permission": "agent:sales", "task_id": "t1"}
    text = '@id("all") permit(principal, action, resource); @id("t") forbid(principal, action, resource) when { context.task == "t1" };'
    assert again(tmp_path, text, record(**agents)) == ReplayOutcome("unknown", (), HISTORY)
    assert again(tmp_path, text, record(task_id="t1")) == ReplayOutcome("deny", ("t",))
    assert again(tmp_path, text, record(task_id="t2")).ruling == "allow"


def test_each_person_of_then_is_who_they_were(tmp_path: Path) -> None:
    text = """@id("all") permit(principal, action, resource) when {
        principal.tenant == "acme" && principal.issuer == "https://idp" && principal.subject == "bob" && context.tenant == "acme" };"""
    bob = {"issuer": "https://idp", "subject": "bob"}
    assert again(tmp_path, text, record(roles=[], principal=bob)) == ReplayOutcome("allow", ("all",))
    assert again(tmp_path, text, record(roles=[])) == ReplayOutcome("deny")
    assert again(tmp_path, text, record(roles=[], principal=bob, tenant="evil")) == ReplayOutcome("deny")


@pytest.mark.parametrize(
    "reason", ["allowed", "user-lacks-permission", "policy-forbids", "policy-error", "approval-needed", "approval-used"]
)
def test_what_policies_decided_is_ruled_on_again(tmp_path: Path, reason: str) -> None:
    assert again(tmp_path, "", record(reason_id=reason)) == ReplayOutcome("allow", ("role:sales",))


def test_arguments_are_known_by_their_canonical_form_or_not_at_all(tmp_path: Path) -> None:
    digest = hashlib.sha256(b'{"a":1,"quantity":9}').hexdigest()
    assert again(tmp_path, LIMIT, record(arguments=digest), {"quantity": 9, "a": 1}) == ReplayOutcome("deny", ("limit",))
    assert again(tmp_path, LIMIT, record(arguments=digest)) == ReplayOutcome("unknown", (), DIGEST_ONLY)
    assert again(tmp_path, LIMIT, record(arguments=""), {"quantity": 9}) == ReplayOutcome("deny", ("limit",))


def test_arguments_are_missing_only_where_a_policy_on_the_act_reads_them(tmp_path: Path) -> None:
    text = LIMIT.replace("resource)", 'resource == Tool::"inventory.other")')
    text += '@id("h") forbid(principal, action, resource) when { context.history.repeats > 3 };'
    assert again(tmp_path, text, record()) == ReplayOutcome("unknown", (), HISTORY)
    assert again(tmp_path, LIMIT.replace("limit", "l") + text, record(), {"quantity": 1}) == ReplayOutcome("unknown", (), HISTORY)


def test_an_outcome_names_no_policies_and_has_no_note_unless_it_is_said() -> None:
    assert ReplayOutcome("deny") == ReplayOutcome("deny", (), "")


def test_many_records_are_replayed_by_one(tmp_path: Path) -> None:
    (tmp_path / "ours.cedar").write_text(LIMIT)
    replay = Replay(PolicyEngine(ROLES, tmp_path))
    for quantity, ruling in ((3, "allow"), (4, "deny"), (None, "unknown"), (3, "allow")):
        assert replay.rule_again(record(), None if quantity is None else {"quantity": quantity}).ruling == ruling
