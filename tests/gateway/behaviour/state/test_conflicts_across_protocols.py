"""Support resolves, sales upsells: one declared effect and one rule keep them apart in every version of MCP and A2A, without a workflow."""

from pathlib import Path
from typing import Any

import pytest

from adapters.mcp_client.wire.messages import LEGACY
from tests.fakes import a2a_doors
from tests.fakes.house import CallbackAgent, House
from tests.fakes.mcp_wire import EVENTS, document
from tests.gateway.behaviour.state.test_conflict_rules import open_scene

MODERN = "2026-07-28"
RULE = "sales-waits-48-hours-after-support"


async def send_mail(home: House, version: str, token: str, customer: str) -> Any:
    """The JSON of a call of the tool `send` by a client of this version of MCP."""
    arguments = {"customer_id": customer, "text": "hello"}
    if version == MODERN:
        return (await home.call(token, "/mcp/mail", "send", arguments)).json()
    headers = {"authorization": f"Bearer {token}", "accept": EVENTS, "mcp-protocol-version": version}
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    greeted = await home.http.post("/mcp/mail", json=document("initialize", hello), headers=headers)
    assert greeted.json()["result"]["protocolVersion"] == version
    call = document("tools/call", {"name": "send", "arguments": arguments}, 2)
    return (await home.http.post("/mcp/mail", json=call, headers={**headers, "mcp-session-id": greeted.headers["mcp-session-id"]})).json()


async def register_mailer(home: House, name: str, version: str) -> None:
    """An agent that sends a mail to the customer whom its message names."""

    async def act(token: str, customer: str) -> str:
        hop = await home.exchanged(name, token, "/mcp/mail", "tool:mail.send")
        answer = await send_mail(home, version, hop, customer)
        return str(answer["error"]["message"]) if "error" in answer else "sent"

    await home.agent(CallbackAgent(name, act))


async def ask(home: House, door: str, agent: str, customer: str) -> str:
    """What an agent answers to a client of this version of A2A."""
    params = {"message": a2a_doors.message_of(door, customer)}
    answer = await a2a_doors.ask(home, door, "send", params, agent=agent, user="admin")
    return str(a2a_doors.result(door, answer)["artifacts"][0]["parts"][0]["text"])


@pytest.mark.parametrize("version", [MODERN, *LEGACY])
async def test_sales_waits_after_support_in_every_protocol_version(tmp_path: Path, light_url: str, version: str) -> None:
    async with open_scene(tmp_path, light_url) as home:
        await register_mailer(home, "support", version)
        await register_mailer(home, "sales", version)
        for number, door in enumerate(a2a_doors.DOORS):
            customer, other_door = f"C-{number}", a2a_doors.DOORS[number - 1]
            assert await ask(home, door, "support", customer) == "sent"
            refused = await ask(home, other_door, "sales", customer)
            assert RULE in refused and f"customer:{customer}" in refused
            assert await ask(home, other_door, "sales", f"{customer}-other") == "sent"
