"""The table "What of the DSL is supported" says what the code does: each row has documents that are taken or refused."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from adapters.openapi.document import read_api
from gateway.workflows.cloud_events.scheduling import schedule_problems
from gateway.workflows.dsl.checks import FUNCTIONS, NOT_RUN, check_document
from gateway.workflows.dsl.document import A2aMethod, Extension, McpMethod, Use
from gateway.workflows.dsl.extras import DocumentExtras, TaskExtras
from gateway.workflows.dsl.loading import Source, read_document, read_source
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.interpreter.kinds import STANDARD_TASKS
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.publishing.event_rights import event_problems
from gateway.workflows.publishing.needs import BadTarget, needs_of
from gateway.workflows.publishing.support import unsupported
from registry.cards.card import Family, McpTool, Registration, RegistrationStatus
from tests.gateway.workflows.documents import text_of
from tests.house.source import ROOT

AI = "input: {schema: {document: {}}}, output: {schema: {document: {}}}, metadata: {gateway: {kind: ai%s}}"
CONTENT = {"responses": {"200": {"description": "it"}}}
API = {
    "openapi": "3.1.0",
    "paths": {"/pets/{id}": {"get": {"operationId": "pet", "parameters": [{"name": "id", "in": "path"}], **CONTENT}}},
}
ADDRESS = "https://pets.example/v1"


@dataclass(frozen=True)
class Row:
    """What a row claims. `taken` and `refused` are tasks, the latter with the place of the refusal; a pair has a head before them."""

    taken: Sequence[str | tuple[str, str]] = ()
    refused: Sequence[tuple[str, str] | tuple[str, str, str]] = ()


def ask(name: str, more: str = "") -> str:
    return f"- {{{name}: {{call: gateway.agent, with: {{agent: x}}, {AI % more}}}}}"


def with_extras(head: str, tasks: str) -> Source:
    """A document. A head may begin with a line for its metadata; without one, a document with a schedule names whom it runs as."""
    first, _, rest = head.partition("\n")
    extras, rest = (first, rest) if first.startswith("{") else ("{runAs: nightly}" if first.startswith("schedule") else "{}", head)
    return read_source(text_of(tasks, rest).replace("version: '1.0.0'}", f"version: '1.0.0', metadata: {{gateway: {extras}}}}}", 1))


def a2a(method: str, parameters: str = "{message: {role: user, parts: [{text: x}]}}") -> str:
    return f"- a: {{call: a2a, with: {{server: 'interlock://agents/x', method: {method}, parameters: {parameters}}}, {AI % ''}}}"


def mcp(method: str, more: str = "", http: str = "endpoint: 'interlock://tools/x'", parameters: str = "{name: t}") -> str:
    return f"- a: {{call: mcp, with: {{method: {method}, parameters: {parameters}, transport: {{http: {{{http}}}}}{more}}}}}"


def http(more: str = "", endpoint: str = f"'{ADDRESS}/pets/{{id}}'") -> str:
    return f"- a: {{call: http, with: {{method: get, endpoint: {endpoint}{more}}}}}"


def openapi(more: str = "") -> str:
    return f"- a: {{call: openapi, with: {{document: {{endpoint: 'interlock://tools/pets'}}, operationId: pet{more}}}}}"


SET = "- a: {set: {x: 1}%s}"
WITH = "/do/0/a/with"
DOCUMENT = "/document/metadata/gateway"
PLAN = f"- a: {{call: gateway.plan, with: {{agent: x, goal: g, among: {{agents: [y], tools: [x.t]}}}}, {AI % ''}}}"
TABLE: dict[str, Row] = {
    "`do`, `set`, `switch`, `for`, `while`, `then`, `if`, `raise`": Row(
        [
            "- a: {do: [{b: {if: .x, set: {x: 1}, then: exit}}]}",
            "- a: {switch: [{b: {when: .x, then: end}}]}",
            "- a: {for: {in: .xs}, while: $item > 1, do: []}",
            "- a: {raise: {error: {type: 'urn:x', status: 400}}}",
        ],
        [("- a: {set: {x: 1}, then: nowhere}", "/do/0/a/then")],
    ),
    "`fork`, `compete`": Row(["- a: {fork: {compete: true, branches: [{b: {set: {x: 1}}}]}}"]),
    "`try`, `catch`, `retry` (delay, backoff, jitter, limits)": Row(
        [
            "- a: {try: [{b: {set: {x: 1}}}], catch: {retry: {delay: PT1S, backoff: {exponential: {}}, jitter: {from: PT1S, to: PT2S}, "
            "limit: {attempt: {count: 2}, duration: PT1M}}}}"
        ],
    ),
    "`wait`, `timeout`": Row(["- a: {wait: PT1S, timeout: {after: PT1M}}", ("timeout: {after: PT1M}", SET % "")]),
    "`input`, `output`, `export`, `$context`, `$workflow`, `$task`, `$input`, `$output`": Row(
        ["- a: {input: {from: '$context'}, set: {x: '${ $input }'}, output: {as: '$task'}, export: {as: '[$output, $workflow]'}}"],
    ),
    "schemas": Row(
        [SET % ", output: {schema: {document: {type: object}}}"],
        [
            (SET % ", output: {schema: {resource: {endpoint: 'https://x'}}}", "/do/0/a/output/schema/resource"),
            (SET % ", output: {schema: {document: {$ref: 'https://x'}}}", "/do/0/a/output/schema/document"),
        ],
    ),
    "`use`: errors, retries, timeouts, functions, extensions": Row(
        [
            ("use: {errors: {e: {type: 'urn:x', status: 400}}}", "- a: {raise: {error: e}}"),
            ("use: {retries: {r: {delay: PT1S}}}", "- a: {try: [{b: {set: {x: 1}}}], catch: {retry: r}}"),
            ("use: {timeouts: {t: {after: PT1S}}}", "- a: {wait: PT1S, timeout: t}"),
            ("use: {functions: {f: {set: {x: 1}}}}", "- a: {call: f}"),
            ("use: {extensions: [{e: {extend: all, when: .x, before: [{b: {set: {x: 1}}}], after: []}}]}", SET % ""),
        ],
        [("use: {functions: {f: {call: f}}}", SET % "", "/use/functions/f")],
    ),
    "`use`: authentications, secrets, catalogs": Row(
        refused=[
            ("use: {authentications: {a: {basic: {}}}}", SET % "", "/use/authentications"),
            ("use: {secrets: [s]}", SET % "", "/use/secrets"),
            ("use: {catalogs: {c: {endpoint: 'https://x'}}}", SET % "", "/use/catalogs"),
        ],
    ),
    "`call: a2a`": Row(
        [a2a("message/send"), a2a("message/stream")],
        [
            *((a2a(method), f"{WITH}/method") for method in get_args(A2aMethod) if not method.startswith("message/")),
            (a2a("message/send", "{message: {parts: [], contextId: c}}"), f"{WITH}/parameters/message/contextId"),
            (a2a("message/send", "{message: {parts: []}, configuration: {}}"), f"{WITH}/parameters/configuration"),
            (a2a("message/send").replace("interlock://agents/x", "https://x"), f"{WITH}/server"),
        ],
    ),
    "`call: mcp`": Row(
        [mcp("tools/call")],
        [
            *((mcp(method), f"{WITH}/method") for method in get_args(McpMethod) if method != "tools/call"),
            (mcp("tools/call", ", timeout: PT1S"), f"{WITH}/timeout"),
            (mcp("tools/call", ", client: {}"), f"{WITH}/client"),
            (mcp("tools/call", http="endpoint: 'interlock://tools/x', headers: {a: b}"), f"{WITH}/transport/http/headers"),
            (mcp("tools/call", parameters="{name: t, _meta: {}}"), f"{WITH}/parameters/_meta"),
            (
                "- a: {call: mcp, with: {method: tools/call, parameters: {name: t}, transport: {stdio: {command: x}}}}",
                f"{WITH}/transport/stdio",
            ),
        ],
    ),
    "`call: openapi`": Row(
        [openapi()],
        [
            (openapi(", output: response"), f"{WITH}/output"),
            (openapi(", output: raw"), f"{WITH}/output"),
            (openapi(", redirect: true"), f"{WITH}/redirect"),
            (openapi(", authentication: {basic: {}}"), f"{WITH}/authentication"),
            (openapi().replace("interlock://tools/pets", "https://x"), WITH),
        ],
    ),
    "`call: http`": Row(
        [http(), http(endpoint="'interlock://tools/pets/pets/{id}'")],
        [
            (http(", output: response"), f"{WITH}/output"),
            (http(", output: raw"), f"{WITH}/output"),
            (http(", redirect: true"), f"{WITH}/redirect"),
            (http(endpoint=f"{{uri: '{ADDRESS}/pets/1', authentication: {{basic: {{}}}}}}"), f"{WITH}/endpoint"),
            (http(endpoint="'https://elsewhere.example/pets/1'"), f"{WITH}/endpoint"),
            (http(endpoint="'${ .url }'"), f"{WITH}/endpoint"),
        ],
    ),
    "`call`: functions of `use.functions`": Row(
        [("use: {functions: {f: {set: {x: 1}}}}", "- a: {call: f, with: {y: 1}}")],
        [("- a: {call: 'log:1.0.0@global'}", "/do/0/a/call")],
    ),
    "`call`: grpc, asyncapi": Row(
        refused=[("- a: {call: grpc, with: {}}", "/do/0/a/call"), ("- a: {call: asyncapi, with: {}}", "/do/0/a/call")]
    ),
    "`run: workflow`": Row(
        ["- a: {run: {workflow: {namespace: n, name: w}}}", "- a: {run: {workflow: {namespace: n, name: w}, await: false}}"],
        [("- a: {run: {workflow: {namespace: n, name: w, version: 1.0.0}}}", "/do/0/a/run/workflow/version")],
    ),
    "`run`: script, shell, container": Row(
        refused=[(f"- a: {{run: {{{kind}: {{}}}}}}", "/do/0/a/run") for kind in ("script", "shell", "container")],
    ),
    "`emit`, `listen`, `schedule`": Row(
        [
            "- a: {emit: {event: {with: {type: t}}}}",
            "- a: {listen: {to: {one: {with: {type: t}}}}}",
            *((f"schedule: {{{times}}}", SET % "") for times in ("every: PT1H", "after: PT1H", "cron: '0 6 * * *'")),
            ("schedule: {on: {any: [{with: {type: t}}]}}", SET % ""),
        ],
        [
            ("- a: {emit: {event: {with: {type: '${ .x }'}}}}", "/do/0/a/emit/event/with"),
            ("schedule: {on: {all: [{with: {type: t}}]}}", SET % "", "/schedule/on"),
            ("schedule: {on: {any: [{with: {type: t}}], until: .x}}", SET % "", "/schedule/on"),
            ("schedule: {on: {one: {with: {type: t}, correlate: {c: {from: .x}}}}}", SET % "", "/schedule/on/one/correlate"),
            ("schedule: {cron: '0 0 6 * * *'}", SET % "", "/schedule/cron"),
        ],
    ),
    "`gateway.agent`, `gateway.plan`, `gateway.tool`, `gateway.compute`": Row(
        [
            f"- a: {{call: gateway.agent, with: {{agent: x, skill: s, input: y}}, {AI % ''}}}",
            PLAN,
            "- a: {call: gateway.tool, with: {tool: x.t}}",
            "- a: {call: gateway.compute, with: {code: '1'}}",
        ],
        [("- a: {call: gateway.tool, with: {tool: x.t, argument: {}}}", f"{WITH}/argument")],
    ),
    "`gateway.approve`, `gateway.choose`, `gateway.form`, `gateway.signal`": Row(
        [
            "- a: {call: gateway.approve, with: {prompt: p}}",
            "- a: {call: gateway.choose, with: {prompt: p, options: [a]}}",
            "- a: {call: gateway.form, with: {prompt: p, schema: {}}}",
            "- a: {call: gateway.signal, with: {name: s}}",
        ],
    ),
    "`metadata.gateway` of tasks": Row(
        [
            ask("a", ", minConfidence: 0.5, confidence: .c, check: {agent: y}, idempotent: true"),
            ("use: {functions: {f: {set: {x: 1}}}}", SET % ", metadata: {gateway: {compensate: f}}"),
            SET % ", metadata: {gateway: {claim: {subject: 'customer:42', effect: outbound-email, wait: PT1H}}}",
            "- a: {emit: {event: {with: {type: t.t}}}, metadata: {gateway: {sensitivity: 0}}}",
        ],
        [
            (SET % ", metadata: {gateway: {sensitivity: 0}}", "/do/0/a/metadata/gateway/sensitivity"),
            (
                f"- a: {{do: [{ask('b')[2:]}], metadata: {{gateway: {{kind: deterministic}}}}}}",
                "/do/0/a/do/0/b",
            ),
        ],
    ),
    "`metadata.gateway.budget`": Row(
        [("{budget: {perRun: 0.50, perDay: '20'}}\n", SET % ""), ("{budget: {perRun: 0}}\n", SET % "")],
    ),
    "`metadata.gateway.concurrency`": Row(
        [
            ("{concurrency: {runs: 1}}\n", SET % ""),
            ("{runAs: nightly, concurrency: {runs: 1, overlap: cancel-previous}}\nschedule: {every: PT1H}", SET % ""),
        ],
        [("{concurrency: {overlap: skip}}\n", SET % "", f"{DOCUMENT}/concurrency/overlap")],
    ),
    "`metadata.gateway.schedule`": Row(
        [
            ("{runAs: nightly, schedule: {missed: all}}\nschedule: {every: PT1H}", SET % ""),
            ("{runAs: nightly, schedule: {timezone: Europe/Berlin, missed: skip}}\nschedule: {cron: '0 6 * * *'}", SET % ""),
        ],
        [
            ("{schedule: {missed: all}}\n", SET % "", f"{DOCUMENT}/schedule/missed"),
            ("{runAs: nightly, schedule: {timezone: UTC}}\nschedule: {every: PT1H}", SET % "", f"{DOCUMENT}/schedule/timezone"),
            ("{runAs: nightly, schedule: {missed: all}}\nschedule: {after: PT1H}", SET % "", f"{DOCUMENT}/schedule/missed"),
        ],
    ),
    "`metadata.gateway.runAs`": Row(
        [("{runAs: nightly}\nschedule: {every: PT1H}", SET % "")],
        [
            ("{runAs: nightly}\n", SET % "", f"{DOCUMENT}/runAs"),
            ("{runAs: unknown}\nschedule: {every: PT1H}", SET % "", f"{DOCUMENT}/runAs"),
            ("{}\nschedule: {every: PT1H}", SET % "", "/schedule"),
        ],
    ),
}


def documented() -> dict[str, str]:
    """The rows of the table: what it is about, and what it says."""
    text = (ROOT / "docs" / "workflows-reference.md").read_text(encoding="utf-8").partition("## What of the DSL is supported")[2]
    rows = [line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith(("| `", "| schemas"))]
    return {row[0]: row[1] for row in rows}


def server() -> Registration:
    tools = tuple(McpTool(tool["name"], tool) for tool in read_api(API).tools)
    facts: dict[str, Any] = {}
    status = RegistrationStatus.ACTIVE
    return Registration(
        "default", "pets", Family.SERVER, "openapi", status, ADDRESS, "", ("*",), "none", {}, facts, "", None, "", tools, "", 0, 0
    )


async def problems(evaluator: Evaluator, head: str, tasks: str) -> set[str]:
    """The places at which a document is refused, without what only a registry knows."""
    source = with_extras(head, tasks)
    document = read_document(source)
    found = {path for path, _ in (*unsupported(document), *event_problems(document))}
    found |= {path for path, _ in schedule_problems(document, lambda name: name == "nightly")}
    found |= {need.path for need in needs_of(document, [server()]) if isinstance(need, BadTarget)}
    try:
        await check_document(document, source, evaluator)
    except DocumentRefused as refused:
        found |= {each.path for each in refused.problems}
    return found


def test_the_table_has_the_rows_that_are_tried() -> None:
    assert list(documented()) == list(TABLE)


@pytest.mark.parametrize("about", TABLE)
async def test_a_row_says_what_the_code_does(evaluator: Evaluator, about: str) -> None:
    row, said = TABLE[about], documented()[about]
    assert bool(row.refused and not row.taken) == said.startswith("refused")
    for taken in row.taken:
        head, tasks = ("", taken) if isinstance(taken, str) else taken
        assert await problems(evaluator, head, tasks) == set(), tasks
    for refused in row.refused:
        head, tasks, path = ("", *refused) if len(refused) == 2 else refused
        assert await problems(evaluator, head, tasks) == {path}, tasks


def test_every_construct_of_the_code_is_in_a_row() -> None:
    tried = " ".join(str(row) for row in TABLE.values())
    kinds = {re.sub(r"^call \w+|Task$", "", kind.__name__.removeprefix("Call")).lower() for kind in STANDARD_TASKS} - {"function"}
    wanted = kinds | set(Use.model_fields) | set(FUNCTIONS) | set(NOT_RUN) | set(get_args(A2aMethod)) | set(get_args(McpMethod))
    wanted |= {field.alias or name for name, field in (TaskExtras.model_fields | Extension.model_fields).items()}
    assert {name for name in wanted if name not in tried} == set()
    assert set(DocumentExtras.model_fields) == {"deadline", "run_as", "schedule", "concurrency", "budget", "tags", "examples"}
