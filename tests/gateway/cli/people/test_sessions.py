"""session: what a person sees and ends of the sessions that clients have in their name."""

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

ITEM = {
    "id": "s_1",
    "client_id": "dyn_1",
    "client": "Cursor",
    "resource": "https://gw.example/mcp",
    "scope": ["agent:*", "tool:*"],
    "provider": "corp",
    "since": "2027-01-15T08:00:00.000Z",
    "renewed": "2027-01-15T08:00:00.000Z",
    "until": "2027-02-15T08:00:00.000Z",
    "current": False,
}
OWN = {**ITEM, "id": "s_2", "client_id": "interlock-cli", "client": "the interlock command line", "current": True}
LISTED = {"items": [OWN, ITEM, {**ITEM, "id": "s_3", "current": True}], "next": None}


def test_sessions_are_listed_with_their_client(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/sessions", LISTED)
    shown = interlock("session", "list").out
    assert "Cursor" in shown and "dyn_1" in shown and "agent:* tool:*" in shown and "s_2 (this one)" in shown
    assert [item["id"] for item in interlock("session", "list", "--json").json["items"]] == ["s_2", "s_1", "s_3"]


def test_a_session_is_ended_by_its_id(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("DELETE /api/sessions/s_1", {"id": "s_1", "ended": True})
    assert interlock("session", "rm", "s_1").out == "s_1 has ended\n"
    assert interlock("session", "rm", "s_1", "--json").json == {"items": [{"id": "s_1", "ended": True}]}
    assert interlock("session", "rm", "s_9").code == 1


def test_all_sessions_of_a_client_end_and_the_callers_own_last(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/sessions", LISTED)
    for each in ("s_1", "s_3"):
        api.on(f"DELETE /api/sessions/{each}", {"id": each, "ended": True})
    assert interlock("session", "rm", "--client", "dyn_1").out == "s_1 has ended\ns_3 has ended\n"
    unknown = interlock("session", "rm", "--client", "dyn_9")
    assert unknown.code == 1 and "interlock session list" in unknown.err


def test_a_session_or_a_client_has_to_be_named(interlock: CommandLine) -> None:
    for arguments in ((), ("s_1", "--client", "dyn_1")):
        ran = interlock("session", "rm", *arguments)
        assert ran.code == 2 and "name a session" in ran.err
