"""What the MCP kit says, scenario by scenario, and which of them a revision requires."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.conformance.report import FAIL, PASS, SKIPPED

Leg = Literal["server", "client"]
_BAD, _GOOD = "FAILURE", "SUCCESS"
_HEADINGS: Mapping[str, Leg] = {"Server scenarios": "server", "Client scenarios": "client"}
_FOLDER = re.compile(r"(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
_REASON = re.compile(r"  ([a-z-]+) \(\d+\):")
_LINE = re.compile(r" +- (\S+)(?: \[(server|client)\])?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A scenario of a revision. `reason` says why it is not scored; empty: it is required."""

    name: str
    leg: Leg
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    id: str
    status: str  # SUCCESS, FAILURE, WARNING, INFO, SKIPPED
    why: str

    @property
    def warns(self) -> bool:
        return self.status == "WARNING"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One of them, as it went; without checks it was not run."""

    name: str
    reason: str
    checks: tuple[Check, ...]

    @property
    def status(self) -> str:
        """The kit lets a scenario pass that tried nothing, such as a client that never connected: here it is skipped, or failed."""
        statuses = {check.status for check in self.checks}
        if _BAD in statuses or not statuses:
            return FAIL
        return PASS if _GOOD in statuses else SKIPPED

    def count(self, status: str) -> int:
        return sum(1 for check in self.checks if check.status == status)

    @property
    def good(self) -> int:
        return self.count(_GOOD)

    @property
    def bad(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.status == _BAD)


@dataclass(frozen=True, slots=True)
class Conformity:
    """The result for one revision and one side: the gateway as a server, or as a client of servers."""

    revision: str
    leg: Leg
    scenarios: tuple[Scenario, ...]

    @property
    def required(self) -> tuple[Scenario, ...]:
        return tuple(one for one in self.scenarios if not one.reason)

    @property
    def others(self) -> tuple[Scenario, ...]:
        """Run and reported, never scored."""
        return tuple(one for one in self.scenarios if one.reason)

    @property
    def good(self) -> bool:
        return bool(self.required) and all(one.status == PASS for one in self.required)


def wanted(listing: str) -> tuple[Wanted, ...]:
    """The scenarios of a revision, of what `conformance list --requirements` prints."""
    found: list[Wanted] = []
    leg, reason = "", ""
    for line in listing.splitlines():
        if heading := next((side for text, side in _HEADINGS.items() if line.startswith(text)), None):
            leg = heading
        elif section := _REASON.fullmatch(line):
            reason = section[1]
        elif entry := _LINE.fullmatch(line):
            side = entry[2] or leg
            found.append(Wanted(entry[1], "client" if side == "client" else "server", reason))
    return tuple(found)


def checks(folder: Path, leg: Leg) -> dict[str, tuple[Check, ...]]:
    """By scenario, of a folder of results of the kit."""
    found = {}
    for path in sorted(folder.rglob("checks.json")):
        name = _FOLDER.fullmatch(str(path.parent.relative_to(folder)))
        if name:
            short = name[1].removeprefix("server-") if leg == "server" else name[1]
            found[short] = tuple(_check(given) for given in json.loads(path.read_text()))
    return found


def conformity(revision: str, leg: Leg, asked: Iterable[Wanted], ran: Mapping[str, tuple[Check, ...]]) -> Conformity:
    """What was asked for, required ones first, each as it went."""
    own = [one for one in asked if one.leg == leg]
    return Conformity(revision, leg, tuple(Scenario(one.name, one.reason, ran.get(one.name, ())) for one in own))


def _check(given: Mapping[str, str]) -> Check:
    return Check(given["id"], given["status"], " ".join(given.get("errorMessage", "").split())[:400])
