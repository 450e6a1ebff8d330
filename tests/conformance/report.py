"""What a kit says, requirement by requirement, and which failures are waived."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PASS, FAIL, WAIVED, SKIPPED, UNTESTED = "PASS", "FAIL", "WAIVED", "SKIPPED", "NOT TESTED"
BINDINGS = ("agent_card", "jsonrpc", "http_json", "grpc")


@dataclass(frozen=True, slots=True)
class Waiver:
    """A failure that we stand by. It covers the tests whose names contain one of `tests` and that complain of `error`, and no others."""

    version: str  # of A2A
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


def cases(junit: str) -> list[Ran]:
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
