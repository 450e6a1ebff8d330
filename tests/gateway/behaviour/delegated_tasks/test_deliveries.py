"""However an agent gives its answer, and however a caller wants it: at once, as a stream, by asking again, or pushed."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.fakes.a2a_agents import serving
from tests.fakes.house import House
from tests.fakes.waiting import until
from tests.fakes.webhook import Webhook

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
both_dialects = pytest.mark.parametrize("version", ["1.0", "0.3"])
DONE = "TASK_STATE_COMPLETED"


class Giving:
    """An agent in either version that gives its answer as `how` says: at once, streamed, asked for, or pushed."""

    def __init__(self, how: str, version: str = "1.0") -> None:
        self.how = how
        self.older = version == "0.3"
        self.methods: list[str] = []
        self.state = "working"
        self.notify = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = json.loads((await receive())["body"])
        method, self.request = request["method"], request
        self.methods.append(method)
        if method in ("SendStreamingMessage", "message/stream"):
            await self.streamed(request, send)
            return
        if method in ("SendMessage", "message/send"):
            self.state = "completed" if self.how in ("at once", "streamed") else "working"
            await self.pushes(request)
        elif self.how == "asked for" and self.methods.count(method) >= 3:
            self.state = "completed"
        body = self.answer(request, self.task(wrapped=method == "SendMessage"))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    async def pushes(self, request: dict[str, Any]) -> None:
        configuration = request["params"].get("configuration", {})
        push = configuration.get("taskPushNotificationConfig") or configuration.get("pushNotificationConfig") or {}
        self.notify = push.get("url", "")
        if self.how == "pushed":
            assert self.notify
            self.later = asyncio.create_task(self.ring())

    async def ring(self) -> None:
        self.state = "completed"
        async with httpx.AsyncClient() as http:
            pushed = self.task() if self.older else {"task": self.task()}
            assert (await http.post(self.notify, json=pushed)).status_code == 202

    async def streamed(self, request: dict[str, Any], send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for self.state in ("working", "completed"):
            body = b"data: " + self.answer(request, self.task(wrapped=True)) + b"\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": self.state == "working"})

    def task(self, wrapped: bool = False) -> dict[str, Any]:
        state = self.state if self.older else f"TASK_STATE_{self.state.upper()}"
        task: dict[str, Any] = {"id": "theirs", "contextId": "c", "status": {"state": state}}
        if self.state == "completed":
            task["artifacts"] = [{"artifactId": "a", "parts": [{"kind": "text", "text": "here"} if self.older else {"text": "here"}]}]
        if self.older:
            return {**task, "kind": "task"}
        return {"task": task} if wrapped else task

    def answer(self, request: dict[str, Any], result: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()


async def giving(home: House, how: str, version: str) -> Giving:
    agent = Giving(how, version)
    url = await home.stack.enter_async_context(serving(agent))
    pushes = how == "pushed"
    facts = {"version": version, "streaming": how == "streamed"}
    await home.registered("giver", url, facts=facts, upstream={"push": pushes}, capabilities={"pushNotifications": pushes})
    return agent


async def shown(home: House, task_id: str) -> Any:
    return (await home.send_get(home.token("alice"), "giver", task_id))["result"]


async def as_wanted(home: House, wants: str) -> Any:
    """The task as whoever sent the message comes to know that it is done."""
    token = home.token("alice")
    if wants == "at once":
        return (await home.send(token, "giver", "go"))["result"]["task"]
    if wants == "streamed":
        message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "go"}]}
        answer = await home.rpc("/agents/giver", token, "SendStreamingMessage", {"message": message}, **{"A2A-Version": "1.0"})
        events = [json.loads(line[6:])["result"] for line in answer.text.splitlines() if line.startswith("data: ")]
        assert events[-1]["statusUpdate"]["status"]["state"] == DONE
        assert [event["artifactUpdate"]["artifact"]["parts"] for event in events if "artifactUpdate" in event] == [[{"text": "here"}]]
        return await shown(home, events[-1]["statusUpdate"]["taskId"])
    configuration: dict[str, Any] = {"returnImmediately": True}
    if wants == "asked for":
        begun = (await home.send(token, "giver", "go", configuration=configuration))["result"]["task"]

        async def done() -> bool:
            return bool((await shown(home, begun["id"]))["status"]["state"] == DONE)

        await until(done, every=0.02)
        return await shown(home, begun["id"])
    async with serving(hook := Webhook()) as url:
        configuration["taskPushNotificationConfig"] = {"url": url}
        begun = (await home.send(token, "giver", "go", configuration=configuration))["result"]["task"]
        await until(lambda: "completed" in hook.told, every=0.02)
        assert hook.told[-2:] == ["here", "completed"]
    return await shown(home, begun["id"])


@both_dialects
@pytest.mark.parametrize("gives", ["at once", "streamed", "asked for", "pushed"])
@pytest.mark.parametrize("wants", ["at once", "streamed", "asked for", "pushed"])
async def test_every_way_of_giving_fits_every_way_of_wanting(open_home: House, gives: str, wants: str, version: str) -> None:
    agent = await giving(open_home, gives, version)
    async with asyncio.timeout(60):
        task = await as_wanted(open_home, wants)
    assert task["status"]["state"] == DONE
    assert [artifact["parts"] for artifact in task["artifacts"]] == [[{"text": "here"}]]
    streams = "message/stream" if agent.older else "SendStreamingMessage"
    assert (streams in agent.methods) is (gives == "streamed" and wants != "at once")
    assert bool(agent.notify) is (gives == "pushed")


class Moving(Giving):
    """Asks, and goes on when the test says so, whether it was answered or not; it takes no answer then."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = json.loads((await receive())["body"])
        self.methods.append(request["method"])
        body = self.answer(request, self.task(wrapped=request["method"] == "SendMessage"))
        if self.methods[-1] in ("SendMessage", "message/send"):
            if len(self.methods) > 1 and self.state != "auth-required":
                body = json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32004, "message": "over"}}).encode()
            elif len(self.methods) == 1:
                self.state = "auth-required"
                body = self.answer(request, self.task(wrapped=True))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    def task(self, wrapped: bool = False) -> dict[str, Any]:
        found = super().task(wrapped)
        if not self.older:
            (found["task"] if wrapped else found)["status"]["state"] = f"TASK_STATE_{self.state.upper().replace('-', '_')}"
        return found


async def moving(home: House, version: str) -> tuple[Moving, Any]:
    agent = Moving("moves", version)
    url = await home.stack.enter_async_context(serving(agent))
    await home.registered("giver", url, facts={"version": version})
    asked = (await home.send(home.token("alice"), "giver", "go"))["result"]["task"]
    assert asked["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    return agent, asked


@both_dialects
async def test_an_agent_that_goes_on_by_itself_is_followed(open_home: House, version: str) -> None:
    """As after a sign-in that nobody tells us of (s7.6): who watches the task sees it end, and nobody has to answer."""
    agent, asked = await moving(open_home, version)
    headers = {"authorization": f"Bearer {open_home.token('alice')}", "A2A-Version": "1.0"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": asked["id"]}}
    async with (
        httpx.AsyncClient(timeout=60) as http,
        http.stream("POST", f"{open_home.url}/agents/giver", json=body, headers=headers) as told,
    ):
        lines = told.aiter_lines()
        seen = [line async for line in _data(lines, 1)]
        agent.state = "completed"
        seen += [line async for line in _data(lines, 2)]
    assert [next(iter(one)) for one in seen] == ["task", "artifactUpdate", "statusUpdate"]
    assert (await shown(open_home, asked["id"]))["status"]["state"] == DONE
    assert set(agent.methods[1:]) == {"tasks/get" if agent.older else "GetTask"}


async def _data(lines: Any, count: int) -> Any:
    async for line in lines:
        if line.startswith("data: "):
            yield json.loads(line[6:])["result"]
            count -= 1
            if not count:
                return


@both_dialects
async def test_an_answer_that_comes_too_late_is_told_what_has_become_of_the_task(home: House, version: str) -> None:
    agent, asked = await moving(home, version)
    agent.state = "completed"
    answered = (await home.send(home.token("alice"), "giver", "signed in", taskId=asked["id"]))["result"]["task"]
    assert answered["status"]["state"] == DONE and answered["artifacts"][0]["parts"] == [{"text": "here"}]


async def test_a_watched_task_that_is_canceled_stays_so(home: House) -> None:
    agent, asked = await moving(home, "1.0")
    agent.state = "canceled"
    canceled = await home.rpc("/agents/giver", home.token("alice"), "CancelTask", {"id": asked["id"]}, **{"A2A-Version": "1.0"})
    assert canceled.json()["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    agent.state = "completed"
    vigil = home.gateway.calls.agents._watcher
    await until(lambda: not vigil._watches, every=0.02)
    assert (await shown(home, asked["id"]))["status"]["state"] == "TASK_STATE_CANCELED"
