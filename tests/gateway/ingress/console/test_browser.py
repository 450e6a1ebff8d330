"""The console in a real browser: Debian's chromium, driven by playwright, with axe on every page."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.calls.limits.open_streams import PER_PERSON_MAX
from tests.fakes.a2a_agents import serving
from tests.fakes.card_host import CardHost
from tests.fakes.console import ConsoleBrowser, console_house, furnish
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reception import Reception
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

CHROMIUM = "/usr/bin/chromium"
pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason=f"there is no {CHROMIUM}: apt-get install chromium fonts-liberation"),
]
REFUSED_PAGES = {"unknown"}  # whose status is an error, which the browser reports
DARK_PAGES = {"overview", "task", "why", "approval", "agent that changed"}
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
TABS_MAX = 80


class Chromium:
    """A browser, and all that it complained about."""

    def __init__(self, home: House, browser: Any) -> None:
        self.home = home
        self.browser = browser
        self.complaints: list[str] = []
        self.foreign: list[str] = []

    async def open(self, user: str, *, scripts: bool = True) -> Any:
        """A page of a browser in which the person has signed in, by the keyboard alone."""
        context = await self.browser.new_context(viewport=WIDE, java_script_enabled=scripts)
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
        if scripts:
            await tab_to(page, f"Continue as {user}")
            await page.keyboard.press("Enter")
        else:
            await page.click(f"text=Continue as {user}")
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


async def tab_to(page: Any, text: str, label: str = "") -> None:
    """Moves the focus by the tab key to the element with a text, or to the one with a label."""
    for _ in range(TABS_MAX):
        if label and await page.evaluate("document.activeElement.getAttribute('aria-label')") == label:
            return
        if not label and text in await page.evaluate(
            "document.activeElement.matches('a, button, input, select, textarea, summary')"
            " ? document.activeElement.innerText || document.activeElement.name : ''"
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


async def test_a_newcomer_registers_an_agent_tries_it_and_finds_out_why_by_keyboard_alone(chromium: Chromium) -> None:
    home = chromium.home
    agent = CallbackAgent("crates")
    url = await home.stack.enter_async_context(serving(AgentWithCard(agent)))
    page = await chromium.open("admin")
    await follow(page, "Agents", "**/console/agents")
    await follow(page, "Register an agent", "**/console/register/agent")
    await write(page, "url", url)
    await write(page, "name", "crates")
    await write(page, "ceiling", "tool:inventory.*")
    await tab_to(page, "Preview")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=This would be registered")
    await check_page(chromium, page, "preview")
    await tab_to(page, "Register")
    await tab_to_button(page, "Register")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=client_secret")
    await check_page(chromium, page, "registered")
    await follow(page, "Try it", "**/console/agents/crates/try")
    await write(page, "text", "two crates")
    await tab_to(page, "Send the message")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#result >> text=crates got: two crates")
    await page.wait_for_selector("[data-phase=ended]", state="attached")
    assert page.url.endswith("/console/agents/crates/try"), "the answer came as a stream"
    await check_page(chromium, page, "answer")
    await follow(page, "Why it was allowed", "**/console/why/*")
    assert "allowed" in await page.inner_text("h1")
    assert len(agent.requests) == 1
    assert chromium.complaints == [] and chromium.foreign == []


async def test_a_tool_that_asks_is_approved_and_called_again_by_keyboard_alone(chromium: Chromium) -> None:
    home = chromium.home
    server = await home.server("inventory", "check", "refund", schema={"type": "object", "properties": {"amount": {"type": "integer"}}})
    alice, carol = await chromium.open("alice"), await chromium.open("carol")
    await alice.goto(f"{home.url}/console/servers/inventory")
    await follow(alice, "try it", "**/console/servers/inventory/try**", label="Try refund")
    await call_refund(alice)
    await alice.wait_for_selector("#result >> text=It waits for an approval")
    await check_page(chromium, alice, "waits")
    await carol.bring_to_front()
    await carol.goto(f"{home.url}/console/inbox")
    await follow(carol, "inventory.refund", "**/console/approvals/*")
    await tab_to(carol, "Approve this act once")
    await carol.keyboard.press("Enter")
    await carol.wait_for_url("**?done=approved")
    await alice.bring_to_front()
    await tab_to(alice, "Call the tool")
    await alice.keyboard.press("Enter")
    await alice.wait_for_selector("#result .chip.good:text-is('completed')")
    assert server.calls == [("refund", {"amount": 5})]
    assert chromium.complaints == [] and chromium.foreign == []


async def test_a_run_is_started_and_watched_by_keyboard_alone(chromium: Chromium) -> None:
    home = chromium.home
    workflows = Workflows(home)
    await workflows.add("greet", "do:\n- say: {set: {greeting: '${ \"hello \" + .name }'}}\n- rest: {wait: {seconds: 1}}\n")
    page = await chromium.open("alice")
    await follow(page, "Workflows", "**/console/workflows")
    await follow(page, "greet", "**/console/workflows/greet")
    await tab_to(page, "input")
    await page.keyboard.press("Control+A")
    await page.keyboard.type('{"name": "Ada"}')
    await tab_to(page, "Start")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/runs/**")
    await page.evaluate("window.notReloaded = true")
    await page.wait_for_selector("h1 .chip:text-is('completed')", timeout=60_000)
    assert await page.evaluate("window.notReloaded")
    assert chromium.complaints == []


async def test_a_form_that_is_sent_without_scripts_waits_for_the_answer(chromium: Chromium) -> None:
    home = chromium.home
    await home.agent(CallbackAgent("sales"))
    page = await chromium.open("admin", scripts=False)
    await page.goto(f"{home.url}/console/agents/sales/try")
    await page.fill("textarea[name=text]", "hello")
    await page.click("text=Send the message")
    await page.wait_for_selector("#result >> text=sales got: hello")
    assert chromium.complaints == []


class AgentWithCard:
    """An agent with its card at one address."""

    def __init__(self, agent: CallbackAgent) -> None:
        self._agent = agent
        self._card = CardHost(name=agent.name, description="Packs crates", capabilities={})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await (self._agent if scope.get("method") == "POST" else self._card)(scope, receive, send)


async def follow(page: Any, words: str, url: str, label: str = "") -> None:
    """Goes to the link with these words, or with this label, and follows it."""
    await tab_to(page, words, label)
    await page.keyboard.press("Enter")
    await page.wait_for_url(url)


async def write(page: Any, name: str, text: str) -> None:
    """Goes to the field with a name, and writes into it."""
    for _ in range(TABS_MAX):
        if await page.evaluate("document.activeElement.name") == name:
            await page.keyboard.type(text)
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"the tab key does not lead to the field {name!r}")


async def tab_to_button(page: Any, text: str) -> None:
    """Moves the focus to the button that has just this text."""
    for _ in range(TABS_MAX):
        if await page.evaluate("document.activeElement.matches('button') ? document.activeElement.innerText : ''") == text:
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"the tab key does not lead to the button {text!r}")


async def call_refund(page: Any) -> None:
    await write(page, "value.amount", "5")
    await tab_to(page, "Call the tool")
    await page.keyboard.press("Enter")


async def check_page(chromium: Chromium, page: Any, what: str) -> None:
    """Looks at a page that only a form leads to as the first test looks at all others."""
    assert await violations_on(page) == [], what
    await page.set_viewport_size(NARROW)
    assert await page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], f"{what} is wider than a telephone"
    await page.emulate_media(color_scheme="dark")
    assert await violations_on(page) == [], f"{what} in the dark"
    await page.emulate_media(color_scheme="light")
    await page.set_viewport_size(WIDE)


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


async def test_a_page_without_a_stream_says_what_to_do(chromium: Chromium) -> None:
    home = chromium.home
    page = await chromium.open("admin")
    await page.goto(f"{home.url}/console/settings")  # has no stream
    places = home.gateway.open_streams
    await until(lambda: places.total_count == 0)
    held = [places.acquire("default|interlock-development|admin") for _ in range(PER_PERSON_MAX)]
    await page.goto(f"{home.url}/console/inbox")
    note = "Not live: You have the maximum number of streams open; close some."
    await page.wait_for_selector(f"#live-note:text-is('{note}')")
    assert await page.locator("#waiting").count() == 1
    held.clear()
    await page.reload()
    await page.wait_for_selector("#live-note:text-is('Live')")
    assert [each for each in chromium.complaints if "429" not in each] == []
