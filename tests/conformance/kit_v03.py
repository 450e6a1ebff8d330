"""The kit for A2A 0.3: its mandatory tests, once for each binding, and the checks of the SDK of 0.3. Each test stands for a requirement."""

from collections import Counter
from collections.abc import Mapping, Sequence

from tests.conformance.card_host import card_host
from tests.conformance.kit import Trial, carried_out
from tests.conformance.report import FAIL, PASS, SKIPPED, WAIVED, Profile, Ran, Requirement, Waiver, cases
from tests.conformance.sdk_v03 import checked

VERSION = "0.3"
RUNS = {  # the kit's name of the binding -> ours, its folder, its marks
    "jsonrpc": ("jsonrpc", "tests/mandatory/", "mandatory_jsonrpc or mandatory_protocol"),
    "rest": ("http_json", "tests/mandatory/protocol/", "mandatory_protocol"),
    "grpc": ("grpc", "tests/mandatory/protocol/", "mandatory_protocol"),
}
TOGETHER = "test_multi_transport_method_mapping"
CELLS = {"passed": PASS, "failed": FAIL, "xfailed": FAIL, "skipped": SKIPPED}


async def profile(trial: Trial, sut: str, origin: str, grpc: bool, waived: Sequence[Waiver]) -> Profile:
    """The kit against the agent at `sut`, whose card is at the root of `origin`. Raises KitMissing."""
    trial.say(f"the kit for A2A 0.3 runs against {sut}")
    ran: dict[str, list[Ran]] = {}
    for transport, (binding, folder, marks) in RUNS.items():
        arguments = [folder, "-m", marks, "--test-scope=all", f"--transports={transport}"]
        if binding != "grpc":
            ran[binding] = cases((await carried_out(trial, f"v03-{transport}", [*arguments, f"--sut-url={sut}"])).read_text())
        elif grpc:
            async with card_host(origin) as url:
                ran[binding] = cases((await carried_out(trial, f"v03-{transport}", [*arguments, f"--sut-url={url}"])).read_text())
                together = [folder, "-k", TOGETHER, "--test-scope=all", f"--sut-url={url}"]
                ran = filled(ran, cases((await carried_out(trial, "v03-together", together)).read_text()))
    ran["jsonrpc"] = [*ran["jsonrpc"], *await checked(sut, trial.say)]
    return read(ran, waived)


def filled(ran: Mapping[str, Sequence[Ran]], together: Sequence[Ran]) -> dict[str, list[Ran]]:
    """`together` are tests that want all bindings in one run; they decide what the run of each binding skipped."""
    decided = {one.test: one for one in together if one.outcome != "skipped"}
    return {binding: [decided.get(one.test, one) if one.outcome == "skipped" else one for one in many] for binding, many in ran.items()}


def read(ran: Mapping[str, Sequence[Ran]], waived: Sequence[Waiver]) -> Profile:
    """`ran`: binding -> its tests."""
    names = sorted({one.test for many in ran.values() for one in many})
    requirements = tuple(
        _requirement(name, {binding: one for binding, many in ran.items() for one in many if one.test == name}, waived) for name in names
    )
    used = {one.id for one in requirements if one.status == WAIVED}
    idle = tuple(one for one in waived if one.requirement not in used)
    return Profile(VERSION, requirements, (), Counter(one.outcome for many in ran.values() for one in many), idle)


def _requirement(name: str, ran: Mapping[str, Ran], waived: Sequence[Waiver]) -> Requirement:
    short = name.rpartition("/")[2].replace(".py::", "::")
    cells = {binding: CELLS[one.outcome] for binding, one in ran.items()}
    bad = [one for one in ran.values() if one.bad]
    if bad and any(one.requirement == short and one.covers(bad) for one in waived):
        cells = {binding: WAIVED if cell == FAIL else cell for binding, cell in cells.items()}
    status = next(one for one in (FAIL, WAIVED, PASS, SKIPPED) if one in cells.values())
    return Requirement(short, "MUST", "", status, cells, tuple(ran.values()), tuple(one.why for one in bad))
