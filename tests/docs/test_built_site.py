"""The built site: read from the disk in a browser, it fetches nothing from another host, and its search finds pages."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.__main__ import FOREIGN_SCRIPT, SITE, main

CHROMIUM = Path("/usr/bin/chromium")

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(not os.environ.get("DOCS"), reason="`make docs` builds the site, with tools of its own, and looks at it")
LOADED = re.compile(r"<(?:script|img|link|iframe|source|video|audio|object|embed|use)\b[^>]*?\s(?:src|href|data|xlink:href)=\"?([^\s\">]+)")
IN_STYLES = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\"' ]*")


@pytest.fixture(scope="module")
def built() -> None:
    assert main() == 0


@pytest.fixture(scope="module")
def page(built: None) -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


@pytest.mark.usefixtures("built")
def test_no_page_loads_anything_of_another_host() -> None:
    pages = [*SITE.rglob("*.html")]
    assert len(pages) > 50
    loaded = [(path.name, address) for path in pages for address in LOADED.findall(path.read_text(encoding="utf-8"))]
    assert len(loaded) > 500 and [each for each in loaded if "//" in each[1]] == []


@pytest.mark.usefixtures("built")
def test_no_style_or_script_names_one_to_load() -> None:
    styles = [path.read_text(encoding="utf-8") for path in SITE.rglob("*.css")]
    scripts = [path.read_text(encoding="utf-8") for path in SITE.rglob("*.js")]
    assert styles and scripts
    assert [found for text in styles for found in IN_STYLES.findall(text)] == []
    assert [found for text in scripts for found in FOREIGN_SCRIPT.findall(text)] == []


def test_pages_are_read_from_the_disk_without_errors_and_foreign_requests(page: Any) -> None:
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    for name in ("index.html", "ARCHITECTURE.html", "docs/workflow-examples.html", "docs/api.html", "docs/costs.html"):
        page.goto((SITE / name).as_uri())
        page.wait_for_load_state("load")
    assert page.locator("h1").inner_text().startswith("Costs")
    assert len(asked) > 10 and [url for url in asked if not url.startswith(("file:", "data:"))] == [] and wrong == []


def test_the_search_works_without_a_server(page: Any) -> None:
    page.goto((SITE / "index.html").as_uri())
    page.keyboard.press("f")
    page.keyboard.type("idempotency", delay=20)
    first = page.locator(".md-search-result__item a").first
    first.wait_for()
    assert "idempotency" in page.locator(".md-search-result__list").inner_text().lower()
    first.click()
    page.wait_for_url(lambda url: "index.html?" not in url and not url.endswith("/index.html"))


def test_workflows_are_pictures(page: Any) -> None:
    page.goto((SITE / "docs" / "workflow-examples.html").as_uri())
    page.wait_for_load_state("load")
    widths = page.eval_on_selector_all(".picture img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) == 8 and min(widths) > 100 and page.locator(".mermaid").count() == 0
