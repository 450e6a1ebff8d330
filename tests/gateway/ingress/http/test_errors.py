"""The table of errors: documented row by row, and silent about what callers may not know."""

import json
import re
from pathlib import Path

import pytest

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.messages import HEADER_MISMATCH, INVALID_PARAMS, UNSUPPORTED_VERSION, McpRefused
from gateway.ingress.http import errors
from gateway.ingress.http.error_bodies import a2a_details, mcp_data, problem
from gateway.ingress.http.errors import ERROR_MAPPINGS, UNEXPECTED_ERROR, UnknownMethod, describe
from gateway.tasks.contracts.skills import ContractBroken
from gateway.tasks.webhooks.configs import TooManyPushConfigs
from policies.tokens.verifier import TokenRefused
from registry.store import UnknownName

DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "errors.md"
LINE = re.compile(r"^\| `([a-z-]+)` \| (\d{3}) \| (-\d{5}) \| (.+) \| (.+) \|$", re.MULTILINE)
IN_THE_LOG = re.compile(r"\| `[a-z_`, ]+` \| (debug|info|warning|error)\b")
MCP_ALONE = {
    ("bad-envelope", 400, INVALID_PARAMS),
    ("unknown-session", 404, -32600),
    ("bad-envelope", 400, HEADER_MISMATCH),
    ("bad-envelope", 400, UNSUPPORTED_VERSION),
}
RESERVED = range(-32099, -32019)  # of the JSON-RPC range for implementations, what MCP 2026-07-28 uses


def test_every_error_is_documented_and_nothing_else() -> None:
    documented = [(reason, int(status), int(code)) for reason, status, code, _, _ in LINE.findall(DOCUMENT.read_text())]
    table = {(row.reason_id, row.status, row.jsonrpc_code) for row in (*ERROR_MAPPINGS.values(), UNEXPECTED_ERROR)}
    assert sorted(set(documented)) == sorted(table | MCP_ALONE)
    assert len(documented) == len(set(documented))


def test_no_line_of_the_document_is_overlooked() -> None:
    rows = [
        line
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith("| `") and not line.startswith("| `/") and not IN_THE_LOG.match(line)
    ]
    assert len(rows) == len(LINE.findall(DOCUMENT.read_text()))


def test_our_own_codes_keep_clear_of_those_of_the_protocols() -> None:
    ours = {row.jsonrpc_code for row in ERROR_MAPPINGS.values() if -32099 <= row.jsonrpc_code <= -32000 and not row.a2a_reason}
    assert ours <= set(range(-32019, -32009))
    assert not ours & set(RESERVED)
    assert {row.jsonrpc_code for row in ERROR_MAPPINGS.values() if row.a2a_reason} <= set(range(-32009, -32000))


def test_a_name_of_an_error_in_a2a_is_one_of_the_specifications() -> None:
    known = {
        "TASK_NOT_FOUND": -32001,
        "TASK_NOT_CANCELABLE": -32002,
        "PUSH_NOTIFICATION_NOT_SUPPORTED": -32003,
        "UNSUPPORTED_OPERATION": -32004,
        "CONTENT_TYPE_NOT_SUPPORTED": -32005,
        "INVALID_AGENT_RESPONSE": -32006,
        "EXTENDED_AGENT_CARD_NOT_CONFIGURED": -32007,
        "EXTENSION_SUPPORT_REQUIRED": -32008,
        "VERSION_NOT_SUPPORTED": -32009,
    }
    for row in ERROR_MAPPINGS.values():
        assert not row.a2a_reason or known[row.a2a_reason] == row.jsonrpc_code


def test_what_an_upstream_said_stays_inside() -> None:
    for error in (UpstreamFault("The agent is late", "its secret"), McpRefused(-32000, "its secret"), RuntimeError("its secret")):
        said = describe(error)
        for shown in (said.detail, a2a_details(said), mcp_data(said), problem(said)):
            assert "secret" not in json.dumps(shown)


def test_a_violation_names_the_whole_path_of_the_field() -> None:
    field = "message.parts[0].data['unit price']"
    details = a2a_details(describe(ContractBroken(field, "breaks the rule `type`")))
    assert details[0]["fieldViolations"] == [{"field": field, "description": "breaks the rule `type`"}]


def test_an_error_of_no_field_has_no_violation() -> None:
    (info,) = a2a_details(describe(TooManyPushConfigs()))
    assert info["reason"] == "TOO_MANY_PUSH_CONFIGS"


def test_a_token_is_not_told_why_it_is_refused() -> None:
    reasons = ("missing", "malformed", "signature", "grant-ended", "internal")
    said = {describe(TokenRefused(reason)).detail for reason in reasons}
    assert said == {ERROR_MAPPINGS[TokenRefused].public_text}


@pytest.mark.parametrize(("reason", "word"), [("expired", "expired"), ("audience", "another resource")])
def test_a_genuine_token_is_told_what_its_holder_can_read_in_it(reason: str, word: str) -> None:
    assert word in describe(TokenRefused(reason)).detail


def test_each_error_has_one_status_for_each_protocol_over_http() -> None:
    """A2A in JSON-RPC and MCP of either era; on /api and in HTTP+JSON it is the row's own."""
    kinds = [kind for kind, row in ERROR_MAPPINGS.items() if row.keeps_http_status]
    assert {ERROR_MAPPINGS[kind].status for kind in kinds} == {400, 401, 403, 404, 408, 413, 415, 421, 429, 431, 503}
    acting = {401, 408, 413, 421, 429, 431, 500, 503}
    assert all(
        row.keeps_http_status
        for row in (*ERROR_MAPPINGS.values(), UNEXPECTED_ERROR)
        if (row.status in acting and not row.a2a_reason) or row.jsonrpc_code == -32011
    )
    unknown, method, broken = describe(UnknownName("x")), describe(UnknownMethod()), describe(UpstreamFault("late"))
    assert [said.jsonrpc_status for said in (unknown, method, broken)] == [404, 200, 200]
    assert [said.mcp_status(is_initialize_era=False) for said in (unknown, method, broken)] == [404, 404, 200]
    assert [said.mcp_status(is_initialize_era=True) for said in (unknown, method, broken)] == [404, 200, 200]


def test_an_exception_that_nobody_expected_is_a_500_and_no_other_is() -> None:
    assert describe(KeyError("x")).mapping is UNEXPECTED_ERROR
    others = {row.a2a_reason for row in ERROR_MAPPINGS.values() if row.status >= 500 and row.status not in (502, 503)}
    assert others == {"INVALID_AGENT_RESPONSE"}  # for which A2A 1.0.1 s5.4 wants it
    assert errors.UNEXPECTED_ERROR.status == 500
