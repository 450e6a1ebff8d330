"""The console in a real browser: Debian's chromium, driven by playwright, with axe on every page."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.console import ConsoleBrowser, console_house, furnish
from tests.fakes.house import House
from tests.fakes.reception import Reception

CHROMIUM = "/usr/bin/chromium"
pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason=f"there is no {CHROMIUM}: apt-get install chromium fonts-liberation"),
]
REFUSED_PAGES = {"unknown"}  # whose status is an error, which the browser reports
DARK_PAGES = {"overview", "task", "why", "approval", "agent that changed"}
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
TABS_MAX = 80
FOCUSED = "(e => e.matches('a, button, input') ? e.innerText || e.name : '')(document.activeElement)"


class Chromium:
    """A browser, and all that it complained about."""

    def __init__(self, home: House, browser: Any) -> None:
        self.home = home
        self.browser = browser
        self.complaints: list[str] = []
        self.foreign: list[str] = []

    async def open(self, user: str) -> Any:
        """A page of a browser in which the person has signed in, by the keyboard alone."""
        context = await self.browser.new_context(viewport=WIDE)
        page = await context.new_page()
        page.on("console", self._on_message)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        page.on("request", self._on_request)
        await page.add_init_script(
            "document.addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
        )
        await page.goto(self.home.url + await ConsoleBrowser(self.home).link(user))
        await page.bring_to_front()
        await tab_to(page, f"Continue as {user}")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{self.home.url}/console")
        return page

    def _on_message(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith((self.home.url, "data:")):
            self.foreign.append(request.url)


@pytest.fixture
async def chromium(tmp_path: Path, database_url: str) -> AsyncIterator[Chromium]:
    from playwright.async_api import async_playwright

    async with AsyncExitStack() as stack:
        home = await stack.enter_async_context(console_house(tmp_path, database_url, is_open=True))
        playwright = await stack.enter_async_context(async_playwright())
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        stack.push_async_callback(browser.close)
        yield Chromium(home, browser)


async def violations_on(page: Any) -> list[str]:
    """What axe finds on a page."""
    from axe_playwright_python.async_playwright import Axe

    found = (await Axe().run(page)).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['target']} {each['nodes'][0].get('failureSummary', '')}" for each in found]


async def tab_to(page: Any, text: str) -> None:
    """Moves the focus by the tab key to the element with a text."""
    for _ in range(TABS_MAX):
        if text in await page.evaluate(
            "document.activeElement.matches('a, button, input') ? document.activeElement.innerText || document.activeElement.name : ''"
        ):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"the tab key does not lead to {text!r}")


async def test_every_page_is_accessible_complains_of_nothing_and_loads_nothing_foreign(chromium: Chromium) -> None:
    """attack INJ-06, ADM-03: nothing that others wrote is loaded or run"""
    pages = await furnish(chromium.home)
    page = await chromium.open("admin")
    for what, path in pages.items():
        if what in REFUSED_PAGES:
            continue
        await page.goto(chromium.home.url + path)
        assert await violations_on(page) == [], what
        await page.set_viewport_size(NARROW)
        assert await page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], f"{what} is wider than a telephone"
        if what in DARK_PAGES:
            await page.emulate_media(color_scheme="dark")
            assert await violations_on(page) == [], f"{what} in the dark"
            await page.emulate_media(color_scheme="light")
        await page.set_viewport_size(WIDE)
    assert chromium.complaints == []
    assert chromium.foreign == []


async def test_an_approval_is_given_by_keyboard_alone(chromium: Chromium) -> None:
    home = chromium.home
    await home.server("inventory", "check", "refund")
    refused = (await home.call(home.token("alice"), "/mcp", "inventory_refund", {"amount": 5})).json()["error"]["data"]
    page = await chromium.open("admin")
    await tab_to(page, "Approve inventory.refund")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/approvals/*")
    await tab_to(page, "reason")
    await page.keyboard.type("checked with the customer")
    await tab_to(page, "Approve this act once")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**?done=approved")
    assert "Your approval is recorded." in await page.inner_text("main")
    approval = (await Reception(home).ask("GET", f"/api/approvals/{refused['approval']['id']}")).json()
    assert (approval["state"], approval["votes"][0]["reason"]) == ("approved", "checked with the customer")
    assert chromium.complaints == []


async def test_a_list_shows_what_happens_without_a_reload(chromium: Chromium) -> None:
    home = chromium.home
    await home.server("inventory", "check", "refund")
    page = await chromium.open("admin")
    await page.goto(f"{home.url}/console/inbox")
    await page.evaluate("window.notReloaded = true")
    await page.wait_for_selector("#live-note:text-is('Live')")
    await home.call(home.token("alice"), "/mcp", "inventory_refund", {"amount": 5})
    await page.wait_for_selector("#waiting >> text=inventory.refund", timeout=60_000)
    assert await page.evaluate("window.notReloaded")
    assert chromium.complaints == []
