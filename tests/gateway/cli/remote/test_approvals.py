"""approval: what somebody who decides sees, and what they say."""

from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

HEAD = {
    "id": "ap_1",
    "state": "pending",
    "prompt": "Refunds above 500 need a second person",
    "action": "callTool",
    "resource": "crm.refund",
    "requester": {"principal": "default|https://idp|alice", "chain": ["sales"]},
    "task_id": "t_1",
    "reason": "",
    "created": "2027-01-15T08:00:00.000Z",
    "expires": "2027-01-15T09:00:00.000Z",
}
WHOLE = {
    **HEAD,
    "arguments": {"amount": 600},
    "arguments_sha256": "a" * 64,
    "definition_sha256": "b" * 64,
    "description": "Pays back",
    "policies": ["large"],
    "needed": 2,
    "votes": [{"by": "default|https://idp|carol", "verdict": "approve", "reason": "fine", "at": "2027-01-15T08:01:00.000Z"}],
}


def test_what_waits_is_listed_with_who_asks(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/approvals?state=pending", {"items": [HEAD], "next": None})
    api.on("GET /api/approvals", {"items": [], "next": None})
    shown = interlock("approval", "list").out
    assert "alice > sales" in shown and "crm.refund" in shown
    assert interlock("approval", "list", "--json").json == {"items": [HEAD]}
    assert interlock("approval", "list", "--state", "all", "--json").json == {"items": []}


def test_nothing_hides_in_what_is_shown(interlock: CommandLine, api: GatewayApi) -> None:  # attack INJ-01
    api.on(
        "GET /api/approvals/ap_1",
        {**WHOLE, "arguments": {"to": "ann\u200be\u2060@fair\u061c.example", "city": "Zürich", "tag": "\U000e0041"}},
    )
    shown = "".join(interlock("approval", "show", "ap_1").out.split())
    assert "ann\\u200be\\u2060@fair\\u061c.example" in shown and "Zürich" in shown and "\\udb40\\udc41" in shown
    assert not {"\u200b", "\u2060", "\u061c", "\U000e0041"} & set(shown)


def test_one_is_shown_to_the_letter(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/approvals/ap_1", WHOLE)
    shown = interlock("approval", "show", "ap_1").out
    assert all(text in shown for text in ('{"amount": 600}', "a" * 64, "Pays back", "approve by carol: fine"))
    assert interlock("approval", "show", "ap_1", "--json").json == WHOLE
    assert interlock("approval", "show", "ap_2").code == 1


def test_a_decision_is_sent_with_its_reason(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/approvals/ap_1/decision", WHOLE)
    done = interlock("approval", "approve", "ap_1", "--reason", "fine")
    assert done.code == 0 and "1 of 2" in done.err
    assert interlock("approval", "deny", "ap_1", "--json").json == WHOLE
    assert [asked.body for asked in api.asked] == [{"decision": "approve", "reason": "fine"}, {"decision": "deny", "reason": ""}]


def test_labels_of_servers_and_agents_are_set(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("PATCH /api/servers/crm", {"name": "crm", "status": "active"})
    api.on("PATCH /api/agents/sales", {"name": "sales", "status": "active"})
    assert interlock("server", "set", "crm", "--sensitivity", "2", "--tool-sensitivity", "list=0", "--model-free", "list").code == 0
    assert interlock("agent", "set", "sales", "--clearance", "1").code == 0
    assert [asked.body for asked in api.asked] == [
        {"sensitivity": 2, "sensitivities": {"list": 0}, "model_free": ["list"]},
        {"clearance": 1},
    ]
    assert interlock("server", "set", "crm").code == 2
    assert interlock("server", "set", "crm", "--tool-sensitivity", "list").code == 2


def test_whoever_approves_hears_what_comes_of_it(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("POST /api/approvals/ap_1/decision", {**WHOLE, "state": "approved"})
    done = interlock("approval", "approve", "ap_1")
    assert done.out == "ap_1 is approved\n" and "alice > sales may now repeat exactly this request once, until " in done.err
