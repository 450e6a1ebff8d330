"""The page of a task: what it waits for, what was tried again, and its cancellation by operators."""

import pytest

from tests.fakes.console import ConsoleBrowser
from tests.fakes.house import CallbackAgent, House

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def asking_task(home: House) -> str:
    """The page of a task of alice whose agent asks her something."""
    agent = CallbackAgent("asking")
    agent.state, agent.message = "TASK_STATE_INPUT_REQUIRED", {"messageId": "q", "role": "ROLE_AGENT", "parts": [{"text": "which?"}]}
    await home.agent(agent)
    return f"/console/tasks/{(await home.send(home.token('alice'), 'asking', 'hello'))['result']['task']['id']}"


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
