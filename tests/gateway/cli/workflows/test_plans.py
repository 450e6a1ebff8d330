"""A plan in a terminal has a line for each step."""

from typing import Any

from gateway.cli.workflows.plans import VALUE_MAX, plan_lines
from tests.fakes.gateway_api import GatewayApi
from tests.fakes.planners import call_agent, call_tool
from tests.gateway.cli.conftest import CommandLine


def test_steps_within_others_are_indented() -> None:
    few = {"when": {"value": {"from": "input"}, "atMost": 2}, "do": [{"no": {"set": 1}}]}
    plan: list[dict[str, Any]] = [
        {"both": {"fork": {"branches": [{"look": call_tool("stock.check", {"sku": "7"})}, {"ask": call_agent("sales", "hi")}]}}},
        {"which": {"switch": [few, {"do": [{"yes": {"set": 2}}]}]}},
        {"more": {"do": [{"last": {"set": 3}}]}},
    ]
    assert list(plan_lines(plan, "")) == [
        "both: at once",
        '  look: stock.check {"sku": "7"}',
        '  ask: sales "hi"',
        "which: one of",
        '  when {"value": {"from": "input"}, "atMost": 2}',
        "    no: set 1",
        "  otherwise",
        "    yes: set 2",
        "more: do",
        "  last: set 3",
    ]


def test_long_values_are_cut() -> None:
    (line,) = plan_lines([{"a": {"set": "x" * 500}}], "")
    assert len(line) < VALUE_MAX + 20


def test_a_run_is_shown_with_its_plans(interlock: CommandLine, api: GatewayApi) -> None:
    plan = {"step": "/do/0/solve", "number": 0, "digest": "d" * 64, "plan": {"do": [{"say": {"set": 1}}]}}
    run = {"id": "t_1", "workflow": "w", "version": "v", "state": "TASK_STATE_COMPLETED", "note": "", "wake_at": None, "steps": []}
    run |= {"origin": None, "continued_by": [], "summary": "It has completed.", "open_effects": [], "input": {}, "cost": None}
    api.on("GET /api/tasks/t_1", {"id": "t_1", "artifacts": []})
    api.on("GET /api/runs/t_1", {**run, "plans": [plan], "checkpoints": []})
    ran = interlock("run", "show", "t_1")
    assert ran.code == 0, ran.err
    assert "plan 0 of /do/0/solve  dddddddddddd\n  say: set 1\n" in ran.out


def test_people_see_the_plan_that_they_are_asked_about(interlock: CommandLine, api: GatewayApi) -> None:
    asked = {"id": "cp_1", "kind": "approve", "workflow": "w", "expires": "2026-01-01T00:00:00Z", "prompt": "Run it?", "may_answer": True}
    subject = {"goal": "g", "digest": "e" * 64, "plan": {"do": [{"pay": call_tool("bank.pay", {"eur": 5})}]}}
    api.on("GET /api/checkpoints", {"items": [{**asked, "subject": subject}], "next": None})
    ran = interlock("run", "checkpoints")
    assert ran.code == 0, ran.err
    assert 'cp_1 is about this plan  eeeeeeeeeeee\n  pay: bank.pay {"eur": 5}\n' in ran.out
