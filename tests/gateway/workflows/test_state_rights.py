"""The ceiling of a workflow has the keys of the board that its document names, and no others."""

import pytest

from gateway.workflows.dsl.loading import read_document, read_source
from gateway.workflows.publishing.state_rights import state_permissions

HEAD = "document: {dsl: 1.0.3, namespace: tests, name: keys, version: 1.0.0}\ndo:\n"


def permissions(task: str) -> list[str]:
    return list(state_permissions(read_document(read_source(f"{HEAD}- step: {task}\n"))))


@pytest.mark.parametrize(
    ("call", "permission"),
    [
        ("state.get, arguments: {key: customer/42/status}", "state:read:customer/42/status"),
        ("state.set, arguments: {key: customer/42/status, value: 1}", "state:write:customer/42/status"),
        ("state.list, arguments: {prefix: customer/}", "state:read:customer"),
        ("state.list, arguments: {}", "state:read:*"),
        ("""state.patch, arguments: {key: '${ "customer/\\(.id)/status" }', patch: {}}""", "state:write:customer/*"),
        ("""state.history, arguments: {key: '${ "customer/42/\\(.name)" }'}""", "state:read:customer/42/*"),
        ("state.set, arguments: {key: '${ .key }', value: 1}", "state:write:*"),
        ("""state.set, arguments: {key: '${ "\\(.kind)/42" }', value: 1}""", "state:write:*"),
        ("state.set, arguments: '${ . }'", "state:write:*"),
    ],
)
def test_a_call_of_the_board_permits_the_keys_that_it_can_name(call: str, permission: str) -> None:
    assert permissions(f"{{call: gateway.tool, with: {{tool: {call}}}}}") == [permission]


def test_a_call_in_the_form_of_mcp_permits_them_too() -> None:
    transport = "transport: {http: {endpoint: 'interlock://tools/state'}}"
    call = f"{transport}, method: tools/call, parameters: {{name: get, arguments: {{key: a/b}}}}"
    assert permissions(f"{{call: mcp, with: {{{call}}}}}") == ["state:read:a/b"]


def test_calls_of_other_servers_and_unknown_tools_permit_no_keys() -> None:
    assert permissions("{call: gateway.tool, with: {tool: crm.get, arguments: {key: a/b}}}") == []
    assert permissions("{call: gateway.tool, with: {tool: state.drop, arguments: {key: a/b}}}") == []
