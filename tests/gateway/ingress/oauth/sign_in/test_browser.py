"""The pages of a sign-in in a real browser: by keyboard alone, accessible, and with a way back that Chromium follows."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.fakes.a2a_agents import serving
from tests.fakes.console import HOSTILE, console_house
from tests.fakes.sign_in import Client, parameters_of
from tests.gateway.ingress.console.test_browser import CHROMIUM, WIDE, Chromium, tab_to, violations_on

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason=f"there is no {CHROMIUM}: apt-get install chromium fonts-liberation"),
]


class SignInBrowser(Chromium):
    """A browser in which nobody has signed in yet."""

    async def blank(self) -> Any:
        """A page that reports what it complains about, and what it violates."""
        page = await (await self.browser.new_context(viewport=WIDE)).new_page()
        page.on("console", self._on_message)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        await page.bring_to_front()
        return page


@pytest.fixture
async def chromium(tmp_path: Path, database_url: str) -> AsyncIterator[SignInBrowser]:
    from playwright.async_api import async_playwright

    async with AsyncExitStack() as stack:
        home = await stack.enter_async_context(console_house(tmp_path, database_url, is_open=True))
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        stack.push_async_callback(browser.close)
        yield SignInBrowser(home, browser)


def without_missing_files(complaints: list[str]) -> list[str]:
    """Complaints about pages themselves, and not about the status of an error page or a client without an icon."""
    return [each for each in complaints if "Failed to load resource" not in each]


async def test_a_person_signs_in_to_the_console_by_keyboard_alone(chromium: SignInBrowser) -> None:
    page, url = await chromium.blank(), chromium.home.url
    await page.goto(f"{url}/console/sign-in?to=/console/tasks")
    assert await violations_on(page) == []
    await tab_to(page, "user")
    await page.keyboard.press("ArrowDown")
    await tab_to(page, "Sign in")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{url}/console/tasks")
    chosen = list(chromium.home.gateway.settings.users)[1]
    assert chosen in await page.inner_text("body"), "the cookie came along, though the way led through pages of the sign-in"
    assert chromium.complaints == []


async def test_a_client_gets_its_code_through_the_browser(chromium: SignInBrowser) -> None:
    answers: list[str] = []

    async def receive(request: Request) -> Response:
        answers.append(str(request.url))
        return HTMLResponse("<!doctype html><title>back</title><p>back at the client</p>")

    home, page = chromium.home, await chromium.blank()
    async with serving(Starlette(routes=[Route("/callback", receive)])) as place:
        client = Client(home, redirect=f"{place}callback")
        assert (await client.register(client_name=HOSTILE)).status_code == 201
        for button, member in (("Allow", "code"), ("Refuse", "error")):
            await page.goto(f"{home.url}/oauth/authorize?{urlencode(client.request(scope='agent:* tool:crm.read'))}")
            assert await violations_on(page) == []
            assert await page.locator("script, img, a").count() == 0, "the name of a client is never markup"
            await tab_to(page, button)
            await page.keyboard.press("Enter")
            await page.wait_for_url(f"{place}callback**")
            told = parameters_of(answers[-1])
            assert member in told and (told["state"], told["iss"]) == ("the state", home.url)
    assert without_missing_files(chromium.complaints) == []


async def test_pages_about_problems_and_commands_are_accessible(chromium: SignInBrowser) -> None:
    page, url = await chromium.blank(), chromium.home.url
    for path in ("/oauth/authorize?client_id=nobody", "/oauth/device", "/oauth/device?user_code=BCDF-GHJK", "/oauth/callback/corp?state=x"):
        await page.goto(f"{url}{path}")
        assert await violations_on(page) == [], path
        await page.set_viewport_size({"width": 360, "height": 740})
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360, path
        await page.set_viewport_size(WIDE)
    assert without_missing_files(chromium.complaints) == []
