"""/api/servers: reference MCP servers of both eras are offered."""

import pytest

from tests.fakes.house import House
from tests.fakes.mcp_servers import mcp_server
from tests.fakes.reception import Reception


@pytest.fixture
async def desk(home: House) -> Reception:
    return Reception(home)


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_server_is_registered_with_what_it_offers(desk: Reception, era: str) -> None:
    async with mcp_server(era) as (url, _gate):  # type: ignore[arg-type]  # both are eras
        answer = await desk.post("/api/servers", name="crm", url=url)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["name"], made["status"], made["era"], made["url"]) == ("crm", "active", era, url)
    shown = (await desk.ask("GET", "/api/servers/crm")).json()
    assert made["tools"] == len(shown["tool_names"]) > 0
    assert (await desk.ask("GET", "/api/servers")).json()["items"][0]["tools"] == made["tools"]
    assert (await desk.ask("DELETE", "/api/servers/crm")).status_code == 204


async def test_what_others_register_waits(desk: Reception) -> None:
    async with mcp_server("modern") as (url, _gate):
        assert (await desk.post("/api/servers", "alice", name="crm", url=url)).json()["status"] == "pending"
    assert (await desk.ask("GET", "/api/servers/crm", "bob")).status_code == 404
    assert (await desk.approve("/api/servers/crm")).json()["status"] == "active"


async def test_a_caller_sees_only_servers_and_tools_that_they_may_call(desk: Reception) -> None:
    await desk.home.server("inventory", "check", "reserve")
    await desk.home.server("payroll", "raise")
    seen = {}
    for user in ("alice", "bob", "nora"):
        items = (await desk.ask("GET", "/api/servers", user)).json()["items"]
        seen[user] = {item["name"]: (await desk.ask("GET", f"/api/servers/{item['name']}", user)).json()["tool_names"] for item in items}
    assert seen == {"alice": {"inventory": ["check", "reserve"]}, "bob": {"inventory": ["check"]}, "nora": {}}


@pytest.mark.parametrize("member", ["command", "args", "env"])
async def test_a_command_is_never_taken_from_a_request(desk: Reception, member: str) -> None:  # attack REG-07
    answer = await desk.post("/api/servers", name="crm", url="http://127.0.0.1:9/mcp", **{member: "/bin/sh"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{member} is accepted in the configuration file only")
    answer = await desk.post("/api/servers", name="crm", url="stdio:")
    assert (answer.status_code, answer.json()["reason_id"]) == (400, "egress-refused")


async def test_only_operators_set_terms(desk: Reception) -> None:  # attack REG-09
    answer = await desk.post("/api/servers", "alice", name="crm", url="http://127.0.0.1:9/mcp", ceiling=["*"])
    assert (answer.status_code, answer.json()["detail"]) == (422, "ceiling is for operators to set")


async def test_an_agent_is_no_server(desk: Reception) -> None:
    await desk.home.registered("sales", "http://127.0.0.1:9/")
    assert (await desk.ask("GET", "/api/servers/sales")).status_code == 404
    assert (await desk.ask("DELETE", "/api/servers/sales")).status_code == 404


async def test_operators_alone_say_how_sensitive_a_server_is_and_what_it_may_be_told(desk: Reception) -> None:
    labels = {"sensitivity": 2, "clearance": 1, "sensitivities": {"add": 3}, "model_free": ["add"]}
    async with mcp_server("modern") as (url, _gate):
        for name, label in labels.items():
            refused = await desk.post("/api/servers", "alice", name="crm", url=url, **{name: label})
            assert (refused.status_code, refused.json()["detail"].partition(" ")[0]) == (422, name)
        made = await desk.post("/api/servers", name="crm", url=url, **labels)
    assert made.status_code == 201, made.text
    assert {name: made.json()[name] for name in labels} == labels
    changed = (await desk.ask("PATCH", "/api/servers/crm", body={"sensitivity": 0, "clearance": 3})).json()
    assert (changed["sensitivity"], changed["clearance"], changed["sensitivities"]) == (0, 3, {"add": 3})
    assert (await desk.ask("PATCH", "/api/servers/crm", body={"model_free": []})).json()["model_free"] == []
    for wrong in ({"sensitivity": 4}, {"clearance": -1}, {"sensitivities": {"add": 9}}, {"model_free": ["add", "add"]}):
        assert (await desk.ask("PATCH", "/api/servers/crm", body=wrong)).status_code == 422
