"""`python -m tests.conformance`: the public kits against the gateway; a table, build/conformance.json, docs/conformance.md."""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import ROOT, BenchFailure
from tests.conformance import (
    kit,
    kit_mcp,
    kit_v03,
    kit_v1,
    kit_workflow,
    papers,
    papers_mcp,
    papers_workflow,
    report,
    report_mcp,
    stage_mcp,
)
from tests.conformance.stage import Address, example_agent, staged
from tests.fakes.ports import free_port

RESULT = ROOT / "build" / "conformance.json"
FOLDER = ROOT / "build" / "conformance"  # data, logs and reports of the last run
PAGE = ROOT / "docs" / "conformance.md"
WAIVERS = Path(__file__).parent / "waivers.json"
VERSIONS = {found.version: found for found in (kit.V1, kit.V03)}
MCP = "mcp"
WORKFLOW = "workflow"


@dataclass(frozen=True, slots=True)
class Results:
    a2a: Sequence[report.Profile]
    mcp: Sequence[report_mcp.Conformity]
    workflow: Sequence[kit_workflow.ScenarioResult] = ()

    @property
    def good(self) -> bool:
        return all(one.good for one in self.a2a) and all(one.good for one in self.mcp) and not kit_workflow.failed(self.workflow)

    def table(self) -> str:
        workflow = papers_workflow.table(self.workflow) if self.workflow else ""
        return "\n\n".join(text for text in (papers.table(self.a2a) if self.a2a else "", papers_mcp.table(self.mcp), workflow) if text)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: `select` names tests of the kit for 1.0, `direct` leaves the gateway out. Only a whole run writes files."""

    versions: tuple[str, ...]  # of A2A
    mcp: bool
    select: str
    direct: bool
    grpc: bool
    workflow: bool = False

    @property
    def whole(self) -> bool:
        return self.mcp and self.workflow and self.grpc and not (self.select or self.direct) and self.versions == tuple(VERSIONS)


def plan_of(arguments: Sequence[str]) -> Plan:
    """Raises SystemExit on wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance", description="The public kits for A2A, MCP and workflows against the gateway."
    )
    parser.add_argument("--only", choices=(*VERSIONS, MCP, WORKFLOW), help="one version of A2A, MCP, or workflows")
    parser.add_argument("-k", dest="select", default="", metavar="TESTS", help="only the tests of the 1.0 kit that pytest -k would choose")
    parser.add_argument("--direct", action="store_true", help="the 1.0 kit against the example agent itself, without the gateway")
    parser.add_argument("--no-grpc", dest="grpc", action="store_false", help="with gRPC off")
    given = parser.parse_args(arguments)
    only = "1.0" if given.select or given.direct else given.only
    versions = tuple(version for version in VERSIONS if only in (None, version))
    return Plan(versions, only in (None, MCP), given.select, given.direct, given.grpc, only in (None, WORKFLOW))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def run(plan: Plan, waivers: Sequence[report.Waiver]) -> Results:
    """What is missing is said before anything runs. Raises KitMissing, BenchFailure."""
    folders = {version: VERSIONS[version].find(os.environ) for version in plan.versions}
    mcp = kit_mcp.find(os.environ, FOLDER / MCP, say) if plan.mcp else None
    features = kit_workflow.find(os.environ) if plan.workflow else None
    of_a2a = await a2a(plan, folders, waivers) if folders else []
    return Results(of_a2a, await of_mcp(mcp) if mcp else [], await kit_workflow.results(features) if features else [])


async def a2a(plan: Plan, folders: Mapping[str, Path], waivers: Sequence[report.Waiver]) -> list[report.Profile]:
    python = kit.prepare(say)
    trials = {version: kit.Trial(python, folder, FOLDER, say) for version, folder in folders.items()}
    if plan.direct:
        with example_agent(FOLDER, free_port()) as agent:
            return [await kit_v1.profile(trials["1.0"], lambda path: f"{agent.url}{path}", plan.select, waivers)]
    async with staged(FOLDER, plan.grpc) as at:
        return [await profile(version, trials[version], at, plan.select, waivers) for version in plan.versions]


async def of_mcp(found: kit_mcp.McpKit) -> list[report_mcp.Conformity]:
    found.folder.mkdir()
    async with stage_mcp.staged(found.folder, found.fixture) as places:
        return await kit_mcp.conformities(found, places.everything, places.tasks, stage_mcp.DRIVER)


async def profile(version: str, trial: kit.Trial, at: Address, select: str, waivers: Sequence[report.Waiver]) -> report.Profile:
    own = [one for one in waivers if one.version == version]
    if version == "1.0":
        return await kit_v1.profile(trial, at.sut, select, own)
    return await kit_v03.profile(trial, at.sut("/open"), at.url, bool(at.grpc), own)


def written(results: Results, waivers: Sequence[report.Waiver]) -> None:
    RESULT.write_text(json.dumps(papers.document(results.a2a, results.mcp) | papers_workflow.document(results.workflow), indent=2) + "\n")
    workflow = papers_workflow.page(results.workflow, kit_workflow.own_scenarios())
    PAGE.write_text(f"{papers.page(results.a2a, waivers, results.mcp)}\n{workflow}")


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 nothing failed that is not waived, 1 something did, 2 a kit is not there."""
    plan, began = plan_of(arguments), time.monotonic()
    waivers = report.waivers(WAIVERS)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        results = asyncio.run(run(plan, waivers))
    except kit.KitMissing as missing:
        say(f"conformance: {missing}")
        return 2
    except BenchFailure as failure:
        say(f"conformance: {failure}")
        return 1
    print(f"{results.table()}\n\n{time.monotonic() - began:.0f} s")
    if plan.whole:
        written(results, waivers)
        print(f"also in {RESULT.relative_to(ROOT)} and {PAGE.relative_to(ROOT)}")
    return 0 if results.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
