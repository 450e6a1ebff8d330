"""`python -m tests.attacks`: runs the tests that show attacks, and for those on authority checks that they notice a missing guard.

Prints tables, writes them to build/attacks.json and build/attack-mutations.json, and exits with 1 where an attack is not answered, or
where the tests of an attack pass although a mutation took away what answers it.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import pytest

from tests.attacks.marks import Attack, find_marks, read_catalogue
from tests.attacks.mutations import find_problems, read_table
from tests.attacks.trials import RED, Trial, run_mutations
from tests.house.source import ROOT

DOORS = ("jsonrpc-1.0", "jsonrpc-0.3", "rest-1.0", "rest-0.3", "grpc-1.0", "grpc-0.3", "mcp-2026", "mcp-2025", "mcp-sse", "api")
BASES = ("sqlite", "postgres")


@dataclass
class Outcomes:
    """What became of each test, by pytest's id of it."""

    of: dict[str, str] = field(default_factory=dict)
    doors: dict[str, set[str]] = field(default_factory=dict)  # that a test names by record_property

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.doors.setdefault(report.nodeid, set()).update(str(value) for name, value in report.user_properties if name == "door")
        if report.failed or (report.when == "call" and self.of.get(report.nodeid) != "failed") or report.skipped:
            self.of[report.nodeid] = report.outcome


@dataclass(frozen=True)
class Line:
    """One attack and what its tests said. `outcome`: answered, FAILED, NO TEST, NOT RUN or not yet."""

    id: str
    area: str
    title: str
    expected: str
    outcome: str
    doors: tuple[str, ...]
    databases: tuple[str, ...]
    files: tuple[str, ...]
    counts: Mapping[str, int]
    reason: str


def _parameters(test: str) -> str:
    return test.partition("[")[2]


def _named(names: tuple[str, ...], tests: list[str]) -> tuple[str, ...]:
    return tuple(name for name in names if any(re.search(rf"(?:^|-){re.escape(name)}(?:-|\])", _parameters(test)) for test in tests))


def _outcome(attack: Attack, counts: Mapping[str, int]) -> str:
    if counts.get("failed"):
        return "FAILED"
    if counts.get("passed"):
        return "answered"
    if attack.not_yet:
        return "not yet"
    return "NOT RUN" if counts else "NO TEST"


def line_of(attack: Attack, tests: tuple[str, ...], outcomes: Outcomes) -> Line:
    names = set(tests)
    run = [test for test in outcomes.of if test.partition("[")[0] in names]
    counts = dict(Counter(outcomes.of[test] for test in run))
    told_of = set(_named(DOORS, run)).union(*(outcomes.doors.get(test, ()) for test in run))
    doors = tuple(door for door in DOORS if door in told_of)
    files = tuple(sorted({test.partition("::")[0].removeprefix("tests/") for test in run}))
    told = (attack.id, attack.area, attack.title, attack.expected)
    return Line(*told, _outcome(attack, counts), doors, _named(BASES, run), files, counts, attack.not_yet)


def row_of(line: Line) -> str:
    shown = f"{line.id:<8}{line.title[:56]:<58}{sum(line.counts.values()):>5}  {line.outcome:<10}"
    where = f"doors: {' '.join(line.doors)}" if line.doors else ", ".join(line.files)
    return f"{shown}{'/'.join(line.databases):<17}{where or line.reason}".rstrip()


def report(lines: list[Line]) -> int:
    print(f"\n{'id':<8}{'attack':<58}tests  {'outcome':<10}{'databases':<17}where")
    for line in lines:
        print(row_of(line))
    counts = Counter(line.outcome for line in lines)
    print("\n" + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) + f", of {len(lines)}")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "attacks.json").write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    print("written to build/attacks.json")
    return 0 if set(counts) <= {"answered", "not yet"} else 1


def report_trials(trials: Sequence[Trial]) -> int:
    """1 where a mutation did not turn the tests of its attack red."""
    print(f"\n{'id':<8}{'without':<74}{'outcome':<14}noticed by")
    for trial in trials:
        print(f"{trial.mutation.attack:<8}{trial.mutation.removes[:72]:<74}{trial.outcome:<14}{' '.join(trial.failed)}".rstrip())
    counts = Counter(trial.outcome for trial in trials)
    print("\n" + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) + f", of {len(trials)} mutations")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "attack-mutations.json").write_text(json.dumps([asdict(trial) for trial in trials], indent=1) + "\n")
    print("written to build/attack-mutations.json")
    return 0 if set(counts) <= {RED} else 1


def run_tests(known: Sequence[Attack], tests: Mapping[str, tuple[str, ...]], jobs: str) -> int:
    """1 where an attack is not answered."""
    outcomes = Outcomes()
    wanted = sorted({test for attack in known for test in tests[attack.id]})
    ended = pytest.main(["-q", "-n", jobs, "--dist", "loadfile", "-p", "no:cacheprovider", *wanted], [outcomes]) if wanted else 0
    failed = report([line_of(attack, tests[attack.id], outcomes) for attack in known])
    return 1 if failed or ended else 0


def run_table(known: Sequence[Attack], tests: Mapping[str, tuple[str, ...]], jobs: int) -> int:
    """1 where the table of mutations has a problem, or one of them is not noticed."""
    if problems := find_problems(read_table(), read_catalogue(), ROOT):
        print("tests/attacks/mutations.toml:", *problems, sep="\n  ")
        return 1
    named = {attack.id for attack in known}
    chosen = [mutation for mutation in read_table() if mutation.attack in named]
    print(f"\n{len(chosen)} mutations, each in a copy of the tree", flush=True)
    return report_trials(run_mutations(chosen, tests, jobs)) if chosen else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("ids", nargs="*", help="attacks to try, all when none is named")
    parser.add_argument("--jobs", default="2", help="processes at once (0: in this one)")
    parser.add_argument("--only", choices=("tests", "mutations"), help="one of the two parts")
    given = parser.parse_args(arguments)
    known = [attack for attack in read_catalogue() if not given.ids or attack.id in given.ids]
    if unknown := set(given.ids) - {attack.id for attack in known}:
        parser.error(f"not in tests/attacks/catalogue.jsonl: {', '.join(sorted(unknown))}")
    found = find_marks().tests
    tests = {attack.id: found.get(attack.id, ()) for attack in known}
    failed = run_tests(known, tests, given.jobs) if given.only != "mutations" else 0
    return max(failed, run_table(known, tests, max(1, int(given.jobs))) if given.only != "tests" else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
