"""`python -m tests.attacks.child FILE <tests.json`: runs tests up to the first failure and writes what became of each to FILE.

Only failures of a test's own body count as failed: a mutation that keeps a fixture from being built shows nothing about the attack.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from tests.mutation.trial import OnSqlite


class Bodies:
    """Outcomes of the bodies of tests by pytest's ids."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.outcomes[report.nodeid] = report.outcome


def main(answer: Path, tests: list[str]) -> None:
    """Writes no file where pytest could not collect the tests."""
    bodies = Bodies()
    with tempfile.TemporaryDirectory(dir=answer.parent) as folder:
        options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", f"--basetemp={folder}/tests", f"--rootdir={answer.parent}"]
        ended = pytest.main([*options, *tests], [OnSqlite(), bodies])
    if ended in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        answer.write_text(json.dumps(bodies.outcomes), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), json.load(sys.stdin))
