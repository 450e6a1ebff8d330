"""Documents whose parts do not fit each other are refused, with every problem at once."""

import pytest

from gateway.workflows.dsl.checks import check_document
from gateway.workflows.dsl.loading import read_document
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.problems import DocumentRefused
from tests.gateway.workflows.documents import source_of

CARD = "{server: 'interlock://agents/support', method: message/send}"
CONTRACT = "input: {schema: {document: {type: object}}}, output: {schema: {document: {type: object}}}"


async def paths(evaluator: Evaluator, tasks: str, rest: str = "") -> list[str]:
    source = source_of(tasks, rest)
    document = read_document(source)
    try:
        await check_document(document, source, evaluator)
    except DocumentRefused as error:
        assert all(each.line > 0 for each in error.problems)
        return [each.path for each in error.problems]
    return []


@pytest.mark.parametrize(
    ("tasks", "path"),
    [
        ("- a: {wait: PT1S, then: nowhere}", "/do/0/a/then"),
        ("- a: {wait: PT1S}\n- a: {wait: PT1S}", "/do"),
        ("- a: {do: [{b: {wait: PT1S, then: c}}]}\n- c: {wait: PT1S}", "/do/0/a/do/0/b/then"),
        ("- a: {switch: [{x: {then: end}}, {y: {then: end}}]}", "/do/0/a/switch"),
        ("- a: {switch: [{x: {when: .a, then: gone}}]}", "/do/0/a/switch/0/x/then"),
        ("- a: {fork: {branches: [{b: {wait: PT1S, then: c}}, {c: {wait: PT1S}}]}}", "/do/0/a/fork/branches/0/b/then"),
        ("- a: {run: {shell: {command: ls}}}", "/do/0/a/run"),
        ("- a: {run: {script: {language: python, code: '1'}}}", "/do/0/a/run"),
        ("- a: {run: {container: {image: x}}}", "/do/0/a/run"),
        ("- a: {call: grpc, with: {}}", "/do/0/a/call"),
        ("- a: {call: unknown}", "/do/0/a/call"),
        ("- a: {call: 'log:1.0.0@global'}", "/do/0/a/call"),
        ("- a: {call: mcp, with: {method: tools/list, transport: {stdio: {command: npx}}}}", "/do/0/a/with/transport/stdio"),
        (
            "- a: {call: http, with: {method: get, endpoint: {uri: 'https://x', authentication: {bearer: {token: t}}}}}",
            "/do/0/a/with/endpoint",
        ),
        ("- a: {wait: PT1S, timeout: soon}", "/do/0/a/timeout"),
        ("- a: {raise: {error: gone}}", "/do/0/a/raise/error"),
        ("- a: {try: [{b: {wait: PT1S}}], catch: {retry: often}}", "/do/0/a/catch/retry"),
        ("- a: {set: {x: '${ .a == }'}}", "/do/0/a/set/x"),
        ("- a: {set: {x: '${ $item }'}}", "/do/0/a/set/x"),
        ("- a: {set: {x: 'hello ${ .a }'}}", "/do/0/a/set/x"),
        ("- a: {if: '.a ==', wait: PT1S}", "/do/0/a/if"),
        ("- a: {set: {x: 1}, output: {as: '$output'}}", "/do/0/a/output/as"),
        ("- a: {set: {x: 1}, input: {schema: {document: {type: nonsense}}}}", "/do/0/a/input/schema/document/type"),
        ("- a: {set: {x: 1}, output: {schema: {document: {$ref: 'https://x/y'}}}}", "/do/0/a/output/schema/document"),
        (f"- a: {{call: a2a, with: {CARD}}}", "/do/0/a"),
        (f"- a: {{call: a2a, with: {CARD}, metadata: {{gateway: {{kind: ai}}}}}}", "/do/0/a"),
        (f"- a: {{call: a2a, with: {CARD}, metadata: {{gateway: {{kind: deterministic}}}}}}", "/do/0/a/metadata/gateway/kind"),
        ("- a: {set: {x: 1}, metadata: {gateway: {minConfidence: 0.5}}}", "/do/0/a/metadata/gateway"),
        ("- a: {set: {x: 1}, metadata: {gateway: {compensate: undo}}}", "/do/0/a/metadata/gateway/compensate"),
        ("- a: {call: gateway.approve, with: {prompt: x, expires: 1 day}}", "/do/0/a/with/expires"),
        ("- a: {call: gateway.signal, with: {name: x, expires: {days: 1}}}", "/do/0/a/with/expires"),
        (
            "- a: {call: gateway.form, with: {prompt: x, schema: {}, escalate: {after: 2h, to: {roles: [r]}}}}",
            "/do/0/a/with/escalate/after",
        ),
        (
            f"- a: {{call: gateway.plan, {CONTRACT}, metadata: {{gateway: {{kind: ai}}}}, "
            "with: {agent: p, goal: x, among: {agents: [b]}, expires: 1 day}}",
            "/do/0/a/with/expires",
        ),
    ],
)
async def test_what_does_not_fit_is_named(evaluator: Evaluator, tasks: str, path: str) -> None:
    assert set(await paths(evaluator, tasks)) == {path}


async def test_all_that_an_ai_step_lacks_is_one_problem(evaluator: Evaluator) -> None:
    source = source_of(f"- a: {{call: a2a, with: {CARD}}}\n- b: {{call: a2a, with: {CARD}, metadata: {{gateway: {{kind: ai}}}}}}")
    with pytest.raises(DocumentRefused) as caught:
        await check_document(read_document(source), source, evaluator)
    first, second = caught.value.problems
    assert first.reason.endswith(f": metadata: {{gateway: {{kind: ai}}}}, {CONTRACT}")
    assert second.reason.endswith(f": {CONTRACT}") and "kind: ai" not in second.reason


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        ("timeout: soon", "/timeout"),
        ("use: {secrets: [a]}", "/use/secrets"),
        ("use: {authentications: {a: {bearer: {token: t}}}}", "/use/authentications"),
        ("use: {catalogs: {a: {endpoint: 'https://x'}}}", "/use/catalogs"),
        ("use: {functions: {f: {call: g}, g: {call: f}}}", "/use/functions/f"),
        ("schedule: {cron: '* * * * *', every: PT1S}", "/schedule"),
        ("use: {extensions: [{e: {extend: call, when: '.a ==', after: []}}]}", "/use/extensions/0/e/when"),
    ],
)
async def test_what_does_not_fit_the_document_is_named(evaluator: Evaluator, rest: str, path: str) -> None:
    assert path in await paths(evaluator, "- a: {wait: PT1S}", rest)


async def test_another_version_of_the_dsl_is_refused(evaluator: Evaluator) -> None:
    source = source_of("- a: {wait: PT1S}")
    document = read_document(source).model_copy(deep=True)
    other = document.model_copy(update={"document": document.document.model_copy(update={"dsl": "2.0.0"})})
    with pytest.raises(DocumentRefused, match="version of the DSL"):
        await check_document(other, source, evaluator)


async def test_a_sound_document_is_taken(evaluator: Evaluator) -> None:
    tasks = f"""
- classify: {{call: a2a, with: {CARD}, {CONTRACT}, metadata: {{gateway: {{kind: ai, minConfidence: 0.8, compensate: undo}}}}}}
- each: {{for: {{each: x, in: .xs}}, while: '$x > 0', do: [{{one: {{set: {{y: '${{ $x + $index }}'}}}}}}]}}
- guard: {{try: [{{b: {{call: undo}}}}], catch: {{as: err, when: $err.status == 500, do: [{{c: {{set: {{d: '${{ $err.title }}'}}}}}}]}}}}
- ask: {{call: gateway.approve, with: {{prompt: x, expires: '${{ .days }}', escalate: {{after: PT1H, to: {{roles: [r]}}}}}}}}
- hear: {{listen: {{to: {{any: [{{with: {{type: a, data: '${{ .n > 1 }}'}}}}]}}}}, foreach: {{item: e, do: [{{f: {{set: {{g: $e}}}}}}]}}}}
"""
    assert await paths(evaluator, tasks, "use: {functions: {undo: {set: {undone: true}}}}") == []


@pytest.mark.parametrize(
    ("call", "given", "place"),
    [
        ("approve", "{}", ""),
        ("approve", "{prompt: ''}", "/prompt"),
        ("approve", "{prompt: 'Pay?', promt: 'Pay?'}", "/promt"),
        ("approve", "{prompt: 'Pay?', options: [a]}", "/options"),
        ("approve", "{prompt: 'Pay?', default: true}", "/default"),
        ("choose", "{prompt: 'Which?'}", ""),
        ("choose", "{prompt: 'Which?', options: []}", "/options"),
        ("choose", "{prompt: 'Which?', options: [a, b], default: c}", "/default"),
        ("form", "{prompt: 'Who?'}", ""),
        ("form", "{prompt: 'Who?', schema: {type: nonsense}}", "/schema/type"),
        ("form", "{prompt: 'Who?', schema: {$ref: 'https://x/y'}}", "/schema"),
        ("form", "{prompt: 'Who?', schema: {type: object}, default: nobody}", "/default"),
        ("signal", "{prompt: go}", "/prompt"),
        ("signal", "{name: 5}", "/name"),
        ("approve", "{prompt: 'Pay?', escalate: {after: P1D}}", "/escalate"),
        ("approve", "{prompt: 'Pay?', escalate: {after: soon, to: {roles: [a]}}}", "/escalate/after"),
        ("approve", "{prompt: 'Pay?', escalate: {after: P1D, to: {roles: a}}}", "/escalate/to/roles"),
        ("approve", "{prompt: 'Pay?', escalate: {after: P1D, to: {}}}", "/escalate/to"),
    ],
)
async def test_arguments_of_a_checkpoint_that_can_not_work_are_found(evaluator: Evaluator, call: str, given: str, place: str) -> None:
    assert f"/do/0/a/with{place}" in await paths(evaluator, f"- a: {{call: gateway.{call}, with: {given}}}")


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("approve", "{prompt: '${ .prompt }', expires: '${ .days }', escalate: '${ .escalate }', default: '${ .default }'}"),
        ("approve", "{prompt: 'Pay?', default: {approved: false}, escalate: {after: '${ .x }', to: {roles: ['${ .role }']}}}"),
        ("choose", "{prompt: 'Which?', options: '${ .options }', default: a}"),
        ("choose", "{prompt: 'Which?', options: [a, '${ .b }'], default: c}"),
        ("form", "{prompt: 'Who?', schema: {enum: ['${ .a }']}, default: b}"),
        ("signal", "{name: go}"),
    ],
)
async def test_what_expressions_make_of_a_checkpoint_is_left_to_the_run(evaluator: Evaluator, call: str, given: str) -> None:
    assert await paths(evaluator, f"- a: {{call: gateway.{call}, with: {given}}}") == []
