"""The table of errors: documented row by row, and silent about what callers may not know."""

import json
import re
from pathlib import Path

import pytest

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.messages import HEADER_MISMATCH, INVALID_PARAMS, UNSUPPORTED_VERSION, McpRefused
from gateway.ingress.http import errors
from gateway.ingress.http.error_bodies import a2a_details, mcp_data, problem
from gateway.ingress.http.errors import TABLE, UNEXPECTED, UnknownMethod, told
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
    table = {(row.reason, row.status, row.code) for row in (*TABLE.values(), UNEXPECTED)}
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
    ours = {row.code for row in TABLE.values() if -32099 <= row.code <= -32000 and not row.a2a}
    assert ours <= set(range(-32019, -32009))
    assert not ours & set(RESERVED)
    assert {row.code for row in TABLE.values() if row.a2a} <= set(range(-32009, -32000))


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
    for row in TABLE.values():
        assert not row.a2a or known[row.a2a] == row.code


def test_what_an_upstream_said_stays_inside() -> None:
    for error in (UpstreamFault("The agent is late", "its secret"), McpRefused(-32000, "its secret"), RuntimeError("its secret")):
        said = told(error)
        for shown in (said.detail, a2a_details(said), mcp_data(said), problem(said)):
            assert "secret" not in json.dumps(shown)


def test_a_token_is_not_told_why_it_is_refused() -> None:
    reasons = ("missing", "malformed", "signature", "grant-ended", "internal")
    said = {told(TokenRefused(reason)).detail for reason in reasons}
    assert said == {TABLE[TokenRefused].says}


@pytest.mark.parametrize(("reason", "word"), [("expired", "expired"), ("audience", "another resource")])
def test_a_genuine_token_is_told_what_its_holder_can_read_in_it(reason: str, word: str) -> None:
    assert word in told(TokenRefused(reason)).detail


def test_each_error_has_one_status_for_each_protocol_over_http() -> None:
    """A2A in JSON-RPC and MCP of either era; on /api and in HTTP+JSON it is the row's own."""
    kinds = [kind for kind, row in TABLE.items() if row.acts]
    assert {TABLE[kind].status for kind in kinds} == {400, 401, 403, 404, 408, 413, 421, 429, 431, 503}
    acting = {401, 408, 413, 421, 429, 431, 500, 503}
    assert all(row.acts for row in (*TABLE.values(), UNEXPECTED) if (row.status in acting and not row.a2a) or row.code == -32011)
    unknown, method, broken = told(UnknownName("x")), told(UnknownMethod()), told(UpstreamFault("late"))
    assert [said.jsonrpc_status for said in (unknown, method, broken)] == [404, 200, 200]
    assert [said.mcp_status(initialized=False) for said in (unknown, method, broken)] == [404, 404, 200]
    assert [said.mcp_status(initialized=True) for said in (unknown, method, broken)] == [404, 200, 200]


def test_an_exception_that_nobody_expected_is_a_500_and_no_other_is() -> None:
    assert told(KeyError("x")).row is UNEXPECTED
    others = {row.a2a for row in TABLE.values() if row.status >= 500 and row.status not in (502, 503)}
    assert others == {"INVALID_AGENT_RESPONSE"}  # for which A2A 1.0.1 s5.4 wants it
    assert errors.UNEXPECTED.status == 500
