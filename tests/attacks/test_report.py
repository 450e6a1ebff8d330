"""The table of attacks: an attack is answered when its tests ran and passed, and in no other case."""

import pytest

from tests.attacks.__main__ import Outcomes, line_of, report, row_of
from tests.attacks.marks import Attack

ATTACK = Attack("TOK-12", "token", "Stolen", "401")
TEST = "tests/gateway/test_x.py::test_a"


@pytest.mark.parametrize(
    ("outcomes", "reason", "outcome"),
    [
        ({f"{TEST}[api-sqlite]": "passed", f"{TEST}[grpc-1.0-postgres]": "passed"}, "", "answered"),
        ({f"{TEST}[api-sqlite]": "passed", f"{TEST}[grpc-1.0-postgres]": "failed"}, "", "FAILED"),
        ({f"{TEST}[api-sqlite]": "passed", f"{TEST}[grpc-1.0-postgres]": "skipped"}, "", "answered"),
        ({f"{TEST}[api-sqlite]": "skipped"}, "", "NOT RUN"),
        ({f"{TEST}_of_another": "passed"}, "", "NO TEST"),
        ({}, "no console", "not yet"),
        ({TEST: "failed"}, "no console", "FAILED"),
    ],
)
def test_an_outcome_is_that_of_all_its_tests(outcomes: dict[str, str], reason: str, outcome: str) -> None:
    line = line_of(Attack("TOK-12", "token", "Stolen", "401", reason), (TEST,), Outcomes(outcomes, {TEST: {"api"}}))
    assert line.outcome == outcome
    if len(outcomes) == 2:
        assert (line.doors, line.databases, line.files) == (("grpc-1.0", "api"), ("sqlite", "postgres"), ("gateway/test_x.py",))
        assert "doors: grpc-1.0 api" in row_of(line)
    if outcome == "not yet":
        assert row_of(line).endswith("no console")


@pytest.mark.parametrize(("outcome", "code"), [("passed", 0), ("failed", 1), ("skipped", 1)])
def test_one_that_is_not_answered_ends_with_1(
    outcome: str, code: int, tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.attacks.__main__.ROOT", tmp_path)
    assert report([line_of(ATTACK, (TEST,), Outcomes({TEST: outcome}))]) == code
    assert "of 1" in capsys.readouterr().out
