"""Claims about the gateway as a resource server of MCP: what a token lacks is told of, at every path and in both eras."""

import re
from typing import Any

import pytest

from registry.cards.card import Family, McpPrompt, McpResource, McpTool, RegistrationStatus
from registry.rows import Candidate
from tests.fakes.house import House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
ACCEPT = "application/json, text/event-stream"
OPERATIONS = {
    "tools/call": ("name", "check", "inventory_check", "tool:inventory.check"),
    "prompts/get": ("name", "greet", "inventory_greet", "prompt:inventory.greet"),
    "resources/read": ("uri", "note://1", "inventory+note://1", "resource:inventory"),
}


@pytest.fixture
async def offering(home: House) -> House:
    entry = Candidate(
        tenant="default",
        name="inventory",
        family=Family.SERVER,
        kind="mcp",
        url="http://127.0.0.1:9/mcp",
        owner="operator",
        status=RegistrationStatus.ACTIVE,
        facts={"era": "modern", "protocol_version": "2026-07-28"},
        tools=(McpTool("check", {"name": "check", "inputSchema": {"type": "object"}}),),
        prompts=(McpPrompt("greet", {"name": "greet"}),),
        resources=(McpResource("note://1", {"uri": "note://1", "name": "note"}),),
    )
    await home.gateway.registry.add(entry)
    await home.gateway.database.refresh_epochs()
    offer = {"name": "desk", "tools": ["inventory.*"], "prompts": ["inventory.*"], "resources": ["inventory"]}
    made = await home.http.post("/api/virtual-servers", json=offer, headers={"authorization": f"Bearer {home.token('admin')}"})
    assert made.status_code == 201, made.text
    return home


async def asked(home: House, path: str, method: str, modern: bool, scope: str) -> Any:
    member, own, ours, _ = OPERATIONS[method]
    name = own if path == "/mcp/inventory" else ours
    token = home.token("admin", scope=scope)
    if modern:
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method, "mcp-name": name, "accept": ACCEPT}
        return await home.rpc(path, token, method, {member: name, "_meta": META}, **headers)
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    opened = await home.rpc(path, token, "initialize", params, accept=ACCEPT)
    session = {"accept": ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    return await home.rpc(path, token, method, {member: name}, **session)


@pytest.mark.parametrize("modern", [True, False], ids=["2026-07-28", "2025-11-25"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/inventory", "/mcp/virtual/desk"])
@pytest.mark.parametrize("method", list(OPERATIONS))
async def test_a_token_without_the_scope_of_an_operation_is_told_all_of_it(offering: House, method: str, path: str, modern: bool) -> None:
    refused = await asked(offering, path, method, modern, "agent:sales")
    assert refused.status_code == 403, refused.text
    challenge = refused.headers["www-authenticate"]
    assert challenge.startswith("Bearer ")
    assert 'error="insufficient_scope"' in challenge
    assert f'scope="{OPERATIONS[method][3]}"' in challenge
    found = re.search(r'resource_metadata="([^"]+)"', challenge)
    assert found is not None
    assert (await offering.http.get(found[1])).json()["resource"] == f"{offering.url}{path}"
    allowed = await asked(offering, path, method, modern, OPERATIONS[method][3])
    assert allowed.status_code != 403  # the server itself can't be reached, which is another matter
