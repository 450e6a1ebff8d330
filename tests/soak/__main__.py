"""`python -m tests.soak`: minutes at half capacity with held streams, then rolling restarts; a table, build/soak.json, exit 1 on a miss."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.interlock import commit
from tests.bench.processes import ROOT
from tests.bench.rounds import print_progress, write_json
from tests.chaos.databases import postgres
from tests.soak import report
from tests.soak.clients import Outcome
from tests.soak.rolling import pair, roll
from tests.soak.steady import SteadyPlan, soak

RESULT = ROOT / "build" / "soak.json"
CLIENTS = 16


async def roll_under_load(folder: Path, rounds: int) -> Outcome:
    """Replaces two processes on PostgreSQL `rounds` times each."""
    with postgres(folder / "server") as server:
        async with pair(folder / "pair", server.url) as built:
            await roll(built, CLIENTS, rounds, print_progress)
            return built.clients.outcome


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 when a figure was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A gateway at half of its capacity, with held streams.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long it is watched (default 10)")
    parser.add_argument("--streams", type=int, default=500, help="streams that are held (default 500)")
    parser.add_argument("--rounds", type=int, default=3, help="rolling restarts of two processes afterwards (default 3, 0: none)")
    given = parser.parse_args(arguments)
    plan, began = SteadyPlan(given.minutes, given.streams), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="interlock-soak-", ignore_cleanup_errors=True) as folder:
        print_progress(f"one process, {plan.streams} streams, {plan.minutes:g} minutes at half capacity")
        soaked = soak(Path(folder), plan, print_progress)
        if given.rounds:
            print_progress(f"two processes on PostgreSQL, {CLIENTS} clients, {given.rounds} rolling restarts")
        rolled = asyncio.run(roll_under_load(Path(folder), given.rounds)) if given.rounds else None
    write_json(report.document(plan, soaked, rolled, commit()), RESULT)
    print(f"{report.table(soaked, rolled)}\n\n{time.monotonic() - began:.0f} s; also in {RESULT.relative_to(ROOT)}")
    for failure in (*soaked.failed[:5], *(rolled.failed[:5] if rolled else ())):
        print(f"  {failure}")
    return 1 if any(figure.missed for figure in report.figures(soaked, rolled)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
