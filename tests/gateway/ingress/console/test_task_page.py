"""The page of a task: what it waits for, what was tried again, and its cancellation by operators."""

from html import unescape

import pytest

from gateway.ingress.console.texts.waits import find_waits
from tests.fakes.a2a_agents import serving
from tests.fakes.card_host import CardHost
from tests.fakes.console import PAY, ConsoleBrowser
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reception import Reception
from tests.fakes.workflows import Workflows

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def asking_task(home: House) -> str:
    """The page of a task of alice whose agent asks her something."""
    agent = CallbackAgent("asking")
    agent.state, agent.message = "TASK_STATE_INPUT_REQUIRED", {"messageId": "q", "role": "ROLE_AGENT", "parts": [{"text": "which?"}]}
    await home.agent(agent)
    return f"/console/tasks/{(await home.send(home.token('alice'), 'asking', 'hello'))['result']['task']['id']}"


async def test_a_turn_that_was_tried_again_says_why(home: House) -> None:
    """The agent's server is gone, so that nothing was sent and one more attempt is safe."""
    async with serving(CardHost(name="gone")) as url:
        made = await Reception(home).post("/api/agents", url=url, name="gone")
        assert made.status_code == 201, made.text
    sent = await home.send(home.token("alice"), "gone", "hello")
    assert "error" not in sent, sent
    task = sent["result"]["task"]["id"]
    browser = await ConsoleBrowser(home).sign_in("alice")
    spans = (await browser.get(f"/console/api/tasks/{task}/trace")).json()["spans"]
    (turn,) = (span for span in spans if span["kind"] == "agent")
    assert [bool(each["problem"]) and each["at"] >= turn["start"] for each in turn["retries"]] == [True]
    shown = unescape((await browser.get(f"/console/tasks/{task}")).text)
    assert "tried again after" in shown and turn["retries"][0]["problem"] in shown


@on_sqlite
async def test_a_task_says_that_it_waits_for_its_owner(home: House) -> None:
    page = await asking_task(home)
    browser = await ConsoleBrowser(home).sign_in("alice")
    assert "It waits for an answer of alice" in (await browser.get(page)).text


@on_sqlite
async def test_a_task_of_a_run_says_which_checkpoint_it_waits_for(home: House) -> None:
    await home.server("inventory", "check", "refund")
    workflows = Workflows(home)
    await workflows.add("pay", PAY)
    run = await workflows.start("pay", {"note": "x"})
    await workflows.reached(run, "SUSPENDED")
    browser = await ConsoleBrowser(home).sign_in("admin")
    shown = (await browser.get(f"/console/tasks/{run}")).text
    assert "It waits for a person who answers" in shown and "/console/checkpoints/" in shown


def test_a_task_waits_for_the_tasks_that_it_caused_and_that_go_on() -> None:
    spans = [
        {"kind": "task", "id": name, "parent": parent, "outcome": outcome, "name": name}
        for name, parent, outcome in (
            ("t_1", "", "working"),
            ("t_2", "t_1", "working"),
            ("t_3", "t_1", "completed"),
            ("t_4", "t_2", "working"),
        )
    ]
    found = find_waits({"id": "t_1", "state": "TASK_STATE_WORKING", "owner": "d|i|alice"}, {"spans": spans}, None, [])
    assert [(each.href, each.needs_person) for each in found] == [("/console/tasks/t_2", False)]


def test_a_task_waits_for_its_own_approval_and_not_for_that_of_another() -> None:
    asked = [{"id": f"ap_{one}", "task_id": one, "action": "callTool", "resource": "a.b"} for one in ("t_1", "t_2")]
    task = {"id": "t_1", "state": "TASK_STATE_INPUT_REQUIRED", "owner": "d|i|alice"}
    assert [each.href for each in find_waits(task, None, None, asked)] == ["/console/approvals/ap_t_1"]
    (signing,) = find_waits({**task, "state": "TASK_STATE_AUTH_REQUIRED"}, None, None, [])
    assert "alice to sign in" in signing.words


@on_sqlite
async def test_an_operator_cancels_the_task_of_another_on_its_page(home: House) -> None:
    page = await asking_task(home)
    browser = await ConsoleBrowser(home).sign_in("admin")
    assert "task of another person" in (await browser.get(page)).text
    assert (await browser.post(f"{page}/cancel", {})).headers["location"] == f"{page}?done=canceled"
    shown = (await browser.get(page)).text
    assert "canceled" in shown and "Cancel the task" not in shown


@on_sqlite
async def test_a_reader_of_the_audit_is_offered_no_cancellation(home: House) -> None:
    page = await asking_task(home)
    browser = await ConsoleBrowser(home).sign_in("admin", "agent:* audit:read")
    assert "Cancel the task" not in (await browser.get(page)).text
    assert (await browser.post(f"{page}/cancel", {})).status_code == 404
    owner = await ConsoleBrowser(home).sign_in("alice")
    shown = (await owner.get(page)).text
    assert "Cancel the task" in shown and "task of another person" not in shown
