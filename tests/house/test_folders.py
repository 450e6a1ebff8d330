"""Folders are small, say what they are for, and import each other one way."""

import pytest

from tests.house import folders
from tests.house.source import Source, product


def made(*paths: str, text: str = '"""A folder."""\n') -> list[Source]:
    return [Source(path, text) for path in paths]


def test_no_folder_has_more_than_14_entries() -> None:
    assert folders.crowded_folders(product()) == []


def test_every_folder_has_one_sentence() -> None:
    assert folders.folders_without_a_sentence(product()) == []


def test_no_folder_imports_in_a_circle() -> None:
    assert folders.import_circles(product()) == []


def test_a_crowded_folder_is_found() -> None:
    crowd = made(*(f"gateway/module_{number}.py" for number in range(15)))
    assert folders.crowded_folders(crowd) == ["gateway: 15 entries, at most 14"]
    assert folders.crowded_folders(crowd[:14]) == []


def test_a_folder_without_a_sentence_is_found() -> None:
    silent = [Source("gateway/calls/__init__.py", ""), Source("gateway/calls/broker.py", "")]
    assert folders.folders_without_a_sentence(silent) == ["gateway/calls/__init__.py: one sentence, in one line"]


def test_a_circle_between_folders_is_found() -> None:
    one = Source("gateway/calls/broker.py", "from gateway.tasks.log import TaskLog\n")
    other = Source("gateway/tasks/log.py", "from gateway.calls.limits import Limits\n")
    third = Source("gateway/calls/limits.py", "import json\n")
    assert folders.import_circles([one, other, third]) == ["gateway: calls, tasks"]
    assert folders.import_circles([one, Source("gateway/tasks/log.py", ""), third]) == []


def test_a_product_without_imports_is_no_proof() -> None:
    with pytest.raises(LookupError):
        folders.import_circles(made("gateway/calls/__init__.py"))
