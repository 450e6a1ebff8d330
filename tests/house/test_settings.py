"""Every setting is documented, nothing else is, and there are few."""

import re
import types
import typing
from collections.abc import Iterator

from pydantic import BaseModel

from gateway.server.settings import Settings
from tests.house.source import ROOT, product

MOST = 100
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def _parts(kind: object) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models inside a type, with how the path to them is written: `` direct, `[]` in a list, `.*` in a mapping."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield "", kind
    origin = typing.get_origin(kind)
    mark = {list: "[]", dict: ".*"}.get(origin, "") if origin else ""
    if origin in (list, dict, typing.Union, types.UnionType):
        for argument in typing.get_args(kind):
            yield from ((mark + inner, model) for inner, model in _parts(argument))


def paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all settings below `model`; members of lists as `agents[].name`, of mappings as `users.*.roles`."""
    for name, field in model.model_fields.items():
        parts = list(_parts(field.annotation))
        if not parts or parts[0][0]:
            yield prefix + (field.alias or name)
        for mark, inner in parts:
            yield from paths(inner, f"{prefix}{name}{mark}.")


def members(path: str) -> bool:
    """Whether it is a part of one entry of a list or a mapping, not a setting by itself."""
    return "[]" in path or ".*." in path


def test_there_are_at_most_100_settings() -> None:
    assert 10 < len([path for path in paths(Settings) if not members(path)]) <= MOST


def test_every_setting_has_a_row_in_the_docs_and_no_row_is_left_over() -> None:
    documented = ROW.findall((ROOT / "docs" / "settings.md").read_text())
    assert sorted(documented) == sorted(paths(Settings))


def test_every_setting_is_read_by_the_product_unless_its_row_says_that_nothing_does() -> None:
    code = "\n".join(source.text for source in product() if source.module != "gateway.server.settings")
    unread = [path for path in paths(Settings) if not members(path) and not re.search(rf"\.{path.rpartition('.')[2]}\b", code)]
    rows = (ROOT / "docs" / "settings.md").read_text().splitlines()
    assert unread == [row.split("`")[1] for row in rows if "Nothing reads it yet" in row]


def test_nested_settings_are_found() -> None:
    class Inner(BaseModel):
        deep: int = 0

    class Outer(BaseModel):
        plain: str = ""
        one: Inner = Inner()
        maybe: Inner | None = None
        many: list[Inner] = []
        named: dict[str, Inner] = {}

    assert list(paths(Outer)) == ["plain", "one.deep", "maybe.deep", "many", "many[].deep", "named", "named.*.deep"]
    assert [path for path in paths(Outer) if members(path)] == ["many[].deep", "named.*.deep"]
