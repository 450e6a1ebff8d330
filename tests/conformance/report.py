"""What a run of the kit says, requirement by requirement, and which failures are waived."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.kit import Outcome

PASS, FAIL, WAIVED, SKIPPED, UNTESTED = "PASS", "FAIL", "WAIVED", "SKIPPED", "NOT TESTED"
BINDINGS = ("agent_card", "jsonrpc", "http_json", "grpc")


@dataclass(frozen=True, slots=True)
class Waiver:
    """A failure that we stand by. It covers the tests whose names contain one of `tests` and that complain of `error`, and no others."""

    requirement: str
    tests: tuple[str, ...]
    error: str
    reason: str
    section: str  # of the A2A specification

    def covers(self, tests: Sequence["Ran"]) -> bool:
        return bool(tests) and all(self.error in ran.why and any(name in ran.test for name in self.tests) for ran in tests)


@dataclass(frozen=True, slots=True)
class Ran:
    """One test of the kit. `outcome`: passed, failed, skipped or xfailed (a SHOULD or MAY that failed)."""

    test: str  # path::Class::test[parameters]
    outcome: str
    why: str

    @property
    def binding(self) -> str:
        """As the kit names it; empty where a test is of none."""
        found = re.search(r"[\[-](jsonrpc|http_json|grpc)[\]-]", self.test) or re.search(
            r"/(jsonrpc|http_json|grpc|agent_card)/", self.test
        )
        return found[1] if found else ""

    @property
    def bad(self) -> bool:
        return self.outcome in ("failed", "xfailed")


@dataclass(frozen=True, slots=True)
class Requirement:
    id: str
    level: str  # MUST, SHOULD, MAY
    section: str
    status: str
    bindings: Mapping[str, str]
    tests: tuple[Ran, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """The result of one kit."""

    version: str  # of A2A
    requirements: tuple[Requirement, ...]
    strays: tuple[Ran, ...]  # failed tests that report no requirement
    tests: Mapping[str, int]  # outcome -> how many
    idle: tuple[Waiver, ...]  # waivers that nothing needed

    def of(self, *statuses: str) -> list[Requirement]:
        return [one for one in self.requirements if one.status in statuses]

    @property
    def good(self) -> bool:
        return not self.of(FAIL) and not self.strays


def waivers(path: Path) -> tuple[Waiver, ...]:
    """Those of a JSON file."""
    return tuple(Waiver(**{**one, "tests": tuple(one["tests"])}) for one in json.loads(path.read_text()))


def read(version: str, outcomes: Sequence[Outcome], waived: Sequence[Waiver]) -> Profile:
    """What `outcomes` say together: the first is the whole kit, the others fill in what it skipped."""
    ran: dict[str, Ran] = {}
    said: dict[str, Any] = {}
    for outcome in outcomes:
        ran |= {one.test: one for one in tests(outcome.junit.read_text()) if one.outcome != "skipped" or one.test not in ran}
        for name, given in json.loads(outcome.report.read_text())["per_requirement"].items():
            said[name] = filled(said[name], given) if name in said else given
    sections = json.loads(outcomes[0].sections)
    requirements = tuple(_requirement(name, sections.get(name, ""), given, ran, waived) for name, given in sorted(said.items()))
    reported = {test.test for one in requirements if one.status in (FAIL, WAIVED) for test in one.tests}
    strays = tuple(one for one in ran.values() if one.bad and one.test not in reported)
    used = {one.id for one in requirements if one.status == WAIVED}
    idle = tuple(one for one in waived if one.requirement not in used)
    return Profile(version, requirements, strays, Counter(one.outcome for one in ran.values()), idle)


def filled(first: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """One requirement of two runs. What the first run skipped is decided by the second; a failure in either is one."""
    decided = {binding: cell for binding, cell in more["transports"].items() if cell in (PASS, FAIL)}
    transports = {**first["transports"], **{binding: cell for binding, cell in decided.items() if first["transports"].get(binding) != FAIL}}
    statuses = {first["status"], more["status"]}
    status = next((one for one in (FAIL, PASS, SKIPPED) if one in statuses), UNTESTED)
    ids = sorted({*first["test_ids"], *more["test_ids"]})
    return {**first, "transports": transports, "status": status, "test_ids": ids, "errors": [*first["errors"], *more["errors"]]}


def _requirement(name: str, section: str, given: Mapping[str, Any], ran: Mapping[str, Ran], waived: Iterable[Waiver]) -> Requirement:
    """The kit's last record of a binding overwrites what earlier tests recorded; the tests themselves tell of those too."""
    own = tuple(ran[test] for test in given["test_ids"] if test in ran)
    bindings, status = dict(given["transports"]), given["status"]
    if status == FAIL:
        bindings |= {one.binding: FAIL for one in own if one.outcome != "passed" and bindings.get(one.binding) == PASS}
        if FAIL not in bindings.values():
            bindings = {binding: FAIL if cell == PASS else cell for binding, cell in bindings.items()}
        if any(one.requirement == name and one.covers([test for test in own if test.bad]) for one in waived):
            status = WAIVED
            bindings = {binding: WAIVED if cell == FAIL else cell for binding, cell in bindings.items()}
    return Requirement(name, given["level"], section, status, bindings, own, tuple(given["errors"]))


def tests(junit: str) -> list[Ran]:
    """Every test of a run."""
    return [_ran(case) for case in ElementTree.fromstring(junit).iter("testcase")]


def _ran(case: ElementTree.Element) -> Ran:
    module, _, owner = case.get("classname", "").rpartition(".Test")
    path = (module or owner).replace(".", "/") + ".py"
    test = "::".join([path, *([f"Test{owner}"] if module else []), case.get("name", "")])
    for child in case:
        if child.tag in ("failure", "error"):
            return Ran(test, "failed", _short(child.get("message", "")))
        if child.tag == "skipped":
            return Ran(test, "xfailed" if child.get("type") == "pytest.xfail" else "skipped", _short(child.get("message", "")))
    return Ran(test, "passed", "")


def _short(text: str) -> str:
    return " ".join(text.split())[:400]
