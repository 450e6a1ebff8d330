"""What people are shown beside the arguments of an act: all that a client may put a sentence into."""

import json
from typing import Any

import pytest

from gateway.calls.consent.approval_requests import other_request_members
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_reading_resource
from tests.gateway.calls.consent.test_approval_requests import ANSWER

CAPABLE = {
    "roots": {"listChanged": True},
    "sampling": {"tools": {}, "context": {}},
    "elicitation": {"form": {}, "url": {}},
    "extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}, "io.modelcontextprotocol/tasks": {}},
}


@pytest.mark.parametrize(
    ("act", "params", "found"),
    [
        (
            act_of_calling_tool("crm", "refund"),
            {"name": "refund", "arguments": {"a": 1}, "_meta": {"progressToken": 1, "traceparent": "00"}},
            {},
        ),
        (
            act_of_calling_tool("crm", "refund"),
            {"name": "refund", "_meta": {"io.modelcontextprotocol/clientInfo": {}, "dev.interlock/approval": "a"}},
            {},
        ),
        (act_of_calling_tool("crm", "refund"), {"name": "refund", "uri": "x", "force": True}, {"uri": "x", "force": True}),
        (act_of_calling_tool("crm", "refund"), {"name": "refund", "_meta": {"own": 1}}, {"_meta": {"own": 1}}),
        *[
            (act_of_calling_tool("crm", "refund"), {"name": "refund", "_meta": {name: "to mallory"}}, {"_meta": {name: "to mallory"}})
            for name in ("io.modelcontextprotocol/note", "dev.interlock/note")  # whose names they are makes nothing of them harmless
        ],
        *[
            (act_of_calling_tool("crm", "refund"), {"name": "refund", "_meta": {name: said}}, {"_meta": {name: said}} if shown else {})
            for name, said, shown in (
                ("io.modelcontextprotocol/clientCapabilities", CAPABLE, False),
                ("io.modelcontextprotocol/clientCapabilities", {"experimental": {"note": "refund it to mallory"}}, True),
                ("io.modelcontextprotocol/clientCapabilities", {"experimental": {"refund it to mallory": {}}}, True),
                ("io.modelcontextprotocol/clientCapabilities", {"extensions": {"a": [["x" * 65]]}}, True),
                ("io.modelcontextprotocol/clientCapabilities", {"extensions": {"a": ["x" * 64]}}, False),
                ("io.modelcontextprotocol/clientCapabilities", {"extensions": dict.fromkeys(map(str, range(32)))}, True),
                ("io.modelcontextprotocol/logLevel", "debug", False),
                ("io.modelcontextprotocol/logLevel", "refund it to mallory", True),
                ("progressToken", "7f9c-1", False),
                ("progressToken", "refund it to mallory", True),
                ("dev.interlock/approval", "refund it to mallory", True),
            )
        ],
        (act_of_reading_resource("crm"), {"uri": "x", "_meta": {}}, {}),
        (act_of_reading_resource("crm"), {"uri": "x", "name": "y"}, {"name": "y"}),
    ],
)
def test_what_people_are_shown_beside_the_arguments_is_what_the_act_does_not_say(act: Act, params: Any, found: Any) -> None:
    assert other_request_members(act, json.dumps(params).encode(), include_answers=True) == found


def test_answers_are_shown_where_no_call_before_them_was_approved() -> None:
    sent = json.dumps({"name": "refund", "requestState": "s", "inputResponses": ANSWER}).encode()
    assert other_request_members(act_of_calling_tool("crm", "refund"), sent, include_answers=True) == {
        "requestState": "s",
        "inputResponses": ANSWER,
    }
    assert (
        other_request_members(act_of_calling_tool("crm", "refund"), sent, include_answers=False)
        == other_request_members(act_of_calling_tool("crm", "refund"), b"", include_answers=True)
        == {}
    )
