"""`python -m tests.conformance`: the public kits against the gateway; a table, build/conformance.json, docs/conformance.md."""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import ROOT, BenchFailure, free_port
from tests.conformance import kit, kit_v03, kit_v1, papers, report
from tests.conformance.stage import Address, example_agent, staged

RESULT = ROOT / "build" / "conformance.json"
FOLDER = ROOT / "build" / "conformance"  # data, logs and reports of the last run
PAGE = ROOT / "docs" / "conformance.md"
WAIVERS = Path(__file__).parent / "waivers.json"
VERSIONS = {found.version: found for found in (kit.V1, kit.V03)}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: `select` names tests of the kit for 1.0, `direct` leaves the gateway out. Only a whole run writes files."""

    versions: tuple[str, ...]
    select: str
    direct: bool
    grpc: bool

    @property
    def whole(self) -> bool:
        return self.grpc and not (self.select or self.direct) and self.versions == tuple(VERSIONS)


def plan_of(arguments: Sequence[str]) -> Plan:
    """Raises SystemExit on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description="The public A2A kits against the gateway.")
    parser.add_argument("--only", choices=VERSIONS, help="one version of A2A")
    parser.add_argument("-k", dest="select", default="", metavar="TESTS", help="only the tests of the 1.0 kit that pytest -k would choose")
    parser.add_argument("--direct", action="store_true", help="the 1.0 kit against the example agent itself, without the gateway")
    parser.add_argument("--no-grpc", dest="grpc", action="store_false", help="with gRPC off")
    given = parser.parse_args(arguments)
    only = "1.0" if given.select or given.direct else given.only
    return Plan((only,) if only else tuple(VERSIONS), given.select, given.direct, given.grpc)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def run(plan: Plan, waivers: Sequence[report.Waiver]) -> list[report.Profile]:
    """Raises KitMissing, BenchFailure."""
    folders = {version: VERSIONS[version].find(os.environ) for version in plan.versions}
    python = kit.prepare(say)
    trials = {version: kit.Trial(python, folder, FOLDER, say) for version, folder in folders.items()}
    if plan.direct:
        with example_agent(FOLDER, free_port()) as agent:
            return [await kit_v1.profile(trials["1.0"], lambda path: f"{agent.url}{path}", plan.select, waivers)]
    async with staged(FOLDER, plan.grpc) as at:
        return [await profile(version, trials[version], at, plan.select, waivers) for version in plan.versions]


async def profile(version: str, trial: kit.Trial, at: Address, select: str, waivers: Sequence[report.Waiver]) -> report.Profile:
    own = [one for one in waivers if one.version == version]
    if version == "1.0":
        return await kit_v1.profile(trial, at.sut, select, own)
    return await kit_v03.profile(trial, at.sut("/open"), at.url, bool(at.grpc), own)


def written(profiles: Sequence[report.Profile], waivers: Sequence[report.Waiver]) -> None:
    RESULT.write_text(json.dumps(papers.document(profiles), indent=2) + "\n")
    PAGE.write_text(papers.page(profiles, waivers))


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 nothing failed that is not waived, 1 something did, 2 a kit is not there."""
    plan, began = plan_of(arguments), time.monotonic()
    waivers = report.waivers(WAIVERS)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        profiles = asyncio.run(run(plan, waivers))
    except kit.KitMissing as missing:
        say(f"conformance: {missing}")
        return 2
    except BenchFailure as failure:
        say(f"conformance: {failure}")
        return 1
    print(f"{papers.table(profiles)}\n\n{time.monotonic() - began:.0f} s")
    if plan.whole:
        written(profiles, waivers)
        print(f"also in {RESULT.relative_to(ROOT)} and {PAGE.relative_to(ROOT)}")
    return 0 if all(one.good for one in profiles) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
