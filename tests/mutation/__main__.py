"""`python -m tests.mutation`: how many small changes to policies/ the tests notice; a table, build/mutation.json, exit 1 below 90 %."""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from tests.house.source import ROOT
from tests.mutation.equal import reason_for_equality
from tests.mutation.mutants import Mutant, find_mutants
from tests.mutation.plan import list_modules, tests_of
from tests.mutation.reach import Reach
from tests.mutation.trial import load_foreign_libraries, run_unchanged, try_mutant

WANTED = 0.9
SHORTEST_SECONDS = 60.0  # seconds that a mutant has at least; what takes longer than its tests do without it is noticed


@dataclass
class Module:
    """What became of a module's mutants: `mutants` says how many there are; a sample of them was tried."""

    name: str
    mutants: int = 0
    equal: int = 0  # of these, that change nothing
    tried: int = 0
    noticed: int = 0
    survivors: list[str] = field(default_factory=list)
    broken: bool = False  # its tests failed without any change


@dataclass
class Running:
    module: Module
    mutant: Mutant
    process: BaseProcess
    ends: float


def score(found: list[Module]) -> float:
    total = sum(module.tried for module in found)
    return sum(module.noticed for module in found) / total if total else 0.0


class Trials:
    """Tries mutants, so many at once, until all are tried or the time is over."""

    def __init__(self, jobs: int, until: float) -> None:
        self._jobs = jobs
        self._until = until
        self._running: list[Running] = []

    def reach_of(self, module: str) -> Reach | None:
        """Which tests reach what, when nothing is changed; None where they fail as it is."""
        ours, theirs = get_context("fork").Pipe(duplex=False)
        process = get_context("fork").Process(target=run_unchanged, args=(module, tests_of(module), theirs))
        process.start()
        theirs.close()
        try:
            reach: Reach | None = ours.recv()
        except EOFError:
            reach = None
        process.join()
        return reach

    def run(self, work: Iterator[tuple[Module, Mutant, str, Reach]]) -> None:
        for module, mutant, source, reach in work:
            while len(self._running) >= self._jobs:
                self._wait_for_end()
            if time.monotonic() > self._until:
                break
            tests = reach.tests_of_line(mutant.line)
            process = get_context("fork").Process(target=try_mutant, args=(module.name, mutant.apply(source), tests))
            process.start()
            patience = max(SHORTEST_SECONDS, 5 * sum(reach.seconds[test] for test in tests))
            self._running.append(Running(module, mutant, process, time.monotonic() + patience))
        while self._running:
            self._wait_for_end()

    def _wait_for_end(self) -> None:
        """Waits for one to end, or for the time of one to be over."""
        wait([each.process.sentinel for each in self._running], max(0.0, min(each.ends for each in self._running) - time.monotonic()))
        for each in list(self._running):
            late = each.process.is_alive() and time.monotonic() >= each.ends
            if late and each.process.pid:
                os.killpg(each.process.pid, signal.SIGKILL)
            elif each.process.is_alive():
                continue
            each.process.join()
            self._running.remove(each)
            self._count_outcome(each)

    @staticmethod
    def _count_outcome(ended: Running) -> None:
        ended.module.tried += 1
        if ended.process.exitcode:
            ended.module.noticed += 1
            return
        ended.module.survivors.append(f"policies/{ended.module.name}.py:{ended.mutant.line} {ended.mutant.kind}")
        print(f"  not noticed: {ended.module.survivors[-1]}", flush=True)


def choose_mutants(given: argparse.Namespace, found: list[Module], trials: Trials) -> Iterator[tuple[Module, Mutant, str, Reach]]:
    for name in given.modules or list_modules():
        source = (ROOT / "policies" / f"{name}.py").read_text(encoding="utf-8")
        found_mutants = find_mutants(source)
        every = [mutant for mutant in found_mutants if not reason_for_equality(name, source, mutant)]
        module = Module(name, len(found_mutants), len(found_mutants) - len(every))
        found.append(module)
        chosen = every if given.all else random.Random(f"{given.seed} {name}").sample(every, min(given.sample, len(every)))
        if not chosen:
            continue
        reach = trials.reach_of(name)
        if reach is None:
            module.broken = True
            print(f"{name}: its tests fail as it is: {' '.join(tests_of(name))}", flush=True)
            continue
        print(f"{name}: {len(chosen)} of {len(every)}", flush=True)
        yield from ((module, mutant, source, reach) for mutant in sorted(chosen, key=lambda each: each.line))


def report(found: list[Module]) -> int:
    print(f"\n{'module':<20}{'mutants':>8}{'equal':>7}{'tried':>7}{'noticed':>9}{'score':>8}")
    for module in found:
        share = f"{100 * module.noticed / module.tried:.0f} %" if module.tried else "broken" if module.broken else "-"
        print(f"{module.name:<20}{module.mutants:>8}{module.equal:>7}{module.tried:>7}{module.noticed:>9}{share:>8}")
    tried_count, found_mutants = sum(module.tried for module in found), sum(module.mutants for module in found)
    print(f"\n{100 * score(found):.1f} % of {tried_count} noticed, out of {found_mutants} there are; wanted: {100 * WANTED:.0f} %")
    (ROOT / "build").mkdir(exist_ok=True)
    shown = {"score": score(found), "tried": tried_count, "mutants": found_mutants, "modules": [asdict(module) for module in found]}
    (ROOT / "build" / "mutation.json").write_text(json.dumps(shown, indent=1) + "\n", encoding="utf-8")
    print("written to build/mutation.json")
    return 0 if score(found) >= WANTED and not any(module.broken for module in found) else 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", help="modules of policies/, all when none is named")
    parser.add_argument("--sample", type=int, default=12, help="mutants of each module, the same ones each time")
    parser.add_argument("--all", action="store_true", help="every mutant there is")
    parser.add_argument("--seed", default="1", help="another one chooses other mutants")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--minutes", type=float, default=45, help="no more are begun after so long")
    given = parser.parse_args(arguments)
    load_foreign_libraries()
    found: list[Module] = []
    trials = Trials(given.jobs, time.monotonic() + 60 * given.minutes)
    trials.run(choose_mutants(given, found, trials))
    return report(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
