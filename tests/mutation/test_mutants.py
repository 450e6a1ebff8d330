"""What counts as a small change, and that a trial sees the changed module and no other."""

import ast

import pytest

from tests.house.source import ROOT
from tests.mutation import plan
from tests.mutation.__main__ import Module, score
from tests.mutation.equal import EQUAL, keys_in_use
from tests.mutation.mutants import find_mutants
from tests.mutation.reach import EVERYWHERE, Reach, lines_of_functions

SOURCE = '''
"""A text for people."""
_log = structlog.get_logger()

def f(a: int, b: "B") -> bool:
    """Another."""
    if a < 3 and not b:
        raise ValueError("is too small")
    _log.info("seen")
    check(a)
    return a + 1 in ("x",)
'''


def changes_by_mutant(source: str = SOURCE) -> dict[str, str]:
    return {f"{mutant.line} {mutant.kind}": ast.unparse(mutant.apply(source)) for mutant in find_mutants(source)}


def test_each_kind_of_change_is_made_where_it_can_be() -> None:
    assert set(changes_by_mutant()) == {
        "7 Lt -> LtE", "7 and -> or", "7 not removed", "7 number + 1", "8 raise removed", "10 call removed",
        "11 returns None", "11 In -> NotIn", "11 Add -> Sub", "11 number + 1", "11 text",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("7 Lt -> LtE", "if a <= 3 and (not b):"),
        ("7 and -> or", "if a < 3 or not b:"),
        ("7 not removed", "if a < 3 and b:"),
        ("8 raise removed", "pass"),
        ("10 call removed", "pass"),
        ("11 returns None", "return None"),
        ("11 text", "return a + 1 in ('xX',)"),
    ],
)
def test_one_change_is_one(kind: str, line: str) -> None:
    before, after = ast.unparse(ast.parse(SOURCE)).splitlines(), changes_by_mutant()[kind].splitlines()
    differing = [new.strip() for old, new in zip(before, after, strict=True) if old != new]
    assert differing == [line]


def test_what_is_there_for_the_type_checker_alone_is_left_as_it_is() -> None:
    assert (
        changes_by_mutant('T = TypeVar("T")\nKind = Literal["a", "b"]\nclass P(Protocol):\n    def f(self, a: str = "") -> None: ...\n')
        == {}
    )
    assert set(changes_by_mutant('T = Thing("T")\ndef f(a: str = "") -> None:\n    """Nothing."""\n')) == {"1 text", "2 text"}


def test_modules_of_every_folder_of_policies_are_mutated() -> None:
    files = {path for path in (ROOT / "policies").rglob("*.py") if path.stem not in plan.LEFT_OUT}
    assert {ROOT / "policies" / f"{module}.py" for module in plan.list_modules()} == files
    assert "authority" in plan.list_modules()


def test_modules_left_out_are_there() -> None:
    assert {path.stem for path in (ROOT / "policies").rglob("*.py")} >= plan.LEFT_OUT


def test_every_module_has_tests_that_are_there() -> None:
    assert set(plan.ALSO) <= set(plan.list_modules())
    for module in plan.list_modules():
        assert plan.tests_of(module), module
        assert [path for path in plan.tests_of(module) if not (ROOT / path).exists()] == []


def test_what_is_called_equal_is_there_has_a_reason_and_is_little() -> None:
    sources = {module: (ROOT / "policies" / f"{module}.py").read_text(encoding="utf-8") for module in plan.list_modules()}
    found = {module: find_mutants(source) for module, source in sources.items()}
    assert set().union(*(keys_in_use(module, sources[module], found[module]) for module in sources)) == set(EQUAL)
    assert all(len(why.split()) > 3 for why in EQUAL.values())
    assert len(EQUAL) < 0.05 * sum(len(each) for each in found.values())


def test_a_mutant_is_tried_by_the_tests_that_run_its_function_the_quick_ones_first() -> None:
    reach = Reach(lines_of_functions(SOURCE), {"slow": 2.0, "quick": 0.1, "other": 0.5}, {5: {"slow", "quick"}})
    assert reach.tests_of_line(8) == ["quick", "slow"]
    assert (reach.function_at(3), reach.tests_of_line(3)) == (EVERYWHERE, ["quick", "other", "slow"])


def test_the_score_is_over_all_that_were_tried() -> None:
    assert score([Module("a", 10, 0, 4, 4), Module("b", 10, 1, 4, 2), Module("c", 5)]) == 0.75
    assert score([]) == 0.0
