"""Each test of the 0.3 kit counts over every binding."""

import pytest

from tests.conformance.kit import KitMissing
from tests.conformance.kit_v03 import filled, read
from tests.conformance.report import Ran, Waiver
from tests.conformance.sdk_v03 import as_tests

TEST = "tests/mandatory/protocol/test_get.py::test_it"


def test_a_failure_over_one_binding_fails_the_test() -> None:
    found = read({"jsonrpc": [Ran(TEST, "passed", "")], "grpc": [Ran(TEST, "failed", "wrong")]}, [])
    assert [(one.id, one.status) for one in found.requirements] == [("test_get::test_it", "FAIL")]
    assert dict(found.requirements[0].bindings) == {"jsonrpc": "PASS", "grpc": "FAIL"}
    assert not found.good


def test_a_waiver_names_the_test() -> None:
    waiver = Waiver("0.3", "test_get::test_it", ("test_it",), "wrong", "because", "1")
    found = read({"jsonrpc": [Ran(TEST, "failed", "wrong")], "grpc": [Ran(TEST, "passed", "")]}, [waiver])
    assert [one.status for one in found.requirements] == ["WAIVED"]
    assert found.good
    assert not found.idle


def test_what_is_skipped_over_one_binding_only_still_counts() -> None:
    found = read({"jsonrpc": [Ran(TEST, "passed", "")], "grpc": [Ran(TEST, "skipped", "not here")]}, [])
    assert [one.status for one in found.requirements] == ["PASS"]


def test_what_each_binding_skips_alone_is_decided_by_the_run_of_all() -> None:
    skipped, passed = Ran(TEST, "skipped", "needs two"), Ran(TEST, "passed", "")
    assert filled({"jsonrpc": [skipped]}, [passed]) == {"jsonrpc": [passed]}
    assert filled({"jsonrpc": [skipped]}, [skipped]) == {"jsonrpc": [skipped]}


def test_a_run_of_all_mends_no_failure() -> None:
    failed = Ran(TEST, "failed", "wrong")
    assert filled({"jsonrpc": [failed]}, [Ran(TEST, "passed", "")]) == {"jsonrpc": [failed]}


def test_a_check_of_the_sdk_that_has_a_problem_is_a_requirement_that_failed() -> None:
    found = read({"jsonrpc": as_tests({"finds_the_agent": "", "sends": "no url"})}, [])
    assert [(one.id, one.status) for one in found.requirements] == [
        ("sdk_v03_client::finds_the_agent", "PASS"),
        ("sdk_v03_client::sends", "FAIL"),
    ]


def test_an_sdk_that_checks_nothing_is_no_result() -> None:
    with pytest.raises(KitMissing):
        as_tests({})
