"""The reference A2A client against the door, over a real socket: card, signature, send, stream, read, cancel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import pytest
from a2a.client import Client, ClientConfig, create_client
from a2a.client.errors import A2AClientError
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskState,
)
from a2a.utils.errors import A2AError
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier

from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.house import House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@asynccontextmanager
async def client_of(home: House, user: str, streaming: bool = True, agent: str = "sales") -> AsyncIterator[Client]:
    """A client that reads the re-published card, believes it only when our key signed it, and speaks as its card says."""
    keys = (await home.http.get("/.well-known/jwks.json")).json()["keys"]

    def key(kid: str | None, jku: str | None) -> jwt.PyJWK:
        assert jku == f"{home.url}/.well-known/jwks.json"
        return next(jwt.PyJWK(found) for found in keys if found["kid"] == kid)

    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {home.token(user)}"}, timeout=60) as http:
        config = ClientConfig(streaming=streaming, httpx_client=http)
        verifier = create_signature_verifier(key, ["ES256"])
        async with await create_client(f"{home.url}/agents/{agent}", config, signature_verifier=verifier) as client:
            yield client


async def scripted(home: House, version: str = "1.0", streaming: bool = True) -> None:
    url = await home.stack.enter_async_context(serving(a2a_agent(version, streaming)))
    await home.registered("sales", url, facts={"version": version, "streaming": streaming})


def message(text: str, **more: Any) -> Message:
    return Message(message_id="m-1", role=Role.ROLE_USER, parts=[Part(text=text)], **more)


async def sent(client: Client, text: str, **more: Any) -> list[StreamResponse]:
    configuration = SendMessageConfiguration(**more.pop("configuration", {}))
    request = SendMessageRequest(message=message(text, **more), configuration=configuration)
    return [response async for response in client.send_message(request)]


def texts(task: Task) -> list[str]:
    return [part.text for artifact in task.artifacts for part in artifact.parts if part.text]


@pytest.mark.parametrize("version", ["1.0", "0.3"])
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "plain"])
async def test_the_reference_client_does_all_that_the_door_offers(open_home: House, version: str, streaming: bool) -> None:
    await scripted(open_home, version, streaming)
    async with client_of(open_home, "alice", streaming=False) as client:
        (answer,) = await sent(client, "hello")
        assert answer.task.status.state == TaskState.TASK_STATE_COMPLETED and texts(answer.task) == ["echo: hello"]
        assert await client.get_task(GetTaskRequest(id=answer.task.id)) == answer.task
        (asked,) = await sent(client, "ask")
        assert asked.task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
        (answered,) = await sent(client, "XL", task_id=asked.task.id, context_id=asked.task.context_id)
        assert answered.task.id == asked.task.id and texts(answered.task) == ["you answered: XL"]
        (word,) = await sent(client, "message")
        assert word.message.parts[0].text == "just a word"
    async with client_of(open_home, "alice") as client:
        first, *updates = await sent(client, "pieces")
        assert first.task.status.state == TaskState.TASK_STATE_SUBMITTED
        assert updates[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
        pieces = [update.artifact_update for update in updates if update.HasField("artifact_update")]
        assert [part.text for piece in pieces for part in piece.artifact.parts] == ["one", "two", "three"]
        assert {piece.task_id for piece in pieces} == {first.task.id}


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_the_reference_client_cancels_what_it_watches(open_home: House, version: str) -> None:
    await scripted(open_home, version)
    async with client_of(open_home, "alice") as watching, client_of(open_home, "alice") as canceling:
        states: list[int] = []
        async with asyncio.timeout(60):
            async for response in watching.send_message(SendMessageRequest(message=message("hang"))):
                if response.HasField("task"):
                    task_id = response.task.id
                elif response.status_update.status.state == TaskState.TASK_STATE_WORKING:
                    canceled = await canceling.cancel_task(CancelTaskRequest(id=task_id))
                    assert canceled.status.state == TaskState.TASK_STATE_CANCELED
                states.append(response.status_update.status.state)
        assert states[-1] == TaskState.TASK_STATE_CANCELED


async def test_the_reference_client_reads_our_errors_as_its_own(open_home: House) -> None:
    await scripted(open_home)
    async with client_of(open_home, "alice", streaming=False) as client:
        (ended,) = await sent(client, "hello")
        seen: dict[str, str] = {}
        for name, act in {
            "unknown": client.get_task(GetTaskRequest(id="nothing")),
            "cancel": client.cancel_task(CancelTaskRequest(id=ended.task.id)),
            "ended": anext(aiter(client.send_message(SendMessageRequest(message=message("again", task_id=ended.task.id))))),
        }.items():
            with pytest.raises((A2AError, A2AClientError)) as refused:
                await act
            seen[name] = type(refused.value).__name__
        assert seen == {"unknown": "TaskNotFoundError", "cancel": "TaskNotCancelableError", "ended": "UnsupportedOperationError"}


async def test_a_stream_that_nobody_reads_leaves_the_task_alone(open_home: House) -> None:
    await scripted(open_home)
    async with client_of(open_home, "alice") as client:
        stream = aiter(client.send_message(SendMessageRequest(message=message("hang"))))
        task = (await anext(stream)).task
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
        async with asyncio.timeout(60):
            while (await client.get_task(GetTaskRequest(id=task.id))).status.state != TaskState.TASK_STATE_WORKING:
                pass
        canceled = await client.cancel_task(CancelTaskRequest(id=task.id))
        assert canceled.status.state == TaskState.TASK_STATE_CANCELED  # it could be: nobody had


async def test_a_card_that_was_touched_is_not_ours(open_home: House) -> None:
    await scripted(open_home)
    answer = await open_home.http.get("/agents/sales/.well-known/agent-card.json")
    assert answer.headers["cache-control"].startswith("public") and answer.headers["last-modified"].endswith("GMT")
    assert answer.headers["vary"] == "A2A-Version"
    again = await open_home.http.get("/agents/sales/.well-known/agent-card.json", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    async with client_of(open_home, "alice") as client:
        card: AgentCard = client._card  # type: ignore[attr-defined]  # the client shows it nowhere else
    assert card.supported_interfaces[0].url == f"{open_home.url}/agents/sales"
    card.supported_interfaces[0].url = "https://evil.test/agents/sales"
    keys = (await open_home.http.get("/.well-known/jwks.json")).json()["keys"]
    with pytest.raises(InvalidSignaturesError):
        create_signature_verifier(lambda kid, jku: jwt.PyJWK(keys[0]), ["ES256"])(card)
