"""A2A 1.0 at /agents/{name}: what is sent, streamed, read, answered and canceled, for agents of either version."""

import asyncio
import json
from typing import Any

import pytest

from gateway.ingress.a2a_server import operations
from tests.fakes.a2a_agents import Recorded, a2a_agent, serving
from tests.fakes.house import CallbackAgent, House

KINDS = [("1.0", True), ("1.0", False), ("0.3", True), ("0.3", False)]
KIND_IDS = [f"{version}-{'streaming' if streaming else 'plain'}" for version, streaming in KINDS]
RESPONSES = [1, 2]


async def scripted(home: House, version: str = "1.0", streaming: bool = True, name: str = "sales") -> Recorded:
    agent = a2a_agent(version, streaming)
    url = await home.stack.enter_async_context(serving(agent))
    await home.registered(name, url, facts={"version": version, "streaming": streaming})
    return agent


async def ask(home: House, method: str, params: Any, user: str = "alice", agent: str = "sales") -> Any:
    return (await home.rpc(f"/agents/{agent}", home.token(user), method, params, **{"A2A-Version": "1.0"})).json()


async def streamed(home: House, text: str, **more: Any) -> list[Any]:
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}], **more}
    answer = await home.rpc("/agents/sales", home.token("alice"), "SendStreamingMessage", {"message": message}, **{"A2A-Version": "1.0"})
    assert answer.headers["content-type"] == "text/event-stream"
    documents = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert all(document["id"] == 7 and document["jsonrpc"] == "2.0" for document in documents)
    return [document["result"] for document in documents]


async def until(home: House, task_id: str, *states: str) -> Any:
    """The task once it is in one of these states; asked for again and again, as a client would."""
    async with asyncio.timeout(60):
        while True:
            task = (await ask(home, "GetTask", {"id": task_id}))["result"]
            if task["status"]["state"] in states:
                return task


def texts(task: Any) -> list[str]:
    return [part["text"] for artifact in task.get("artifacts", []) for part in artifact["parts"] if "text" in part]


def said(message: Any) -> str:
    return " ".join(part["text"] for part in message["parts"])


@pytest.mark.parametrize(("version", "streaming"), KINDS, ids=KIND_IDS)
class TestEitherVersion:
    async def test_a_blocking_send_waits_for_the_end(self, home: House, version: str, streaming: bool) -> None:
        agent = await scripted(home, version, streaming)
        task = (await home.send(home.token("alice"), "sales", "hello"))["result"]["task"]
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert texts(task) == ["echo: hello"]
        assert task["artifacts"][0]["parts"][1] == {"data": {"length": 5}}
        assert [said(message) for message in task["history"]] == ["hello"]
        assert (await ask(home, "GetTask", {"id": task["id"]}))["result"] == task
        outgoing = json.dumps(agent.requests)
        assert task["id"] not in outgoing and task["contextId"] not in outgoing

    async def test_a_stream_shows_the_task_then_its_events_in_their_order(self, home: House, version: str, streaming: bool) -> None:
        await scripted(home, version, streaming)
        first, *updates = await streamed(home, "pieces please")
        task = first["task"]
        assert task["status"]["state"] == "TASK_STATE_SUBMITTED"
        assert all(len(update) == 1 and next(iter(update)) in ("statusUpdate", "artifactUpdate") for update in updates)
        assert {(update["taskId"], update["contextId"]) for event in updates for update in event.values()} == {
            (task["id"], task["contextId"])
        }
        last = updates[-1]["statusUpdate"]["status"]
        assert (last["state"], said(last["message"])) == ("TASK_STATE_COMPLETED", "that was it")
        pieces = [event["artifactUpdate"] for event in updates if "artifactUpdate" in event]
        assert [part["text"] for piece in pieces for part in piece["artifact"]["parts"]] == ["one", "two", "three"]
        if streaming:
            assert [(piece.get("append", False), piece.get("lastChunk", False)) for piece in pieces] == [
                (False, False),
                (True, False),
                (True, True),
            ]
            assert said(next(e["statusUpdate"]["status"]["message"] for e in updates if "statusUpdate" in e)) == "on it"
        kept = (await ask(home, "GetTask", {"id": task["id"]}))["result"]
        assert kept["status"] == last and texts(kept) == ["one", "two", "three"]

    async def test_an_answer_resumes_the_task_that_asked(self, home: House, version: str, streaming: bool) -> None:
        agent = await scripted(home, version, streaming)
        asked = (await home.send(home.token("alice"), "sales", "ask"))["result"]["task"]
        assert asked["status"]["state"] == "TASK_STATE_INPUT_REQUIRED" and said(asked["status"]["message"]) == "which size?"
        answered = (await home.send(home.token("alice"), "sales", "XL", taskId=asked["id"]))["result"]["task"]  # the context is inferred
        assert (answered["id"], answered["contextId"]) == (asked["id"], asked["contextId"])
        assert answered["status"]["state"] == "TASK_STATE_COMPLETED" and texts(answered) == ["you answered: XL"]
        assert [said(message) for message in answered["history"]] == ["ask", "XL"]
        assert asked["id"] not in json.dumps(agent.requests)

    async def test_a_conversation_goes_on_in_the_agents_own_context(self, home: House, version: str, streaming: bool) -> None:
        agent = await scripted(home, version, streaming)
        first = (await home.send(home.token("alice"), "sales", "one", contextId="ours"))["result"]["task"]
        second = (await home.send(home.token("alice"), "sales", "two", contextId="ours"))["result"]["task"]
        assert first["contextId"] == second["contextId"] == "ours" and first["id"] != second["id"]
        sent = [r["params"]["message"] for r in agent.requests if "message" in r["params"]]
        assert "contextId" not in sent[0] and sent[1]["contextId"] not in ("", "ours")
        assert "ours" not in json.dumps(agent.requests)

    async def test_a_message_alone_is_an_answer(self, home: House, version: str, streaming: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(operations, "HOLD_SECONDS", 600.0)  # however slow the machine is
        await scripted(home, version, streaming)
        message = (await home.send(home.token("alice"), "sales", "message"))["result"]["message"]
        assert (message["role"], said(message)) == ("ROLE_AGENT", "just a word")
        kept = (await ask(home, "GetTask", {"id": message["taskId"]}))["result"]
        assert kept["contextId"] == message["contextId"] and kept["status"]["state"] == "TASK_STATE_COMPLETED"
        assert "just a word" in json.dumps(kept)
        (only,) = await streamed(home, "message")
        assert said(only["message"]) == "just a word" and only["message"]["taskId"] != message["taskId"]

    async def test_a_task_is_canceled_when_its_agent_confirms_it(self, home: House, version: str, streaming: bool) -> None:
        await scripted(home, version, streaming)
        asked = (await home.send(home.token("alice"), "sales", "ask"))["result"]["task"]
        canceled = (await ask(home, "CancelTask", {"id": asked["id"]}))["result"]
        assert (canceled["id"], canceled["status"]["state"]) == (asked["id"], "TASK_STATE_CANCELED")
        assert (await ask(home, "GetTask", {"id": asked["id"]}))["result"] == canceled


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_a_running_task_is_canceled_and_its_stream_ends(home: House, version: str) -> None:
    await scripted(home, version)
    watching = asyncio.create_task(streamed(home, "hang", contextId="watched"))
    sent = (await home.send(home.token("alice"), "sales", "hang", configuration={"returnImmediately": True}))["result"]["task"]
    assert sent["status"]["state"] == "TASK_STATE_SUBMITTED"
    async with asyncio.timeout(60):
        while True:
            listed = (await ask(home, "ListTasks", {"contextId": "watched"}))["result"]["tasks"]
            if listed:
                break
            await asyncio.sleep(0.01)
    watched = listed[0]["id"]
    for task_id in (sent["id"], watched):
        await until(home, task_id, "TASK_STATE_WORKING")
        canceled = (await ask(home, "CancelTask", {"id": task_id}))["result"]
        assert canceled["status"]["state"] == "TASK_STATE_CANCELED"
    async with asyncio.timeout(60):
        assert (await watching)[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"


async def test_who_does_not_wait_asks_until_it_is_done(home: House) -> None:
    await scripted(home)
    sent = (await home.send(home.token("alice"), "sales", "pieces now", configuration={"returnImmediately": True}))["result"]["task"]
    assert sent["status"]["state"] == "TASK_STATE_SUBMITTED" and "artifacts" not in sent
    assert texts(await until(home, sent["id"], "TASK_STATE_COMPLETED")) == ["one", "two", "three"]


async def test_a_history_is_as_long_as_is_asked_for(home: House) -> None:
    await scripted(home)
    asked = (await home.send(home.token("alice"), "sales", "ask"))["result"]["task"]
    cut = (await home.send(home.token("alice"), "sales", "XL", taskId=asked["id"], configuration={"historyLength": 1}))["result"]["task"]
    assert [said(message) for message in cut["history"]] == ["XL"]
    expected = {None: ["ask", "XL"], 0: [], 1: ["XL"], 2: ["ask", "XL"], 1000: ["ask", "XL"]}
    for length, words in expected.items():
        params = {"id": asked["id"]} | ({} if length is None else {"historyLength": length})
        task = (await ask(home, "GetTask", params))["result"]
        assert [said(message) for message in task.get("history", [])] == words, length
    refused = (await ask(home, "GetTask", {"id": asked["id"], "historyLength": -1}))["error"]
    assert refused["code"] == -32602 and refused["data"][0]["fieldViolations"][0]["field"] == "historyLength"


async def test_an_unconfirmed_cancellation_is_none(home: House) -> None:
    async def act(token: str, text: str) -> str:
        return "done"

    await home.agent(CallbackAgent("sales", act))
    task = (await home.send(home.token("alice"), "sales", "go"))["result"]["task"]
    refused = (await ask(home, "CancelTask", {"id": task["id"]}))["error"]
    assert refused["code"] == -32002 and refused["data"][0]["reason"] == "TASK_NOT_CANCELABLE"


async def test_a_waiting_task_is_canceled_though_its_agent_keeps_the_question(home: House, unwilling: "Unwilling") -> None:
    url = await home.stack.enter_async_context(serving(unwilling))
    await home.registered("sales", url)
    asked = (await home.send(home.token("alice"), "sales", "go"))["result"]["task"]
    canceled = (await ask(home, "CancelTask", {"id": asked["id"]}))["result"]
    assert canceled["status"]["state"] == "TASK_STATE_CANCELED"
    assert "was not informed" in canceled["status"]["message"]["parts"][0]["text"]
    assert "CancelTask" in unwilling.methods
    assert (await ask(home, "GetTask", {"id": asked["id"]}))["result"]["status"]["state"] == "TASK_STATE_CANCELED"


class Unwilling:
    """Asks for input, and answers a cancellation with the task as it is."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = json.loads((await receive())["body"])
        self.methods.append(request["method"])
        task = {"id": "its-task", "contextId": "its-context", "status": {"state": "TASK_STATE_INPUT_REQUIRED"}}
        result = {"task": task} if request["method"] == "SendMessage" else task
        answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": answer})


@pytest.fixture
def unwilling() -> Unwilling:
    return Unwilling()


async def test_a_task_and_a_context_that_do_not_belong_together_are_refused(home: House) -> None:
    await scripted(home)
    asked = (await home.send(home.token("alice"), "sales", "ask"))["result"]["task"]
    refused = (await home.send(home.token("alice"), "sales", "XL", taskId=asked["id"], contextId="another"))["error"]
    assert refused["code"] == -32602
    assert refused["data"][0]["fieldViolations"][0]["field"] == "message.contextId"
    both = (await home.send(home.token("alice"), "sales", "XL", taskId=asked["id"], contextId=asked["contextId"]))["result"]["task"]
    assert both["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_task_that_has_ended_takes_no_message(home: House) -> None:
    await scripted(home)
    task = (await home.send(home.token("alice"), "sales", "hello"))["result"]["task"]
    for method in ("SendMessage", "SendStreamingMessage"):
        refused = (await home.send(home.token("alice"), "sales", "again", method, taskId=task["id"]))["error"]
        assert refused["code"] == -32004 and refused["data"][0]["reason"] == "UNSUPPORTED_OPERATION"
    assert (await ask(home, "GetTask", {"id": task["id"]}))["result"] == task


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        ("fail", "TASK_STATE_FAILED", "the model is out"),
        ("reject", "TASK_STATE_REJECTED", "not my field"),
        ("auth", "TASK_STATE_AUTH_REQUIRED", "sign in"),
    ],
)
async def test_other_endings_are_told_as_they_are(home: House, text: str, state: str, words: str) -> None:
    await scripted(home)
    task = (await home.send(home.token("alice"), "sales", text))["result"]["task"]
    assert task["status"]["state"] == state and words in said(task["status"]["message"])


async def test_the_same_key_sends_once(home: House) -> None:
    agent = await scripted(home)
    headers = {"Idempotency-Key": "k1"}
    first, second = await asyncio.gather(*(home.send(home.token("alice"), "sales", "hello", headers=headers) for _ in RESPONSES))
    assert first["result"]["task"]["id"] == second["result"]["task"]["id"]
    assert first == second == await home.send(home.token("alice"), "sales", "hello", headers=headers)
    assert len([method for method in agent.methods if "end" in method]) == 1
    other = await home.send(home.token("alice"), "sales", "something else", headers=headers)
    assert other["error"]["code"] == -32014
    theirs = await home.send(home.token("bob"), "sales", "something else", headers=headers)
    assert theirs["result"]["task"]["id"] != first["result"]["task"]["id"]


async def test_a_method_of_the_other_version_is_none(home: House) -> None:
    agent = await scripted(home)
    assert (await ask(home, "message/send", {}))["error"]["code"] == -32601
    answer = await home.rpc("/agents/sales", home.token("alice"), "SendMessage", {}, **{"A2A-Version": "0.3"})
    assert answer.json()["error"]["code"] == -32601
    assert agent.requests == []


@pytest.mark.parametrize("asked", ["0.2", "1.7", "2.0", "one", "1", "1.0.0.0", "-1.0"])
async def test_a_version_that_is_not_served_is_refused_before_the_method_is_looked_at(home: House, asked: str) -> None:
    for method in ("SendMessage", "message/send"):
        answer = await home.rpc("/agents/sales", home.token("alice"), method, {}, **{"A2A-Version": asked})
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32009)
        by_query = await home.rpc(f"/agents/sales?A2A-Version={asked}", home.token("alice"), method, {})
        assert by_query.json()["error"]["code"] == -32009
