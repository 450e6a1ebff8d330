"""Every page, in a gateway in which all that others can write is hostile."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer

from gateway.cli.main import app
from gateway.ingress.console.rendering import CONTENT_SECURITY_POLICY
from gateway.ingress.console.routes import PATHS
from tests.fakes.console import MARK, ConsoleBrowser, console_house, furnish
from tests.fakes.house import CallbackAgent, House
from tests.gateway.cli.test_guide import commands

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
COMMAND = re.compile(r"<dt>Command line</dt><dd><code>([^<]+)</code>")
HIDDEN = ("\u202e", "\u202c", "\u200b", "\ufeff")
OWN = {"script": "src", "link": "href", "img": "src", "a": "href", "form": "action"}  # elements, and what they load or lead to
ELEMENTS = frozenset(  # that templates write
    re.findall(
        "[a-z0-9]+",
        "html head meta title link script body a header img p div span small form input button nav ul ol li main h1 h2 h3 section b "
        "footer dl dt dd code pre table thead tbody tr th td time q figure figcaption label select option textarea details summary svg "
        "rect path fieldset legend ",
    )
)
FRAMES = {"foreign", "data"}  # classes of what shows text of others as theirs
VOID = {"meta", "link", "img", "input", "rect", "path"}


class PageReader(HTMLParser):
    """Reads a page: which elements it has, where they lead, and in which frames the hostile mark stands."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.addresses: list[str] = []
        self.bad_attributes: list[str] = []
        self.unframed: list[str] = []
        self.marks = 0
        self._frames: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        given = dict(attrs)
        self.bad_attributes += [name for name in given if name.startswith("on") or name in ("style", "srcdoc", "formaction")]
        if tag in OWN and given.get(OWN[tag]):
            self.addresses.append(given[OWN[tag]] or "")
        if tag not in VOID:
            self._frames.append((tag, bool(FRAMES & set((given.get("class") or "").split()))))

    def handle_endtag(self, tag: str) -> None:
        while self._frames:
            if self._frames.pop()[0] == tag:
                return

    def handle_data(self, data: str) -> None:
        if MARK in data:
            self.marks += 1
            if not any(is_frame for _, is_frame in self._frames):
                self.unframed.append(data.strip()[:120])


@pytest.fixture
async def furnished(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[House, dict[str, str]]]:
    async with console_house(tmp_path, database_url) as home:
        yield home, await furnish(home)


@on_sqlite
async def test_hostile_text_is_escaped_framed_and_visible_on_every_page(furnished: tuple[House, dict[str, str]]) -> None:
    """attack ADM-03, INJ-06: nothing that others wrote becomes an element, leads anywhere, or looks like words of the page"""
    home, pages = furnished
    marks = 0
    for user in ("admin", "alice"):
        browser = await ConsoleBrowser(home).sign_in(user)
        for what, path in pages.items():
            answer = await browser.get(path)
            page = PageReader()
            page.feed(answer.text)
            allowed = (200, 404) if user == "admin" else (200, 403, 404)
            assert answer.status_code in allowed, (user, what, answer.status_code)
            assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY, what
            assert page.elements <= ELEMENTS, (what, page.elements - ELEMENTS)
            assert page.bad_attributes == [], (what, page.bad_attributes)
            assert all(address.startswith(("/console", "#content")) for address in page.addresses), (what, page.addresses)
            assert not any(hidden in answer.text for hidden in HIDDEN), what
            assert page.unframed == [], (user, what, page.unframed)
            marks += page.marks
    assert marks > 40, "the pages show little of what others wrote"


@on_sqlite
async def test_each_page_names_its_json_twin_which_answers_the_same_person(furnished: tuple[House, dict[str, str]]) -> None:
    home, pages = furnished
    browser = await ConsoleBrowser(home).sign_in("admin")
    twins = 0
    for what, path in pages.items():
        page = PageReader()
        page.feed((await browser.get(path)).text)
        for address in (each for each in page.addresses if each.startswith("/console/api/")):
            answer = await browser.get(address)
            assert answer.status_code == 200, (what, address, answer.text)
            twins += 1
    assert twins >= len(pages) - 2


@on_sqlite
async def test_each_page_names_a_command_that_there_is(furnished: tuple[House, dict[str, str]]) -> None:
    home, pages = furnished
    browser, known = await ConsoleBrowser(home).sign_in("admin"), [name for name, _ in commands(typer.main.get_command(app))]
    named = {what: COMMAND.findall((await browser.get(path)).text) for what, path in pages.items()}
    assert sum(map(len, named.values())) >= len(pages) - 2
    unknown = {
        what: each for what, found in named.items() for each in found if not any(f"{each} ".startswith(f"{name} ") for name in known)
    }
    assert unknown == {}


@on_sqlite
async def test_the_page_of_health_names_what_fails_and_nothing_else(home: House) -> None:
    for name in ("well", "zz"):
        await home.agent(CallbackAgent(name))
    await home.gateway.entry_refresher._probes.record_failure(("default", "zz"), "late")
    shown = (await (await ConsoleBrowser(home).sign_in("admin")).get("/console/health")).text
    assert ">zz</a>" in shown and ">well</a>" not in shown and "There are more" not in shown


@on_sqlite
async def test_who_has_nothing_is_led_to_everybodys_where_they_may_look(home: House) -> None:
    operator, person = await ConsoleBrowser(home).sign_in("admin"), await ConsoleBrowser(home).sign_in("bob")
    for path, own, others in (
        ("/console/tasks", "You have no tasks yet.", "There are no tasks yet."),
        ("/console/cost?by=day", "You have called nothing", "Nothing was called"),
    ):
        sign = "&" if "?" in path else "?"
        assert own in (mine := (await operator.get(path)).text) and others not in mine and "everybody=true" in mine
        assert others in (await operator.get(f"{path}{sign}everybody=true")).text
        assert others in (theirs := (await person.get(path)).text) and own not in theirs


@on_sqlite
async def test_the_part_of_costs_that_the_overview_shows_is_never_empty(home: House) -> None:
    operator = await ConsoleBrowser(home).sign_in("admin")
    part = (await operator.get("/console/cost?by=day")).text.partition('<section id="costs">')[2].partition("</section>")[0]
    assert 'class="empty"' in part


def test_every_page_is_among_those_that_the_tests_look_at() -> None:
    """A page without hostile text in the corpus would be one that nobody looked at."""
    shown = {path for method, path in PATHS if method == "GET"}
    assert shown == {
        *(
            "/console",
            "/console/health",
            "/console/tasks",
            "/console/tasks/{}",
            "/console/inbox",
            "/console/approvals/{}",
            "/console/checkpoints/{}",
        ),
        *("/console/agents/{}/try", "/console/agents/{}/history/{}", "/console/servers/{}/try", "/console/servers/{}/history/{}"),
        *("/console/register/agent", "/console/register/server"),
        *("/console/why", "/console/why/{}", "/console/agents", "/console/agents/{}", "/console/servers", "/console/servers/{}"),
        *("/console/workflows", "/console/workflows/{}", "/console/runs", "/console/runs/{}", "/console/subjects"),
        "/console/audit/verification",
        *("/console/subjects/{}", "/console/audit", "/console/cost", "/console/evaluate", "/console/replay", "/console/memory"),
        *("/console/memory/{}", "/console/events", "/console/triggers", "/console/deadletters", "/console/account", "/console/settings"),
    }


@on_sqlite
async def test_the_navigation_leads_nobody_to_a_page_that_refuses_them(furnished: tuple[House, dict[str, str]]) -> None:
    home, _ = furnished
    for user in ("admin", "alice"):
        browser = await ConsoleBrowser(home).sign_in(user)
        side = (await browser.get("/console")).text.partition('<nav class="side"')[2].partition("</nav>")[0]
        links = re.findall('href="([^"]+)"', side)
        assert len(links) > 14
        assert ("/console/audit" in links) == (user == "admin")
        assert [link for link in links if (await browser.get(link)).status_code != 200] == []


@on_sqlite
async def test_the_overview_shows_the_last_tasks_that_people_began(furnished: tuple[House, dict[str, str]]) -> None:
    home, _ = furnished
    browser = await ConsoleBrowser(home).sign_in("admin")
    tasks = (await browser.get("/console/api/tasks?everybody=true&limit=200")).json()["items"]
    began = {each["id"]: not each["parent_id"].startswith("t_") for each in tasks}
    section = (await browser.get("/console?everybody=true")).text.partition('id="recent"')[2].partition("</section>")[0]
    shown = re.findall("/console/tasks/(t_[0-9a-f]+)", section)
    assert shown
    assert all(began[each] for each in shown)


@on_sqlite
async def test_the_overview_shows_people_what_was_refused_to_them_lately(furnished: tuple[House, dict[str, str]]) -> None:
    home, _ = furnished
    refused = (await home.call(home.token("bob"), "/mcp/inventory", "refund", {})).json()["error"]["data"]["decision_id"]
    for user, path, is_shown in (("bob", "/console", True), ("alice", "/console", False), ("admin", "/console?everybody=true", True)):
        browser = await ConsoleBrowser(home).sign_in(user)
        assert (f"/console/why/{refused}" in (await browser.get(path)).text) == is_shown, (user, path)
        assert (f"/console/why/{refused}" in (await browser.get(path.replace("/console", "/console/why"))).text) == is_shown, (user, path)


@on_sqlite
async def test_the_page_of_events_lists_the_sources_of_webhooks(furnished: tuple[House, dict[str, str]]) -> None:
    home, _ = furnished
    for scope, is_shown in ((None, True), ("agent:* state:read:events/shop.*", False)):
        page = await (await ConsoleBrowser(home).sign_in("admin", scope)).get("/console/events")
        assert ("/api/events/sources/crm" in page.text) == is_shown


@on_sqlite
async def test_a_refusal_is_a_page_with_the_navigation(furnished: tuple[House, dict[str, str]]) -> None:
    home, _ = furnished
    answer = await (await ConsoleBrowser(home).sign_in("alice")).get("/console/settings")
    assert (answer.status_code, "/console/why/d_" in answer.text, 'href="/console/tasks"' in answer.text) == (403, True, True)


@on_sqlite
async def test_the_root_leads_browsers_to_the_console_and_programs_nowhere(home: House) -> None:
    browser, program = [await home.http.get("/", headers={"accept": each}) for each in ("text/html,*/*;q=0.8", "*/*")]
    assert (browser.status_code, browser.headers["location"]) == (302, "/console")
    assert (program.status_code, program.json()["reason_id"]) == (404, "unknown-path")
