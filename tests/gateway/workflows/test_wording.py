"""Each problem of a document is told in plain English: what is wrong at a place, and what is allowed there."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.workflows.coordination.plan import Plan
from gateway.workflows.dsl.checks import check_document
from gateway.workflows.dsl.constructs import RULES_OF_TEXTS
from gateway.workflows.dsl.coordination import PlanArguments
from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.loading import read_document, read_source
from gateway.workflows.dsl.wording import problems_of
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.rehearsal.script import Rehearsal
from tests.gateway.workflows.documents import HEAD, text_of

WORDS_OF_LIBRARIES = re.compile(
    r"input should|value error|value_error|pattern|union|literal|validat|valid |dictionary|instance of|\bstr\b|\bint\b|\bdict\b|"
    r"anyOf|json_|field required|extra |function-|not permitted|(?-i:\bNone\b|Model)",
    re.IGNORECASE,
)
EVERYTHING = """
document:
  dsl: 1.0.3
  namespace: test
  name: example
  version: 1.0.0
  metadata:
    gateway:
      {deadline: P1D, runAs: night, schedule: {timezone: UTC, missed: all}, concurrency: {runs: 2, overlap: skip}, tags: [a], examples: [b]}
input: {schema: {format: json, document: {type: object}}, from: .a}
use:
  errors: {broken: {type: urn:x, status: 500}}
  extensions: [{log: {extend: all, before: [{note: {set: {x: 1}}}]}}]
  functions: {undo: {call: http, with: {method: get, endpoint: {uri: http://x}, query: {a: b}}}}
  retries: {often: {delay: PT1S, backoff: {constant: {}}, limit: {attempt: {count: 3}}, jitter: {from: PT1S, to: PT2S}}}
  timeouts: {short: {after: PT5S}}
timeout: {after: {hours: 1}}
schedule: {on: {one: {with: {type: a.b}, correlate: {x: {from: .id}}}}, read: data}
do:
- ask: {call: gateway.approve, with: {prompt: ok, expires: P1D}}
- page: {call: openapi, with: {document: {endpoint: http://x}, operationId: y, output: content}}
- agent: {call: a2a, with: {server: http://x, method: message/send, parameters: {}}}
- tool: {call: mcp, with: {method: tools/call, transport: {http: {endpoint: http://x}}, timeout: PT1S}}
- each: {for: {each: one, in: .items}, while: .go, do: [{x: {wait: {seconds: 1}}}]}
- both: {fork: {compete: true, branches: [{a: {emit: {event: {with: {type: a.b}}}}}]}}
- hear: {listen: {to: {any: [{with: {type: c}}], until: .done}}, foreach: {item: e, do: [{y: {set: {x: 1}}}]}}
- fail: {raise: {error: broken}}
- part: {run: {workflow: {namespace: test, name: other, version: latest}, await: true}}
- pick: {switch: [{big: {when: .n, then: end}}, {small: {then: exit}}]}
- safe:
    try: [{z: {do: [{w: {set: {x: 1}}}]}}]
    catch: {errors: {with: {status: 500}}, as: e, retry: often, do: [{v: {set: {x: 1}}}]}
    timeout: short
    metadata: {gateway: {kind: ai, minConfidence: 0.5, check: {agent: other}, compensate: undo, idempotent: true}}
output: {as: .x}
"""
PLANNING = {
    "agent": "planner", "goal": "x", "among": {"agents": ["a"], "tools": ["crm.find"]}, "limits": {"steps": 3, "depth": 2, "cost": 1},
    "costs": {"a": 1, "crm.find": 2}, "approve": True, "prompt": "go?", "expires": "P1D", "replan": 1, "skill": "s",
}  # fmt: skip
PLANNED = {
    "do": [
        {"a": {"call": "gateway.agent", "with": {"agent": "x", "input": {"from": "input", "path": "/a"}}}},
        {"b": {"switch": [{"when": {"value": {"from": "a"}, "atLeast": 3}, "do": [{"c": {"set": 1}}]}]}},
        {"d": {"fork": {"branches": [{"e": {"call": "gateway.tool", "with": {"tool": "crm.find"}}}]}}},
    ]
}
CASES = {
    "answers": {"a": {"output": 1, "after": "PT1S"}},
    "cases": [
        {"name": "x", "answers": {"b": [{"error": {"type": "u", "status": 500}}]}, "events": [{"after": "PT1S", "event": {"type": "t"}}],
         "expect": {"status": "completed", "notRan": ["c"], "within": "PT1H", "calls": ["/do/0/a"]}},
    ],
}  # fmt: skip
WRONG: tuple[Any, ...] = (5, -1, 1.5, "", "a b/~$", " 1", [], {}, None, True, [5], {"bogus": 1}, {"a": 1, "b": 2}, "x" * 20_001)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, member in members:
        yield from places(member, (*path, step))


def broken_texts(sound: Any) -> Iterator[Any]:
    """The value with each of its parts replaced by something wrong, left out, under another name, or with a further member."""
    for *before, last in places(sound):
        for wrong in (*WRONG, "leave out", "rename", "add"):
            data = copy.deepcopy(sound)
            holder = data
            for step in before:
                holder = holder[step]
            if wrong == "leave out":
                del holder[last]
            elif wrong in ("rename", "add") and isinstance(holder, dict):
                holder[f"{last}s"] = holder.pop(last) if wrong == "rename" else 1
            else:
                holder[last] = wrong
            yield data


def reasons(model: type[BaseModel], data: Any) -> list[str]:
    try:
        model.model_validate(data)
    except ValidationError as error:
        found = [reason for _, reason in problems_of(model, data, error.errors(include_url=False, include_input=False))]
        assert found, data
        return found
    return []


@pytest.mark.parametrize(
    ("model", "sound"),
    [(Document, read_source(EVERYTHING).data), (PlanArguments, PLANNING), (Plan, PLANNED), (Rehearsal, CASES)],
    ids=["document", "plan arguments", "plan", "rehearsal"],
)
def test_no_problem_is_told_in_the_words_of_a_library(model: type[BaseModel], sound: Any) -> None:
    assert reasons(model, sound) == []
    told = {reason for data in broken_texts(sound) for reason in reasons(model, data)}
    assert len(told) > 10
    assert [reason for reason in told if WORDS_OF_LIBRARIES.search(reason)] == []
    assert "has a value that is not allowed here" not in told


def patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "pattern" in schema and "properties" not in schema:
            yield schema["pattern"]
        yield from schema.get("patternProperties", {})
    for each in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from patterns(each)


def test_every_rule_of_a_text_has_words() -> None:
    written = {each for model in (Document, PlanArguments, Plan, Rehearsal) for each in patterns(model.model_json_schema())}
    of_editors = {each for each in written if "P(?=" in each}  # durations, which are checked by a function with words of its own
    assert len(written - of_editors) > 5
    assert written - of_editors <= RULES_OF_TEXTS.keys()


@pytest.mark.parametrize(
    ("task", "path", "reason"),
    [
        ("{cal: http}", "/do/0/a", "did you mean `call`?"),
        ("{set: {x: 1}, ten: end}", "/do/0/a/ten", "allowed are `if`, `input`, `output`, `export`, `timeout`, `then`, `metadata`, `set`"),
        ("{set: {x: 1}, metadata: {gateway: {chek: {}}}}", "/do/0/a/metadata/gateway/chek", "did you mean `check`?"),
        ("{call: http, with: {method: get, endpoint: {urii: x}}}", "/do/0/a/with/endpoint/urii", "allowed are `uri`, `authentication`"),
        ("{call: mcp, with: {method: tool/call, transport: {http: {endpoint: x}}}}", "/do/0/a/with/method", "did you mean `tools/call`?"),
        ("{wait: {seconds: 1.5}}", "/do/0/a/wait/seconds", "is no whole number"),
        ("{set: {x: 1}, then: 3}", "/do/0/a/then", "is no text; put it in quotes"),
        ("{for: {each: 1x, in: .a}, do: []}", "/do/0/a/for/each", "with no digit at its beginning"),
        ("{raise: {error: {type: x, status: 7}}}", "/do/0/a/raise/error/status", "is less than 100"),
    ],
)
def test_a_problem_says_what_is_allowed(task: str, path: str, reason: str) -> None:
    with pytest.raises(DocumentRefused) as caught:
        read_document(read_source(text_of(f"- a: {task}")))
    assert [each.path for each in caught.value.problems if reason in each.reason] == [path]


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        (text_of("- a: {set: {x: 1}, then: c}\n- bee: {set: {x: 1}, then: be}"), "/do/1/bee/then", "did you mean `bee`?"),
        (text_of("- a: {call: gateway.aprove}"), "/do/0/a/call", "did you mean `gateway.approve`?"),
        (
            text_of("- a: {set: {x: 1}, timeout: shot}", "use: {timeouts: {short: {after: PT1S}}}"),
            "/do/0/a/timeout",
            "did you mean `short`?",
        ),
    ],
)
async def test_a_misspelt_name_is_told_with_the_one_that_may_be_meant(text: str, path: str, reason: str, evaluator: Evaluator) -> None:
    source = read_source(text)
    with pytest.raises(DocumentRefused) as caught:
        await check_document(read_document(source), source, evaluator)
    assert path in [each.path for each in caught.value.problems if reason in each.reason]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (".a |", "its syntax is broken at its end"),
        ("{a:}", "its syntax is broken at line 1, character 4 of it"),
        ("$nope", "`$nope` is not defined here"),
        ("foo(1)", "`foo/1` is not defined here"),
    ],
)
async def test_a_broken_expression_is_told_in_words_of_its_author(expression: str, reason: str, evaluator: Evaluator) -> None:
    source = read_source(text_of(f"- a: {{set: {{x: '${{ {expression} }}'}}}}"))
    with pytest.raises(DocumentRefused) as caught:
        await check_document(read_document(source), source, evaluator)
    assert [(each.path, each.reason) for each in caught.value.problems] == [("/do/0/a/set/x", f"is no jq expression: {reason}")]


async def test_every_problem_of_a_json_schema_is_told_at_its_place(evaluator: Evaluator) -> None:
    schema = "{type: strng, properties: {a: {minLength: -1, required: b, enum: 5}, b: {pattern: '('}, c: {allOf: [], required: [x, x]}}}"
    source = read_source(f"{HEAD}input: {{schema: {{document: {schema}}}}}\ndo: [{{a: {{set: {{x: 1}}}}}}]")
    with pytest.raises(DocumentRefused) as caught:
        await check_document(read_document(source), source, evaluator)
    told = {each.path.removeprefix("/input/schema/document"): each.reason for each in caught.value.problems}
    assert told.pop("/type").endswith("did you mean `string`?")
    assert told == {
        "/properties/a/minLength": "is less than 0",
        "/properties/a/required": "is no list",
        "/properties/a/enum": "is no list",
        "/properties/b/pattern": "is no regular expression",
        "/properties/c/allOf": "is empty",
        "/properties/c/required": "has the same element twice",
    }


@pytest.mark.parametrize(
    "text", ["a: b: c", "a:\n\t- x", "a: [1,", "a: 'x", "a: *", "- a\nb: c", "a: @x", "{a: 1", 'a: "\\q"', "a:\n  b: 1\n c: 2", "\x07", "]"]
)
def test_broken_yaml_is_told_in_words_of_its_author(text: str) -> None:
    with pytest.raises(DocumentRefused) as caught:
        read_source(text)
    (problem,) = caught.value.problems
    assert problem.reason.startswith("is not YAML: ")
    assert not re.search(r"token|node|indicator|scalar|mapping|stream|block", problem.reason)
