"""Every test asserts something."""

import pytest

from tests.house import claims
from tests.house.source import Source, assert_kept, python


def test_every_test_asserts_something() -> None:
    known = claims.checkers(python("tests"))
    assert_kept(lambda source: claims.empty_tests(source, known), python("tests"))


@pytest.mark.parametrize("body", ["x = f()", "print(1)", "pass", "await call()"])
def test_a_test_that_cannot_fail_is_found(body: str) -> None:
    source = Source("tests/test_x.py", f"async def test_x():\n    {body}\n")
    assert len(claims.empty_tests(source, claims.checkers([source]))) == 1


@pytest.mark.parametrize("body", ["assert f()", "with pytest.raises(ValueError): f()", "looks_right(f())"])
def test_a_test_that_can_fail_is_fine(body: str) -> None:
    helper = Source("tests/fakes/x.py", "def looks_right(x):\n    assert x\n")
    source = Source("tests/test_x.py", f"def test_x():\n    {body}\n")
    assert claims.empty_tests(source, claims.checkers([source, helper])) == []
