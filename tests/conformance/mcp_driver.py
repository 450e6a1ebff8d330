"""The client that the MCP kit tries: each scenario's calls, made by the code that calls upstream servers. The last argument is the URL."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from adapters.contract import Call, ConsentNeeded, UpstreamFault
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.probe import Probe
from adapters.mcp_client.wire.messages import META_PREFIX, MODERN, McpRefused, McpRequest, envelope_of
from adapters.mcp_client.wire.param_headers import find_header_arguments, headers_for
from adapters.mcp_client.wire.peer import PeerRefused
from adapters.oauth.authorized import credential_request_of
from adapters.tool_servers import ToolServerClient
from adapters.upstream.egress import Egress
from gateway.timeouts import DEFAULT_TIMEOUTS
from policies.delegation.chain import Delegation, Principal
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.delegation.rulings import Act, Decision, Grant
from registry.cards.card import Family, Registration, RegistrationStatus
from tests.conformance import mcp_consents

SECONDS = 60.0  # of one call
CONSENTS_MAX = 3  # of one call
ROUNDS = "sep-2322-client-request-state"  # the scenario in which a modern server asks
ABLE: Mapping[str, Any] = {"elicitation": {"form": {}}, "sampling": {}, "roots": {"listChanged": True}}
VALUES: Mapping[str, Any] = {"string": "x", "integer": 0, "number": 0, "boolean": False, "object": {}, "array": [], "null": None}

PERSON = Principal("default", "https://issuer.example", "driver")

T = TypeVar("T")
Wish = tuple[str, dict[str, Any]]  # a tool and its arguments


class Person:
    """Accepts whatever is asked, with the defaults of the question."""

    capabilities = ABLE

    async def notify(self, method: str, params: Raw) -> None:
        return

    async def ask(self, method: str, params: Raw) -> Raw:
        asked = msgspec.json.decode(params)
        if method == "elicitation/create":
            properties = asked.get("requestedSchema", {}).get("properties", {})
            content = {name: schema.get("default", VALUES.get(schema.get("type"))) for name, schema in properties.items()}
            return Raw(msgspec.json.encode({"action": "accept", "content": content}))
        if method == "roots/list":
            return Raw(b'{"roots":[]}')
        if method == "sampling/createMessage":
            return Raw(b'{"role":"assistant","content":{"type":"text","text":""},"model":"none"}')
        raise PeerRefused(-32601, "not here")


def wishes(scenario: str, found: Probe, context: Mapping[str, Any]) -> Iterator[Wish]:
    """What a scenario wants called."""
    named = {tool["name"]: tool for tool in found.tools}
    if scenario in ("tools_call", "request-metadata", "http-standard-headers"):
        yield "add_numbers", {"a": 5, "b": 3}
    elif scenario == "json-schema-2020-12-preservation":
        yield "json_schema_echo", {"schema": named["json_schema_2020_12_tool"]["inputSchema"]}
    elif scenario == "http-custom-headers":
        yield from ((one["name"], one.get("arguments") or {}) for one in context.get("toolCalls", ()) if one["name"] in named)
    elif scenario == ROUNDS:
        yield from ((f"test_mrtr_{name}", {}) for name in ("echo_state", "unrelated", "no_state", "no_result_type"))
    elif scenario in ("http-invalid-tool-headers", "sse-retry", "elicitation-sep1034-client-defaults"):
        yield from ((name, _least(tool)) for name, tool in named.items())
    elif scenario.startswith("auth/") and named:
        yield next(iter(named)), {}


def _least(tool: Mapping[str, Any]) -> dict[str, Any]:
    schema = tool["inputSchema"]
    properties = schema.get("properties", {})
    return {name: VALUES.get(properties.get(name, {}).get("type"), "x") for name in schema.get("required", ())}


async def drive(url: str, scenario: str, context: Mapping[str, Any]) -> None:
    """Raises UpstreamFault where the server can't be spoken to; a call that fails is told of and passed over."""
    egress, clock = Egress(["127.0.0.1", "::1", "localhost"]), asyncio.get_running_loop().time
    own = mcp_consents.client(context)
    browser = mcp_consents.Browser(own)
    oauth = mcp_consents.oauth(egress, own, browser, await mcp_consents.vault(context, PERSON))
    tools = ToolServerClient(McpPool(egress, clock, initialize_seconds=DEFAULT_TIMEOUTS.initialize_probe), oauth=oauth)
    upstream = {"auth": mcp_consents.terms(scenario, context)} if scenario.startswith("auth/") else {}

    async def with_consent(act: Callable[[], Awaitable[T]]) -> T:
        """As often as the person is asked, and no more than a few times."""
        for _ in range(CONSENTS_MAX):
            try:
                return await act()
            except ConsentNeeded:
                await browser.visit(oauth)
        return await act()

    try:
        looking = call(url, {}, upstream, clock() + SECONDS)
        approach = (
            credential_request_of(looking)
            if "account" not in upstream.get("auth", {})
            else credential_request_of(looking)._replace(grant=None)
        )
        found = await with_consent(partial(tools.probe, "kit", url, {}, approach))
        for number, (tool, arguments) in enumerate(wishes(scenario, found, context)):
            made = call(url, found.facts, upstream, clock() + SECONDS), request(found, number, tool, arguments, scenario == ROUNDS)
            try:
                answer = await with_consent(partial(tools.call, *made))
                print(tool, answer.result[:500])
            except (UpstreamFault, McpRefused) as error:
                print(tool, repr(error), getattr(error, "detail", ""))
    finally:
        await tools.close()
        await egress.close()


def request(found: Probe, number: int, tool: str, arguments: dict[str, Any], asked: bool) -> McpRequest:
    """As from a client of the server's era; of the older one where questions come, which are then answered on the way."""
    schema: dict[str, Any] = next((one["inputSchema"] for one in found.tools if one["name"] == tool), {})
    headers = headers_for(tuple(find_header_arguments(schema)), arguments)
    params, modern = {"name": tool, "arguments": arguments}, found.era == "modern" and not asked
    if modern:
        said = {"protocolVersion": MODERN, "clientCapabilities": ABLE, "clientInfo": {"name": "driver", "version": "1"}}
        params["_meta"] = {f"{META_PREFIX}{name}": value for name, value in said.items()}
    raw = envelope_of(number, "tools/call", params)
    session = "" if modern else "driver"
    return McpRequest(number, tool, raw, msgspec.json.encode(params), modern, headers=headers, peer=Person(), client_session=session)


def call(url: str, facts: Mapping[str, str], upstream: Mapping[str, Any], deadline: float) -> Call:
    act = Act("callTool", "Tool", "kit.any", "tool:kit.any", "kit")
    decision = Decision("d_1", 0, True, "allowed", PERSON.owner_key, (), (), act)
    target = Registration(
        tenant="default",
        name="kit",
        family=Family.SERVER,
        kind="mcp",
        status=RegistrationStatus.ACTIVE,
        url=url,
        owner="operator",
        ceiling=("*",),
        delegation="none",
        upstream=upstream,
        facts=facts,
        client_id="",
        card=None,
        card_text="[]",
        tools=(),
        card_hash="",
        created=0,
        updated=0,
    )
    return Call(Grant(decision, Delegation(PERSON, ALL_PERMISSIONS, 2e9)), target, deadline, {})


if __name__ == "__main__":
    asyncio.run(drive(sys.argv[-1], os.environ["MCP_CONFORMANCE_SCENARIO"], json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")))
