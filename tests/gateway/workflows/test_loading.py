"""Documents are read with every problem of their shape, each with its path and line."""

import threading
import tracemalloc
from typing import Any

import pytest

from gateway.workflows.dsl import loading
from gateway.workflows.dsl.durations import milliseconds_of
from gateway.workflows.dsl.loading import read_document, read_source
from gateway.workflows.problems import DocumentRefused
from tests.gateway.workflows.documents import document_of, text_of


def problems(text: str) -> list[tuple[int, str]]:
    with pytest.raises(DocumentRefused) as caught:
        read_document(read_source(text))
    return [(each.line, each.path) for each in caught.value.problems]


def test_every_problem_is_told_with_its_path_and_line() -> None:
    found = problems(text_of("- a: {cal: http}\n- b: {call: http, with: {method: get, bogus: 1}}\n- c: {set: {x: 1}, extra: 2}"))
    assert found == [(4, "/do/0/a"), (5, "/do/1/b/with"), (5, "/do/1/b/with/bogus"), (6, "/do/2/c/extra")]


@pytest.mark.parametrize(
    ("task", "path", "reason"),
    [
        ("{wait: PT1S, timeout: {after: 5s}}", "/do/0/a/timeout/after", "such as P1D or PT15M"),
        ("{wait: PT1S, timeout: 5}", "/do/0/a/timeout", "is no object with `after` and no text"),
        ("{wait: {day: 1}}", "/do/0/a/wait/day", "is not known here"),
        (
            "{try: [{b: {wait: PT1S}}], catch: {retry: {limit: 2}}}",
            "/do/0/a/catch/retry/limit",
            "is no object with `attempt`, `duration`",
        ),
    ],
)
def test_a_value_that_may_be_of_several_types_has_one_problem(task: str, path: str, reason: str) -> None:
    with pytest.raises(DocumentRefused) as caught:
        read_document(read_source(text_of(f"- a: {task}")))
    (problem,) = caught.value.problems
    assert problem.path == path and reason in problem.reason


@pytest.mark.parametrize("budget", ["{perRun: -1}", "{perRun: free}", "{perDay: true}", "{perDay: 1e9}", "{perWeek: 1}"])
def test_what_is_no_budget_is_refused(budget: str) -> None:
    text = text_of("- a: {set: {x: 1}}").replace("version: '1.0.0'}", f"version: '1.0.0', metadata: {{gateway: {{budget: {budget}}}}}}}", 1)
    ((_, path),) = problems(text)
    assert path == f"/document/metadata/gateway/budget/{budget.strip('{').partition(':')[0]}"


def test_yaml_is_read_as_version_1_2() -> None:
    assert read_source("{on: yes, no: off, n: 1_0, t: 2020-01-01}").data == {"on": "yes", "no": "off", "n": "1_0", "t": "2020-01-01"}
    assert read_source("a: [true, False, null, ~, 12, -1.5, 1e3, '1']").data == {"a": [True, False, None, None, 12, -1.5, 1000.0, "1"]}


def test_json_is_read_too() -> None:
    assert read_source('{"a": [1, {"b": null}]}').data == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2", "twice"),
        ("a: &x [*x]", "alias within"),
        ("a: " + "[" * 80 + "]" * 80, "deeper than"),
        ("? [a]\n: 1", "no text"),
        ("a: !!python/object:os.system {}", "JSON can't have|key"),
        ("a: !!float nan", "JSON can't have|key"),
        ("[1, 2", "no YAML|not YAML"),
        ("\x07", "not YAML"),
        ("x" * 1_100_000, "characters"),
        ("just a text", "no workflow"),
        ("", "no workflow"),
    ],
)
def test_texts_that_are_no_document_are_refused(text: str, reason: str) -> None:
    with pytest.raises(DocumentRefused, match=reason):
        read_document(read_source(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("? " + "k" * 400_000 + "\n: [" + "1," * 15_000 + "1]", "key of 400000 characters"),
        (
            "".join(f"{'  ' * depth}{'n' * 900}:\n" for depth in range(40)) + "  " * 40 + "[" + "1," * 15_000 + "1]",
            "names that are too long",
        ),
        ("a: &a {" + "n" * 900 + ": [" + "1," * 20 + "1]}\nb: [" + "*a," * 2000 + "*a]", "names that are too long"),
        ("[" + "1," * 60_000 + "1]", "more than 50000 values"),
    ],
)
def test_long_names_take_no_memory_by_themselves(text: str, reason: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DocumentRefused, match=reason):
            read_source(text)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 32 << 20


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x 1\nb: &x 2", "anchor `x` twice"),
        ("a: *x", "alias `x` of nothing"),
        ("a: 1\n---\nb: 2", "several"),
        ("a: !!int x", "JSON can't"),
    ],
)
def test_texts_that_yaml_allows_and_a_document_does_not(text: str, reason: str) -> None:
    with pytest.raises(DocumentRefused, match=reason):
        read_source(text)


def test_an_alias_is_the_value_that_it_stands_for() -> None:
    source = read_source("a: &x\n  b: [1, two]\nc: *x")
    assert source.data == {"a": {"b": [1, "two"]}, "c": {"b": [1, "two"]}}
    assert [source.line_of(path) for path in ("/a/b/1", "/c", "/c/b", "/c/b/9/z", "/nothing", "")] == [2, 3, 2, 2, 1, 1]


async def test_a_long_document_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[threading.Thread] = []
    read = loading.read_yaml

    def note(text: str) -> Any:
        readers.append(threading.current_thread())
        return read(text)

    monkeypatch.setattr(loading, "read_yaml", note)
    short = text_of("- a: {set: {x: 1}}")
    for text in (short, f"{short}\n#{' ' * loading.LARGE}"):
        assert (await loading.read_text(text))[1].do[0]["a"]
    assert [each is threading.main_thread() for each in readers] == [True, False]


def test_aliases_that_multiply_are_bounded() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(8)
    )
    with pytest.raises(DocumentRefused, match="values"):
        read_source(bomb)


@pytest.mark.parametrize(("text", "length"), [("PT15M", 900_000), ("P1DT2H", 93_600_000), ("PT0.5S", 500), ("P2W", 1_209_600_000)])
def test_durations_have_milliseconds(text: str, length: int) -> None:
    assert milliseconds_of(text) == length


@pytest.mark.parametrize("text", ["", "P", "PT", "P1Y", "P1M", "15m", "PT-5S", "P999999W", "PT1S "])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|ten years"):
        milliseconds_of(text)


def test_a_document_is_typed() -> None:
    document = document_of("- a: {wait: {seconds: 2}}", "timeout: {after: PT1H}")
    task = document.do[0]["a"]
    assert task.wait.total == 2000  # type: ignore[union-attr]  # this task is a wait
    assert document.document.metadata.gateway.deadline == "P30D"
