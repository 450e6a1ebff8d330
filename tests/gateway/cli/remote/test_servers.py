"""server: the client registration is deleted, and prices are set, and the operator learns what follows."""

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine


def test_the_registration_for_a_server_is_deleted(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("DELETE /api/servers/crm/registration", status=204)
    shown = interlock("server", "register-anew", "crm")
    assert (shown.code, shown.out.strip()) == (0, "the next consent for crm registers the gateway again")
    assert [(asked.method, asked.path) for asked in api.asked] == [("DELETE", "/api/servers/crm/registration")]
    assert interlock("server", "register-anew", "crm", "--json").json == {"name": "crm", "registration": None}


def test_the_registration_for_an_unknown_server_is_an_error(interlock: CommandLine, api: GatewayApi) -> None:
    shown = interlock("server", "register-anew", "none")
    assert (shown.code, shown.out) == (1, "") and "There is no such thing." in shown.err


def test_a_price_of_a_tool_that_is_not_there_is_warned_of(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("PATCH /api/servers/crm", {"name": "crm", "tools": 1, "tool_names": ["search"], "prices": {"*": "0.01", "serch": "1.00"}})
    warned = interlock("server", "set", "crm", "--price", "0.01", "--price", "serch=1")
    assert warned.code == 0 and "crm has no tool serch now" in warned.err
    assert interlock("server", "set", "crm", "--price", "search=1", "--price", "0.01").err == ""
