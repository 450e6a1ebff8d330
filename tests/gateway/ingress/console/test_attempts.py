"""Try it: calls that are made from forms of the console, what they may do, and what their pages show."""

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from adapters.task import TaskState
from tests.fakes.a2a_agents import serving
from tests.fakes.console import HOSTILE, ConsoleBrowser, console_house, furnish
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reception import Reception
from tests.gateway.ingress.console.test_pages import PageReader

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ONCE = re.compile(r'name="once" value="([^"]+)"')
SCHEMA = {"type": "object", "properties": {"sku": {"type": "string"}, "n": {"type": "integer", "default": 2}}, "required": ["sku"]}


async def attempt(browser: ConsoleBrowser, path: str, form: dict[str, str], **headers: str) -> httpx.Response:
    """Opens a page, fills in its form, and sends it."""
    page = (await browser.get(path)).text
    found = ONCE.search(page)
    assert found is not None, page
    return await browser.post(path.partition("?")[0], {"once": found[1], **form}, **headers)


def answer_in(page: str) -> str:
    """The part of a page that shows the answer."""
    return page[page.index('id="result"') :]


async def test_a_message_goes_the_way_of_any_call_and_shows_both_sides(home: House) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    browser = await ConsoleBrowser(home).sign_in("admin")
    answer = answer_in((await attempt(browser, "/console/agents/sales/try", {"text": "two crates", "skill": "quote"})).text)
    assert "sales got: two crates" in answer and ">completed<" in answer
    assert "SendStreamingMessage" in answer and "POST /agents/sales" in answer, "what the caller sent"
    assert agent.tokens[0] and agent.tokens[0] not in answer and "Authorization: Bearer ***" in answer, "what the gateway sent"
    (task,) = re.findall(r'href="/console/tasks/(t_[^"]+)"', answer)
    shown = (await Reception(home).ask("GET", f"/api/tasks/{task}")).json()
    assert (shown["state"], shown["owner"].rpartition("|")[2]) == ("TASK_STATE_COMPLETED", "admin")
    assert f'href="/console/why/{shown["decision_id"]}"' in answer


async def test_a_form_that_is_sent_twice_does_nothing_twice(home: House) -> None:
    agent, server = await home.agent(CallbackAgent("sales")), await home.server("inventory", "check", schema=SCHEMA)
    browser = await ConsoleBrowser(home).sign_in("admin")
    for path, form in (
        ("/console/agents/sales/try", {"text": "x"}),
        ("/console/servers/inventory/try", {"tool": "check", "value.sku": "a"}),
    ):
        once = ONCE.search((await browser.get(path)).text)
        assert once is not None
        answers = await asyncio.gather(*(browser.post(path, {"once": once[1], **form}) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers)[0] == 200
    assert (len(agent.requests), len(server.calls)) == (1, 1)


@on_sqlite
async def test_a_tool_is_called_from_the_form_of_its_schema(home: House) -> None:
    server = await home.server("inventory", "check", schema=SCHEMA)
    browser = await ConsoleBrowser(home).sign_in("admin")
    answer = await attempt(browser, "/console/servers/inventory/try?tool=check", {"tool": "check", "value.sku": "a1", "value.n": "3"})
    assert server.calls == [("check", {"sku": "a1", "n": 3})]
    assert "Why it was allowed" in answer.text and 'value="a1"' in answer.text
    as_json = await attempt(browser, "/console/servers/inventory/try?as=json", {"tool": "check", "json": '{"free": [1]}'})
    assert server.calls[-1] == ("check", {"free": [1]}) and as_json.status_code == 200
    assert (await attempt(browser, "/console/servers/inventory/try", {"tool": "check", "json": "{"})).status_code == 403
    assert len(server.calls) == 2


@on_sqlite
async def test_a_script_gets_the_answer_as_a_stream_of_parts(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    browser = await ConsoleBrowser(home).sign_in("admin")
    answer = await attempt(browser, "/console/agents/sales/try", {"text": "hello"}, **{"interlock-stream": "1"})
    assert answer.headers["content-type"] == "text/event-stream"
    parts = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n") if line.startswith("data: ")]
    assert "sales got: hello" in parts[-1] and 'data-phase="ended"' in parts[-1] and "<html" not in parts[-1]


@on_sqlite
async def test_a_person_without_the_right_is_refused_as_anywhere(home: House) -> None:
    """attack ADM-03: the rights are the session's, and what the gateway exchanges with others is for operators"""
    server = await home.server("inventory", "check", "refund", schema=SCHEMA)
    agent = await home.agent(CallbackAgent("sales"))
    browser = await ConsoleBrowser(home).sign_in("bob")
    page = (await browser.get("/console/servers/inventory/try?tool=refund")).text
    assert "You may not call a tool of this name" in page
    forged = await browser.post("/console/servers/inventory/try", {"once": "A" * 22, "tool": "refund", "value.sku": "a"})
    assert forged.status_code == 403 and server.calls == []
    answer = answer_in((await attempt(browser, "/console/agents/sales/try", {"text": "hello"})).text)
    assert "shown to operators" in answer and "POST http://127.0.0.1" not in answer
    narrow = await ConsoleBrowser(home).sign_in("admin", "tool:inventory.check")
    assert (await narrow.get("/console/agents/sales/try")).status_code in (403, 404)
    assert len(agent.requests) == 1


@on_sqlite
async def test_an_act_that_needs_approval_says_what_happens_next_and_goes_through_once(home: House) -> None:
    server = await home.server("inventory", "check", "refund", schema=SCHEMA)
    browser = await ConsoleBrowser(home).sign_in("alice")
    form, path = {"tool": "refund", "value.sku": "a1", "value.n": "2"}, "/console/servers/inventory/try?tool=refund"
    answer = answer_in((await attempt(browser, path, form)).text)
    (approval,) = re.findall(r'href="/console/approvals/([^"]+)"', answer)
    assert "send the same arguments again" in answer and server.calls == []
    voted = await Reception(home).ask("POST", f"/api/approvals/{approval}/decision", "carol", {"decision": "approve"})
    assert voted.status_code == 200, voted.text
    again = answer_in((await attempt(browser, path, form)).text)
    assert ">completed<" in again and server.calls == [("refund", {"sku": "a1", "n": 2})]
    assert "/console/approvals/" in answer_in((await attempt(browser, path, form)).text), "an approval is good once"


@on_sqlite
async def test_an_agent_that_asks_is_answered_in_its_task(home: House) -> None:
    agent = CallbackAgent("sales")
    agent.state, agent.message = "TASK_STATE_INPUT_REQUIRED", {"messageId": "q", "role": "ROLE_AGENT", "parts": [{"text": "Which size?"}]}
    await home.agent(agent)
    browser = await ConsoleBrowser(home).sign_in("admin")
    answer = answer_in((await attempt(browser, "/console/agents/sales/try", {"text": "a crate"})).text)
    assert "Which size?" in answer
    (link,) = re.findall(r'href="(/console/agents/sales/try\?task=[^"]+)"', answer)
    page = (await browser.get(link.replace("&amp;", "&"))).text
    fields = dict(re.findall(r'name="(task|context|once)" value="([^"]+)"', page))
    agent.state = "TASK_STATE_COMPLETED"
    done = answer_in((await browser.post("/console/agents/sales/try", {**fields, "text": "large"})).text)
    assert ">completed<" in done and "sales got: large" in done
    assert f'href="/console/tasks/{fields["task"]}"' in done


@on_sqlite
async def test_a_long_answer_is_bounded_on_the_page(home: House) -> None:
    agent = CallbackAgent("sales", _answer_long)
    agent.more = [{"raw": "QUJD" * 400_000, "filename": "big.bin"}]
    await home.agent(agent)
    browser = await ConsoleBrowser(home).sign_in("admin")
    page = await attempt(browser, "/console/agents/sales/try", {"text": "hello"})
    assert page.status_code == 200 and len(page.text) < 1_000_000
    assert "too long or too many to be shown here" in page.text


@on_sqlite
async def test_an_agent_that_fails_is_no_failure_of_the_page(home: House) -> None:
    await home.registered("gone", "http://127.0.0.1:9")
    browser = await ConsoleBrowser(home).sign_in("admin")
    answer = answer_in((await attempt(browser, "/console/agents/gone/try", {"text": "hello"})).text)
    assert ">failed<" in answer
    empty = await attempt(browser, "/console/agents/gone/try", {"text": " "})
    assert empty.status_code == 403 and "message is empty" in empty.text


FORGED: list[tuple[str, dict[str, Any]]] = [
    ("no token of the page", {"csrf": None}),
    ("the token of another session", {"csrf": "A" * 44}),
    ("a page of another origin", {"origin": "https://evil.example"}),
    ("a frame of another site", {"sec-fetch-site": "cross-site"}),
]


@on_sqlite
async def test_a_forged_form_sends_nothing(home: House) -> None:
    """attack ADM-02"""
    agent = await home.agent(CallbackAgent("sales"))
    browser = await ConsoleBrowser(home).sign_in("admin")
    for what, given in FORGED:
        await browser.get("/console/agents/sales/try")
        answer = await browser.post("/console/agents/sales/try", {"once": "A" * 22, "text": "hello"}, **given)
        assert answer.status_code == 403, what
    assert agent.requests == []


@on_sqlite
async def test_what_agents_and_servers_answer_never_becomes_words_of_the_page(tmp_path: Any, database_url: str) -> None:
    """attack INJ-06, ADM-03"""
    async with console_house(tmp_path, database_url) as home:
        await furnish(home)
        browser = await ConsoleBrowser(home).sign_in("admin")
        sent = {"/console/agents/sales/try": {"text": HOSTILE}, "/console/agents/failing/try": {"text": HOSTILE}}
        sent |= {"/console/servers/odd/try": {"tool": "fill", "value.text": HOSTILE}, "/console/register/agent": {"card": HOSTILE}}
        for path, form in sent.items():
            answer = await (browser.post(path, form) if "register" in path else attempt(browser, path, form))
            page = PageReader()
            page.feed(answer.text)
            assert page.unframed == [], (path, page.unframed)
            assert page.bad_attributes == [] and all(each.startswith(("/console", "#content")) for each in page.addresses), path
            assert page.marks > 0 or "register" in path, path


async def _answer_long(_token: str, _text: str) -> str:
    return "x" * 300_000


@on_sqlite
async def test_a_task_goes_on_when_the_stream_of_its_page_dies(tmp_path: Any, database_url: str) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def act(_token: str, _text: str) -> str:
        begun.set()
        await may_end.wait()
        return "late, but done"

    async with console_house(tmp_path, database_url, is_open=True) as home:
        await home.agent(CallbackAgent("sales", act))
        await leave_early(home, "/console/agents/sales/try", {"text": "hello"}, begun)
        (task,) = (await Reception(home).ask("GET", "/api/tasks?agent=sales")).json()["items"]
        assert task["state"] in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
        may_end.set()
        tasks = home.gateway.stores.tasks
        row = await tasks.find("default", task["owner"], task["id"])
        async for _ in tasks.follow(row, 0):
            pass
        assert (await tasks.find("default", task["owner"], task["id"])).state is TaskState.COMPLETED


@on_sqlite
@pytest.mark.parametrize("has_scripts", [True, False])
async def test_a_tool_is_canceled_when_the_person_leaves_its_page(tmp_path: Any, database_url: str, has_scripts: bool) -> None:
    begun, canceled = asyncio.Event(), asyncio.Event()

    async def hang(scope: Any, receive: Any, _send: Any) -> None:
        if scope["type"] == "http":
            await receive()
            begun.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            canceled.set()

    async with console_house(tmp_path, database_url, is_open=True) as home:
        url = await home.stack.enter_async_context(serving(hang))
        await home.server("inventory", "check", url=url)
        form = {"tool": "check", "json": "{}"}
        await leave_early(home, "/console/servers/inventory/try", form, begun, has_scripts=has_scripts)
        await asyncio.wait_for(canceled.wait(), 30)


async def leave_early(home: House, path: str, form: dict[str, str], begun: asyncio.Event, *, has_scripts: bool = True) -> None:
    """Sends a form as the script of its page does, or as a browser without scripts, and disconnects once the other side works."""
    browser = await ConsoleBrowser(home).sign_in("admin")
    once = ONCE.search((await browser.get(path)).text)
    assert once is not None
    headers = {"origin": home.url, **({"interlock-stream": "1"} if has_scripts else {})}
    async with httpx.AsyncClient(base_url=home.url, cookies=dict(browser.http.cookies), trust_env=False, timeout=60) as client:
        sent = {"once": once[1], "csrf": browser.csrf, **form}
        asked = asyncio.create_task(client.send(client.build_request("POST", path, data=sent, headers=headers), stream=True))
        await begun.wait()
        if has_scripts:
            assert (await asked).status_code == 200
        asked.cancel()


@on_sqlite
async def test_no_header_or_query_makes_a_client_the_caller_of_a_session(home: House) -> None:
    """attack ADM-04: the caller of a session stands in the scope of the process alone"""
    await home.agent(CallbackAgent("sales"))
    named = {"interlock.session_caller": "default|interlock-development|admin", "interlock-session-caller": "admin"}
    for path in ("/agents/sales", "/mcp", "/api/agents"):
        answer = await home.http.post(path, json={}, headers=named, params=named)
        assert answer.status_code == 401, path
