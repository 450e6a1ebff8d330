"""What an operator finds in the log before anybody asks: refusals, and agents and servers that failed. docs/errors.md promises it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, house
from tests.fakes.ports import nowhere

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def nobody() -> str:
    return nowhere()


class Log:
    """The lines on stderr since the last look."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self._capsys.readouterr().err.splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    return Log(capsys)


async def test_a_refusal_is_logged_with_who_what_why_and_the_decision(tmp_path: Path, database_url: str, log: Log) -> None:
    async with house(tmp_path / "home", database_url) as home:
        await home.server("inventory", "reserve")
        answer = await home.call(home.token("bob"), "/mcp", "inventory_reserve", {"secret": "of bob"})
        decision = answer.json()["error"]["data"]["decision_id"]
        (line,) = log.lines("refused")
    assert (line["level"], line["decision_id"], line["reason_id"]) == ("info", decision, "user-lacks-permission")
    assert line["principal"].endswith("|bob")
    assert (line["permission"], line["missing"]) == ("tool:inventory.reserve", ["tool:inventory.reserve (user)"])
    assert "secret" not in json.dumps(line)


async def test_a_refusal_that_reads_like_an_unknown_name_is_logged_for_what_it_is(tmp_path: Path, database_url: str, log: Log) -> None:
    async with house(tmp_path / "home", database_url) as home:
        await home.agent(CallbackAgent("support"))
        answer = await home.send(home.token("nora"), "support", "hello")
        (line,) = log.lines("refused")
    assert answer["error"]["message"] == "There is no such agent or server."
    assert (line["permission"], line["reason_id"]) == ("agent:support", "user-lacks-permission")


async def test_an_unreachable_server_is_logged_with_a_reason_hidden_from_the_caller(
    tmp_path: Path, database_url: str, log: Log, nobody: str
) -> None:
    async with house(tmp_path / "home", database_url) as home:
        await home.server("inventory", "check", url=nobody)
        answer = await home.call(home.token("alice"), "/mcp", "inventory_check", {})
        (line,) = log.lines("server_failed")
    assert answer.json()["error"]["data"]["reason_id"] == "upstream"
    assert (line["level"], line["server"]) == ("warning", "inventory")
    assert line["detail"]
    assert line["detail"] not in answer.text


async def test_an_agent_that_is_gone_is_logged_with_its_task(tmp_path: Path, database_url: str, log: Log, nobody: str) -> None:
    async with house(tmp_path / "home", database_url) as home:
        await home.registered("support", nobody)
        task = (await home.send(home.token("alice"), "support", "hello"))["result"]["task"]
        (line,) = log.lines("agent_failed")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert (line["agent"], line["task_id"], line["problem"]) == ("support", task["id"], "the upstream can't be reached")
    assert line["detail"] not in json.dumps(task)


async def test_what_an_agent_tells_of_its_own_workings_is_in_the_log_alone(tmp_path: Path, database_url: str, log: Log) -> None:
    support = CallbackAgent("support")
    support.state, support.metadata = "TASK_STATE_FAILED", {"adk_trace": "/srv/agents/support", "adk_author": "support"}
    support.message = {
        "messageId": "m",
        "role": "ROLE_AGENT",
        "parts": [{"text": 'Sorry.\nFile "/srv/agents/support/app.py", line 3, in run'}],
    }
    async with house(tmp_path / "home", database_url) as home:
        await home.agent(support)
        answers = (
            await home.send(home.token("alice"), "support", "hello"),
            await home.call(home.token("alice"), "/mcp", "support", {"message": "hello"}),
        )
        task, result = answers[0]["result"]["task"], answers[1].json()["result"]
        found = await home.http.get(f"/api/tasks/{task['id']}", headers={"authorization": f"Bearer {home.token('alice')}"})
        lines = log.lines("agent_failed")
    said = task["status"]["message"]
    assert said["parts"] == [{"text": "The agent reported that the task failed; the agent's own error text is only in the log"}]
    assert said["metadata"] == {"urn:interlock:a2a:withheld": {"correlationId": task["id"]}}
    assert task["metadata"] == {"adk_author": "support"}
    assert result["isError"] and said["parts"][0]["text"] in result["structuredContent"]["text"]
    assert "/srv" not in json.dumps([task, result, found.json()])
    assert [line["task_id"] for line in lines] == [task["id"], result["structuredContent"]["task_id"]]
    assert all("/srv/agents/support/app.py" in line["detail"] and "adk_trace" in line["detail"] for line in lines)


async def test_an_agent_that_can_not_be_registered_is_logged_with_what_went_wrong(
    tmp_path: Path, database_url: str, log: Log, nobody: str
) -> None:
    async with house(tmp_path / "home", database_url) as home:
        headers = {"authorization": f"Bearer {home.token('admin')}"}
        answer = await home.http.post("/api/agents", json={"url": nobody}, headers=headers)
        (line,) = log.lines("upstream_failed")
    assert answer.status_code == 502
    assert line["detail"]
