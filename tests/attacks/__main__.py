"""`python -m tests.attacks`: runs the tests that show attacks, once each; a table, build/attacks.json, exit 1 where one is not answered."""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pytest

from tests.attacks.marks import Attack, catalogue, marked
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


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("ids", nargs="*", help="attacks to try, all when none is named")
    parser.add_argument("--jobs", default="2", help="processes at once (0: in this one)")
    given = parser.parse_args(arguments)
    known = [attack for attack in catalogue() if not given.ids or attack.id in given.ids]
    if unknown := set(given.ids) - {attack.id for attack in known}:
        parser.error(f"not in tests/attacks/catalogue.jsonl: {', '.join(sorted(unknown))}")
    tests = {attack.id: marked().tests.get(attack.id, ()) for attack in known}
    outcomes = Outcomes()
    wanted = sorted({test for each in tests.values() for test in each})
    ended = pytest.main(["-q", "-n", given.jobs, "--dist", "loadfile", "-p", "no:cacheprovider", *wanted], [outcomes]) if wanted else 0
    failed = report([line_of(attack, tests[attack.id], outcomes) for attack in known])
    return 1 if failed or ended else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
