"""What the site is made of: each page in its place, each chart as a picture, each link to a file as a page of that file."""

from pathlib import Path

import pytest

from tests.docs.charts import charts_in, draw_chart, parse_chart
from tests.docs.pages import assemble, convert, gallery, linked_files, papers, picture_of
from tests.house.source import ROOT

CONFIGURATION = (ROOT / "tests" / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
PAPER = ROOT / "docs" / "costs.md"


def test_each_paper_has_its_place_in_the_order_of_learning() -> None:
    named = [line.split("- ", 1)[1].split(": ")[-1] for line in CONFIGURATION.partition("nav:")[2].splitlines() if line.endswith(".md")]
    assert len(named) == len(set(named)) > 40
    assert {paper.relative_to(ROOT).as_posix() for paper in papers()} | {"docs/api.md"} == set(named)


def test_the_site_is_assembled_with_files_and_the_reference_of_the_api(tmp_path: Path) -> None:
    assemble(tmp_path / "source")
    pages = {path.relative_to(tmp_path / "source").as_posix() for path in (tmp_path / "source").rglob("*.md")}
    assert {"README.md", "docs/costs.md", "examples/tours/concierge.py.md", "examples/workflows/index.md"} <= pages
    api = (tmp_path / "source" / "docs" / "api.md").read_text()
    assert "POST /api/claims" in api and 'href="/' not in api and "<script" not in api
    assert len([*(tmp_path / "source" / "docs").glob("*-1.svg")]) >= 2


@pytest.mark.parametrize("paper", [paper for paper in papers() if "```mermaid" in paper.read_text()], ids=lambda paper: paper.stem)
def test_each_chart_is_drawn_without_scripts_and_foreign_content(paper: Path) -> None:
    for chart in charts_in(paper.read_text()):
        svg = picture_of(chart).replace("http://www.w3.org/2000/svg", "")
        assert svg.startswith("<svg") and "<text" in svg and "//" not in svg and "<script" not in svg


def test_a_chart_that_is_not_understood_is_an_error() -> None:
    with pytest.raises(ValueError, match="not understood"):
        parse_chart("flowchart LR\n  a ==> b\n")


def test_text_of_a_chart_is_no_markup() -> None:
    svg = draw_chart("<t>", parse_chart('flowchart LR\n  a[<b onload="x">] -->|<i>| c\n'))
    assert "<b " not in svg and "<i>" not in svg and "<t>" not in svg


def test_a_link_to_a_file_leads_to_the_page_of_the_file() -> None:
    text = "[a](../examples/tours/mailer.py) [b](../examples/workflows) [c](limits.md#budgets) [d](https://a.example/x.py)"
    assert [*linked_files(PAPER, text)] == [ROOT / "examples" / "tours" / "mailer.py", ROOT / "examples" / "workflows"]
    assert convert(PAPER, text) == (
        "[a](../examples/tours/mailer.py.md) [b](../examples/workflows/index.md) [c](limits.md#budgets) [d](https://a.example/x.py)"
    )


def test_lists_and_bars_in_code_are_read_as_forges_read_them() -> None:
    assert convert(PAPER, "text:\n- one\n- two\n") == "text:\n\n- one\n- two\n"
    assert convert(PAPER, "| `a\\|b` | c\\|d |\n") == "| `a|b` | c&#124;d |\n"
    assert convert(PAPER, "```sh ann\n- a\n```\n") == "```sh\n- a\n```\n"


def test_pictures_of_the_console_are_shown_where_there_are_some() -> None:
    shown = gallery({"overview", "overview-dark", "task"})
    assert "pictures/overview-dark.png#only-dark" in shown and "task-dark" not in shown and "run" not in shown
