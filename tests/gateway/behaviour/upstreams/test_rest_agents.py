"""Agents that an operator described, as the guide does it: its examples, word by word, against a service on loopback."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.tasks.contracts.prompts import PROMPT_ID_KEY
from registry.cards.card import RegistrationStatus
from tests.fakes.a2a_agents import serving
from tests.fakes.house import House, house
from tests.fakes.reception import Reception
from tests.fakes.report_server import ReportServer

GUIDE = Path(__file__).parents[4] / "docs" / "rest-agents.md"
KEY = "Bearer operators-secret-key"
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def described(url: str) -> list[dict[str, Any]]:
    """The agents of the guide, at another address and asked more often."""
    agents = [
        agent for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL) for agent in yaml.safe_load(block)["agents"]
    ]
    for agent in agents:
        agent["url"] = re.sub(r"https://\w+\.corp\.example", url.rstrip("/"), agent["url"])
        if "poll" in agent["upstream"]:
            agent["upstream"]["poll"]["every"] = 0.02
    return agents


@pytest.fixture
async def service() -> ReportServer:
    return ReportServer(KEY)


@pytest.fixture
async def home(service: ReportServer, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setenv("REPORTS_AUTHORIZATION", KEY)
    monkeypatch.setenv("FLOWS_KEY", KEY)
    async with serving(service) as url, house(tmp_path / "described", database_url, agents=described(url)) as built:
        yield built


async def sent(home: House, agent: str, method: str, params: dict[str, Any]) -> Any:
    answer = await home.rpc(f"/agents/{agent}", home.token("alice"), method, params, **{"A2A-Version": "1.0"})
    return answer.json()


async def said(home: House, agent: str, *parts: dict[str, Any], soon: bool = False, **more: Any) -> Any:
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": list(parts), **more}
    told = await sent(home, agent, "SendMessage", {"message": message, "configuration": {"returnImmediately": soon}})
    assert "result" in told, told
    return told["result"]["task"]


def state(task: Any) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_")


async def test_the_service_of_the_guide_works_asks_and_goes_on(home: House, service: ReportServer) -> None:
    file = {"raw": base64.b64encode(b"a,b").decode(), "filename": "a.csv", "mediaType": "text/csv"}
    task = await said(home, "reports", {"text": "Does Ada pay?"}, {"data": {"customer": "../c-1"}}, file)
    assert state(task) == "INPUT_REQUIRED", task
    begun = next(body for place, body in service.said if place == "POST /api/runs")
    assert (begun["language"], begun["question"], begun["customer"]) == ("en", "Does Ada pay?", {"id": "../c-1"})
    assert begun["attachments"] == [{"name": "a.csv", "content": file["raw"]}]
    assert begun["onBehalfOf"].startswith("u-") and "alice" not in begun["onBehalfOf"]
    shown = [part["data"] for part in task["status"]["message"]["parts"] if "data" in part]
    assert shown == [{PROMPT_ID_KEY: "a-1", "kind": "approval", "text": "Look at Ada's account?", "schema": {"type": "boolean"}}]
    done = await said(home, "reports", {"text": "yes"}, taskId=task["id"])
    assert (state(done), service.approved) == ("COMPLETED", True)
    text, report = done["artifacts"][0]["parts"]
    assert text["text"] == "Ada pays."
    assert text["metadata"] == {"urn:interlock:a2a:citations": [{"url": "https://crm.corp.example/ada", "title": "CRM"}]}
    assert (base64.b64decode(report["raw"]), report["filename"]) == (b"name,pays\nada,yes", "ada.csv")
    assert done["metadata"]["urn:interlock:a2a:usage"] == {"model": "m-1", "input_tokens": 3, "output_tokens": 4}


async def test_a_denial_is_an_answer(home: House, service: ReportServer) -> None:
    task = await said(home, "reports", {"text": "Does Ada pay?"})
    done = await said(home, "reports", {"text": "no"}, taskId=task["id"])
    assert (state(done), service.approved) == ("COMPLETED", False)
    assert done["artifacts"][0]["parts"][0]["text"] == "Nobody let me look."


async def test_an_error_is_one_whatever_the_status_says(home: House) -> None:
    task = await said(home, "reports", {"text": "fail"})
    assert state(task) == "FAILED" and "/srv" not in json.dumps(task)


async def test_what_is_asked_over_and_over_can_be_stopped(home: House, service: ReportServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.calls.turns.cancellation.VENDOR_REF_SECONDS", 60.0)  # the agent's first word may still be on its way to us
    task = await said(home, "reports", {"text": "slow"}, soon=True)
    async with asyncio.timeout(60):
        await service.working.wait()
    stopped = await sent(home, "reports", "CancelTask", {"id": task["id"]})
    assert state(stopped["result"]) == "CANCELED" and service.stopped


async def test_the_workflow_of_the_guide_answers_at_once_in_one_session(home: House, service: ReportServer) -> None:
    first = await said(home, "helpdesk", {"text": "hello"})
    again = await said(home, "helpdesk", {"text": "more"}, contextId=first["contextId"])
    assert [task["artifacts"][0]["parts"][0]["text"] for task in (first, again)] == ["you said hello", "you said more"]
    bodies = [body for place, body in service.said if place.startswith("POST /webhook")]
    assert bodies[0]["sessionId"] == bodies[1]["sessionId"] and bodies[0]["action"] == "sendMessage"


MISTAKES: list[tuple[tuple[str, ...], Any, str]] = [
    (("answer", "output"), "join(a, b)", "upstream.answer.output must join with a literal"),
    (("answer", "output"), "text ||", "upstream.answer.output is neither a JSON Pointer nor a JMESPath expression"),
    (("start", "path"), "https://elsewhere.example/", "upstream.start.path is not a path"),
    (("start", "path"), "/{secret}", "upstream.start.path has a placeholder other than"),
    (("start", "fill"), {"/action/x": "text"}, "upstream.start leads to no place"),
    (("poll",), {"path": "/runs/{run}"}, "upstream needs answer.status"),
    (("about", "nmae"), "x", "upstream.about.nmae is not an option"),
]


async def test_a_mistake_is_refused_by_its_member(home: House) -> None:
    for place, value, problem in MISTAKES:
        agent = next(each for each in described("http://127.0.0.1:1") if each["name"] == "helpdesk")
        inner: Any = agent["upstream"]
        inner["headers"] = {}
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = value
        answer = await Reception(home).post("/api/agents", **{**agent, "name": "other"})
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"].startswith(problem), answer.text


async def test_the_same_description_comes_over_the_api(home: House, service: ReportServer) -> None:
    url = home.gateway.registry.find("default", "reports").url
    agent = next(each for each in described(url.removesuffix("/api")) if each["name"] == "reports")
    agent["upstream"]["headers"] = {"authorization": KEY}
    made = await Reception(home).post("/api/agents", **{**agent, "name": "again"})
    assert made.status_code == 201, made.text
    assert KEY not in made.text
    task = await said(home, "again", {"text": "Does Ada pay?"})
    assert state(await said(home, "again", {"text": "yes"}, taskId=task["id"])) == "COMPLETED"


async def test_its_card_says_what_the_operator_said(home: House) -> None:
    entry = home.gateway.registry.find("default", "reports")
    assert entry.status is RegistrationStatus.ACTIVE and entry.card is not None
    assert (entry.card.name, entry.card.description) == ("Reports", "Writes reports about customers.")
