"""Agents use the board over MCP with the asker's rights. Values carry author and sensitivity, and reading them marks the transaction."""

from pathlib import Path

import pytest

from policies.delegation.history import read_totals
from tests.fakes.board import KEY, BoardHome, board_home

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def test_an_agent_reads_and_writes_with_the_rights_of_its_person(board: BoardHome) -> None:
    sales = await board.agent("sales")
    written, read, foreign = await sales.asked(
        "ann",
        ("set", {"key": KEY, "value": "open"}),
        ("get", {"key": KEY}),
        ("get", {"key": "customer/43/status"}),
    )
    assert (written["version"], read["value"], read["source"]["agent"]) == (1, "open", "sales")
    assert read["source"]["principal"].endswith("|ann") and read["source"]["task_id"]
    assert (foreign["error"]["reason_id"], foreign["error"]["missing"]) == (
        "user-lacks-permission",
        ["state:read:customer/43/status (user)"],
    )
    refused = (await sales.asked("rita", ("set", {"key": KEY, "value": "closed", "version": 1})))[0]
    assert refused["error"]["reason_id"] == "user-lacks-permission"
    assert (await board.value(KEY))["value"] == "open"


@sqlite_only
async def test_the_ceiling_of_an_agent_bounds_what_it_reads(board: BoardHome) -> None:
    narrow = await board.agent("narrow", ceiling=("tool:*", "state:read:customer/42/status"))
    narrow.scope = "tool:* state:read:customer/42/status"
    await board.put("customer/42/owner", "ann")
    await board.put(KEY, "open")
    seen, hidden, written = await narrow.asked(
        "ann", ("get", {"key": KEY}), ("get", {"key": "customer/42/owner"}), ("set", {"key": KEY, "value": 1, "version": 1})
    )
    assert seen["value"] == "open"
    assert hidden["error"]["missing"] == ["state:read:customer/42/owner (token)"]
    assert written["error"]["missing"] == [f"state:write:{KEY} (token)"]


@sqlite_only
async def test_tools_list_patch_and_tell_the_history(board: BoardHome) -> None:
    token = board.home.token("ann")
    await board.call(token, "set", key=KEY, value={"a": 1}, ttl=1000)
    stale = await board.call(token, "patch", key=KEY, patch={"b": 2})
    assert stale["error"]["reason_id"] == "version-required"
    assert (await board.call(token, "patch", key=KEY, patch={"b": 2}, version=1))["version"] == 2
    listed = await board.call(token, "list", prefix="customer/42", values=True)
    assert listed["items"][0]["value"] == {"a": 1, "b": 2} and "instruction" in listed["notice"]
    assert [each["version"] for each in (await board.call(token, "history", key=KEY))["items"]] == [2, 1]
    wrong = await board.call(token, "get", key=KEY, more=1)
    assert wrong["error"]["reason_id"] == "bad-params"


@sqlite_only
async def test_a_key_is_a_resource_that_unpermitted_people_cannot_tell_from_none(board: BoardHome) -> None:
    await board.put(KEY, "open")
    uri = f"state://{KEY}"

    async def read(user: str, key_uri: str) -> object:
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "resources/read", "mcp-name": key_uri}
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
        params = {"uri": key_uri, "_meta": meta}
        return (await board.home.rpc("/mcp/state", board.home.token(user), "resources/read", params, **headers)).json()

    found = await read("rita", uri)
    assert isinstance(found, dict) and '"value":"open"' in found["result"]["contents"][0]["text"]
    unknown, unpermitted = await read("rita", "state://customer/42/none"), await read("rita", "state://customer/43/status")
    assert isinstance(unknown, dict) and isinstance(unpermitted, dict)
    for each in (unknown, unpermitted):
        each["error"]["data"].pop("uri")
    assert unknown["error"] == unpermitted["error"]


async def test_reading_raises_the_sensitivity_of_the_transaction_and_of_what_it_writes(board: BoardHome) -> None:
    sales = await board.agent("sales")
    await board.ask("PUT", f"/{KEY}?sensitivity=2", body="secret")
    before, _, after = await sales.asked(
        "ann",
        ("set", {"key": "customer/42/before", "value": 1}),
        ("get", {"key": KEY}),
        ("set", {"key": "customer/42/after", "value": 1}),
    )
    assert (before["sensitivity"], after["sensitivity"]) == (0, 2)
    task = (await board.value("customer/42/after"))["source"]["task_id"]
    txn = (await board.home.http.get(f"/api/tasks/{task}/trace", headers=board._operator)).json()["txn"]
    history = await board.home.gateway.database.read(lambda connection: read_totals(connection, "default", txn))
    assert history.taint == 2


@sqlite_only
async def test_an_agent_without_clearance_reads_no_sensitive_value(board: BoardHome) -> None:
    agent = await board.agent("public", clearance=1)
    await board.ask("PUT", f"/{KEY}?sensitivity=2", body="secret")
    for call in (("get", {"key": KEY}), ("history", {"key": KEY}), ("list", {"prefix": "customer/42", "values": True})):
        refused = (await agent.asked("ann", call))[0]
        assert refused["error"]["reason_id"] == "sensitivity-exceeds-clearance" and "secret" not in str(refused)
    shown = (await agent.asked("ann", ("list", {"prefix": "customer/42"})))[0]["items"]
    assert [each["key"] for each in shown] == [KEY] and "value" not in shown[0]


@sqlite_only
async def test_a_patch_keeps_the_sensitivity_of_what_it_leaves(board: BoardHome) -> None:
    await board.ask("PUT", f"/{KEY}?sensitivity=2", body={"a": "secret"})
    assert (await board.ask("PATCH", f"/{KEY}", body={"b": 1}, if_match="*")).json()["sensitivity"] == 2
    assert (await board.put(KEY, "new", if_match="*")).json()["sensitivity"] == 0


@pytest.mark.parametrize(
    ("settings", "offered"),
    [
        ({}, True),
        ({"roles": {"operator": ["*"]}}, False),
        ({"roles": {"operator": ["*"]}, "state": {"server": "on"}}, True),
        ({"roles": {"operator": ["*"]}, "state": {"prefixes": [{"prefix": "a"}]}}, True),
        ({"state": {"server": "off"}}, False),
    ],
)
@sqlite_only
async def test_the_server_is_offered_where_the_board_is_used(
    tmp_path: Path, database_url: str, settings: dict[str, object], offered: bool
) -> None:
    async with board_home(tmp_path, database_url, **settings) as opened:
        names = [entry.name for entry in opened.home.gateway.registry.list("default")]
        assert ("state" in names) is offered
