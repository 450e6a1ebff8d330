"""Which tests run which functions of a module, so that a mutant is tried by those that could notice it, the quick ones first."""

import ast
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

import pytest

EVERYWHERE = 0  # the line that stands for what runs when the module is loaded


def lines_of_functions(source: str) -> list[range]:
    """The lines of each outermost function or method, decorators with it."""
    return list(_lines_in_body(ast.parse(source).body))


def _lines_in_body(body: list[ast.stmt]) -> Iterator[range]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _lines_in_body(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            yield range(first, (node.end_lineno or first) + 1)


@dataclass
class Reach:
    """`seconds` of each test by its id; `by_function`: tests by the function's first line."""

    functions: list[range]
    seconds: dict[str, float] = field(default_factory=dict)
    by_function: dict[int, set[str]] = field(default_factory=dict)

    def function_at(self, line: int) -> int:
        return next((each.start for each in self.functions if line in each), EVERYWHERE)

    def tests_of_line(self, line: int) -> list[str]:
        """Those that ran the function of this line, all where none was seen to: it may run in another process."""
        ran = self.by_function.get(self.function_at(line)) or set(self.seconds)
        return sorted(ran, key=lambda test: self.seconds[test])


class Watch:
    """A plugin of pytest that fills a Reach. What runs for a fixture counts for every test of the file."""

    def __init__(self, path: str, reach: Reach) -> None:
        self._path = path
        self._reach = reach
        self._test = ""
        self._file = ""
        self._calls: dict[int, set[str]] = {}
        self._set_up: dict[int, set[str]] = {}

    def __enter__(self) -> "Watch":
        threading.settrace(self._on_call)
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]  # that is how it is ended
        for function, files in self._set_up.items():
            self._calls.setdefault(function, set()).update(test for test in self._reach.seconds if test.partition("::")[0] in files)
        self._calls.pop(EVERYWHERE, None)
        self._reach.by_function = {
            function: {test for test in tests if test in self._reach.seconds} for function, tests in self._calls.items()
        }

    def _on_call(self, frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code.co_filename != self._path or not self._file:
            return
        function = self._reach.function_at(frame.f_code.co_firstlineno)
        if self._test:
            self._calls.setdefault(function, set()).add(self._test)
        else:
            self._set_up.setdefault(function, set()).add(self._file)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._file, self._test = item.nodeid.partition("::")[0], ""
        sys.settrace(self._on_call)  # again: a test that goes as deep as the interpreter lets it ends the looking

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self._test = item.nodeid

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        self._test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reach.seconds[report.nodeid] = self._reach.seconds.get(report.nodeid, 0.0) + report.duration
