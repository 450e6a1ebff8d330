"""The JSON Schema for editors takes what the gateway reads, and refuses what it refuses."""

from typing import Any

import jsonschema_rs
import pytest
import yaml

from gateway.workflows.dsl.editor_schema import editor_schema
from gateway.workflows.dsl.extras import DocumentExtras, TaskExtras
from gateway.workflows.dsl.loading import read_document, read_source
from gateway.workflows.problems import DocumentRefused
from tests.conformance.kit_workflow import OWN, scenarios
from tests.gateway.workflows.documents import text_of
from tests.house.source import ROOT

EXAMPLES = [path for path in sorted((ROOT / "examples" / "workflows").glob("*.yaml")) if ".test." not in path.name]
FEATURES = [scenario.steps[0].block for _, scenario in scenarios(OWN)]


def is_valid(data: Any) -> bool:
    return jsonschema_rs.validator_for(editor_schema()).is_valid(data)


def test_it_is_a_json_schema() -> None:
    assert jsonschema_rs.meta.is_valid(editor_schema())


@pytest.mark.parametrize("text", [path.read_text() for path in EXAMPLES] + FEATURES)
def test_a_document_that_is_read_is_valid(text: str) -> None:
    read_document(read_source(text))
    assert is_valid(read_source(text).data)


BROKEN = [
    "- a: {}",
    "- a: {set: {x: 1}, surprise: 1}",
    "- a: {set: {}}",
    "- a: {wait: soon}",
    "- a: {wait: {}}",
    "- a: {wait: {minutes: -1}}",
    "- a: {wait: P1Y}",
    "- {}",
    "- a: {set: {x: 1}}\n  b: {set: {x: 1}}",
    "- 'a/b': {set: {x: 1}}",
    "- a: {call: http, with: {method: get}}",
    "- a: {call: http, with: {method: get, endpoint: 'https://x', output: everything}}",
    "- a: {call: a2a, with: {method: message/send}}",
    "- a: {call: a2a, with: {server: 'interlock://agents/x', method: SendMessage}}",
    "- a: {call: mcp, with: {method: tools/call}}",
    "- a: {call: mcp, with: {method: tools/call, transport: {}}}",
    "- a: {call: openapi, with: {operationId: x}}",
    "- a: {call: f, with: [1]}",
    "- a: {fork: {branches: {}}}",
    "- a: {for: {each: x}, do: []}",
    "- a: {listen: {to: {}}}",
    "- a: {listen: {to: {one: {with: {type: a}}, any: []}}}",
    "- a: {raise: {}}",
    "- a: {raise: {error: {type: x, status: 99}}}",
    "- a: {run: {}}",
    "- a: {run: {workflow: {namespace: n}}}",
    "- a: {switch: []}",
    "- a: {switch: [{x: {when: .a}}]}",
    "- a: {try: [], catch: {retry: {backoff: {}}}}",
    "- a: {try: []}",
    "- a: {set: {x: 1}, metadata: {gateway: {kind: magic}}}",
    "- a: {set: {x: 1}, metadata: {gateway: {minConfidence: 2}}}",
    "- a: {set: {x: 1}, metadata: {gateway: {unknown: 1}}}",
    "- a: {set: {x: 1}, input: {schema: {format: xml, document: {}}}}",
]


@pytest.mark.parametrize("tasks", BROKEN)
def test_a_document_that_can_not_be_read_is_invalid(tasks: str) -> None:
    text = text_of(tasks)
    with pytest.raises(DocumentRefused):
        read_document(read_source(text))
    assert not is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    "head", ["timeout: 5", "use: {functions: []}", "use: {extensions: [{e: {extend: nothing}}]}", "unknown: 1", "schedule: 5"]
)
def test_a_head_that_can_not_be_read_is_invalid(head: str) -> None:
    text = text_of("- a: {set: {x: 1}}", head)
    with pytest.raises(DocumentRefused):
        read_document(read_source(text))
    assert not is_valid(yaml.safe_load(text))


@pytest.mark.parametrize("extras", [DocumentExtras, TaskExtras])
def test_it_has_every_member_of_metadata_gateway(extras: type[DocumentExtras] | type[TaskExtras]) -> None:
    shown = editor_schema()["$defs"][extras.__name__]
    assert set(shown["properties"]) == {field.alias or name for name, field in extras.model_fields.items()}
    assert shown["additionalProperties"] is False
