"""Runs each mutation: a copy of the tree with one guard taken away, in which the tests of the attack have to fail."""

import compileall
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat, takewhile
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

from tests.attacks.child import Run, load_libraries, run_tests
from tests.attacks.mutations import Mutation
from tests.house.source import ROOT, SKIPPED
from tests.mutation.trial import MEMORY

RED = "red"
SLOW_FOLDERS = ("tests/gateway/", "tests/attacks/")  # their tests start a gateway


@dataclass(frozen=True)
class Trial:
    """A mutation and what its tests said. `outcome` is RED, or says in capitals why the mutation proves nothing."""

    mutation: Mutation
    outcome: str
    failed: tuple[str, ...] = ()


@contextmanager
def copy_tree() -> Iterator[Path]:
    """A folder with the copy `base` of the tree, compiled once for all trials; it is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="interlock-attacks-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        base = Path(folder) / "base"
        shutil.copytree(ROOT, base, ignore=shutil.ignore_patterns(*SKIPPED - {"__pycache__"}, "*.egg-info"))
        compileall.compile_dir(base, quiet=2)
        yield Path(folder)


def run_mutations(mutations: Sequence[Mutation], tests: Mapping[str, Sequence[str]], jobs: int) -> list[Trial]:
    """Tries `jobs` mutations at once. `tests`: id of an attack to its tests, as pytest names them."""
    # Spawned, so that the processes that fork have one thread and none of our modules.
    with copy_tree() as folder, ProcessPoolExecutor(jobs, get_context("spawn"), load_libraries) as pool:
        trials = []
        for trial in pool.map(_try_mutation, repeat(folder), mutations, [tests.get(each.attack, ()) for each in mutations]):
            print(f"  {trial.mutation.attack}  {trial.outcome:<12}{trial.mutation.removes}", flush=True)
            trials.append(trial)
        return _compare_with_base(pool, folder / "base", trials)


def _try_mutation(folder: Path, mutation: Mutation, tests: Sequence[str]) -> Trial:
    """Raises LookupError where the text of the mutation is not in its file exactly once."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        tree = Path(place) / "tree"
        shutil.copytree(folder / "base", tree, copy_function=os.link)
        mutation.apply(tree)
        return judge(mutation, run_tests(tree, likeliest_first(tests, mutation.file), stop_at_failure=True))


def likeliest_first(tests: Sequence[str], file: str) -> list[str]:
    """The tests with those most likely to fail first: those of the changed file, of its folder, and what needs no gateway."""
    changed = PurePosixPath("tests", file).with_suffix("").parts

    def rank(test: str) -> tuple[int, bool, str]:
        module = PurePosixPath(test.partition("::")[0]).with_suffix("")
        parts = module.with_name(module.name.removeprefix("test_")).parts
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(changed, parts, strict=False))
        return -len(list(shared)), test.startswith(SLOW_FOLDERS), test

    return sorted(tests, key=rank)


def judge(mutation: Mutation, run: Run) -> Trial:
    """What the run of the attack's tests says of a mutation."""
    if run.failed:
        return Trial(mutation, RED, run.failed)
    if not run.complete:
        return Trial(mutation, "NO RESULT")
    return Trial(mutation, "SURVIVES" if "passed" in run.outcomes.values() else "NOT RUN")


def _compare_with_base(pool: Executor, base: Path, trials: Sequence[Trial]) -> list[Trial]:
    """A test that fails in the copy without any mutation shows nothing."""
    portions: dict[str, set[str]] = defaultdict(set)  # by file
    for test in {test for trial in trials for test in trial.failed}:
        portions[test.partition("::")[0]].add(test)
    outcomes: dict[str, str] = {}
    for run in pool.map(_run_unchanged, repeat(base), [sorted(each) for each in portions.values()]):
        outcomes.update(run.outcomes)
    return [
        trial if all(outcomes.get(test) == "passed" for test in trial.failed) else replace(trial, outcome="FAILS ANYWAY")
        for trial in trials
    ]


def _run_unchanged(base: Path, tests: Sequence[str]) -> Run:
    return run_tests(base, tests, stop_at_failure=False)
