"""Documents against a real gateway with one of everything: applied, applied again, exported, and compared."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.a2a_agents import serving
from tests.fakes.card_host import CardHost
from tests.fakes.cards import card
from tests.fakes.house import House, open_house
from tests.fakes.mcp_servers import mcp_server
from tests.fakes.reception import Reception
from tests.gateway.cli.conftest import CommandLine, Ran

JWK = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig"}
JWK |= {"x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
EFFECTS = {"echo": {"subject": "customer:{arguments.text}", "effect": "contact"}}
FLOW = """\
# A schedule, a call of an agent, and texts that YAML would like to change.
document: {dsl: 1.0.3, namespace: n, name: nightly, version: 1.0.0, metadata: {gateway: {runAs: clerk}}}
schedule: {every: {days: 1}}
do:
- ask: {call: gateway.tool, with: {tool: crm.echo, arguments: {text: hi}}}
- end: {set: {said: "yes:\\\\tno"}}
"""
CALLED = "document: {dsl: 1.0.3, namespace: n, name: small, version: 1.0.0}\ndo:\n- a: {set: {b: 1}}\n"


def documents_for(agent: str, server: str) -> list[dict[str, Any]]:
    terms = {"ceiling": ["tool:crm.*"], "clearance": 2}
    return [
        {
            "kind": "Agent",
            "name": "sales",
            "spec": {
                **terms,
                "url": agent,
                "upstream": {"headers": {"X-Key": "env:SALES_KEY"}, "timeout": 30},
                "delegation": "header",
                "rank": 5,
                "jwks": {"keys": [{**JWK, "kid": "k1"}]},
                "contracts": {"quote": {"input": {"type": "object"}}},
                "context": "summary",
                "price": "0.020",
                "memory": "read",
            },
        },
        {"kind": "Agent", "name": "by-card", "spec": {"card": card(agent, "1.0")}},
        {
            "kind": "Server",
            "name": "crm",
            "spec": {**terms, "url": server, "sensitivity": 1, "sensitivities": {"echo": 2}, "effects": EFFECTS, "prices": {"*": "1.00"}},
        },
        {
            "kind": "VirtualServer",
            "name": "front",
            "spec": {"description": "All: of it", "tools": ["crm.echo", "sales"], "aliases": {"plus": "crm.echo"}, "mode": "search"},
        },
        {"kind": "Workflow", "name": "nightly", "spec": {"document": FLOW, "paused": True}},
        {"kind": "Workflow", "name": "small", "spec": {"document": CALLED}},
    ]


class Desk:
    """A gateway on a socket, its agent and its server, and the command line of an operator."""

    def __init__(self, home: House, folder: Path, host: CardHost, documents: list[dict[str, Any]]) -> None:
        self.home = home
        self.folder = folder
        self.host = host
        self.documents = documents
        self.reception = Reception(home)
        environment = {"INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token("admin"), "COLUMNS": "200", "NO_COLOR": "1"}
        self._type = CommandLine({**environment, "SALES_KEY": "first"})

    def write(self) -> None:
        (self.folder / "all.yaml").write_text(yaml.safe_dump_all(self.documents))

    def spec(self, name: str) -> dict[str, Any]:
        return dict(next(each for each in self.documents if each["name"] == name)["spec"])

    async def type(self, *arguments: str, stdin: str = "", key: str = "first") -> Ran:
        self._type.environment["SALES_KEY"] = key
        return await asyncio.to_thread(self._type, *arguments, stdin=stdin)

    async def versions(self) -> dict[str, str]:
        items = (await self.reception.ask("GET", "/api/declarations?limit=200")).json()["items"]
        return {each["name"]: each["version"] for each in items}


@pytest.fixture
async def desk(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gw").mkdir()
    host = CardHost(skills=[{"id": "quote", "name": "Quote", "description": "Quotes", "tags": ["a"]}])
    async with AsyncExitStack() as stack:
        home = await stack.enter_async_context(
            open_house(tmp_path / "home", database_url, service_principals={"clerk": {"roles": ["member"]}})
        )
        agent = await stack.enter_async_context(serving(host))
        server, _ = await stack.enter_async_context(mcp_server("modern"))
        made = Desk(home, tmp_path / "gw", host, documents_for(agent, server))
        made.write()
        yield made


async def test_applied_again_documents_change_nothing(desk: Desk) -> None:
    first = await desk.type("apply", "-f", "gw")
    assert first.code == 0, first.out + first.err
    before = await desk.versions()
    again = await desk.type("apply", "-f", "gw")
    assert (again.code, again.out) == (0, "nothing to do: 6 objects as declared\n"), again.err
    assert await desk.versions() == before and len(before) == 6


async def test_an_export_is_accepted_and_yields_no_difference(desk: Desk) -> None:
    assert (await desk.type("apply", "-f", "gw")).code == 0
    exported = await desk.type("export")
    assert exported.code == 0 and "first" not in exported.out and "stored:" in exported.out
    (desk.folder.parent / "all.yaml").write_text(exported.out)
    same = await desk.type("diff", "-f", "all.yaml", "--prune")
    assert (same.code, same.out) == (0, "6 unchanged\n"), same.out
    as_json = await desk.type("export", "--json")
    assert (await desk.type("diff", "-f", "-", stdin=as_json.out)).code == 0


@ON_SQLITE
async def test_each_member_of_a_document_is_exported(desk: Desk) -> None:
    assert (await desk.type("apply", "-f", "gw")).code == 0
    exported = {each["name"]: each["spec"] for each in (await desk.type("export", "--json")).json["items"]}
    for declared in desk.documents:
        expected = {**declared["spec"], **({"price": "0.02"} if "price" in declared["spec"] else {})}
        if "upstream" in expected:
            expected["upstream"] = {"headers": {"X-Key": "stored:"}, "timeout": 30}
        found = exported[declared["name"]]
        assert {name: found.get(name) for name in expected} == expected


@ON_SQLITE
async def test_each_change_is_shown_and_made_and_then_gone(desk: Desk) -> None:
    assert (await desk.type("apply", "-f", "gw")).code == 0
    changes = {"sales": {"rank": 6}, "crm": {"sensitivity": 0}, "front": {"tools": ["crm.*"]}, "nightly": {"paused": False}}
    for name, change in changes.items():
        next(each for each in desk.documents if each["name"] == name)["spec"].update(change)
    del next(each for each in desk.documents if each["name"] == "sales")["spec"]["ceiling"]
    desk.write()
    shown = await desk.type("diff", "-f", "gw")
    assert shown.code == 5 and "4 to change, 2 unchanged" in shown.out and 'ceiling: ["tool:crm.*"] → ["*"]' in shown.out
    assert (await desk.type("apply", "-f", "gw")).code == 0
    assert (await desk.type("diff", "-f", "gw")).code == 0
    assert (await desk.reception.ask("GET", "/api/agents/sales")).json()["ceiling"] == ["*"]


@ON_SQLITE
async def test_a_changed_secret_is_noticed_and_never_shown(desk: Desk) -> None:
    assert (await desk.type("apply", "-f", "gw")).code == 0
    shown = await desk.type("diff", "-f", "gw", key="second")
    assert shown.code == 5 and "upstream.headers.X-Key: (secret) → env:SALES_KEY" in shown.out
    assert (await desk.type("apply", "-f", "gw", key="second")).code == 0
    assert (await desk.type("diff", "-f", "gw", key="second")).code == 0
    assert desk.home.gateway.registry.find("default", "sales").upstream["headers"] == {"X-Key": "second"}
    missing = await desk.type("diff", "-f", "gw", key="")
    assert missing.code == 1 and "is the variable SALES_KEY, which is not set" in missing.out


@ON_SQLITE
async def test_apply_approves_no_changed_card(desk: Desk) -> None:
    assert (await desk.type("apply", "-f", "gw")).code == 0
    desk.host.changes["description"] = "Now with another purpose"
    await desk.reception.ask("POST", "/api/agents/sales/refresh")
    again = await desk.type("apply", "-f", "gw")
    assert again.code == 0
    assert (await desk.reception.ask("GET", "/api/agents/sales")).json()["status"] == "quarantined"
    next(each for each in desk.documents if each["name"] == "sales")["spec"].update(url="http://127.0.0.1:9/", rank=9)
    desk.write()
    moved = await desk.type("apply", "-f", "gw")
    assert moved.code == 1 and "can't be changed while sales is quarantined" in moved.err
    assert (await desk.reception.ask("GET", "/api/agents/sales")).json()["status"] == "quarantined"


@ON_SQLITE
async def test_prune_leaves_what_was_registered_by_hand(desk: Desk) -> None:
    await desk.home.registered("by-hand", "http://127.0.0.1:9/")
    assert (await desk.type("apply", "-f", "gw", "--label", "shop")).code == 0
    desk.documents = [each for each in desk.documents if each["kind"] != "Workflow" and each["name"] != "front"]
    desk.write()
    assert (await desk.type("apply", "-f", "gw", "--label", "other", "--prune")).code == 0 and len(await desk.versions()) == 7
    pruned = await desk.type("apply", "-f", "gw", "--label", "shop", "--prune")
    assert pruned.code == 0, pruned.err
    assert sorted(await desk.versions()) == ["by-card", "by-hand", "crm", "sales"]


@ON_SQLITE
async def test_a_member_who_is_no_operator_is_refused(desk: Desk) -> None:
    desk._type.environment["INTERLOCK_TOKEN"] = desk.home.token("bob")
    for command in (["apply", "-f", "gw"], ["diff", "-f", "gw"], ["export"]):
        assert (await desk.type(*command)).code == 3
