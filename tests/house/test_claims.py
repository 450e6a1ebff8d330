"""Every test asserts something."""

import pytest

from tests.house import claims
from tests.house.source import Source, assert_kept, product, python


def test_every_test_asserts_something() -> None:
    known = claims.checkers(python("tests"), product())
    assert len(known) > 100
    assert_kept(lambda source: claims.empty_tests(source, known), python("tests"))


def made(body: str) -> Source:
    text = "import asyncio\nfrom tests.fakes.x import looks_right, Peer\n" + f"async def test_x(peer: Peer) -> None:\n    {body}\n"
    return Source("tests/test_x.py", text)


HELPER = Source(
    "tests/fakes/x.py",
    """
def looks_right(x): assert x
def looks_twice(x): looks_right(x)
def returns(x): return x
class Peer:
    def expect_call(self): looks_twice(self)
    def call(self): assert self
    async def wait(self): assert self
class Other:
    def call(self): return self
""",
)
PRODUCT = Source("gateway/x.py", "class Bell:\n    async def wait(self): ...\n")


@pytest.mark.parametrize(
    "body",
    [
        "x = f()",
        "print(1)",
        "pass",
        "await call()",
        "returns(1)",
        "await asyncio.wait_for(f(), 60)",
        "check(1)",
        "peer.call()",
        "peer.wait()",
    ],
)
def test_a_test_that_cannot_fail_is_found(body: str) -> None:
    assert len(claims.empty_tests(made(body), claims.checkers([made(body), HELPER], [PRODUCT]))) == 1


@pytest.mark.parametrize("body", ["assert f()", "with pytest.raises(ValueError): f()", "looks_right(f())", "peer.expect_call()"])
def test_a_test_that_can_fail_is_fine(body: str) -> None:
    assert claims.empty_tests(made(body), claims.checkers([made(body), HELPER], [PRODUCT])) == []


def test_a_helper_of_the_same_name_in_another_module_is_another() -> None:
    source = Source("tests/test_x.py", "from tests.other import looks_right\ndef test_x() -> None:\n    looks_right(1)\n")
    assert len(claims.empty_tests(source, claims.checkers([source, HELPER]))) == 1
