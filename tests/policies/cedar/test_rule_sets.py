"""Rule sets: what is refused when they are read, what is only doubted, how they are told apart, and how an engine takes up new ones."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from policies.cedar import engine as cedar
from policies.cedar.annotations import AskAnnotation
from policies.cedar.engine import (
    BadPolicy,
    CedarQuestion,
    KnownTool,
    PolicyEngine,
    RuleSet,
    Verdict,
    compile_rules,
    load_rules,
    recheck_rules,
)
from policies.delegation.chain import Principal
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_invoking_agent
from tests.fakes.cedar_policies import parsed

ROLES = {"operator": ["*"], "sales": ["tool:inventory.*"]}
ALICE = Principal("acme", "https://idp", "alice", ("sales",))
RESERVE, CHECK = act_of_calling_tool("inventory", "reserve"), act_of_calling_tool("inventory", "check")
TOOL = KnownTool("acme", "inventory", "reserve", {"type": "object", "properties": {"quantity": {"type": "integer"}}})
HEAD = 'forbid(principal, action == Action::"inventory.reserve", resource)'
LIMIT = f'@id("limit") {HEAD} when {{ context.input has quantity && context.input.quantity > 3 }};'
UNFIT = f'@id("unfit") {HEAD} when {{ context.input.amount > 3 }};'
WRONG = '@id("wrong") forbid(principal, action, resource) when { context.depth == "1" };'
OTHERS = '@id("others") forbid(principal, action, resource);\n'


def rules(text: str, known: Sequence[dict[str, Any]] | None = (), tools: Sequence[KnownTool] = (TOOL,)) -> RuleSet:
    return compile_rules(ROLES, [("ours.cedar", text)], tools, known)


def engine(folder: Path, text: str, tools: Sequence[KnownTool] = ()) -> PolicyEngine:
    (folder / "ours.cedar").write_text(text)
    return PolicyEngine(ROLES, folder, lambda: tools)


def ask(rules: PolicyEngine, act: Act = RESERVE, person: Principal = ALICE, **rest: Any) -> Verdict:
    return rules.decide(CedarQuestion(person, act, "acme", **rest))


def test_all_that_others_take_from_here_is_here() -> None:
    assert all(hasattr(cedar, name) for name in cedar.__all__)


def test_a_missing_folder_and_a_file_that_is_not_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadPolicy, match="nowhere"):
        load_rules(ROLES, tmp_path / "nowhere")
    (tmp_path / "x.cedar").write_bytes(b"\xff\xfe")
    with pytest.raises(BadPolicy, match=r"x\.cedar"):
        load_rules(ROLES, tmp_path)


def test_a_role_that_cedar_can_not_read_is_refused() -> None:
    with pytest.raises(BadPolicy) as refused:
        load_rules({"\ud800": ["*"]})
    assert refused.value.file == "policies"


def test_policies_wrong_for_any_registry_are_refused_even_if_loaded_before() -> None:
    for known in (None, (), [parsed(WRONG)]):
        with pytest.raises(BadPolicy) as refused:
            rules(OTHERS + WRONG, known)
        assert (refused.value.file, refused.value.line) == ("ours.cedar", 2)
        assert refused.value.problem.startswith("wrong: ") and "not compatible" in refused.value.problem


def test_each_complaint_is_said_once_however_many_acts_it_is_about() -> None:
    two = '@id("two") forbid(principal, action, resource) when { context.depth == "1" || context.scopes == 1 };'
    with pytest.raises(BadPolicy) as refused:
        rules(two)
    assert len(refused.value.problem.split("; ")) == len(set(refused.value.problem.split("; "))) == 2
    assert "policy" not in refused.value.problem


def test_policies_that_do_not_fit_the_tools_are_refused_if_new_else_warned_about() -> None:
    with pytest.raises(BadPolicy, match=r"unfit: .*'amount'") as refused:
        rules(OTHERS + UNFIT)
    assert (refused.value.file, refused.value.line) == ("ours.cedar", 2)
    standing = rules(OTHERS + UNFIT, None)
    assert rules(OTHERS + UNFIT, list(standing.operator_policies.values())).warnings == standing.warnings
    (doubt,) = standing.warnings
    assert doubt.startswith("ours.cedar:2: ") and "'amount'" in doubt
    with pytest.raises(BadPolicy, match="'quantty'"):
        rules(OTHERS + UNFIT.replace("amount", "quantty"), list(standing.operator_policies.values()))


def test_fitting_policies_have_no_warnings_and_an_unknown_user_comes_first() -> None:
    assert rules(LIMIT).warnings == ()
    both = rules(UNFIT + '\nforbid(principal == User::"bob", action, resource);', None)
    assert [doubt[:13] for doubt in both.warnings] == ["ours.cedar:2:", "ours.cedar:1:"]


def test_rules_beside_other_tools_are_the_same_rules_with_other_doubts() -> None:
    before = rules(f'{LIMIT}\nforbid(principal == User::"bob", action, resource);')
    after = recheck_rules(before, [KnownTool("acme", "inventory", "reserve", {"type": "object", "properties": {}})])
    assert (after.version, after.policies, after.never_matching) == (before.version, before.policies, before.never_matching)
    assert (
        before.tool_mismatches == () and after.tool_mismatches[0].startswith("ours.cedar:1: ") and "'quantity'" in after.tool_mismatches[0]
    )
    assert recheck_rules(after, [TOOL]) == before


def test_the_version_changes_with_the_roles_and_only_with_the_rules() -> None:
    assert load_rules(ROLES).version == load_rules({name: ROLES[name] for name in reversed(ROLES)}).version
    assert load_rules(ROLES).version != load_rules({**ROLES, "sales": ["tool:inventory.check"]}).version
    assert re.fullmatch("[0-9a-f]{12}", load_rules(ROLES).version)
    files = [("a.cedar", LIMIT), ("b.cedar", OTHERS)]
    assert compile_rules(ROLES, files, (), None).version == compile_rules(ROLES, files[::-1], (), None).version
    assert compile_rules(ROLES, files, (), None).version != compile_rules(ROLES, files[:1], (), None).version


def test_a_bad_reload_keeps_the_last_good_rules_and_says_so(tmp_path: Path) -> None:
    found = engine(tmp_path, LIMIT)
    before = found.version
    assert found.is_healthy and found.problem is None
    (tmp_path / "ours.cedar").write_text("permit(")
    found.reload()
    assert (found.is_healthy, found.version) == (False, before) and found.problem and found.problem.file == "ours.cedar"
    assert ask(found, input={"quantity": 4}).policies == ("limit",)
    (tmp_path / "ours.cedar").write_text(OTHERS)
    found.reload()
    assert found.is_healthy and found.problem is None and found.version != before
    assert ask(found).policies == ("others",)


def test_an_engine_without_a_registry_or_a_folder_can_be_reloaded() -> None:
    found = PolicyEngine(ROLES)
    version = found.version
    found.reload()
    assert found.is_healthy and found.version == version and found.recheck_tools() == () and found.current_stamp() is None


def test_a_folder_that_is_gone_looks_unlike_an_empty_one(tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    folder.mkdir()
    found = PolicyEngine(ROLES, folder)
    assert found.current_stamp() == () and not found.is_outdated
    folder.rmdir()
    assert found.current_stamp() is None and found.is_outdated
    folder.mkdir()
    assert not found.is_outdated


def test_rules_that_were_read_already_are_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "ours.cedar").write_text("permit(")
    found = PolicyEngine(ROLES, tmp_path, rules=rules(OTHERS))
    assert ask(found).policies == ("others",) and not found.is_outdated


def test_a_refit_says_only_what_is_new(tmp_path: Path) -> None:
    tools = [TOOL]
    found = engine(tmp_path, LIMIT, tools)
    assert (found.recheck_tools(), found.rules.warnings) == ((), ())
    tools[:] = [KnownTool("acme", "inventory", "check", {})]
    (doubt,) = found.recheck_tools()
    assert "not registered" in doubt and found.rules.warnings == (doubt,)
    assert found.recheck_tools() == () and found.rules.warnings == (doubt,)


def test_a_refit_without_policies_of_an_operator_asks_for_no_tools() -> None:
    def unavailable() -> list[KnownTool]:
        raise AssertionError

    assert PolicyEngine(ROLES, tools=unavailable).recheck_tools() == ()


def test_an_act_depends_on_history_where_an_applicable_policy_reads_or_totals_it(tmp_path: Path) -> None:
    reads = '@id("reads") forbid(principal, action == Action::"inventory.reserve", resource) when { context.history.repeats > 1 };'
    adds = '@id("adds") @total("amount") forbid(principal, action == Action::"inventory.check", resource) when { context.depth > 3 };'
    found = engine(tmp_path, reads + adds)
    assert [found.needs_history(act) for act in (RESERVE, CHECK, act_of_invoking_agent("sales"))] == [True, True, False]
    assert [found.total_names(act) for act in (RESERVE, CHECK)] == [frozenset(), {"amount"}]
    assert found.all_total_names == {"amount"}
    assert not engine(tmp_path, LIMIT).needs_history(RESERVE) and engine(tmp_path, LIMIT).all_total_names == frozenset()


def test_several_that_ask_are_asked_about_together(tmp_path: Path) -> None:
    text = f"""@id("a") @ask("Is it late?") @expires("1m") {HEAD};
    @id("b") @ask("Is it far?") @approvals("2") {HEAD};
    @id("c") @ask("Is it dear?") {HEAD} when {{ context.depth == 3 }};"""
    found = engine(tmp_path, text)
    assert ask(found) == Verdict(False, ("a", "b"), needs_approval=True)
    assert found.combined_ask(("a", "b")) == AskAnnotation("Is it late? Is it far?", 2, 60)
    assert ask(found, depth=5) == Verdict(False, ("a", "b", "inv-depth"))
    assert ask(found, person=Principal("acme", "https://idp", "bob")) == Verdict(False)


def test_incomparable_arguments_are_refused_only_where_a_policy_reads_them(tmp_path: Path) -> None:
    found = engine(tmp_path, LIMIT)
    unread = ask(found, input={"quantity": 1 << 64})
    assert (unread.allowed, unread.has_error, unread.problem) == (False, True, "argument quantity: an integer needs more than 64 bits")
    assert ask(found, CHECK, input={"quantity": 1 << 64}) == Verdict(True, ("role:sales",))


def test_more_people_than_are_remembered_are_still_told_apart() -> None:
    found = PolicyEngine(ROLES)
    people = [Principal("acme", "https://idp", f"p{number}", ("sales",) if number % 2 else ()) for number in range(1100)]
    assert [ask(found, person=person).allowed for person in people] == [number % 2 == 1 for number in range(1100)]
    assert not ask(found, person=people[0]).allowed and ask(found, person=people[1]).allowed


def test_roles_that_permit_come_from_the_settings_and_the_operators_policies() -> None:
    text = """
    @id("scope") permit(principal in Role::"analyst", action, resource);
    @id("condition") permit(principal, action, resource) when { principal in Role::"auditor" };
    @id("other") forbid(principal in Role::"intern", action, resource);
    """
    assert rules(text).permitted_roles == {"operator", "sales", "analyst", "auditor"}
    assert compile_rules({"empty": []}, [("ours.cedar", text)], (), ()).permitted_roles == {"analyst", "auditor"}
