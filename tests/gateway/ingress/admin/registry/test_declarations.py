"""/api/declarations, dry runs and labels: what `interlock apply` needs of the gateway."""

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.a2a_agents import serving
from tests.fakes.card_host import CardHost
from tests.fakes.house import House, house
from tests.fakes.reception import Reception

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
FLOW = "document: {dsl: 1.0.3, namespace: n, name: flow, version: 1.0.0}\ndo:\n- a: {set: {b: 1}}\n"


@pytest.fixture
async def desk(home: House) -> Reception:
    return Reception(home)


async def register(desk: Reception, **more: object) -> str:
    """Registers the agent sales; returns its version."""
    async with serving(CardHost()) as url:
        made = await desk.post("/api/agents", name="sales", url=url, **more)
    assert made.status_code == 201, made.text
    return str(made.json()["updated"])


async def test_declarations_are_for_operators(desk: Reception) -> None:
    assert (await desk.ask("GET", "/api/declarations", "bob")).status_code == 403
    assert (await desk.ask("GET", "/api/declarations", "")).status_code == 401


async def test_a_declaration_has_no_secret(desk: Reception) -> None:
    await register(desk, upstream={"headers": {"X-Key": "very-secret"}}, label="shop")
    shown = await desk.ask("GET", "/api/declarations?name=sales")
    (item,) = shown.json()["items"]
    assert "very-secret" not in shown.text
    assert (item["kind"], item["label"], item["configured"]) == ("Agent", "shop", False)
    assert item["spec"]["upstream"] == {"headers": {"X-Key": "stored:"}}


async def test_declarations_come_in_pages_and_by_label(desk: Reception) -> None:
    for name, label in (("a", "shop"), ("b", ""), ("c", "shop")):
        await desk.post("/api/virtual-servers", name=name, tools=["crm.*"], label=label)
    first = (await desk.ask("GET", "/api/declarations?limit=2")).json()
    rest = (await desk.ask("GET", f"/api/declarations?limit=2&cursor={first['next']}")).json()
    assert [each["name"] for each in (*first["items"], *rest["items"])] == ["a", "b", "c"] and rest["next"] is None
    labelled = (await desk.ask("GET", "/api/declarations?label=shop")).json()["items"]
    assert [each["name"] for each in labelled] == ["a", "c"]


async def test_a_dry_run_names_what_would_change_and_changes_nothing(desk: Reception) -> None:
    version = await register(desk, upstream={"headers": {"X-Key": "old"}}, price="0.02")
    patch = {"rank": 2, "upstream": {"headers": {"X-Key": "new"}}, "price": "0.020", "clearance": 3, "url": "http://127.0.0.1:9/"}
    answer = await desk.ask("PATCH", "/api/agents/sales?dry_run=true", body=patch)
    assert answer.json() == {"name": "sales", "changes": ["rank", "upstream.headers.X-Key", "url"]}
    same = await desk.ask("PATCH", "/api/agents/sales?dry_run=true", body={"upstream": {"headers": {"X-Key": "stored:"}}})
    assert same.json()["changes"] == []
    assert (await desk.ask("GET", "/api/agents/sales")).json()["updated"] == version


async def test_a_dry_run_refuses_what_the_change_would_refuse(desk: Reception) -> None:
    await register(desk)
    bodies: list[dict[str, Any]] = [{"rank": 5000}, {"ceiling": ["nonsense"]}, {"upstream": {"nonsense": 1}}, {"label": "With Spaces"}]
    for body in bodies:
        refused = await desk.ask("PATCH", "/api/agents/sales?dry_run=true", body=body)
        assert refused.status_code == 422 and refused.json()["field"].startswith(min(body)), refused.text
    stale = await desk.ask("PATCH", "/api/agents/sales?dry_run=true", body={"rank": 1}, match='"2020-01-01T00:00:00.000Z"')
    assert stale.status_code == 412
    assert (await desk.ask("PATCH", "/api/agents/sales?dry_run=true", "bob", {"rank": 1})).status_code in (403, 404)


async def test_a_stored_secret_is_kept_by_a_change_that_names_it(desk: Reception) -> None:
    await register(desk, upstream={"headers": {"X-Key": "kept"}})
    patch = {"upstream": {"headers": {"X-Key": "stored:"}, "timeout": 9}}
    assert (await desk.ask("PATCH", "/api/agents/sales", body=patch)).status_code == 200
    assert desk.home.gateway.registry.find("default", "sales").upstream == {"headers": {"X-Key": "kept"}, "timeout": 9}


async def test_a_registration_with_a_stored_secret_is_refused(desk: Reception) -> None:
    refused = await desk.post("/api/agents", name="sales", url="http://127.0.0.1:9/", upstream={"headers": {"X-Key": "stored:"}})
    assert (refused.status_code, refused.json()["field"]) == (422, "upstream.headers.X-Key")


async def test_only_operators_set_a_label(desk: Reception) -> None:
    async with serving(CardHost()) as url:
        refused = await desk.post("/api/agents", "alice", name="sales", url=url, label="shop")
    assert (refused.status_code, refused.json()["detail"]) == (422, "label is for operators to set")


async def test_a_deletion_may_name_the_version(desk: Reception) -> None:
    await register(desk)
    await desk.post("/api/virtual-servers", name="front", tools=["crm.*"])
    await desk.post("/api/workflows", document=FLOW)
    versions = {each["name"]: each["version"] for each in (await desk.ask("GET", "/api/declarations")).json()["items"]}
    for path, name in (("agents", "sales"), ("virtual-servers", "front"), ("workflows", "flow")):
        assert (await desk.ask("DELETE", f"/api/{path}/{name}", match='"2020-01-01T00:00:00.000Z"')).status_code == 412
        assert (await desk.ask("DELETE", f"/api/{path}/{name}", match=f'"{versions[name]}"')).status_code == 204


async def test_a_new_text_of_a_workflow_may_name_the_version(desk: Reception) -> None:
    assert (await desk.ask("POST", "/api/workflows", body={"document": FLOW}, match="*")).status_code == 412
    made = await desk.post("/api/workflows", document=FLOW, label="shop")
    assert made.status_code == 201
    changed = FLOW.replace("b: 1", "b: 2")
    stale = await desk.ask("POST", "/api/workflows", body={"document": changed}, match='"2020-01-01T00:00:00.000Z"')
    fresh = await desk.ask("POST", "/api/workflows", body={"document": changed}, match=f'"{made.json()["updated"]}"')
    assert (stale.status_code, fresh.status_code) == (412, 201)
    (item,) = (await desk.ask("GET", "/api/declarations?name=flow")).json()["items"]
    assert (item["label"], item["spec"]) == ("shop", {"document": changed, "paused": None})


async def test_the_audit_records_the_label(desk: Reception) -> None:
    await register(desk, label="shop")
    records = (await desk.ask("GET", "/api/audit?kind=registry")).json()["items"]
    assert "shop" in str(records), records


async def test_what_the_file_and_the_folder_set_is_configured(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "flow.yaml").write_text(FLOW)
    settings: dict[str, Any] = {"virtual": [{"name": "front", "tools": ["crm.*"]}], "workflows": str(tmp_path / "flows")}
    async with house(tmp_path / "home", database_url, **settings) as home:
        await home.gateway.configured_entries.start()
        await Reception(home).post("/api/virtual-servers", name="mine", tools=["crm.*"])
        items = (await Reception(home).ask("GET", "/api/declarations")).json()["items"]
    assert {each["name"]: each["configured"] for each in items} == {"front": True, "flow": True, "mine": False}
