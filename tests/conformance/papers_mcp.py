"""The MCP results on paper: lines for the screen, a part of build/conformance.json, a part of docs/conformance.md."""

from collections.abc import Iterable, Sequence
from typing import Any

from tests.conformance.report import FAIL, PASS, SKIPPED
from tests.conformance.report_mcp import Conformity, Scenario

SIDES = {"server": "the gateway as a server", "client": "the gateway as a client"}
MARKS = {PASS: "yes", FAIL: "**no**", SKIPPED: "skipped"}
INTRODUCTION = """## MCP

The kit is `@modelcontextprotocol/conformance` 0.2.0-alpha.12, run by npx, for both revisions that it supports.

**The gateway as a server.** A gateway with default settings registers the everything-server of the official Python SDK. It is
`examples/servers/everything-server` of `modelcontextprotocol/python-sdk`, checked out in `build/mcp-python-sdk` or the folder in
`MCP_PYTHON_SDK`. The kit sees `/mcp/everything` of the gateway, with authentication and policies on. A shim adds a bearer token to each
request and changes nothing else, including `Host` and `Origin`. The everything-server lacks two tools that the kit calls,
`test_streaming_elicitation` and `test_logging_tool`. `tests/conformance/everything.py` adds them. The scenarios about tasks use the A2A
agent of `tests/conformance/jobs_agent.py`. A virtual server offers its skills under the names that the kit calls.

**The gateway as a client.** The kit is the server. `tests/conformance/mcp_driver.py` makes the calls of each scenario with the code
that calls upstream servers, for a person who consents to what authorization servers ask.

A scenario passes if none of its checks failed and at least one check passed. The kit also passes scenarios that check nothing. This
page shows them as skipped. Extensions, and scenarios that were added after the release of a revision, are run and listed, but never
counted. As a client, the gateway does not use DPoP, so the two DPoP extensions fail.

Two warnings are intended behaviour. When the everything-server adds a tool or a prompt, the gateway's lists do not change, because a
new definition is withheld until an operator approves it.
"""


def document(found: Iterable[Conformity]) -> dict[str, Any]:
    """Of build/conformance.json: the members `mcp` and `mcp_client`, by revision."""
    sides: dict[str, dict[str, Any]] = {"server": {}, "client": {}}
    for one in found:
        sides[one.leg][one.revision] = _figures(one.required, "required") | {"not_scored": _figures(one.others, "scenarios")}
    return {"mcp": sides["server"], "mcp_client": sides["client"]}


def _figures(scenarios: Sequence[Scenario], total: str) -> dict[str, Any]:
    by = {status: [one.name for one in scenarios if one.status == status] for status in (PASS, FAIL, SKIPPED)}
    return {total: len(scenarios), "passed": len(by[PASS]), "failed": by[FAIL], "skipped": by[SKIPPED]}


def table(found: Iterable[Conformity]) -> str:
    """For the screen."""
    lines = []
    for one in found:
        lines.append(f"MCP {one.revision} {one.leg:<7}{_counts(one)}")
        for scenario in (*one.required, *one.others):
            if scenario.status != PASS:
                lines.append(f"{_outcome(scenario)} {scenario.name}: {_why(scenario)[:300]}")
        lines.append("")
    return "\n".join(lines)


def _outcome(scenario: Scenario) -> str:
    word = "SKIPPED" if scenario.status == SKIPPED else "FAILED"
    return f"{word} ({scenario.reason})" if scenario.reason else word


def _counts(one: Conformity) -> str:
    good = [sum(scenario.status == PASS for scenario in many) for many in (one.required, one.others)]
    skipped = sum(scenario.status == SKIPPED for scenario in one.scenarios)
    return f"{good[0]}/{len(one.required)} required, {good[1]}/{len(one.others)} others" + (f", {skipped} skipped" if skipped else "")


def _why(scenario: Scenario) -> str:
    if not scenario.checks:
        return "not run"
    return "; ".join(dict.fromkeys(check.why or check.id for check in scenario.bad)) or "nothing was tried"


def page(found: Iterable[Conformity]) -> str:
    """Of docs/conformance.md."""
    parts = [INTRODUCTION]
    for one in sorted(found, key=lambda each: each.leg, reverse=True):
        heading = [f"### {one.revision}, {SIDES[one.leg]}", "", f"{_counts(one)}.", ""]
        rows = [_row(scenario) for scenario in (*one.required, *one.others)]
        parts.append("\n".join([*heading, "| scenario | | checks | passes |", "|---|---|---|---|", *rows, "", *_warnings(one)]))
    return "\n".join(parts)


def _warnings(one: Conformity) -> list[str]:
    """What the kit recommends and does not count."""
    rows = [f"| {scenario.name} | {check.why or check.id} |" for scenario in one.scenarios for check in scenario.checks if check.warns]
    return ["Warnings:", "", "| scenario | the kit's words |", "|---|---|", *rows, ""] if rows else []


def _row(scenario: Scenario) -> str:
    tried = scenario.good + len(scenario.bad)
    return f"| {scenario.name} | {scenario.reason or 'required'} | {scenario.good}/{tried} | {MARKS[scenario.status]} |"
