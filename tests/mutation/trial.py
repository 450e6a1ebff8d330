"""One mutant's trial: a process of its own, forked with the libraries loaded, in which the module is the changed one."""

import ast
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tests.house.source import PRODUCT, ROOT
from tests.mutation.reach import Reach, Watch, lines_of_functions

MEMORY = Path("/dev/shm")  # where there is no disk to wait for
LOOK = (
    "import sys, pytest, hypothesis, pytest_asyncio.plugin, xdist.plugin, anyio.pytest_plugin, _hypothesis_pytestplugin;"
    "import gateway.server.app, gateway.server.composition.process, tests.conftest, tests.fakes.reception, tests.fakes.reference_clients;"
    "print(*[n for n, m in sys.modules.items() if getattr(m, '__file__', None)], sep=chr(10))"
)
OURS = (*PRODUCT, "tests", "conftest")


def load_foreign_libraries() -> None:
    """Loads what the tests will load of other people's libraries, and nothing of ours. Raises CalledProcessError."""
    listed = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        if name.partition(".")[0] not in (*OURS, "__main__"):
            with contextlib.suppress(ImportError):
                import_module(name)


class _ChangedModuleLoader(SourceFileLoader):
    """Loads a module from another tree than its file's."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self._tree = tree

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self._tree, self.path, "exec")
        return code


class _ChangedModuleFinder(MetaPathFinder):
    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name = name
        self._path = str(path)
        self._tree = tree

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return spec_from_file_location(fullname, self._path, loader=_ChangedModuleLoader(fullname, self._path, self._tree))


class OnSqlite:
    """Leaves out what needs a server."""

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        items[:] = [item for item in items if "postgres" not in item.name and "postgres_url" not in getattr(item, "fixturenames", ())]


def try_mutant(module: str, tree: ast.Module, tests: list[str]) -> None:
    """Ends this process: 0 where no test noticed, 1 where one did."""
    _isolate_process()
    sys.meta_path.insert(0, _ChangedModuleFinder(f"policies.{module.replace('/', '.')}", path_of(module), tree))
    near = [test for test in tests if test.startswith("tests/policies/")]  # these load less
    far = [test for test in tests if test not in near]
    os._exit(0 if all(_run_tests(some, "-x") == 0 for some in (near, far) if some) else 1)


def run_unchanged(module: str, tests: list[str], answer: Connection) -> None:
    """Runs the tests with nothing changed, sends what they reach (a Reach), None where one fails, and ends this process."""
    _isolate_process()
    path = path_of(module)
    reach = Reach(lines_of_functions(path.read_text(encoding="utf-8")))
    with Watch(str(path), reach) as watch:
        code = _run_tests(tests, "-x", plugins=[watch])
    found = code == 0 and _run_tests(list(reach.seconds), "--collect-only") == 0  # what can't be named would pass for noticed
    answer.send(reach if found else None)
    os._exit(0)


def path_of(module: str) -> Path:
    return ROOT / "policies" / f"{module}.py"


def _isolate_process() -> None:
    os.setpgid(0, 0)  # whatever the tests start ends with it
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)


def _run_tests(tests: list[str], *options: str, plugins: Sequence[object] = ()) -> int:
    with tempfile.TemporaryDirectory(prefix="interlock-mutant-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        always = ["-q", "-n", "0", "-p", "no:cacheprovider", f"--basetemp={folder}/tests", f"--rootdir={ROOT}"]
        return pytest.main([*always, *options, *tests], [OnSqlite(), *plugins])
