"""The kit for A2A 1.0: requirements over three bindings, tested together."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.kit import Trial, carried_out, evaluated
from tests.conformance.report import FAIL, PASS, SKIPPED, UNTESTED, WAIVED, Profile, Ran, Requirement, Waiver, cases

VERSION = "1.0"
SECTIONS = (
    "import json; from tck.requirements.registry import ALL_REQUIREMENTS as all; print(json.dumps({one.id: one.section for one in all}))"
)
_LACKING = (
    "TestCapabilityPushNotifications",
    "TestCapabilityStreaming",
    "TestCapabilityExtendedCard",
    "unsupported_operation",
    "push_not_supported",
)
REST = {"/bare": " or ".join(_LACKING), "/strict": "TestCapabilityExtensionRequired"}  # path at the example agent -> tests of the kit


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run left behind: the kit's own report (JSON) and that of its tests (JUnit XML)."""

    report: Path
    junit: Path


async def profile(trial: Trial, sut: Callable[[str], str], select: str, waived: Sequence[Waiver]) -> Profile:
    """The whole kit, or the tests that `select` names (pytest -k), against the agent that can everything; what the kit skips there, against
    agents that lack or demand something. `sut`: the URL of the agent of each path. Raises KitMissing."""
    trial.say(f"the kit for A2A 1.0 runs for about two minutes against {sut('')}")
    outcomes = [await run(trial, sut(""), "v1", select)]
    if not select:
        outcomes += [await run(trial, sut(path), f"v1-{path.strip('/')}", names) for path, names in REST.items()]
    return read(outcomes, json.loads(await evaluated(trial, SECTIONS)), waived)


async def run(trial: Trial, sut: str, name: str, select: str) -> Outcome:
    """One run against the agent whose card is below `sut`. Raises KitMissing."""
    report = trial.folder / f"{name}.json"
    arguments = ["tests/compatibility/", f"--sut-host={sut}", "--webhook-host=127.0.0.1", f"--compatibility-report={report}"]
    return Outcome(report, await carried_out(trial, name, [*arguments, *(["-k", select] if select else [])]))


def read(outcomes: Sequence[Outcome], sections: Mapping[str, str], waived: Sequence[Waiver]) -> Profile:
    """What `outcomes` say together: the first is the whole kit, the others fill in what it skipped."""
    ran: dict[str, Ran] = {}
    said: dict[str, Any] = {}
    for outcome in outcomes:
        ran |= {one.test: one for one in cases(outcome.junit.read_text()) if one.outcome != "skipped" or one.test not in ran}
        for name, given in json.loads(outcome.report.read_text())["per_requirement"].items():
            said[name] = filled(said[name], given) if name in said else given
    requirements = tuple(_requirement(name, sections.get(name, ""), given, ran, waived) for name, given in sorted(said.items()))
    reported = {test.test for one in requirements if one.status in (FAIL, WAIVED) for test in one.tests}
    strays = tuple(one for one in ran.values() if one.bad and one.test not in reported)
    used = {one.id for one in requirements if one.status == WAIVED}
    idle = tuple(one for one in waived if one.requirement not in used)
    return Profile(VERSION, requirements, strays, Counter(one.outcome for one in ran.values()), idle)


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
