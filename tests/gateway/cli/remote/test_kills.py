"""kill: what an operator stops, sees and lifts from the terminal."""

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

KILL = {"id": "k_1", "kind": "agent", "name": "sales", "reason": "it leaks", "by": "default|idp|ada", "at": "2027-01-15T08:00:00.000Z"}


def test_an_agent_is_stopped_with_a_reason_and_it_is_said_how_to_lift_that(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/kill", {**KILL, "ended": 3}, 201)
    ran = interlock("kill", "agent", "sales", "--reason", "it leaks")
    assert ran.code == 0 and "ended here: 3" in ran.out and "--lift" in ran.err
    assert api.asked[-1].body == {"kind": "agent", "name": "sales", "reason": "it leaks"}
    assert interlock("kill", "agent", "sales", "--json").json["ended"] == 3


def test_a_kill_is_lifted_by_what_it_stopped(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/kill", {**KILL, "lifted": True})
    assert "is not stopped any more" in interlock("kill", "agent", "sales", "--lift").out
    assert api.asked[-1].body == {"kind": "agent", "name": "sales", "lift": True}


def test_what_is_stopped_is_listed(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/kill", {"items": [KILL], "next": None})
    shown = interlock("kill", "list").out
    assert "sales" in shown and "it leaks" in shown and "ada" in shown
    assert interlock("kill", "list", "--json").json["items"] == [KILL]


def test_whom_to_stop_has_to_be_said(interlock: CommandLine, api: GatewayApi) -> None:
    assert interlock("kill", "agent").code == 2
    assert interlock("kill", "planet", "earth").code == 2
    assert not api.asked
