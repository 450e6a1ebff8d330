"""The TypeScript SDKs of MCP sign a person in by themselves, as the clients do that are built with them."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import House, open_house
from tests.fakes.real_clients import typescript_clients
from tests.fakes.sign_in import Browser, link_in, parameters_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SECONDS = 60.0
CHECK = "tool:inventory.check"


class SdkClient:
    """A client in a process of node, and the browser of its person."""

    def __init__(self, process: asyncio.subprocess.Process, home: House) -> None:
        self._process = process
        self.browser = Browser(home)
        self.asked: list[dict[str, str]] = []

    async def do(self, what: str, **more: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), SECONDS)
        return dict(json.loads(line))

    async def sign_in(self, answer: dict[str, Any], user: str = "alice") -> None:
        """The person consents on the page that an answer names."""
        assert "UnauthorizedError" in answer["error"] and answer["page"], answer
        self.asked.append(parameters_of(answer["page"]))
        consented = await self.browser.consent(await self.browser.http.get(answer["page"]), user=user)
        finished = await self.do("finish", answer=link_in(consented))
        assert finished["result"] == "signed in", finished


@asynccontextmanager
async def sdk_client(home: House, version: str, **metadata: Any) -> AsyncIterator[SdkClient]:
    folder = typescript_clients("the TypeScript SDK")
    command = ("node", "sdk_client.mjs", version, f"{home.url}/mcp", json.dumps(metadata))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=pipe, stdout=pipe, env={**os.environ, "NODE_NO_WARNINGS": "1"}
    )
    try:
        yield SdkClient(process, home)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_sdk_signs_a_person_in_and_refreshes(open_home: House, version: str) -> None:
    await open_home.server("inventory", "check")
    async with sdk_client(open_home, version) as client:
        await client.sign_in(await client.do("connect"))
        (asked,) = client.asked
        assert (asked["resource"], asked["code_challenge_method"]) == (f"{open_home.url}/mcp", "S256")
        assert "tool:*" in asked["scope"] and asked["client_id"].startswith("dyn_")
        assert (await client.do("connect"))["result"] == "connected"
        assert "inventory_check" in (await client.do("tools"))["result"]
        before = (await client.do("tokens"))["result"]
        await client.do("spoil")
        called = await client.do("call", name="inventory_check")
        assert "result" in called and not called["page"], called
        after = (await client.do("tokens"))["result"]
        assert after["refresh_token"] != before["refresh_token"], "a 401 made the SDK refresh, and the person saw nothing"


async def test_the_sdk_asks_for_more_when_a_tool_needs_it(tmp_path: Path, database_url: str) -> None:
    settings: dict[str, Any] = {"sign_in": {"scopes": [CHECK], "development": "on"}}
    async with open_house(tmp_path / "home", database_url, **settings) as home, sdk_client(home, "v2") as client:
        await home.server("inventory", "check", "reserve")
        await client.sign_in(await client.do("connect"))
        assert (await client.do("connect"))["result"] == "connected"
        refused = await client.do("call", name="inventory_reserve")
        await client.sign_in(refused)
        assert set(client.asked[-1]["scope"].split()) >= {CHECK, "tool:inventory.reserve"}
        assert (await client.do("connect"))["result"] == "connected"
        assert "result" in await client.do("call", name="inventory_reserve")


async def test_the_sdk_binds_its_tokens_to_a_key(open_home: House) -> None:
    await open_home.server("inventory", "check")
    async with sdk_client(open_home, "v2", dpop=True) as client:
        await client.sign_in(await client.do("connect"))
        assert (await client.do("connect"))["result"] == "connected"
        assert (await client.do("tokens"))["result"]["token_type"] == "DPoP"
        assert "inventory_check" in (await client.do("tools"))["result"]
