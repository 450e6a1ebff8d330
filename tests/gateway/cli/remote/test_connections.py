"""connection: what a person sees of the accounts that they connected."""

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

ITEM = {
    "id": "k_1",
    "names": ["crm"],
    "resource": "https://crm.example/mcp",
    "issuer": "https://as.example",
    "client_id": "us",
    "scopes": ["a"],
    "since": "2027-01-15T08:00:00.000Z",
    "expires": None,
    "renews": True,
}


def test_accounts_are_listed_with_what_they_are_for(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/connections", {"items": [ITEM, {**ITEM, "id": "k_2", "names": []}], "next": None})
    shown = interlock("connection", "list").out
    assert "crm" in shown and "https://crm.example/mcp" in shown and "https://as.example" in shown
    assert [item["id"] for item in interlock("connection", "list", "--json").json["items"]] == ["k_1", "k_2"]


def test_an_account_is_forgotten_by_its_id(interlock: CommandLine, api: GatewayApi) -> None:
    said = {"id": "k_1", "removed": True, "revoked": "not-offered"}
    api.on("DELETE /api/connections/k_1", said)
    assert interlock("connection", "rm", "k_1").code == 0
    assert interlock("connection", "rm", "k_1", "--json").json == said
    assert interlock("connection", "rm", "k_2").code == 1
