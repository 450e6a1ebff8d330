"""agent and server: the registry from the command line."""

import json
from pathlib import Path

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.commands.conftest import CommandLine

AGENT = {"name": "sales", "status": "active", "kind": "a2a", "url": "http://sales.example", "skills": [{"id": "quote"}, {"id": "order"}]}
SERVER = {"name": "inventory", "status": "pending", "era": "modern", "tools": 3, "url": "http://inventory.example/mcp"}


def test_an_address_is_registered_as_url_with_what_was_given(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/agents", {**AGENT, "client_id": "c_1", "client_secret": "s3cret"}, 201)
    ran = interlock("agent", "add", "http://sales.example", "--name", "sales", "--ceiling", "tool:inventory.*", "--ceiling", "agent:a")
    assert ran.code == 0
    assert api.asked[0].body == {"url": "http://sales.example", "name": "sales", "ceiling": ["tool:inventory.*", "agent:a"]}
    assert "s3cret" in ran.out
    assert "this once" in ran.err


def test_a_file_is_registered_as_card(interlock: CommandLine, api: GatewayApi, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"name": "Sales"}))
    api.on("POST /api/agents", {**AGENT, "status": "pending"}, 201)
    ran = interlock("agent", "add", "card.json")
    assert api.asked[0].body == {"card": {"name": "Sales"}}
    assert "interlock agent approve sales" in ran.err


def test_a_file_that_is_no_json_is_wrong_usage(interlock: CommandLine, api: GatewayApi, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("{")
    assert interlock("agent", "add", "card.json").code == 2
    assert api.asked == []


def test_the_list_is_a_table_and_all_of_its_pages(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/agents", {"items": [AGENT], "next": "2"})
    api.on("GET /api/agents?cursor=2", {"items": [{**AGENT, "name": "support"}], "next": None})
    assert [agent["name"] for agent in interlock("agent", "list", "--json").json["items"]] == ["sales", "support"]
    shown = interlock("agent", "list").out
    assert "quote, order" in shown
    assert "support" in shown


def test_an_empty_list_says_what_to_do_on_stderr_only(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/agents", {"items": [], "next": None})
    ran = interlock("agent", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "interlock agent add" in ran.err


def test_json_is_the_only_thing_on_stdout(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/agents/sales", AGENT)
    api.on("POST /api/agents/sales/approve", AGENT)
    api.on("DELETE /api/agents/sales", status=204)
    assert interlock("agent", "show", "sales", "--json").json == AGENT
    assert interlock("agent", "approve", "sales", "--json").json == AGENT
    assert interlock("agent", "rm", "sales", "--json").json == {"name": "sales", "removed": True}


def test_a_secret_is_renewed(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/agents/sales/secret", {"name": "sales", "client_id": "c_1", "client_secret": "s3cret"})
    assert "s3cret" in interlock("agent", "secret", "sales").out
    assert interlock("agent", "secret", "sales", "--json").json["client_secret"] == "s3cret"


def test_a_strangers_text_can_not_drive_the_terminal(interlock: CommandLine, api: GatewayApi) -> None:
    evil = "evil\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe"
    api.on("GET /api/agents/sales", {**AGENT, "url": evil})
    shown = interlock("agent", "show", "sales")
    raw = interlock("agent", "show", "sales", "--json")
    for mark in "\x1b\x07\x9b\u202e":
        assert mark not in shown.out + raw.out
    assert raw.json["url"] == evil


def test_a_server_is_registered_and_waits_for_approval(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/servers", SERVER, 201)
    ran = interlock("server", "add", "inventory", "http://inventory.example/mcp")
    assert api.asked[0].body == {"name": "inventory", "url": "http://inventory.example/mcp"}
    assert "modern" in ran.out
    assert "interlock server approve inventory" in ran.err


def test_servers_are_listed_shown_approved_and_removed(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/servers", {"items": [SERVER], "next": None})
    api.on("GET /api/servers/inventory", SERVER)
    api.on("POST /api/servers/inventory/approve", {**SERVER, "status": "active"})
    api.on("DELETE /api/servers/inventory", status=204)
    assert "inventory" in interlock("server", "list").out
    assert "pending" in interlock("server", "show", "inventory").out
    assert "active" in interlock("server", "approve", "inventory").out
    assert interlock("server", "rm", "inventory").code == 0
