"""What policies/ knows is not changed by whoever is handed it: only what is filled while it is made may be."""

import dataclasses
from importlib import import_module
from inspect import isclass

import msgspec
import pytest

from tests.house.source import python

FILLED = {"Proof", "ParsedPolicies", "_RecordedDecision"}
MODULES = sorted(source.module for source in python("policies"))


def values_of(module: str) -> set[type]:
    """The structs and dataclasses that a module defines."""
    found = {each for each in vars(import_module(module)).values() if isclass(each) and each.__module__ == module}
    return {each for each in found if issubclass(each, msgspec.Struct) or dataclasses.is_dataclass(each)}


def is_frozen(value: type) -> bool:
    if issubclass(value, msgspec.Struct):
        return bool(value.__struct_config__.frozen)
    return bool(value.__dataclass_params__.frozen)  # type: ignore[attr-defined]  # every dataclass has them


@pytest.mark.parametrize("module", MODULES)
def test_values_are_frozen(module: str) -> None:
    assert {each.__name__ for each in values_of(module) if not is_frozen(each)} <= FILLED


def test_values_of_every_folder_are_looked_at() -> None:
    looked_at = {each.__name__ for module in MODULES for each in values_of(module)}
    assert {"Grant", "Delegation", "Principal"} | FILLED <= looked_at
