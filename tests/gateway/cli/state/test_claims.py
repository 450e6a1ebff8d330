"""claim: what the command line says of claims."""

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine


def test_an_empty_list_of_a_subject_says_that_claims_may_be_hidden(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/claims?subject=customer%3A42", {"items": [], "next": None})
    api.on("GET /api/claims", {"items": [], "next": None})
    assert "customer:42 that you may see" in interlock("claim", "list", "--subject", "customer:42").err
    assert "interlock claim take" in interlock("claim", "list").err
