"""The configurations of docs/clients.md: files have the shape that their client documents and reach the gateway, programs run."""

import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.bench.processes import BenchFailure
from tests.fakes.house import House, house
from tests.house.source import ROOT
from tests.vendors.clients.runs import CLIENTS, GUIDE, Client, asked

TEXT = GUIDE.read_text()
FILES = {name: json.loads(text) for name, text in re.findall(r"<!-- (\S+ (?:sign-in|token)) -->\n```json\n(.*?)```", TEXT, re.DOTALL)}
PROGRAMS = dict(re.findall(r"<!-- from (\S+) -->\n```python\n(.*?)```", TEXT, re.DOTALL))
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
REMOTE = {
    "type": "object",
    "required": ["type", "url"],
    "properties": {"type": {"const": "http"}, "url": {"type": "string"}, "headers": STRINGS},
    "additionalProperties": False,
}
INPUT = {
    "type": "object",
    "required": ["type", "id", "description"],
    "properties": {
        "type": {"const": "promptString"},
        "id": {"type": "string"},
        "description": {"type": "string"},
        "password": {"type": "boolean"},
    },
    "additionalProperties": False,
}
SHAPES = {  # as the documents of the clients have it for servers over HTTP
    "claude-code": {
        "required": ["mcpServers"],
        "properties": {"mcpServers": {"additionalProperties": REMOTE}},
        "additionalProperties": False,
    },
    "cursor": {
        "required": ["mcpServers"],
        "properties": {
            "mcpServers": {
                "additionalProperties": {
                    "required": ["url"],
                    "properties": {"url": {"type": "string"}, "headers": STRINGS},
                    "additionalProperties": False,
                }
            }
        },
        "additionalProperties": False,
    },
    "vscode": {
        "required": ["servers"],
        "properties": {"servers": {"additionalProperties": REMOTE}, "inputs": {"type": "array", "items": INPUT}},
        "additionalProperties": False,
    },
}
VARIABLES = {"claude-code": "${INTERLOCK_TOKEN}", "cursor": "${env:INTERLOCK_TOKEN}", "vscode": "${input:interlock-token}"}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path / "home", f"sqlite:///{tmp_path / 'i.db'}") as built:
        await built.server("inventory", "check_stock")
        yield built


def servers_of(document: dict[str, Any]) -> dict[str, Any]:
    return dict(document.get("mcpServers") or document["servers"])


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_shape_that_its_client_documents(name: str) -> None:
    assert len(FILES) == 6
    client = name.partition(" ")[0]
    jsonschema.validate(FILES[name], {"type": "object", **SHAPES[client]})
    assert servers_of(FILES[name])["interlock"]["url"] == "http://127.0.0.1:8080/mcp"


@pytest.mark.parametrize("client", SHAPES)
def test_a_file_with_a_mistake_is_found(client: str) -> None:
    wrong = {"servers" if client != "vscode" else "mcpServers": {}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, {"type": "object", **SHAPES[client]})


@pytest.mark.parametrize("client", SHAPES)
async def test_what_a_file_sends_lists_the_tools_of_the_person(client: str, home: House) -> None:
    (server,) = servers_of(FILES[f"{client} token"]).values()
    assert VARIABLES[client] in server["headers"]["Authorization"]
    sent = {name.lower(): value.replace(VARIABLES[client], home.token("alice")) for name, value in server["headers"].items()}
    path = server["url"].removeprefix("http://127.0.0.1:8080")
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    answer = await home.http.post(path, json=body, headers={**sent, "accept": "application/json, text/event-stream"})
    assert "inventory_check_stock" in answer.text
    refused = await home.http.post(path, json=body, headers={**sent, "authorization": "Bearer ", "accept": "application/json"})
    assert refused.status_code == 401 and "resource_metadata" in refused.headers["www-authenticate"]  # where a sign-in begins


def test_the_guide_quotes_the_programs_word_by_word() -> None:
    assert len(PROGRAMS) == len(CLIENTS) - 1
    assert [path for path, text in PROGRAMS.items() if text != (ROOT / path).read_text()] == []


class Played(Client):
    """A client that runs one line of Python."""

    is_installed = True

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.name]


@pytest.mark.parametrize(
    ("line", "problem"), [("import sys; sys.exit('no model')", "ended with 1: no model"), ("print('available: 12')", "called []")]
)
async def test_a_client_that_fails_or_makes_up_the_answer_is_found(line: str, problem: str) -> None:
    (row,) = await asked([Played(line)])
    assert row.why.startswith(problem)


async def test_a_client_whose_answer_is_the_tools_passes() -> None:
    call = (
        "import os, json, urllib.request as u; "
        "meta = {'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {}}; "
        "params = {'name': 'inventory_check_stock', 'arguments': {'sku': 'SKU-7'}, '_meta': meta}; "
        "body = json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': 'tools/call', 'params': params}); "
        "headers = {'Authorization': 'Bearer ' + os.environ['INTERLOCK_TOKEN'], 'Content-Type': 'application/json', "
        "'Accept': 'application/json, text/event-stream', 'MCP-Protocol-Version': '2026-07-28', 'Mcp-Method': 'tools/call', "
        "'Mcp-Name': 'inventory_check_stock'}; "
        "print(u.urlopen(u.Request(os.environ['INTERLOCK_URL'] + '/mcp', body.encode(), headers)).read().decode())"
    )
    (row,) = await asked([Played(call)])
    assert row.why == ""


async def test_a_client_that_is_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(BenchFailure, match="make test-vendors"):
        await asked([Client("nothing")])
