"""What a client wants to hear, and what it can be asked."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from adapters.mcp_client.wire.messages import LOG_LEVELS, META_PREFIX
from gateway.ingress.mcp_server.protocol.client_wishes import missing_capabilities, parse_wishes
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope


def raw(document: Any) -> Raw:
    return Raw(msgspec.json.encode(document))


@pytest.mark.parametrize("token", ["p", 0, 7, ""])
def test_progress_is_for_whoever_gave_its_token(token: Any) -> None:
    hears = parse_wishes({"_meta": {"progressToken": token}}, None)
    assert hears.wants("notifications/progress", raw({"progressToken": token, "progress": 1}))
    for other in ("q", 8, str(token) + "x", str(token) if isinstance(token, int) else None):
        assert not hears.wants("notifications/progress", raw({"progressToken": other, "progress": 1}))
    assert not hears.wants("notifications/message", raw({"level": "emergency", "data": 1}))
    assert not parse_wishes({}, None).wants("notifications/progress", raw({"progressToken": token, "progress": 1}))


@pytest.mark.parametrize("asked", LOG_LEVELS)
def test_logs_are_at_or_above_the_level(asked: str) -> None:
    heard = [
        level
        for level in LOG_LEVELS
        if parse_wishes({"_meta": {META_PREFIX + "logLevel": asked}}, None).wants("notifications/message", raw({"level": level}))
    ]
    assert heard == list(LOG_LEVELS[LOG_LEVELS.index(asked) :])
    assert parse_wishes({}, asked).wants("notifications/message", raw({"level": asked}))  # a session's
    assert parse_wishes({}, "").wants("notifications/message", raw({"level": "debug"}))
    assert not parse_wishes({}, None).wants("notifications/message", raw({"level": "emergency"}))


def test_what_else_a_server_says_is_not_passed_on() -> None:
    hears = parse_wishes({"_meta": {"progressToken": 1}}, "")
    for method in ("notifications/tools/list_changed", "notifications/cancelled", "sampling/createMessage", "x"):
        assert not hears.wants(method, raw({}))
    assert hears.wants("notifications/elicitation/complete", raw({"elicitationId": "e"}))
    assert not hears.wants("notifications/progress", raw([]))


@pytest.mark.parametrize(
    "meta", [{"progressToken": True}, {"progressToken": []}, {META_PREFIX + "logLevel": "loud"}, {META_PREFIX + "logLevel": 5}]
)
def test_what_is_no_token_or_level_is_refused(meta: Any) -> None:
    with pytest.raises(BadEnvelope) as refused:
        parse_wishes({"_meta": meta}, None)
    assert refused.value.code == -32602


@pytest.mark.parametrize(
    ("capabilities", "method", "params", "missing"),
    [
        ({}, "elicitation/create", {}, {"elicitation": {}}),
        ({"elicitation": {}}, "elicitation/create", {"mode": "form"}, {}),
        ({"elicitation": {}}, "elicitation/create", {"mode": "url"}, {"elicitation": {"url": {}}}),
        ({"elicitation": {"url": {}}}, "elicitation/create", {}, {"elicitation": {"form": {}}}),
        ({"elicitation": {"url": {}, "form": {}}}, "elicitation/create", {"mode": "url"}, {}),
        ({"sampling": {}}, "sampling/createMessage", {"tools": []}, {"sampling": {"tools": {}}}),
        ({"sampling": {"tools": {}}}, "sampling/createMessage", {"tools": []}, {}),
        ({"sampling": 5}, "sampling/createMessage", {}, {"sampling": {}}),
        ({"roots": {}}, "roots/list", {}, {}),
        ({"elicitation": {}, "sampling": {}, "roots": {}}, "tools/call", {}, {"experimental": {"tools/call": {}}}),
    ],
)
def test_a_client_is_asked_what_it_declared_and_nothing_else(capabilities: Any, method: str, params: Any, missing: Any) -> None:
    assert missing_capabilities(capabilities, method, raw(params)) == missing
