"""Nothing that the kit found wrong gets lost on the way to the table, and waivers hide nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import papers
from tests.conformance.kit_v1 import Outcome, read
from tests.conformance.report import Profile, Ran, Waiver, waivers

ERRORS = "tests/compatibility/grpc/test_status.py::TestStatus::test_version"
LISTS = "tests/compatibility/core/test_lists.py::test_must[{}-CORE-LIST-001]"
WAIVER = Waiver("1.0", "GRPC-ERR-002", ("TestStatus::test_version",), "got FAILED_PRECONDITION", "as the release says", "5.4")


def requirement(status: str, transports: dict[str, str], *tests: str, level: str = "MUST") -> dict[str, Any]:
    return {"level": level, "status": status, "transports": transports, "errors": [], "test_ids": list(tests)}


def case(test: str, inside: str = "") -> str:
    path, _, name = test.partition("::")
    owner, _, name = name.rpartition("::")
    place = path.removesuffix(".py").replace("/", ".") + (f".{owner}" if owner else "")
    return f'<testcase classname="{place}" name="{name}">{inside}</testcase>'


def failure(message: str) -> str:
    return f'<failure message="{message}"/>'


def outcome(folder: Path, said: dict[str, Any], *cases: str) -> Outcome:
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"per_requirement": said}))
    (folder / "junit.xml").write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return Outcome(folder / "report.json", folder / "junit.xml")


def profile(folder: Path, said: dict[str, Any], *cases: str) -> Profile:
    return read([outcome(folder / "run", said, *cases)], dict.fromkeys(said, "5.4"), [WAIVER])


def test_a_waived_failure_is_waived(tmp_path: Path) -> None:
    said = {"GRPC-ERR-002": requirement("FAIL", {"grpc": "FAIL"}, ERRORS)}
    found = profile(tmp_path, said, case(ERRORS, failure("got FAILED_PRECONDITION")))
    assert found.good
    assert [one.id for one in found.of("WAIVED")] == ["GRPC-ERR-002"]
    assert not found.idle


@pytest.mark.parametrize(
    "cases",
    [
        [case(ERRORS, failure("processed the request normally"))],
        [case(ERRORS, failure("got FAILED_PRECONDITION")), case(ERRORS.replace("version", "other"), failure("got FAILED_PRECONDITION"))],
        [],
    ],
    ids=["another error", "another test too", "no test at all"],
)
def test_a_waiver_covers_what_it_names_and_nothing_else(tmp_path: Path, cases: list[str]) -> None:
    said = {"GRPC-ERR-002": requirement("FAIL", {"grpc": "FAIL"}, ERRORS, ERRORS.replace("version", "other"))}
    found = profile(tmp_path, said, *cases)
    assert not found.good
    assert found.idle == (WAIVER,)


def test_a_failure_that_a_later_test_of_the_binding_overwrote_is_shown(tmp_path: Path) -> None:
    first, second = LISTS.format("jsonrpc"), LISTS.format("jsonrpc-again")
    said = {"CORE-LIST-001": requirement("FAIL", {"jsonrpc": "PASS", "grpc": "PASS"}, first, second)}
    found = profile(tmp_path, said, case(first, failure("wrong order")), case(second))
    assert dict(found.requirements[0].bindings) == {"jsonrpc": "FAIL", "grpc": "PASS"}
    assert not found.good


def test_a_should_that_fails_is_a_failure(tmp_path: Path) -> None:
    test = LISTS.format("grpc")
    said = {"CORE-LIST-001": requirement("FAIL", {"grpc": "FAIL"}, test, level="SHOULD")}
    found = profile(tmp_path, said, case(test, '<skipped type="pytest.xfail" message="wrong"/>'))
    assert not found.good
    assert found.tests["xfailed"] == 1


def test_a_test_that_breaks_before_it_reports_is_a_failure(tmp_path: Path) -> None:
    test = LISTS.format("grpc")
    found = profile(tmp_path, {"CORE-LIST-001": requirement("PASS", {"jsonrpc": "PASS"})}, case(test, failure("no connection")))
    assert found.strays == (Ran(test, "failed", "no connection"),)
    assert not found.good


def test_a_second_run_decides_what_the_first_one_skipped(tmp_path: Path) -> None:
    test, other = LISTS.format("jsonrpc"), LISTS.format("grpc")
    skipped = outcome(
        tmp_path / "all",
        {"CORE-LIST-001": requirement("SKIPPED", {"jsonrpc": "SKIPPED", "grpc": "SKIPPED"}, test, other)},
        case(test, '<skipped type="pytest.skip" message="has it"/>'),
        case(other, '<skipped type="pytest.skip" message="has it"/>'),
    )
    said = {"CORE-LIST-001": requirement("PASS", {"jsonrpc": "PASS"}, test), "CARD-SIGN-001": requirement("NOT TESTED", {})}
    found = read([skipped, outcome(tmp_path / "bare", said, case(test))], {}, [])
    assert [(one.id, one.status) for one in found.requirements] == [("CARD-SIGN-001", "NOT TESTED"), ("CORE-LIST-001", "PASS")]
    assert dict(found.requirements[1].bindings) == {"jsonrpc": "PASS", "grpc": "SKIPPED"}
    assert dict(found.tests) == {"passed": 1, "skipped": 1}


def test_a_second_run_does_not_mend_a_failure_of_the_first(tmp_path: Path) -> None:
    test = LISTS.format("jsonrpc")
    first = outcome(tmp_path / "all", {"CORE-LIST-001": requirement("FAIL", {"jsonrpc": "FAIL"}, test)}, case(test, failure("wrong")))
    second = outcome(tmp_path / "bare", {"CORE-LIST-001": requirement("PASS", {"jsonrpc": "PASS"}, "tests/other.py::test_it")})
    assert not read([first, second], {}, []).good


def test_the_papers_name_every_failure_waiver_skip_and_gap(tmp_path: Path) -> None:
    listed, skipped = LISTS.format("jsonrpc"), LISTS.format("grpc")
    said = {
        "CORE-LIST-001": requirement("FAIL", {"jsonrpc": "FAIL", "grpc": "SKIPPED"}, listed, skipped),
        "GRPC-ERR-002": requirement("FAIL", {"grpc": "FAIL"}, ERRORS),
        "CARD-SIGN-001": requirement("NOT TESTED", {}),
    }
    cases = (
        case(listed, failure("wrong")),
        case(skipped, '<skipped message="no streams"/>'),
        case(ERRORS, failure("got FAILED_PRECONDITION")),
    )
    found = profile(tmp_path, said, *cases)
    page = papers.page([found], [WAIVER], [])
    assert "| CORE-LIST-001 | MUST | 5.4 | JSON-RPC |" in page
    assert "| GRPC-ERR-002 | 5.4 | gRPC | as the release says |" in page
    assert "| CORE-LIST-001 | gRPC | no streams |" in page
    assert "| CARD-SIGN-001 | MUST | 5.4 | signatures of agent cards |" in page
    assert "FAILED MUST CORE-LIST-001" in papers.table([found])
    a2a = papers.document([found], [])["a2a"]
    assert (a2a["passed"], a2a["failed"], a2a["waived"], a2a["not_tested"]) == (
        0,
        ["1.0 CORE-LIST-001"],
        ["1.0 GRPC-ERR-002"],
        ["1.0 CARD-SIGN-001"],
    )


def test_every_waiver_gives_its_reason_and_its_section() -> None:
    for waiver in waivers(Path(__file__).parent / "waivers.json"):
        assert waiver.requirement and waiver.tests and waiver.error and len(waiver.reason) > 40 and waiver.section
