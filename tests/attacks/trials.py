"""Runs each mutation: a copy of the tree with one guard taken away, in which the tests of the attack have to fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.attacks.mutations import Mutation
from tests.house.source import ROOT, SKIPPED
from tests.mutation.trial import MEMORY

SECONDS_MAX = 300.0  # for the tests of one mutation
RED = "red"
SLOW_FOLDERS = ("tests/gateway/", "tests/attacks/")  # their tests start a gateway, so they run after the others


@dataclass(frozen=True)
class Trial:
    """A mutation and what its tests said. `outcome` is RED, or says in capitals why the mutation proves nothing."""

    mutation: Mutation
    outcome: str
    failed: tuple[str, ...] = ()


@contextmanager
def copied_tree() -> Iterator[Path]:
    """A folder with the copy `base` of the tree, compiled files included; it is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="interlock-attacks-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        base = Path(folder) / "base"
        shutil.copytree(ROOT, base, ignore=shutil.ignore_patterns(*SKIPPED - {"__pycache__"}, "*.egg-info"))
        yield Path(folder)


def run_mutations(mutations: Sequence[Mutation], tests: Mapping[str, Sequence[str]], jobs: int) -> list[Trial]:
    """Tries `jobs` mutations at once. `tests`: id of an attack to its tests, as pytest names them."""
    with copied_tree() as folder, ThreadPoolExecutor(jobs) as pool:
        trials = list(pool.map(lambda each: _try(folder, each, tests.get(each.attack, ())), mutations))
        return _compare_with_base(folder / "base", trials)


def _try(folder: Path, mutation: Mutation, tests: Sequence[str]) -> Trial:
    """Raises LookupError where the text of the mutation is not in its file exactly once."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        tree = Path(place) / "tree"
        shutil.copytree(folder / "base", tree)
        mutation.apply(tree)
        ordered = sorted(tests, key=lambda test: (test.startswith(SLOW_FOLDERS), test))
        trial = judge(mutation, _outcomes(tree, ordered))
    print(f"  {mutation.attack}  {trial.outcome:<12}{mutation.removes}", flush=True)
    return trial


def judge(mutation: Mutation, outcomes: Mapping[str, str] | None) -> Trial:
    """`outcomes`: of the bodies of tests, by pytest's ids; None where the tests could not be run."""
    if outcomes is None:
        return Trial(mutation, "NO RESULT")
    if failed := tuple(sorted(test for test, outcome in outcomes.items() if outcome == "failed")):
        return Trial(mutation, RED, failed)
    return Trial(mutation, "SURVIVES" if "passed" in outcomes.values() else "NOT RUN")


def _compare_with_base(base: Path, trials: Sequence[Trial]) -> list[Trial]:
    """A test that fails in the copy without any mutation shows nothing."""
    failed = sorted({test for trial in trials for test in trial.failed})
    outcomes = (_outcomes(base, failed) or {}) if failed else {}
    return [
        trial if all(outcomes.get(test) == "passed" for test in trial.failed) else replace(trial, outcome="FAILS ANYWAY")
        for trial in trials
    ]


def _outcomes(tree: Path, tests: Sequence[str]) -> dict[str, str] | None:
    """Outcomes of tests in a tree by pytest's ids, up to the first failure; None where there are none, or not in time."""
    answer = tree / "outcomes.json"
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "tests.attacks.child", str(answer)]
    process = subprocess.Popen(
        command,
        cwd=tree,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.communicate(json.dumps(list(tests)).encode(), timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end_group(process.pid)
        process.wait()
    if not answer.exists():
        return None
    found: dict[str, str] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def _end_group(pid: int) -> None:
    """Ends whatever the tests left running."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
