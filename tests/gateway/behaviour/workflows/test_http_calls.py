"""`call: http` in a whole gateway: a request to a registered HTTP API, ruled on like every call of its tools."""

from typing import Any

from fastapi import FastAPI

from tests.fakes.house import House
from tests.fakes.mcp_servers import serving
from tests.fakes.workflows import Workflows, output_of


def shop() -> FastAPI:
    app = FastAPI(title="shop")

    @app.get("/stock/{sku}", operation_id="stock")
    def stock(sku: str, where: str = "") -> dict[str, Any]:
        return {"sku": sku, "where": where}

    @app.get("/names", operation_id="names")
    def names() -> list[str]:
        return ["a", "b"]

    return app


BODY = """
do:
- stock:
    call: http
    with: {method: get, endpoint: {uri: '%s/stock/{sku}'}, query: {where: '${ .place }'}}
    export: {as: .}
- names:
    call: http
    with: {method: get, endpoint: 'interlock://tools/shop/names'}
- both: {set: {stock: '${ $context }', names: '${ . }'}}
"""


async def test_requests_reach_a_registered_api(open_home: House) -> None:
    workflows = Workflows(open_home)
    async with serving(shop()) as url:
        added = await workflows.desk.post("/api/servers", name="shop", openapi=f"{url}/openapi.json")
        assert added.status_code == 201, added.text
        await open_home.gateway.database.refresh_epochs()
        problems = await workflows.refused("shopping", BODY % "https://elsewhere.example")
        assert [each["path"] for each in problems] == ["/do/0/stock/with/endpoint"]
        uploaded = await workflows.add("shopping", BODY % url)
        assert uploaded["ceiling"] == ["tool:shop.names", "tool:shop.stock"]
        given = {"sku": "A 1?where=x&y", "place": "Berlin"}
        task = await workflows.run("shopping", given, user="carol")
        assert output_of(task) == {"stock": {"sku": "A 1?where=x&y", "where": "Berlin"}, "names": ["a", "b"]}
        refused = await workflows.run("shopping", given, user="alice")  # whose role has the tools of another server alone
        assert "Authorization Error at /do/0/stock" in refused["status"]["message"]["parts"][0]["text"]
