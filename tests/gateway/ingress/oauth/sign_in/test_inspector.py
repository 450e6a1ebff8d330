"""MCP Inspector's command line signs a person in: it shows the address of a page, and waits for the browser to come back."""

import json
from pathlib import Path

import pytest

from tests.fakes.house import House
from tests.fakes.ports import free_port
from tests.fakes.real_clients import ClientRun, run_client, typescript_clients
from tests.fakes.sign_in import parameters_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
LAUNCHER = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


async def run_inspector(home: House, folder: Path, *arguments: str) -> ClientRun:
    """Runs one command. Inspector keeps its tokens below `folder`."""
    callback = f"http://127.0.0.1:{free_port()}/oauth/callback"
    command = ("node", LAUNCHER, "--cli", f"{home.url}/mcp", "--callback-url", callback, "--format", "json", *arguments)
    environment = {"HOME": str(folder), "MCP_INSPECTOR_SECRET_STORE": "file", "NODE_NO_WARNINGS": "1"}
    environment |= {"MCP_AUTO_OPEN_ENABLED": "true", "BROWSER": "true"}  # the browser that it opens itself does nothing
    return await run_client(home, typescript_clients("MCP Inspector"), *command, environment=environment)


async def test_inspector_signs_a_person_in_once(open_home: House, tmp_path: Path) -> None:
    await open_home.server("inventory", "check")
    listed = await run_inspector(open_home, tmp_path, "--method", "tools/list")
    assert listed.code == 0, listed.said
    assert [tool["name"] for tool in json.loads(listed.result)["result"]["tools"]] == ["inventory_check"]
    (page,) = listed.pages
    assert parameters_of(page)["resource"] == f"{open_home.url}/mcp"
    called = await run_inspector(open_home, tmp_path, "--method", "tools/call", "--tool-name", "inventory_check")
    assert (called.code, called.pages) == (0, []), f"{called.said}: the stored tokens serve the next command"
    assert json.loads(called.result)["result"]["content"] == [{"type": "text", "text": "{}"}]
