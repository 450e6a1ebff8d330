"""What tasks of the DSL do, as rehearsals show it; the specification's own kit (docs/conformance.md) covers the rest."""

import asyncio
from typing import Any

import pytest
import yaml

from gateway.workflows.rehearsal.rehearse import Outcome, rehearse
from gateway.workflows.rehearsal.script import Rehearsal
from tests.gateway.workflows.documents import document_of

TIMEOUT = "https://open-workflow-specification.org/spec/1.0.0/errors/timeout"


async def run(tasks: str, case: str = "", rest: str = "") -> Outcome:
    """The outcome of one case; what the case expects is checked by the test itself."""
    script = {"name": "case", **(yaml.safe_load(case) or {})} if case else {"name": "case"}
    (outcome,) = await rehearse(document_of(tasks, rest), Rehearsal.model_validate({"cases": [script]}))
    return outcome


async def output(tasks: str, case: str = "", rest: str = "") -> Any:
    outcome = await run(tasks, case, rest)
    assert outcome.status == "completed", (outcome.fault, outcome.problems)
    return outcome.output


def names(outcome: Outcome) -> list[str]:
    return [step.rpartition("/")[2] for step in outcome.steps]


async def test_a_skipped_task_passes_its_input_on() -> None:
    assert await output("- a: {if: .no, set: {x: 1}}\n- b: {set: {y: '${ .in }'}}", "input: {in: 5}") == {"y": 5}


async def test_context_is_what_tasks_exported() -> None:
    tasks = "- a: {set: {x: 1}, export: {as: '{seen: .x}'}}\n- b: {set: {y: '${ $context.seen }', raw: '${ $task.input.x }'}}"
    assert await output(tasks) == {"y": 1, "raw": 1}


async def test_a_later_task_may_lead_back() -> None:
    tasks = (
        "- add: {set: {n: '${ (.n // 0) + 1 }'}}\n- again: {switch: [{more: {when: .n < 3, then: add}}]}\n- end: {set: {total: '${ .n }'}}"
    )
    outcome = await run(tasks)
    assert (outcome.output, names(outcome)) == ({"total": 3}, ["add", "again"] * 3 + ["end"])


async def test_a_loop_without_end_is_an_error() -> None:
    outcome = await run("- a: {set: {x: 1}, then: a}")
    assert outcome.fault is not None
    assert outcome.fault.type.endswith("runtime")


@pytest.mark.parametrize("count", [10_000, 10_001])
async def test_a_loop_over_ten_thousand_items_is_the_longest(count: int) -> None:
    outcome = await run(f"- a: {{for: {{each: x, in: '${{ [range({count})] }}'}}, do: [{{b: {{set: {{x: 1}}}}}}]}}")
    assert (outcome.fault is None) == (count == 10_000)
    assert outcome.fault is None or (outcome.fault.instance, outcome.fault.status) == ("/do/0/a", 500)


async def test_exit_leaves_its_list_and_end_ends_the_run() -> None:
    tasks = "- a: {do: [{b: {set: {x: 1}, then: exit}}, {c: {set: {x: 2}}}]}\n- d: {set: {y: '${ .x }'}, then: end}\n- e: {set: {z: 1}}"
    assert await output(tasks) == {"y": 1}


async def test_a_loop_goes_on_while_its_condition_holds() -> None:
    tasks = "- a: {for: {each: x, in: .xs, at: i}, while: $x < 3, do: [{b: {set: {sum: '${ (.sum // 0) + $x * 10 + $i }'}}}]}"
    assert await output(tasks, "input: {xs: [1, 2, 3, 1]}") == {"sum": 31}


async def test_branches_run_at_once_and_keep_their_order() -> None:
    tasks = "- a: {fork: {branches: [{slow: {do: [{w: {wait: PT10S}}, {x: {set: {n: 1}}}]}}, {quick: {set: {n: 2}}}]}}"
    outcome = await run(tasks)
    assert (outcome.output, outcome.seconds) == ([{"n": 1}, {"n": 2}], 10.0)


async def test_the_first_branch_wins_and_the_others_stop() -> None:
    slow = "{slow: {do: [{w: {wait: PT10S}}, {x: {set: {n: slow}}}]}}"
    outcome = await run(
        f"- a: {{fork: {{compete: true, branches: [{slow}, {{quick: {{do: [{{v: {{wait: PT1S}}}}, {{y: {{set: {{n: quick}}}}}}]}}}}]}}}}"
    )
    assert (outcome.output, outcome.seconds) == ({"n": "quick"}, 1.0)
    assert "x" not in names(outcome)


async def test_a_branch_that_fails_fails_the_fork_and_stops_the_others() -> None:
    tasks = (
        "- a: {fork: {branches: [{bad: {raise: {error: {type: 'urn:x', status: 500}}}}, "
        "{slow: {do: [{w: {wait: PT10S}}, {x: {set: {n: 1}}}]}}]}}"
    )
    outcome = await run(tasks)
    assert (outcome.status, names(outcome).count("x")) == ("faulted", 0)


async def test_branches_that_export_at_once_lose_nothing() -> None:
    one = "{NAME: {set: {n: 1}, export: {as: '$context + {NAME: 1}'}}}"
    branches = ", ".join(one.replace("NAME", name) for name in ("a", "b", "c"))
    tasks = f"- all: {{fork: {{branches: [{branches}]}}}}\n- seen: {{set: '${{ $context | keys }}'}}"
    assert await output(tasks) == ["a", "b", "c"]


async def test_an_error_is_caught_by_what_it_is() -> None:
    tasks = """
- a:
    try: [{b: {raise: {error: {type: 'urn:x', status: 503, title: Gone}}}}]
    catch: {errors: {with: {status: 503}}, as: err, when: '$err.title == "Gone"', do: [{c: {set: {said: '${ $err.instance }'}}}]}
"""
    assert await output(tasks) == {"said": "/do/0/a/try/0/b"}
    assert (await run(tasks.replace("status: 503}", "status: 404}"))).status == "faulted"


@pytest.mark.parametrize(
    ("backoff", "seconds"),
    [("", 3.0), (", backoff: {linear: {}}", 6.0), (", backoff: {exponential: {}}", 7.0), (", backoff: {constant: {}}", 3.0)],
)
async def test_a_task_is_tried_again_as_its_policy_says(backoff: str, seconds: float) -> None:
    tasks = (
        f"- a: {{try: [{{ask: {{call: f}}}}], catch: {{retry: {{delay: PT1S, "
        f"limit: {{attempt: {{count: 3}}}}{backoff}}}, do: [{{b: {{set: {{x: gave up}}}}}}]}}}}"
    )
    outcome = await run(tasks, "answers: {ask: {error: {type: 'urn:x', status: 500}}}")
    assert (outcome.output, outcome.seconds, names(outcome).count("ask")) == ({"x": "gave up"}, seconds, 4)


async def test_a_retry_that_works_is_the_output() -> None:
    tasks = "- a: {try: [{ask: {call: f}}], catch: {retry: often}}"
    rest = "use: {retries: {often: {delay: PT1S}}}"
    case = "answers: {ask: [{error: {type: 'urn:x', status: 500}}, {output: done}]}"
    assert await output(tasks, case, rest) == "done"


async def test_a_task_has_so_much_time() -> None:
    tasks = (
        f"- a: {{try: [{{b: {{wait: PT1H, timeout: {{after: PT1M}}}}}}], "
        f"catch: {{errors: {{with: {{type: '{TIMEOUT}'}}}}, do: [{{c: {{set: {{late: true}}}}}}]}}}}"
    )
    outcome = await run(tasks)
    assert (outcome.output, outcome.seconds) == ({"late": True}, 60.0)


async def test_a_run_has_so_much_time() -> None:
    outcome = await run("- a: {wait: PT1H}", rest="timeout: {after: PT5M}")
    assert (outcome.status, outcome.seconds) == ("faulted", 300.0)


async def test_one_event_ends_a_listening_task() -> None:
    tasks = "- a: {listen: {to: {one: {with: {type: t, data: '${ .n > 1 }'}}}}}"
    case = "events: [{after: PT1S, event: {type: t, data: {n: 1}}}, {after: PT2S, event: {type: t, data: {n: 2}}}]"
    outcome = await run(tasks, case)
    assert (outcome.output, outcome.seconds) == ([{"n": 2}], 2.0)


async def test_all_events_are_waited_for_in_any_order() -> None:
    tasks = "- a: {listen: {to: {all: [{with: {type: a}}, {with: {type: b}}]}}}"
    case = "events: [{after: PT1S, event: {type: b, data: 1}}, {after: PT3S, event: {type: a, data: 2}}]"
    assert await output(tasks, case) == [1, 2]


async def test_any_events_are_gathered_until_something_holds() -> None:
    tasks = (
        "- a: {listen: {to: {any: [{with: {type: a}}], until: length == 2}}, foreach: {item: e, do: [{b: {set: {n: '${ $e.n * 10 }'}}}]}}"
    )
    case = (
        "events: [{after: PT1S, event: {type: a, data: {n: 1}}}, {after: PT2S, event: {type: x}}, {after: PT3S, "
        "event: {type: a, data: {n: 2}}}]"
    )
    assert await output(tasks, case) == [{"n": 10}, {"n": 20}]


async def test_events_of_an_until_are_no_part_of_the_result() -> None:
    tasks = "- a: {listen: {to: {any: [{with: {type: a}}], until: {one: {with: {type: stop}}}}}}"
    case = "events: [{after: PT1S, event: {type: a, data: 1}}, {after: PT2S, event: {type: stop, data: 9}}]"
    assert await output(tasks, case) == [1]


async def test_a_correlation_takes_the_runs_own_events() -> None:
    tasks = "- a: {listen: {to: {one: {with: {type: t}, correlate: {id: {from: .data.order, expect: '${ .order }'}}}}}}"
    case = (
        "{input: {order: 7}, events: [{after: PT1S, event: {type: t, data: {order: 8}}}, {after: PT2S, "
        "event: {type: t, data: {order: 7}}}]}"
    )
    assert await output(tasks, case) == [{"order": 7}]


async def test_extensions_run_before_and_after() -> None:
    rest = """use:
  extensions:
    - gate: {extend: call, when: '$task.name == "ask"',
        after: [{check: {if: '.confidence < 0.8', raise: {error: {type: 'urn:low', status: 422}}}}]}
    - mock: {extend: call, when: '$task.name == "mocked"', before: [{answer: {set: {from: mock}, then: exit}}]}
"""
    assert await output("- mocked: {call: f}", rest=rest) == {"from": "mock"}
    outcome = await run("- ask: {call: f}", "answers: {ask: {output: {confidence: 0.1}}}", rest)
    assert outcome.fault is not None
    assert (outcome.fault.type, outcome.fault.instance) == ("urn:low", "/do/0/ask/extensions/0/gate/after/0/check")


async def test_a_function_gets_its_arguments_as_input() -> None:
    rest = "use: {functions: {double: {set: {n: '${ .n * 2 }'}}}}"
    assert await output("- a: {call: double, with: {n: '${ .x }'}}", "input: {x: 4}", rest) == {"n": 8}


async def test_another_workflow_is_run_with_its_input() -> None:
    tasks = (
        "- a: {run: {workflow: {namespace: n, name: w, version: 1.0.0, "
        "input: {x: '${ .x }'}}}}\n- b: {run: {await: false, workflow: {namespace: n, name: w, version: 1.0.0}}}"
    )
    assert await output(tasks, "{input: {x: 1}, answers: {a: {output: {y: 2}}}}") == {"y": 2}


@pytest.mark.parametrize(
    ("tasks", "kind"),
    [
        ("- a: {set: {x: 1}, input: {schema: {document: {required: [b]}}}}", "validation"),
        ("- a: {set: {x: 1}, output: {schema: {document: {required: [b]}}}}", "validation"),
        ("- a: {set: {x: '${ .a.b.c + 1 | error }'}}", "expression"),
        ("- a: {for: {in: .none}, do: []}", "expression"),
        ("- a: {wait: '${ .never }'}", "expression"),
    ],
)
async def test_errors_have_the_standard_types(tasks: str, kind: str) -> None:
    outcome = await run(tasks)
    assert outcome.fault is not None
    assert (outcome.fault.type.rpartition("/")[2], outcome.fault.instance) == (kind, "/do/0/a")


async def test_a_rehearsal_says_what_differs() -> None:
    case = "{expect: {status: faulted, output: {x: 2}, ran: [b], notRan: [a], events: [{type: t}], within: PT1S}}"
    outcome = await run("- a: {set: {x: 1}}\n- w: {wait: PT1M}", case)
    assert len(outcome.problems) == 6


async def test_a_rehearsal_without_an_answer_says_which() -> None:
    outcome = await run("- a: {try: [{ask: {call: f}}], catch: {do: []}}")
    assert outcome.status == "unanswered"
    assert "/do/0/a/try/0/ask" in outcome.problems[0]


async def test_a_rehearsal_ends_where_the_run_would_wait_for_ever() -> None:
    assert (await asyncio.wait_for(run("- a: {listen: {to: {one: {with: {type: never}}}}}"), 60)).status == "waiting"
