"""The table of mutations: what is wrong with a row is found without running it, and only a failed test counts as noticed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.__main__ import report_trials
from tests.attacks.child import Run
from tests.attacks.marks import Attack
from tests.attacks.mutations import Mutation, find_problems, read_table
from tests.attacks.trials import Trial, judge, likeliest_first, run_mutations
from tests.house.source import ROOT

ATTACK = Attack("BOX-02", "sandbox", "Endless", "Stopped")
LIMIT = Mutation("BOX-02", "the size", "policies/keys/jwks.py", "MEMBERS_MAX = 50\n", "MEMBERS_MAX = 60\n")
COUNTED = "tests/policies/keys/test_jwks.py::test_the_whole_set_is_refused_for_a_kid_given_twice_too_many_or_no_usable_keys"


def mutation_with(**members: str) -> Mutation:
    return Mutation(**{**{name: getattr(LIMIT, name) for name in Mutation.__slots__}, **members})


@pytest.mark.parametrize(
    ("mutations", "problem"),
    [
        ([], "BOX-02: has no mutation"),
        ([LIMIT, mutation_with(attack="BOX-03")], "BOX-03: is no attack on authority"),
        ([LIMIT, LIMIT], "BOX-02: stands twice"),
        ([mutation_with(text="MEMBERS_MAX = 51\n")], "BOX-02: policies/keys/jwks.py has 0 times, and not once"),
        ([mutation_with(text="MEMBERS_MAX")], "times, and not once: MEMBERS_MAX"),
        ([mutation_with(file="policies/moved.py")], "BOX-02: policies/moved.py does not exist"),
        ([mutation_with(file="tests/attacks/marks.py")], "is no file of the product"),
        ([mutation_with(replacement="MEMBERS_MAX = (\n")], "is no Python any more"),
        ([mutation_with(replacement="MEMBERS_MAX = 50  # fifty\n")], "changes nothing"),
    ],
)
def test_a_row_that_shows_nothing_is_a_problem(mutations: list[Mutation], problem: str) -> None:
    assert any(problem in found for found in find_problems(mutations, [ATTACK], ROOT))


def test_attacks_of_other_areas_and_those_not_shown_yet_need_no_mutation() -> None:
    others = [Attack("AVL-01", "availability", "Many", "Bounded"), Attack("TEN-06", "tenancy", "Shared", "Denied", "there is none")]
    assert find_problems([], others, ROOT) == []


def test_a_row_without_a_member_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.toml").write_text('[[mutation]]\nattack = "BOX-02"\nfile = "policies/keys/jwks.py"\n')
    with pytest.raises(TypeError, match="removes"):
        read_table(tmp_path / "table.toml")


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        (Run({"a": "passed", "b": "failed"}, complete=True), "red"),
        (Run({"a": "failed"}, complete=False), "red"),
        (Run({"a": "passed", "b": "skipped"}, complete=True), "SURVIVES"),
        (Run({"a": "skipped"}, complete=True), "NOT RUN"),
        (Run({}, complete=True), "NOT RUN"),
        (Run({"a": "passed"}, complete=False), "NO RESULT"),
    ],
)
def test_a_mutation_is_noticed_by_a_test_that_fails_alone(run: Run, outcome: str) -> None:
    assert judge(LIMIT, run).outcome == outcome


BROKEN_FIXTURE = """
import pytest

@pytest.fixture
def broken(): raise ValueError
def test_of_the_fixture(broken): pass
def test_that_fails(): raise AssertionError
def test_that_passes(): pass
"""


RUN_TESTS = """
import json, pathlib, sys
from tests.attacks.child import run_tests
run = run_tests(pathlib.Path(sys.argv[1]), [sys.argv[2]], stop_at_failure=sys.argv[3] == "stop")
print(json.dumps([dict(run.outcomes), run.complete]))
"""


def run_alone(tree: Path, test: str, *, stop_at_failure: bool) -> Run:
    """Runs tests from a new process, as `make attacks` does: a fork of this one, whose other threads may hold locks, hangs."""
    command = [sys.executable, "-c", RUN_TESTS, str(tree), test, "stop" if stop_at_failure else "go on"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    outcomes, complete = json.loads(ended.stdout)
    return Run(outcomes, complete)


@pytest.mark.parametrize(("stop", "names"), [(True, ["fails"]), (False, ["fails", "passes"])])
def test_a_broken_fixture_is_no_failure_and_does_not_stop_the_run(tmp_path: Path, stop: bool, names: list[str]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "test_it.py").write_text(BROKEN_FIXTURE)
    run = run_alone(tree, "test_it.py", stop_at_failure=stop)
    assert [*run.outcomes] == [f"test_it.py::test_that_{name}" for name in names]
    assert run.failed == ("test_it.py::test_that_fails",)
    assert run.complete


def test_tests_that_cannot_be_collected_leave_the_run_incomplete(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    assert run_alone(tree, "test_gone.py", stop_at_failure=True) == Run({}, complete=False)


def test_tests_near_the_changed_file_run_first() -> None:
    near, folder, slow, other = (
        "tests/policies/keys/test_jwks.py::a",
        "tests/policies/b.py::b",
        "tests/gateway/a.py::a",
        "tests/registry/a.py::a",
    )
    assert likeliest_first([slow, other, folder, near], "policies/keys/jwks.py") == [near, folder, other, slow]


@pytest.mark.parametrize(("outcome", "code"), [("red", 0), ("SURVIVES", 1), ("FAILS ANYWAY", 1)])
def test_a_mutation_that_is_not_noticed_ends_with_1(
    outcome: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.attacks.__main__.ROOT", tmp_path)
    assert report_trials([Trial(LIMIT, outcome)]) == code
    assert f"1 {outcome}, of 1 mutations" in capsys.readouterr().out


def test_a_copy_is_changed_and_tried_and_the_tree_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    (trial,) = run_mutations([LIMIT], {"BOX-02": [COUNTED]}, 1)
    assert trial.outcome == "red" and trial.failed[0].startswith(COUNTED)
    assert (ROOT / LIMIT.file).read_text(encoding="utf-8").count(LIMIT.text) == 1
    assert "BOX-02  red" in capsys.readouterr().out
