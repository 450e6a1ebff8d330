"""Texts that PostgreSQL does not store, in all inputs of workflows: NUL and unpaired surrogates are errors with a type, never a failure."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.workflows import HEAD, Workflows

AI = "metadata: {gateway: {kind: ai}}, input: {schema: {document: {}}}, output: {schema: {document: {}}}"
ASKS = """
do:
- both:
    fork:
      branches:
      - pay: {call: gateway.approve, with: {prompt: 'Pay?'}}
      - form: {call: gateway.form, with: {prompt: 'Tell?', schema: {}}}
      - told: {call: gateway.signal, with: {name: go}}
"""
BRANCHES = "/do/0/both/fork/branches"
NUL, SURROGATE = "a\0b", "a\ud800b"
BAD = [NUL, SURROGATE]
EVENT = {"specversion": "1.0", "id": "e1", "source": "https://shop.example", "type": "test.first"}


def spoiled(value: Any, bad: str) -> Iterator[Any]:
    """The JSON value with `bad` in place of each of its texts and of each name of a member, one at a time."""
    if isinstance(value, str):
        yield bad
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from ({**value, name: each} for each in spoiled(member, bad))
        yield {**value, bad: 1}
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from ([*value[:index], each, *value[index + 1 :]] for each in spoiled(member, bad))


def bodies(run: str, checkpoints: dict[str, str]) -> dict[str, Any]:
    """Every request with a body, by its path."""
    return {
        "/api/workflows": {"document": HEAD.format(name="other") + "do:\n- done: {set: {x: '\0'}}\n"},
        "/api/workflows/flow/runs": {"input": {"text": ["x"]}},
        "/api/runs": {"workflow": "flow", "input": {"text": ["x"]}},
        f"/api/runs/{run}/fork": {"step": "pay", "input": {"text": "x"}},
        f"/api/runs/{run}/redrive": {"latest": False},
        f"/api/runs/{run}/signal": {"name": "go", "value": {"text": "x"}},
        "/api/workflows/flow/relaxations": {"step": f"{BRANCHES}/0/pay", "every": 2, "above": ".x", "reason": "often"},
        "/api/events": {**EVENT, "subject": "x", "dataschema": "x", "extra": "x", "data": {"text": "x"}},
        "/api/triggers/test": {**EVENT, "subject": "x", "data": {"text": "x"}},
        f"/api/checkpoints/{checkpoints['form']}/answer": {"value": {"text": "x"}},
        f"/api/checkpoints/{checkpoints['approve']}/answer": {"value": {"approved": True, "reason": "x"}},
    }


@pytest.mark.parametrize("bad", BAD, ids=["nul", "surrogate"])
async def test_bodies_with_texts_that_can_not_be_stored_are_refused(home: House, bad: str) -> None:
    workflows = Workflows(home)
    await workflows.add("flow", ASKS)
    failures, sent = [], 0
    run = await workflows.start("flow")
    await workflows.reached(run, "SUSPENDED")
    checkpoints = {each["kind"]: each["id"] for each in await workflows.checkpoints("admin")}
    for path, body in bodies(run, checkpoints).items():
        for each in spoiled(body, bad):
            for user in ("alice", "admin"):
                answer = await workflows.desk.ask("POST", path, user, json.dumps(each).encode())
                sent += 1
                if answer.status_code >= 500:
                    failures.append((path, user, each, answer.text))
    assert sent > 80 and failures == []


CURSORS = ["1.a%00b", "1.a%ED%A0%80b", "9" * 18 + ".x", "9" * 30, "%ED%A0%80", "-1", "1e9", "1." + "9" * 18]
LISTS = [
    "/api/runs",
    "/api/workflows/flow/runs",
    "/api/workflows",
    "/api/checkpoints",
    "/api/events",
    "/api/checkpoints/events",
    "/api/runs/{}/events",
]
NAMED = [
    "/api/runs/{}",
    "/api/runs/r/values/{}",
    "/api/workflows/{}",
    "/api/workflows/{}/estimate",
    "/api/checkpoints/{}",
    "/api/runs/{}/events",
]


async def test_names_and_cursors_that_can_not_be_stored_are_refused(home: House) -> None:
    workflows = Workflows(home)
    await workflows.add("flow", ASKS)
    run = await workflows.start("flow")
    await workflows.reached(run, "SUSPENDED")
    failures, sent = [], 0
    token = f"Bearer {home.token('admin')}"
    asked = [
        (f"{path.format(run)}?cursor={cursor}&since={cursor}&type={cursor}&step={cursor}", "1") for path in LISTS for cursor in CURSORS
    ]
    asked += [(path.format(run), place) for path in LISTS for place in ("9" * 30, "9" * 18 + ".1", "\x80\xff", "a.b")]
    asked += [(path.format(name), "1") for path in NAMED for name in ("a%00b", "a%ED%A0%80b", "%FF", "x" * 5000)]
    for path, place in asked:
        headers = [(b"authorization", token.encode()), (b"last-event-id", place.encode("latin-1")), (b"accept", b"application/json")]
        answer = await home.http.get(path, headers=headers)
        sent += 1
        if answer.status_code >= 500:
            failures.append((path, place, answer.text))
    assert sent > 50 and failures == []


@pytest.mark.parametrize("bad", BAD, ids=["nul", "surrogate"])
@pytest.mark.parametrize("state", ["TASK_STATE_INPUT_REQUIRED", "TASK_STATE_COMPLETED", "TASK_STATE_FAILED"])
async def test_what_an_agent_says_breaks_no_run(home: House, bad: str, state: str) -> None:
    """What an agent asks is part of the run's note; what it returns, of the journal."""
    workflows, agent = Workflows(home), await home.agent(CallbackAgent("sales"))
    agent.state, agent.message = state, {"messageId": "q", "role": "ROLE_AGENT", "parts": [{"text": bad}]}
    agent.more, agent.metadata = [{"data": {"text": bad, bad: [bad]}}], {"usage": {bad: bad}}
    await workflows.add("flow", f"do:\n- ask: {{call: gateway.agent, with: {{agent: sales, input: hi}}, {AI}}}\n")
    run = await workflows.start("flow")
    shown = await workflows.reached(run, "INPUT_REQUIRED", "COMPLETED", "FAILED")
    assert "gateway-failure" not in str(shown["fault"])


@pytest.mark.parametrize("bad", BAD, ids=["nul", "surrogate"])
async def test_what_a_run_is_given_breaks_no_run(home: House, bad: str) -> None:
    workflows = Workflows(home)
    await home.agent(CallbackAgent("sales"))
    steps = [
        "{call: gateway.form, with: {prompt: '${ .x }', schema: {title: '${ .x }'}}}",
        "{emit: {event: {with: {type: t, subject: '${ .x }'}}}}",
    ]
    steps += ["{call: gateway.signal, with: {name: '${ .x }'}}", "{raise: {error: {type: 'urn:x:y', status: 400, title: '${ .x }'}}}"]
    steps += ["{listen: {to: {one: {with: {type: t, subject: '${ .x }'}}}}}", "{wait: {seconds: '${ .x }'}}"]
    steps += [f"{{call: gateway.agent, with: {{agent: '${{ .x }}', input: x}}, {AI}}}", "{call: gateway.tool, with: {tool: '${ .x }'}}"]
    steps += ["{set: {x: '${ .x }'}}", f"{{call: gateway.agent, with: {{agent: sales, input: '${{ .x }}'}}, {AI}}}"]
    for number, step in enumerate(steps):
        document = HEAD.format(name=f"flow{number}") + f"do:\n- ask: {step}\n"
        added = await workflows.desk.post("/api/workflows", document=document)
        assert added.status_code in (201, 422), added.text
        await home.gateway.database.refresh_epochs()
        answer = await workflows.desk.ask(
            "POST", "/api/runs", "alice", json.dumps({"workflow": f"flow{number}", "input": {"x": bad}}).encode()
        )
        assert answer.status_code < 500, answer.text
        if answer.status_code == 201:
            shown = await workflows.reached(answer.json()["id"], "INPUT_REQUIRED", "SUSPENDED", "COMPLETED", "FAILED")
            assert "gateway-failure" not in str(shown["fault"]), step


DOCUMENTS = [
    "do:\n- \"a@b\": {set: {x: 1}}\n- form: {call: gateway.form, with: {prompt: 'Tell?', schema: {}}}\n",
    "do:\n- \"a@b\": {call: gateway.form, with: {prompt: 'Tell?', schema: {}}}\n",
    'do:\n- "a@b": {wait: PT1H}\n',
    'do:\n- "a@b": {listen: {to: {one: {with: {type: t}}}}}\n',
    'do:\n- a: {listen: {to: {one: {with: {type: t, subject: "a@b"}}}}}\n',
    'do:\n- a: {listen: {to: {one: {with: {type: "a@b"}}}}}\n',
    'do:\n- a: {emit: {event: {with: {type: t, source: "a@b"}}}}\n',
    'do:\n- a: {set: {"a@b": "a@b"}}\n',
    'do:\n- a: {raise: {error: {type: \'urn:x:y\', status: 400, detail: "a@b", instance: "a@b"}}}\n',
    "do:\n- a: {for: {each: \"a@b\", in: '${ [1] }'}, do: [{b: {set: {x: 1}}}]}\n",
    'do:\n- a: {call: gateway.form, with: {prompt: \'Tell?\', schema: {title: "a@b"}}, metadata: {"a@b": "a@b"}}\n',
    'use: {functions: {"a@b": {set: {x: 1}}}}\ndo:\n- a: {set: {x: 1}, metadata: {gateway: {compensate: "a@b"}}}\n- b: {wait: PT1H}\n',
    'do:\n- a: {run: {workflow: {namespace: tests, name: "a@b"}}}\n',
]


@pytest.mark.parametrize("escape", ["\\0", "\\ud800"], ids=["nul", "surrogate"])
async def test_documents_with_texts_that_can_not_be_stored_fail_no_request(home: House, escape: str) -> None:
    workflows = Workflows(home)
    head = "document: {{dsl: 1.0.3, namespace: {0}, name: flow, version: {1}, title: {2}, summary: {3}, tags: {{{4}: {5}}}}}\n"
    words = ["tests", "1.0.0", "x", "x", "x", "x"]
    heads = [head.format(*words[:number], f'"a{escape}b"', *words[number + 1 :]) + "do:\n- a: {wait: PT1H}\n" for number in range(6)]
    documents = [*heads, *(HEAD.format(name="flow") + each.replace("@", escape) for each in DOCUMENTS)]
    for text in documents:
        answer = await workflows.desk.post("/api/workflows", document=text)
        assert answer.status_code < 500, (text, answer.text)
        if answer.status_code == 201:
            await home.gateway.database.refresh_epochs()
            run = await workflows.start("flow")
            shown = await workflows.reached(run, "INPUT_REQUIRED", "SUSPENDED", "COMPLETED", "FAILED")
            assert "gateway-failure" not in str(shown["fault"]), text
