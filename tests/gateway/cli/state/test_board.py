"""state: values as people set and read them from the command line."""

from typing import Any

import pytest

from tests.fakes.gateway_api import Answer, GatewayApi, stream
from tests.gateway.cli.conftest import CommandLine

KEY = "customer/42/status"
SOURCE = {"principal": "default|dev|ann", "agent": "sales", "chain": ["sales"], "untrusted": True, "task_id": "t_1", "decision_id": "d_1"}
AT = "2027-01-15T08:00:00.000Z"
VALUE: dict[str, Any] = {
    "key": KEY,
    "version": 3,
    "value": "open",
    "sensitivity": 1,
    "source": SOURCE,
    "created": AT,
    "updated": AT,
    "expires": None,
}
CHANGE = {"id": "7", "kind": "set", "key": KEY, "version": 3, "value": "open", "sensitivity": 1, "source": SOURCE, "at": AT}


def test_a_value_is_shown_with_its_version_and_author(interlock: CommandLine, api: GatewayApi) -> None:
    api.on(f"GET /api/state/{KEY}", VALUE)
    shown = interlock("state", "get", KEY).out
    assert "open" in shown and "3" in shown and "sales for ann" in shown and "t_1" in shown
    assert interlock("state", "get", KEY, "--json").json == VALUE


@pytest.mark.parametrize(
    ("value", "sent"), [("open", "open"), ('"open"', "open"), ("3", 3), ("null", None), ('{"a": 1}', {"a": 1}), ("not json", "not json")]
)
def test_a_value_is_json_or_a_plain_text(interlock: CommandLine, api: GatewayApi, value: str, sent: object) -> None:
    api.on(f"PUT /api/state/{KEY}", VALUE, 201)
    assert "version 3" in interlock("state", "set", KEY, value).out
    assert api.asked[0].body == sent


def test_a_change_names_the_version_that_it_replaces(interlock: CommandLine, api: GatewayApi) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        api.on(f"{method} /api/state/{KEY}", VALUE)
    api.on(f"PUT /api/state/{KEY}?ttl=60&sensitivity=2", VALUE)
    interlock("state", "set", KEY, "x", "--version", "3")
    interlock("state", "set", KEY, "x", "--version", "0", "--ttl", "60", "--sensitivity", "2")
    interlock("state", "patch", KEY, '{"a": null}', "--version", "*")
    interlock("state", "rm", KEY, "--version", "3")
    found = [(asked.method, asked.headers.get("if-match"), asked.headers.get("if-none-match")) for asked in api.asked]
    assert found == [("PUT", '"3"', None), ("PUT", None, "*"), ("PATCH", "*", None), ("DELETE", '"3"', None)]
    assert api.asked[2].body == {"a": None}


@pytest.mark.parametrize("arguments", [("set", KEY, "{x"), ("set", KEY, "@none.json"), ("rm", KEY, "--version", "x"), ("get", "")])
def test_a_wrong_command_ends_before_anything_is_asked(interlock: CommandLine, api: GatewayApi, arguments: tuple[str, ...]) -> None:
    assert interlock("state", *arguments).code == 2
    assert api.asked == []


def test_a_stale_version_says_what_to_do(interlock: CommandLine, api: GatewayApi) -> None:
    api.on(f"PUT /api/state/{KEY}", {"status": 412, "detail": "The key is at version 4.", "reason_id": "stale-version"}, 412)
    ran = interlock("state", "set", KEY, "x", "--version", "3")
    assert ran.code == 1 and "version 4" in ran.err and "interlock state get" in ran.err


def test_keys_and_history_are_listed(interlock: CommandLine, api: GatewayApi) -> None:
    api.on("GET /api/state?prefix=customer%2F42&values=false", {"items": [{**VALUE, "value": "hidden"}], "next": None})
    api.on("GET /api/state?prefix=customer%2F42&values=true", {"items": [VALUE], "next": None})
    api.on(f"GET /api/state/{KEY}?history=", {"items": [CHANGE, {**CHANGE, "version": 2, "kind": "expired", "source": None}], "next": None})
    assert "hidden" not in interlock("state", "list", "customer/42").out
    assert "open" in interlock("state", "list", "customer/42", "--values").out
    shown = interlock("state", "history", KEY).out
    assert "expired" in shown and "sales for ann" in shown
    assert len(interlock("state", "history", KEY, "--json").json["items"]) == 2


def test_changes_are_watched_as_they_come(interlock: CommandLine, api: GatewayApi) -> None:
    events = stream({"id": "6", "kind": "begin"}, CHANGE, {"id": "8", "kind": "gap"})
    api.answers["GET /api/state?prefix=customer/42"] = [events, Answer({"detail": "ended", "status": 403, "reason_id": "denied"}, 403)]
    ran = interlock("state", "watch", "customer/42")
    assert ran.code == 3 and "begin" not in ran.out and "sales for ann" in ran.out and "deleted for their age" in ran.out
    assert api.asked[1].headers["last-event-id"] == "3"


def test_held_values_are_listed_and_decided_on(interlock: CommandLine, api: GatewayApi) -> None:
    kept = {"id": "hv_1", "key": KEY, "state": "pending", "base": 1, "problem": "$ breaks the rule `enum`", "value": "x", "source": SOURCE}
    api.on("GET /api/state-held", {"items": [kept], "next": None})
    api.on("POST /api/state-held/hv_1/decision", {"id": "hv_1", "state": "accepted"})
    api.on(f"PUT /api/state/{KEY}", {"held": kept}, 202)
    assert "enum" in interlock("state", "held").out
    assert "accepted" in interlock("state", "accept", "hv_1").out and api.asked[-1].body == {"decision": "accept"}
    interlock("state", "drop", "hv_1")
    assert api.asked[-1].body == {"decision": "drop"}
    assert "hv_1" in interlock("state", "set", KEY, "x").out
