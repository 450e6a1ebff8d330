"""`make screenshots`: plays the demo's story and takes pictures of the console in build/screenshots."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import sync_playwright

from examples.demo.programs import ROOT, Programs
from examples.demo.sales import SALES
from examples.demo.screen import Screen
from examples.demo.story import Story

CHROMIUM = Path("/usr/bin/chromium")
FOLDER = ROOT / "build" / "screenshots"
SIZES = {"": (1280, 800, "light"), "-dark": (1280, 800, "dark"), "-phone": (360, 740, "light")}


def main() -> int:
    if not CHROMIUM.exists():
        print(f"make screenshots: there is no {CHROMIUM}: apt-get install chromium fonts-liberation", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="interlock-screenshots-") as folder:
        programs = Programs(Path(folder))
        try:
            story = Story(Screen(), programs, Path(folder), SALES[""])
            story.play()
            take_pictures(story)
        finally:
            programs.stop()
    return 0


def take_pictures(story: Story) -> None:
    """Takes a picture of each page, in each size."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    order = story.person.get("/api/runs")["items"][0]["id"]
    pages = {
        "overview": (story.alice_token, "/console"),
        "tasks": (story.alice_token, "/console/tasks"),
        "task": (story.alice_token, f"/console/tasks/{story.task_id}"),
        "why": (story.bob_token, f"/console/why/{story.refusal}"),
        "run": (story.alice_token, f"/console/runs/{order}"),
        "workflow": (story.alice_token, "/console/workflows/order"),
        "agent": (story.interlock.token("admin"), "/console/agents/support"),
        "try": (story.alice_token, "/console/agents/support/try"),
        "register": (story.interlock.token("admin"), "/console/register/agent"),
        "audit": (story.interlock.token("admin"), "/console/audit"),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"])
        for name, (token, path) in pages.items():
            for suffix, (width, height, scheme) in SIZES.items():
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                _picture(context.new_page(), story.url, token, path, FOLDER / f"{name}{suffix}.png")
                context.close()
        browser.close()


def _picture(page: Any, url: str, token: str, path: str, to: Path) -> None:
    link = httpx.post(f"{url}/api/console/links", headers={"authorization": f"Bearer {token}"}, trust_env=False).json()["url"]
    page.goto(link)
    page.click("button")
    page.goto(url + path)
    page.screenshot(path=str(to), full_page=True)
    print(to.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
