"""The commands that the distribution installs are functions that exist."""

import importlib
import tomllib

import pytest

from tests.house.source import ROOT

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_installed_command_is_a_function(name: str) -> None:
    module, _, function = SCRIPTS[name].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
