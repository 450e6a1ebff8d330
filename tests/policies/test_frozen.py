"""What policies/ knows is not changed by whoever is handed it: only what is filled while it is made may be."""

import dataclasses
from importlib import import_module
from inspect import isclass

import msgspec
import pytest

from tests.house.source import ROOT

FILLED = {"Proof", "Read", "_Told"}


@pytest.mark.parametrize("module", sorted(path.stem for path in (ROOT / "policies").glob("*.py")))
def test_values_are_frozen(module: str) -> None:
    name = f"policies.{module}"
    found = {each for each in vars(import_module(name)).values() if isclass(each) and each.__module__ == name}
    structs = {each.__name__ for each in found if issubclass(each, msgspec.Struct) and not each.__struct_config__.frozen}
    classes = {each.__name__ for each in found if dataclasses.is_dataclass(each) and not each.__dataclass_params__.frozen}
    assert structs | classes <= FILLED
