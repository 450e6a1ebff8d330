"""Runs tests of a copy of the tree in a forked process, which finds the libraries loaded and loads what is ours from the copy."""

import gc
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.house.source import ROOT
from tests.mutation.trial import OURS, OnSqlite, load_foreign_libraries

SECONDS_MAX = 300.0  # for one call of run_tests


@dataclass(frozen=True)
class Run:
    """`outcomes`: of the bodies of tests, by pytest's ids. `complete`: pytest collected the tests and ended in time."""

    outcomes: Mapping[str, str]
    complete: bool

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(sorted(test for test, outcome in self.outcomes.items() if outcome == "failed"))


class Bodies:
    """Writes the outcome of each test's body at once, so that a test that hangs leaves those before it known.

    Errors of fixtures are not failures: a mutation that keeps a fixture from being built shows nothing about the attack.
    """

    def __init__(self, answer: Path, *, stop_at_failure: bool) -> None:
        self._answer = answer
        self._stop_at_failure = stop_at_failure
        self._session: pytest.Session | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        with self._answer.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([report.nodeid, report.outcome]) + "\n")
        if report.failed and self._stop_at_failure and self._session is not None:
            self._session.shouldfail = "a test failed"


def load_libraries() -> None:
    """Loads the libraries that tests use once, before the first fork; `warm` leaves out every module of ours."""
    load_foreign_libraries()
    gc.collect()
    gc.freeze()  # else each forked process looks through all of it


def run_tests(tree: Path, tests: Sequence[str], *, stop_at_failure: bool) -> Run:
    """Runs tests in `tree` on SQLite, in this order, for at most SECONDS_MAX."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=tree.parent) as folder:
        answer = Path(folder) / "outcomes.jsonl"
        answer.touch()
        process = get_context("fork").Process(target=_run_and_exit, args=(tree, list(tests), answer, stop_at_failure))
        process.start()
        process.join(SECONDS_MAX)
        ended = process.exitcode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if process.pid is not None:
            _end_group(process.pid)
        process.kill()
        process.join()
        return Run(dict(json.loads(line) for line in answer.read_text(encoding="utf-8").splitlines()), ended)


def _run_and_exit(tree: Path, tests: list[str], answer: Path, stop_at_failure: bool) -> None:
    """Ends the process with pytest's exit code."""
    os.setsid()  # what the tests start ends with this group
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    _enter(tree)
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", f"--basetemp={answer.parent}/tests", f"--rootdir={tree}"]
    os._exit(pytest.main([*options, *tests], [OnSqlite(), Bodies(answer, stop_at_failure=stop_at_failure)]))


def _enter(tree: Path) -> None:
    """Makes imports, also those of processes that tests start, find our modules in `tree` alone."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    others = [path for path in sys.path if Path(path).resolve() != ROOT]
    sys.path[:] = [str(tree), *others]
    os.environ["PYTHONPATH"] = str(tree)
    os.chdir(tree)


def _end_group(pid: int) -> None:
    """Ends whatever the tests left running."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
