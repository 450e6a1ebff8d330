"""`python -m tests.conformance`: the public kits against the gateway; a table, build/conformance.json, docs/conformance.md."""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import ROOT, BenchFailure, free_port
from tests.conformance import kit, papers, report
from tests.conformance.stage import example_agent, staged

RESULT = ROOT / "build" / "conformance.json"
FOLDER = ROOT / "build" / "conformance"  # data, logs and reports of the last run
PAGE = ROOT / "docs" / "conformance.md"
_LACKING = (
    "TestCapabilityPushNotifications",
    "TestCapabilityStreaming",
    "TestCapabilityExtendedCard",
    "unsupported_operation",
    "push_not_supported",
)
REST = {"/bare": " or ".join(_LACKING), "/strict": "TestCapabilityExtensionRequired"}  # path at the example agent -> tests of the kit
WAIVERS = Path(__file__).parent / "waivers.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: `select` names tests of the kit, `direct` leaves the gateway out. Only a whole run writes files."""

    select: str
    direct: bool
    grpc: bool

    @property
    def whole(self) -> bool:
        return self.grpc and not (self.select or self.direct)


def plan_of(arguments: Sequence[str]) -> Plan:
    """Raises SystemExit on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description="The public A2A kit against the gateway.")
    parser.add_argument("-k", dest="select", default="", metavar="TESTS", help="only the kit's tests that pytest -k would choose")
    parser.add_argument("--direct", action="store_true", help="the example agent itself, without the gateway")
    parser.add_argument("--no-grpc", dest="grpc", action="store_false", help="with gRPC off")
    return Plan(**vars(parser.parse_args(arguments)))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def run(plan: Plan, waivers: Sequence[report.Waiver]) -> report.Profile:
    """Raises KitMissing, BenchFailure."""
    where = kit.find(os.environ)
    trial = kit.Trial(kit.prepare(say), where, FOLDER, say)
    if plan.direct:
        with example_agent(FOLDER, free_port()) as agent:
            return report.read("1.0", await outcomes(plan, trial, lambda path: f"{agent.url}{path}"), waivers)
    async with staged(FOLDER, plan.grpc) as at:
        return report.read("1.0", await outcomes(plan, trial, at.sut), waivers)


async def outcomes(plan: Plan, trial: kit.Trial, sut: Callable[[str], str]) -> list[kit.Outcome]:
    """The whole kit against the agent that can everything; what it skips there, against those that lack or demand something."""
    say(f"the kit runs for about two minutes against {sut('')}")
    whole = await kit.run(trial, sut(""), "all", plan.select)
    return [whole] if plan.select else [whole, *[await kit.run(trial, sut(path), path.strip("/"), tests) for path, tests in REST.items()]]


def written(profiles: Sequence[report.Profile], waivers: Sequence[report.Waiver]) -> None:
    RESULT.write_text(json.dumps(papers.document(profiles), indent=2) + "\n")
    PAGE.write_text(papers.page(profiles, waivers))


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 nothing failed that is not waived, 1 something did, 2 the kit is not there."""
    plan, began = plan_of(arguments), time.monotonic()
    waivers = report.waivers(WAIVERS)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        profile = asyncio.run(run(plan, waivers))
    except kit.KitMissing as missing:
        say(f"conformance: {missing}")
        return 2
    except BenchFailure as failure:
        say(f"conformance: {failure}")
        return 1
    print(f"{papers.table([profile])}\n\n{time.monotonic() - began:.0f} s")
    if plan.whole:
        written([profile], waivers)
        print(f"also in {RESULT.relative_to(ROOT)} and {PAGE.relative_to(ROOT)}")
    return 0 if profile.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
