"""Names say what is inside, and modules say it in a sentence."""

from pathlib import Path

import pytest

from tests.house import names
from tests.house.source import ROOT, Source, assert_kept, everything, product


def test_no_module_is_a_bag() -> None:
    assert_kept(names.bags, everything())


def test_every_module_starts_with_a_sentence() -> None:
    assert_kept(names.silent_modules, product())


def test_every_folder_of_tests_is_a_package() -> None:
    assert names.bare_folders(ROOT / "tests") == []


@pytest.mark.parametrize(
    "path", ["gateway/utils.py", "gateway/task_helpers.py", "adapters/mcp.py", "gateway/broker2.py", "policies/core/x.py"]
)
def test_a_bag_is_found(path: str) -> None:
    assert len(names.bags(Source(path, ""))) == 1


@pytest.mark.parametrize("path", ["gateway/a2a_server/v1.py", "gateway/ingress/mcp_server/__init__.py", "adapters/tool_servers.py"])
def test_a_plain_name_is_fine(path: str) -> None:
    assert names.bags(Source(path, "")) == []


@pytest.mark.parametrize(
    "text", ["x = 1\n", '"""No period"""\n', '"""Short."""\n', '"""A title that is long enough\n\nThen a sentence.\n"""\n']
)
def test_a_silent_module_is_found(text: str) -> None:
    assert len(names.silent_modules(Source("gateway/made.py", text))) == 1


def test_a_folder_without_init_is_found(tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "test_x.py").touch()
    assert len(names.bare_folders(tmp_path)) == 1
    (tmp_path / "adapters" / "__init__.py").touch()
    assert names.bare_folders(tmp_path) == []
