"""The habits hold, and each rule finds what it is for."""

import pytest

from tests.house import habits
from tests.house.source import Source, assert_kept, everything, product, texts

NOQA = "# no" + "qa"
IGNORE = "# type: " + "ignore"


def made(text: str, path: str = "gateway/made.py") -> Source:
    return Source(path, text)


def test_broad_excepts_stand_at_doors_and_log() -> None:
    assert_kept(habits.broad_excepts, product())


def test_each_module_that_may_catch_everything_does() -> None:
    assert habits.needless_roots(product()) == set()
    assert habits.needless_roots([made(LOGGED, "gateway/storage/writer.py"), made("x = 1\n", "gateway/server/health.py")]) == set(
        habits.ROOTS
    ) - {"gateway.storage.writer"}


def test_modules_with_leave_of_their_own_are_there() -> None:
    modules = {source.module for source in product()}
    named = (*habits.ROOTS, *habits.ENVIRONMENT_READERS)
    absent = [root for root in named if not any(f"{name}.".startswith(f"{root}.") for name in modules)]
    assert absent == []


def test_suppressions_say_why() -> None:
    assert_kept(habits.bare_suppressions, everything())


def test_nothing_is_left_over() -> None:
    assert [problem for path, text in texts() for problem in habits.leftovers(path, text)] == []


def test_middleware_is_pure_asgi() -> None:
    assert_kept(habits.http_middlewares, product())


def test_there_are_no_mocks() -> None:
    assert_kept(habits.mocks, everything())


def test_the_environment_is_read_in_one_place() -> None:
    assert_kept(habits.environment_readers, product())


SWALLOWED = "try:\n    x()\nexcept Exception:\n    pass\n"
LOGGED = "try:\n    x()\nexcept Exception:\n    log.exception('x failed')\n"


def test_a_swallowed_exception_is_found() -> None:
    assert "no door" in habits.broad_excepts(made(LOGGED))[0]
    assert "log" in habits.broad_excepts(made(SWALLOWED, "gateway/server/router.py"))[0]
    assert len(habits.broad_excepts(made("try:\n    x()\nexcept (ValueError, BaseException):\n    pass\n"))) == 1
    assert len(habits.broad_excepts(made("try:\n    x()\nexcept:\n    pass\n"))) == 1
    assert len(habits.broad_excepts(made("with contextlib.suppress(Exception):\n    x()\n"))) == 1
    assert habits.broad_excepts(made("with suppress(ValueError):\n    x()\n")) == []


def test_a_logged_exception_at_a_door_and_a_reraise_are_fine() -> None:
    told = "def refuse(e):\n    log.exception('x')\n\ntry:\n    x()\nexcept Exception as e:\n    refuse(e)\n"
    assert habits.broad_excepts(made(told, "gateway/server/router.py")) == []
    assert habits.broad_excepts(made(LOGGED, "gateway/server/router.py")) == []
    assert habits.broad_excepts(made("try:\n    x()\nexcept BaseException:\n    close()\n    raise\n")) == []


@pytest.mark.parametrize("comment", [NOQA, f"{NOQA}: S101", f"{IGNORE}[attr-defined]", IGNORE])
def test_a_bare_suppression_is_found(comment: str) -> None:
    assert len(habits.bare_suppressions(made(f"x = 1  {comment}\n"))) == 1


@pytest.mark.parametrize("comment", [f"{NOQA}: S101 - the caller checked it", f"{IGNORE}[attr-defined]  # the stub lacks it"])
def test_a_suppression_with_its_reason_is_fine(comment: str) -> None:
    assert habits.bare_suppressions(made(f"x = 1  {comment}\n")) == []


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error"])
def test_a_leftover_is_found(word: str) -> None:
    assert len(habits.leftovers("x.md", f"a\n{word}: later\n")) == 1


@pytest.mark.parametrize("text", ["from starlette.middleware.base import BaseHTTPMiddleware\n", "@app.middleware('http')\ndef f(): ...\n"])
def test_a_convenient_middleware_is_found(text: str) -> None:
    assert len(habits.http_middlewares(made(text))) == 1


@pytest.mark.parametrize(
    "text", ["from unittest.mock import Mock\n", "from unittest import mock\n", "import mock\n", "def test_x(mocker): ...\n"]
)
def test_a_mock_is_found(text: str) -> None:
    assert len(habits.mocks(made(text, "tests/test_x.py"))) == 1


def test_a_second_reader_of_the_environment_is_found() -> None:
    assert len(habits.environment_readers(made("import os\nx = os.environ['A']\n"))) == 1
    assert habits.environment_readers(made("import os\nx = os.environ['A']\n", "gateway/server/settings.py")) == []
