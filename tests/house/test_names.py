"""Names say what is inside, and modules say it in a sentence."""

import ast
from pathlib import Path

import pytest

from tests.house import names
from tests.house.source import PRODUCT, ROOT, Source, assert_kept, everything, product, python


def test_no_module_is_a_bag() -> None:
    assert_kept(names.bags, everything())


def test_every_module_starts_with_a_sentence() -> None:
    assert_kept(names.silent_modules, product())


def test_every_folder_of_tests_is_a_package() -> None:
    assert names.bare_folders(ROOT / "tests") == []


@pytest.mark.parametrize("package", PRODUCT)
def test_few_functions_are_named_by_a_past_participle(package: str) -> None:
    sources = python(package)
    assert sum(len(names.functions_of(source)) for source in sources) > 100
    found, share = names.participles(sources)
    assert share <= names.PARTICIPLES_MAX, "\n" + "\n".join(found)


@pytest.mark.parametrize("package", PRODUCT)
def test_few_docstrings_have_vague_persons(package: str) -> None:
    assert len(names.docstrings(python(package))) > 100
    found, share = names.vague_docstrings(python(package))
    assert share <= names.VAGUE_MAX, f"{share:.1%}\n" + "\n".join(found)


def test_a_class_name_occurs_in_one_file() -> None:
    assert sum(isinstance(node, ast.ClassDef) for source in product() for node in ast.walk(source.tree)) > 500
    assert names.repeated_classes(product()) == []


def test_names_of_tests_are_under_80_characters() -> None:
    assert sum(node.name.startswith("test_") for source in python("tests") for node in names.functions_of(source)) > 1000
    assert_kept(names.long_test_names, python("tests"))


@pytest.mark.parametrize("name", ["kept", "_told", "allowed", "begun", "_shown", "found"])
def test_a_past_participle_is_found(name: str) -> None:
    source = Source("gateway/made.py", f"class A:\n    def {name}(self): ...\n    def keep_row(self): ...\n")
    assert names.participles([source]) == ([f"gateway/made.py:2: {name}"], 0.5)


@pytest.mark.parametrize("name", ["kept_row", "is_allowed", "feed", "seed", "tenant", "encrypt", "widen", "on_closed"])
def test_another_word_is_no_past_participle(name: str) -> None:
    assert not names.is_participle(name)


@pytest.mark.parametrize("word", ["whoever", "Who", "whom", "nobody", "Somebody", "of ours", "meanwhile", "anew"])
def test_a_vague_person_is_found(word: str) -> None:
    text = f'"""The caller."""\nclass A:\n    """It is {word} again."""\n    async def f():\n        """Whole."""\n'
    found, share = names.vague_docstrings([Source("gateway/made.py", text)])
    assert found == [f"gateway/made.py:2: {word}"] and 0.33 < share < 0.34


def test_a_class_in_two_files_is_found() -> None:
    one, two = (Source(f"gateway/{name}.py", "class A:\n    class Page: ...\nclass B: ...\n") for name in ("one", "two"))
    other = Source("gateway/three.py", "def f():\n    class B: ...\nclass C: ...\nclass D: ...\n")
    assert names.repeated_classes([one, other]) == ["class B: gateway/one.py, gateway/three.py"]
    assert names.repeated_classes([one, two])[-1] == "class Page: gateway/one.py, gateway/two.py"
    assert names.repeated_classes([one]) == []


def test_a_long_name_of_a_test_is_found() -> None:
    for length, count in ((79, 0), (80, 1)):
        name = "test_" + "x" * (length - len("test_"))
        assert len(names.long_test_names(Source("tests/test_x.py", f"async def {name}(): ...\n"))) == count


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
