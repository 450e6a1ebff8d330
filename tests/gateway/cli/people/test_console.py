"""console: the link that opens the console."""

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

LINK = {"url": "http://127.0.0.1:8080/console/sign-in?link=x", "seconds": 300}


def test_the_link_alone_is_printed_and_the_note_says_how_long_it_is_good(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/console/links", LINK)
    shown = interlock("console")
    assert (shown.out.strip(), shown.code) == (LINK["url"], 0)
    assert "5 minutes" in shown.err
    assert interlock("console", "--json").json == LINK
