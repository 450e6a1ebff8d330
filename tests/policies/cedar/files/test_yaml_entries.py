"""A list in YAML under one name: its entries with their lines, and one kind of error for whatever else a file may hold."""

import pytest

from policies.cedar.files.yaml_entries import DEPTH_MAX, NotEntries, read_entries


def test_each_entry_comes_with_the_line_where_it_begins() -> None:
    assert read_entries("# first\nlinks:\n- a\n\n- {b: 1,\n   c: 2}\n- [d]\n", "links") == [("a", 3), ({"b": 1, "c": 2}, 5), (["d"], 7)]
    assert read_entries("links: [a, b]", "links") == [("a", 1), ("b", 1)]
    assert read_entries("links: []", "links") == []


def test_what_is_said_once_and_referred_to_is_the_same_in_each() -> None:
    text = "links:\n- &first {a: 1}\n- {<<: *first, b: 2}\n- *first\n"
    assert [entry for entry, _ in read_entries(text, "links") or ()] == [{"a": 1}, {"a": 1, "b": 2}, {"a": 1}]


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n"])
def test_nothing_is_not_an_empty_list(text: str) -> None:
    assert read_entries(text, "links") is None


@pytest.mark.parametrize(
    "text",
    [
        "links: {}",
        "links: 3",
        "- a",
        "text",
        "cases: []",
        "links: []\nmore: []",
        "links: []\nlinks: [a]",
        "<<: {links: [a]}",
        "[links]: [a]",
    ],
)
def test_anything_but_one_list_under_its_name_is_refused(text: str) -> None:
    with pytest.raises(NotEntries, match="must have `links:` with a list") as refused:
        read_entries(text, "links")
    assert refused.value.line == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("links:\n- a\n  b: [", 3),
        ("links:\n- a\n- 2024-13-45\n", 3),
        ("links:\n- a\n- !!timestamp x", 3),
        ("links:\n- !!int x\n", 2),
        ("links:\n- a\n- [!!bool x]\n", 3),
        ("links:\n- !!python/object:os.system {}\n", 2),
        ("links:\n- {[a]: b}\n", 2),
        ("links:\n- a\n- \x00", 3),
        ("\x00", 1),
        ("links: " + "[" * 3000, 1),
        ("links: " + "{a: " * 3000, 1),
        ("links:\n- a\n- " + "[\n" * 3000, 1 + DEPTH_MAX),
        ("links:\n" + "".join(f"{' ' * depth}- a:\n" for depth in range(0, 3000, 2)), 1 + DEPTH_MAX // 2),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(NotEntries) as refused:
        read_entries(text, "links")
    assert refused.value.line == line
    assert refused.value.problem and refused.value.problem == str(refused.value) and len(refused.value.problem.splitlines()) == 1


def test_as_deep_as_may_be_is_read_and_one_level_more_is_not() -> None:
    deepest = DEPTH_MAX - 2  # below the document's own mapping and its list
    assert read_entries("links:\n- " + "[" * deepest + "]" * deepest, "links") == [(nested(deepest), 2)]
    with pytest.raises(NotEntries, match=rf"^is nested too deeply: more than {DEPTH_MAX} levels$") as refused:
        read_entries("links:\n- " + "[" * (deepest + 1) + "]" * (deepest + 1), "links")
    assert refused.value.line == 2
    wide = "[[a], [b], {c: [d]}]\n"
    assert len(read_entries("links:\n" + f"- {wide}" * 3 * DEPTH_MAX, "links") or ()) == 3 * DEPTH_MAX  # only what is inside counts


@pytest.mark.parametrize("text", ["links: &a [*a]", "links:\n- x\n- &b {c: {d: [1, *b]}}", "&all {links: [*all]}"])
def test_what_stands_in_itself_is_refused_where_it_does(text: str) -> None:
    with pytest.raises(NotEntries, match="an alias that refers to an enclosing node") as refused:
        read_entries(text, "links")
    assert refused.value.line == text.count("\n") + 1


def nested(depth: int) -> list[object]:
    return [nested(depth - 1)] if depth > 1 else []


def test_what_yaml_says_is_said_in_short() -> None:
    with pytest.raises(NotEntries, match=r"^is not YAML: mapping values are not allowed here$"):
        read_entries("links: a: b", "links")
    with pytest.raises(NotEntries, match=r"^is not YAML: expected the node content"):
        read_entries("links: [", "links")
    with pytest.raises(NotEntries, match=r"^has an unreadable value: month must be in 1\.\.12$"):
        read_entries("links: [2024-13-01]", "links")
    with pytest.raises(NotEntries, match=r"^has an unreadable value: could not determine a constructor"):
        read_entries("links: [!own x]", "links")
