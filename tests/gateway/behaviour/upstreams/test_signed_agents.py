"""A2A agents in AgentCore Runtime: every request is signed for AWS, and those of one conversation name one session of the runtime."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.registration.requests import BadRequest
from registry.cards.card import RegistrationStatus
from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.aws import signature_fits
from tests.fakes.house import House, house

SECRET = "an-example-of-a-secret-key"
RUNTIME = "/runtimes/arn%3Aaws%3Abedrock-agentcore%3Aeu-central-1%3A1%3Aruntime%2Fclaims/invocations"
SESSION = "x-amzn-bedrock-agentcore-runtime-session-id"
TOKEN = "a-session-token"
AWS = {"region": "eu-central-1", "access_key_id": "AKIDEXAMPLE", "secret_access_key": "env:CLAIMS_SECRET", "session_token": TOKEN}
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Runtime:
    """AgentCore in front of a container that speaks A2A: refuses what is not signed, and gives each session a machine of its own."""

    def __init__(self) -> None:
        self.machines: dict[str, Any] = {}
        self.refused: list[str] = []
        self.sessions: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.secret = SECRET

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        target = scope["raw_path"].decode() + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        head = f"{scope['method']} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if "authorization" not in headers or not signature_fits(head.encode(), body, self.secret):
            self.refused.append(target)
            await answered(send, 403, {"message": "The security token included in the request is invalid."})
        elif scope["method"] == "GET":
            await answered(send, 200, card(headers["host"]) if target.endswith("agent-card.json") else {})
        else:
            await self._in_session(scope, headers, body, send)

    async def _in_session(self, scope: Any, headers: dict[str, str], body: bytes, send: Any) -> None:
        session = headers.get(SESSION, "")
        if len(session) < 33:
            await answered(send, 400, {"message": "runtimeSessionId is too short"})
            return
        self.sessions.append(session)
        self.headers.append(headers)
        machine = self.machines.setdefault(session, a2a_agent())
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            return next(given, {"type": "http.disconnect"})

        await machine({**scope, "path": "/", "raw_path": b"/"}, receive, send)


def card(host: str) -> dict[str, Any]:
    return {
        "name": "Claims",
        "description": "Settles claims.",
        "version": "1",
        "capabilities": {"streaming": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [],
        "supportedInterfaces": [{"url": f"http://{host}{RUNTIME}/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
    }


async def answered(send: Any, status: int, value: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


@pytest.fixture
async def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
async def home(runtime: Runtime, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setenv("CLAIMS_SECRET", SECRET)
    async with serving(runtime) as url:
        agents = [{"name": "claims", "url": f"{url.rstrip('/')}{RUNTIME}/", "upstream": {"aws": AWS}}]
        async with house(tmp_path / "home", database_url, agents=agents) as built:
            yield built


async def said(home: House, text: str, user: str = "alice", **more: str) -> Any:
    message = {"messageId": f"m-{text}", "role": "ROLE_USER", "parts": [{"text": text}], **more}
    answer = await home.rpc("/agents/claims", home.token(user), "SendMessage", {"message": message}, **{"A2A-Version": "1.0"})
    told = answer.json()
    assert "result" in told, told
    return told["result"]["task"]


async def test_a_card_is_fetched_and_an_agent_called_with_signatures(home: House, runtime: Runtime) -> None:
    entry = home.gateway.registry.find("default", "claims")
    assert entry is not None and entry.card is not None
    assert (entry.status, entry.delegation, entry.card.name) == (RegistrationStatus.ACTIVE, "header", "Claims")
    task = await said(home, "hello")
    assert task["status"]["state"] == "TASK_STATE_COMPLETED" and task["artifacts"][0]["parts"][0]["text"] == "echo: hello"
    assert runtime.refused == [] and runtime.headers[-1]["x-amz-security-token"] == TOKEN


async def test_a_conversation_is_one_session_and_another_person_has_another(home: House, runtime: Runtime) -> None:
    first = await said(home, "ask")
    assert first["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    done = await said(home, "large", taskId=first["id"])
    assert done["artifacts"][0]["parts"][0]["text"] == "you answered: large"
    await said(home, "more", contextId=first["contextId"])
    assert len(set(runtime.sessions)) == 1
    await said(home, "hello", user="bob")
    assert len(set(runtime.sessions)) == 2


async def test_a_task_is_canceled_in_its_session(home: House, runtime: Runtime) -> None:
    task = await said(home, "ask")
    answer = await home.rpc("/agents/claims", home.token("alice"), "CancelTask", {"id": task["id"]}, **{"A2A-Version": "1.0"})
    assert answer.json()["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    assert len(set(runtime.sessions)) == 1 and runtime.refused == []


async def test_a_refused_signature_fails_and_tells_nothing_of_the_credential(home: House, runtime: Runtime) -> None:
    runtime.secret = "another-secret-key"
    task = await said(home, "hello")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert not any(secret in json.dumps(task) for secret in (SECRET, "AKIDEXAMPLE", TOKEN))


@pytest.mark.parametrize(
    ("aws", "field"),
    [
        ({}, "upstream.aws.access_key_id"),
        ({"access_key_id": "A"}, "upstream.aws.access_key_id"),
        ({**AWS, "colour": "red"}, "upstream.aws.colour"),
        ({**AWS, "ambient": "yes"}, "upstream.aws.ambient"),
        ([], "upstream.aws"),
    ],
)
async def test_an_access_that_can_t_be_is_refused_by_its_member(home: House, aws: Any, field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        await home.gateway.inspector.check_upstream("a2a", {"aws": aws})
    assert refused.value.field == field


@pytest.mark.parametrize("aws", [{**AWS, "secret_access_key": "env:HOME"}, {"region": "eu-central-1", "ambient": True}])
async def test_what_belongs_to_the_machine_is_not_given_away_over_the_api(home: House, aws: Any) -> None:
    body = {"name": "thief", "url": "http://127.0.0.1:9/", "upstream": {"aws": aws}}
    headers = {"Authorization": f"Bearer {home.token('admin')}"}
    answer = await home.http.post("/api/agents", json=body, headers=headers)
    assert answer.status_code == 422 and "configuration file" in answer.text
