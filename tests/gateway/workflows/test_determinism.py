"""Deterministic steps reach no agent, no person and no model, and steps that reason are checked by rules and by second agents."""

from typing import Any

import pytest

from gateway.workflows.dsl.determinism import deterministic_tasks
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.interpreter.second_agent import read_verdict
from gateway.workflows.publishing.needs import Need, needs_of
from tests.gateway.workflows.documents import document_of
from tests.gateway.workflows.test_checks import paths
from tests.gateway.workflows.test_interpreter import run

FIXED = "metadata: {gateway: {kind: deterministic}}"
ASK = (
    "call: gateway.agent, with: {agent: sales, input: x}, input: {schema: {document: {}}}, output: {schema: {document: {}}}, "
    "metadata: {gateway: {kind: ai%s}}"
)
TOOL = "call: gateway.tool, with: {tool: stock.check, arguments: {}}"


@pytest.mark.parametrize(
    ("tasks", "path"),
    [
        (f"- a: {{call: gateway.agent, with: {{agent: sales}}, {FIXED}}}", "/do/0/a/metadata/gateway/kind"),
        (f"- a: {{call: gateway.approve, with: {{prompt: x}}, {FIXED}}}", "/do/0/a/metadata/gateway/kind"),
        (f"- a: {{run: {{workflow: {{namespace: n, name: m}}}}, {FIXED}}}", "/do/0/a/metadata/gateway/kind"),
        (f"- a: {{{FIXED}, do: [{{b: {{{ASK % ''}}}}}]}}", "/do/0/a/do/0/b"),
        (f"- a: {{{FIXED}, for: {{in: .xs}}, do: [{{b: {{do: [{{c: {{{ASK % ''}}}}}]}}}}]}}", "/do/0/a/do/0/b/do/0/c"),
        (f"- a: {{{FIXED}, try: [{{b: {{set: {{x: 1}}}}}}], catch: {{do: [{{c: {{{ASK % ''}}}}}]}}}}", "/do/0/a/catch/do/0/c"),
    ],
)
async def test_a_deterministic_step_asks_nobody(evaluator: Evaluator, tasks: str, path: str) -> None:
    assert await paths(evaluator, tasks) == [path]


async def test_a_function_of_a_deterministic_step_asks_nobody(evaluator: Evaluator) -> None:
    rest = f"use: {{functions: {{f: {{call: g}}, g: {{{ASK % ''}}}, h: {{{ASK % ''}}}}}}}"
    assert await paths(evaluator, f"- a: {{call: f, {FIXED}}}\n- b: {{call: h}}", rest) == ["/use/functions/g"]


@pytest.mark.parametrize(
    ("extension", "path"),
    [
        ("extend: set, after: [{c: {%s}}]", ["/use/extensions/0/e/after/0/c"]),
        ("extend: all, before: [{c: {%s}}]", ["/use/extensions/0/e/before/0/c"]),
        ("extend: composite, before: [{c: {%s}}]", ["/use/extensions/0/e/before/0/c"]),
        ("extend: wait, before: [{c: {%s}}]", []),
        ("extend: set, when: .x, after: [{c: {%s}}]", []),
    ],
)
async def test_an_extension_of_a_deterministic_step_asks_nobody(evaluator: Evaluator, extension: str, path: list[str]) -> None:
    rest = f"use: {{extensions: [{{e: {{{extension % (ASK % '')}}}}}]}}"
    assert await paths(evaluator, f"- a: {{{FIXED}, do: [{{b: {{set: {{x: 1}}}}}}]}}", rest) == path


def test_tools_within_a_deterministic_step_have_to_be_model_free() -> None:
    document = document_of(f"- a: {{{FIXED}, do: [{{b: {{{TOOL}}}}}]}}\n- c: {{{TOOL}}}")
    assert [each.path for each in deterministic_tasks(document)] == ["/do/0/a", "/do/0/a/do/0/b"]
    needs = [each for each in needs_of(document) if isinstance(each, Need)]
    assert {each.path: each.is_deterministic for each in needs} == {"/do/0/a/do/0/b/with/tool": True, "/do/1/c/with/tool": False}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("{inputs: {}}", "/do/0/a/with"),
        ("{code: '${ .code }'}", "/do/0/a/with"),
        ("{code: '1', inputs: {a-b: 1}}", "/do/0/a/with/inputs/a-b"),
        ("{code: '1', inputs: [1]}", "/do/0/a/with/inputs"),
    ],
)
async def test_a_computation_that_can_not_run_is_refused(evaluator: Evaluator, given: str, path: str) -> None:
    assert await paths(evaluator, f"- a: {{call: gateway.compute, with: {given}}}") == [path]


async def test_a_computation_needs_the_sandbox(evaluator: Evaluator) -> None:
    tasks = "- a: {call: gateway.compute, with: {code: 'price * 2', inputs: {price: '${ .p }'}}}"
    assert await paths(evaluator, tasks) == []
    assert list(needs_of(document_of(tasks))) == [Need("/do/0/a/call", "sandbox", "python")]


async def test_the_second_agent_is_another_one_and_is_named_in_the_ceiling(evaluator: Evaluator) -> None:
    assert await paths(evaluator, f"- a: {{{ASK % ', check: {agent: sales}'}}}") == ["/do/0/a/metadata/gateway/check/agent"]
    needs = needs_of(document_of(f"- a: {{{ASK % ', check: {agent: audit}'}}}"))
    assert [each.name for each in needs if isinstance(each, Need)] == ["audit", "sales"]


CHECKED = f"- a: {{{ASK % ', check: {agent: audit}'}}}"
AGREES, DISAGREES = "agent: {output: {agrees: true}}", "agent: {output: {agrees: false, reason: too cheap}}"


async def test_an_output_on_which_both_agree_goes_on() -> None:
    outcome = await run(CHECKED, f"answers: {{a: {{output: {{total: 1}}}}, {AGREES}}}")
    assert (outcome.status, outcome.output) == ("completed", {"total": 1})


@pytest.mark.parametrize(("chosen", "status"), [("accept", "completed"), ("reject", "faulted")])
async def test_people_decide_where_the_second_agent_disagrees(chosen: str, status: str) -> None:
    outcome = await run(CHECKED, f"answers: {{a: {{output: 5}}, {DISAGREES}, check: {{output: {chosen}}}}}")
    assert outcome.status == status
    if outcome.fault is not None:
        assert outcome.fault.type == "urn:interlock:error:check-failed"
        assert "too cheap" in str(outcome.fault.detail)


async def test_an_output_that_was_not_accepted_does_not_flow_on() -> None:
    outcome = await run(f"{CHECKED}\n- b: {{set: {{x: 1}}}}", f"answers: {{a: {{output: 5}}, {DISAGREES}, check: {{output: reject}}}}")
    assert not any(step.endswith("/b") for step in outcome.steps)


@pytest.mark.parametrize(
    ("answer", "agrees"),
    [
        ({"agrees": True}, True),
        ('{"agrees": true, "reason": "fine"}', True),
        ({"agrees": "yes"}, False),
        ("I agree", False),
        ({}, False),
        (None, False),
        ([True], False),
        ("[" * 100_000, False),
    ],
)
def test_what_is_no_verdict_is_a_disagreement(answer: Any, agrees: bool) -> None:
    assert read_verdict(answer).agrees is agrees
