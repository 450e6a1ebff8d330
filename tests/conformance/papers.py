"""The results on paper: the table on the screen, build/conformance.json, docs/conformance.md."""

from collections.abc import Iterable, Sequence
from typing import Any

from tests.conformance import papers_mcp
from tests.conformance.report import BINDINGS, FAIL, PASS, SKIPPED, UNTESTED, WAIVED, Profile, Ran, Requirement
from tests.conformance.report_mcp import Conformity
from tests.requirements import REQUIREMENTS

NAMES = {"agent_card": "agent card", "jsonrpc": "JSON-RPC", "http_json": "HTTP+JSON", "grpc": "gRPC"}
COLUMNS = (PASS, FAIL, WAIVED, SKIPPED)
UNTESTED_AREAS = {
    "AUTH-INTASK": "authorization inside a task",
    "AUTH-SCOPE": "what a caller may see",
    "AUTH-SERVER": "authentication of every request",
    "AUTH-TLS": "encryption in transit",
    "BIND-EQUIV": "the same behaviour over every binding",
    "CARD-SIGN": "signatures of agent cards",
    "GRPC-SVC": "gRPC over TLS",
    "VER-CLIENT": "versions that a client requests",
    "VER-SERVER": "versions that a server offers",
}
INTRODUCTION = """# Conformance

These are the results of the public A2A and MCP conformance kits for agents and servers **behind** the gateway, with authentication on,
and of the public kit for workflows. `make conformance` runs the kits and writes this page and `build/conformance.json`. The kits are not
part of this repository.

## A2A

A gateway with default settings registers the example agent of `tests/conformance/agent.py`, which uses the official SDK. The kits see
only the gateway. They send no tokens and no gRPC tenant, so a loopback shim adds both. For 1.0 the shim changes nothing else.

The kits are the branches `1.0-dev` and `0.3.x` of `a2aproject/a2a-tck`. Check them out in `build/a2a-tck` and `build/a2a-tck-0.3`, or
set `A2A_TCK` and `A2A_TCK_03` to their folders. Sections are those of the A2A specification. Tests of this repository show what a kit
does not test. `tests/requirements.py` lists the tests of every requirement of 1.0.

**A2A 1.0** is tested with three agents. One has all capabilities. One lacks streaming, push notifications and an extended card, because
the kit skips some tests for the first agent. One requires an extension.

**A2A 0.3** is tested with the kit's mandatory tests. This kit looks for a card at the root of a host and names no version. The shim
answers there with the card of an agent whose tasks stay open, and names that agent in the metadata of gRPC calls. In addition, the
official SDK of 0.3 (`tests/conformance/sdk_v03_client.py`) finds that agent by its own URL, verifies both of its cards, and sends and
streams messages. The kit can't parse a gRPC address without a scheme, such as the `host:port` that gRPC clients use and the gateway's
cards have. Only for its gRPC runs, the kit therefore gets a copy of the card in which this address begins with `grpc://`.

All these agents serve A2A 1.0 over JSON-RPC only. The gateway provides every other binding and version.
"""


def cells(profile: Profile) -> dict[str, dict[str, int]]:
    """Requirements per binding and status."""
    counted = {binding: dict.fromkeys(COLUMNS, 0) for binding in BINDINGS}
    for one in profile.requirements:
        for binding, status in one.bindings.items():
            counted[binding][status] += 1
    return {binding: counts for binding, counts in counted.items() if any(counts.values())}


def table(profiles: Iterable[Profile]) -> str:
    """For the screen."""
    lines = [f"{'A2A':<5}{'binding':<12}{'passed':>8}{'failed':>8}{'waived':>8}{'skipped':>9}"]
    for profile in profiles:
        for binding, counts in cells(profile).items():
            numbers = f"{counts[PASS]:>8}{counts[FAIL]:>8}{counts[WAIVED]:>8}{counts[SKIPPED]:>9}"
            lines.append(f"{profile.version:<5}{NAMES[binding]:<12}{numbers}")
        lines += ["", *_sentences(profile)]
    return "\n".join(lines)


def _sentences(profile: Profile) -> list[str]:
    lines = [f"requirements: {_counts(profile)}; tests: {', '.join(f'{number} {name}' for name, number in sorted(profile.tests.items()))}"]
    lines += [f"FAILED {one.level} {one.id} (s{one.section}) {_where(one)}: {'; '.join(one.errors)[:300]}" for one in profile.of(FAIL)]
    lines += [f"FAILED {ran.test}: {ran.why[:300]}" for ran in profile.strays]
    lines += [f"waived {one.id} (s{one.section}) {_where(one)}" for one in profile.of(WAIVED)]
    return lines + [f"the waiver of {waiver.requirement} is not needed: remove it" for waiver in profile.idle]


def _counts(profile: Profile) -> str:
    names = {PASS: "passed", FAIL: "failed", WAIVED: "waived", SKIPPED: "skipped", UNTESTED: "not tested by the kit"}
    return ", ".join(f"{len(profile.of(status))} {name}" for status, name in names.items())


def _where(one: Requirement) -> str:
    return ", ".join(NAMES[binding] for binding in BINDINGS if one.bindings.get(binding) in (FAIL, WAIVED)) or "-"


def document(profiles: Sequence[Profile], mcp: Sequence[Conformity]) -> dict[str, Any]:
    """build/conformance.json: requirements, each with the version of A2A before it."""

    def ids(*statuses: str) -> list[str]:
        return [f"{profile.version} {one.id}" for profile in profiles for one in profile.of(*statuses)]

    strays = [f"{profile.version} {ran.test}" for profile in profiles for ran in profile.strays]
    a2a = {
        "passed": len(ids(PASS)),
        "failed": ids(FAIL) + strays,
        "waived": ids(WAIVED),
        "skipped": ids(SKIPPED),
        "not_tested": ids(UNTESTED),
        "tests": {profile.version: dict(profile.tests) for profile in profiles},
        "bindings": {profile.version: cells(profile) for profile in profiles},
    }
    return {"a2a": a2a, **papers_mcp.document(mcp)}


def page(profiles: Sequence[Profile], waivers: Sequence[Any], mcp: Sequence[Conformity]) -> str:
    """docs/conformance.md."""
    parts = [INTRODUCTION]
    for profile in profiles:
        parts += [_summary(profile), _failures(profile), _waived(profile, waivers), _skipped(profile), _untested(profile), _all(profile)]
    return "\n".join(part for part in [*parts, papers_mcp.page(mcp)] if part)


def _summary(profile: Profile) -> str:
    lines = [
        f"## A2A {profile.version}",
        "",
        f"Requirements: {_counts(profile)}.",
        "",
        "| binding | passed | failed | waived | skipped |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {NAMES[binding]} | {' | '.join(str(counts[column]) for column in COLUMNS)} |" for binding, counts in cells(profile).items()
    ]
    return "\n".join([*lines, ""])


def _failures(profile: Profile) -> str:
    rows = [f"| {one.id} | {one.level} | {one.section} | {_where(one)} |" for one in profile.of(FAIL)]
    rows += [f"| `{ran.test}` | | | {NAMES.get(ran.binding, '')} |" for ran in profile.strays]
    return _section("Failed", ["| requirement | level | section | where |", "|---|---|---|---|"], rows)


def _waived(profile: Profile, waivers: Sequence[Any]) -> str:
    known = {one.id: one for one in profile.of(WAIVED)}
    rows = [
        f"| {one.requirement} | {one.section} | {_where(known[one.requirement])} | {one.reason} |"
        for one in waivers
        if one.requirement in known
    ]
    return _section("Waived", ["| requirement | section | where | why |", "|---|---|---|---|"], rows)


def _skipped(profile: Profile) -> str:
    """Tests, since a requirement may be skipped by one of its tests and met in another."""
    ran = {test.test: test for one in profile.requirements for test in one.tests if test.outcome == "skipped"}
    owners = {test: [one.id for one in profile.requirements if any(own.test == test for own in one.tests)] for test in ran}
    rows = [f"| {', '.join(owners[name])} | {NAMES.get(test.binding, '')} | {_reason(test)} |" for name, test in sorted(ran.items())]
    return _section("Skipped by the kit", ["| requirement | binding | the kit's reason |", "|---|---|---|"], rows)


def _reason(test: Ran) -> str:
    return test.why.rpartition("Skipped: ")[2].replace("|", "/")


def _untested(profile: Profile) -> str:
    rows = [f"| {one.id} | {one.level} | {one.section} | {_area(one.id)} | {own_tests(one.id)} |" for one in profile.of(UNTESTED)]
    return _section("Not tested by the kit", ["| requirement | level | section | about | shown by |", "|---|---|---|---|---|"], rows)


def own_tests(requirement: str) -> str:
    """Tests of this repository, as the manifest has them."""
    found = next((one.tests for one in REQUIREMENTS if one.id == requirement), ())
    return "<br>".join(f"`{test}`" for test in found)


def _area(requirement: str) -> str:
    return UNTESTED_AREAS.get(requirement.rpartition("-")[0], "")


def _all(profile: Profile) -> str:
    marks = {PASS: "yes", FAIL: "**no**", WAIVED: "waived", SKIPPED: "skipped"}
    heading = ["| requirement | level | section | " + " | ".join(NAMES.values()) + " |", "|---|---|---|" + "---|" * len(NAMES)]
    rows = [
        f"| {one.id} | {one.level} | {one.section} | {' | '.join(marks.get(one.bindings.get(binding, ''), '') for binding in BINDINGS)} |"
        for one in profile.requirements
        if one.status != UNTESTED
    ]
    return _section("Every requirement", heading, rows)


def _section(title: str, heading: Sequence[str], rows: Sequence[str]) -> str:
    return "\n".join([f"### {title}", "", *heading, *rows, ""]) if rows else ""
