"""`python -m tests.chaos`: kill -9 at random moments on both databases; a table, build/chaos.json, exit 1 on any problem."""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import ROOT
from tests.bench.rounds import print_progress, write_json
from tests.chaos import report
from tests.chaos.databases import Server, postgres
from tests.chaos.rounds import Round, Rounds
from tests.chaos.stage import Stage, stage

RESULT = ROOT / "build" / "chaos.json"
EVIDENCE = ROOT / "build" / "chaos"
PROCESSES = {"postgres": 2, "sqlite": 1}
FAULTS = {"postgres": ("worker", "database"), "sqlite": ("worker",)}  # what is struck down besides processes
FAULT_SHARE = 20  # one round of each fault for so many rounds of kills


@dataclass(frozen=True, slots=True)
class Plan:
    """How many kills on each database, how many runs in a round, and the seed that all random choices come from."""

    kills: dict[str, int]
    runs: int
    seed: int

    def rounds(self, database: str) -> list[tuple[str, int]]:
        """The kind and the seed of each round."""
        kills = self.kills[database]
        faults = [kind for kind in FAULTS[database] for _ in range(-(-kills // FAULT_SHARE))]
        return [(kind, self.seed + number) for number, kind in enumerate(["process"] * kills + faults)]


def plan_of(arguments: Sequence[str]) -> Plan:
    """Raises SystemExit on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="kill -9 at random moments while workflows run.")
    parser.add_argument("--postgres", type=int, default=100, help="kills on PostgreSQL, with two processes (default 100)")
    parser.add_argument("--sqlite", type=int, default=50, help="kills on SQLite, with one process that is restarted (default 50)")
    parser.add_argument("--runs", type=int, default=6, help="runs of each round (default 6)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of all random choices (default: a new one)")
    given = parser.parse_args(arguments)
    return Plan({"postgres": given.postgres, "sqlite": given.sqlite}, given.runs, given.seed)


async def play(plan: Plan, database: str, folder: Path) -> list[Round]:
    """All rounds on one database, on one stage."""
    with postgres(folder / "server") if database == "postgres" else nullcontext() as server:
        url = server.url if isinstance(server, Server) else f"sqlite:///{folder / 'interlock.db'}"
        async with stage(folder, url, PROCESSES[database]) as built:
            rounds = Rounds(built, server.restart if isinstance(server, Server) else None)
            played, wanted, began = [], plan.rounds(database), time.monotonic()
            for number, (kind, seed) in enumerate(wanted, 1):
                played.append(one := await rounds.play(kind, seed, plan.runs))
                taken = "" if one.takeover is None else f", {one.interrupted} tasks taken over in {one.takeover:.1f} s"
                spent = time.monotonic() - began
                print_progress(f"  [{number}/{len(wanted)}, {spent:.0f} s] {database}, {kind}, seed {seed}: {one.seconds:.1f} s{taken}")
                for problem in one.verdict.problems:
                    print_progress(f"    PROBLEM: {problem}")
                if one.verdict.problems:
                    _keep_evidence(built, database)
            played[-1].verdict.wrong += await asyncio.to_thread(_problems_of_audit, built)
            return played


def _keep_evidence(built: Stage, database: str) -> None:
    """The log of the gateways and the effects, for those who look into a problem."""
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    shutil.copy(built.processes[0].gateway.folder / "gateway.log", EVIDENCE / f"{database}.log")
    shutil.copy(built.effects, EVIDENCE / f"{database}.effects.jsonl")


def _problems_of_audit(built: Stage) -> list[str]:
    """What `interlock audit verify` says once all kills are over, unless the audit is whole."""
    verification = built.processes[0].gateway.verify()
    said, complaint = verification.communicate(timeout=600)
    return [] if verification.returncode == 0 and json.loads(said)["sound"] else [f"audit verify: {said}{complaint}"[:2000]]


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 when anything was lost, repeated, stuck or wrong."""
    plan, began = plan_of(arguments), time.monotonic()
    RESULT.parent.mkdir(exist_ok=True)
    played: dict[str, list[Round]] = {}
    print_progress(f"seed {plan.seed}")
    for database, kills in plan.kills.items():
        if kills:
            print_progress(f"{kills} kills on {database}, {PROCESSES[database]} process(es), {plan.runs} runs each")
            with tempfile.TemporaryDirectory(prefix="interlock-chaos-", ignore_cleanup_errors=True) as folder:
                played[database] = asyncio.run(play(plan, database, Path(folder)))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    settings = {"seed": plan.seed, "runs": plan.runs, "commit": commit, "cores": os.cpu_count(), "load": os.getloadavg()}
    write_json(report.document(played, settings), RESULT)
    print(f"{report.table(played)}\n\nseed {plan.seed}, {time.monotonic() - began:.0f} s; also in {RESULT.relative_to(ROOT)}")
    return 1 if any(report.counted(played, what) for what in ("lost", "repeated", "stuck", "wrong")) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
