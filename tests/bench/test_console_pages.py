"""The benchmark of the console loads every page of the console, and its figure is that of the slowest page."""

from pathlib import Path

from gateway.ingress.console.routes import PATHS, find_route
from tests.bench import figures
from tests.bench.console_fixture import Size
from tests.bench.console_pages import PAGES, measure_pages
from tests.bench.figures import Run, Whole


async def test_every_measured_page_answers(tmp_path: Path) -> None:
    times = await measure_pages(f"sqlite:///{tmp_path}/bench.db", tmp_path, Size(agents=60, tasks=300, runs=20, letters=40))
    assert {each.name for each in times} == set(PAGES)
    assert all(0 < each.p50_ms <= each.most_ms for each in times)


def test_the_figure_is_that_of_the_slowest_page() -> None:
    rows = [Run("interlock", f"console.{name}", 1, 50.0, ms, ms, 0.0, 0, "sqlite") for name, ms in (("tasks", 9.0), ("cost", 31.0))]
    found = {figure.name: figure for figure in figures.figures(rows, Whole())}
    assert found["console on sqlite, the slowest page, p50"].cells == ("31 ms", "<= 30", "MISSED")
    assert found["console on postgres, the slowest page, p50"].value is None


def test_every_page_without_names_in_its_path_is_measured() -> None:
    measured = {path.partition("?")[0] for path in PAGES.values()}
    assert all(find_route("GET", path) for path in measured)
    assert {path for method, path in PATHS if method == "GET" and "{}" not in path} <= measured
