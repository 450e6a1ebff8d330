"""server register-anew: the gateway's client registration is deleted, and the operator learns what follows."""

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
