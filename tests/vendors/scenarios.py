"""What is tried with each agent, through the gateway: over A2A and, as a tool, over MCP."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from a2a.utils.errors import A2AError

from tests.fakes.waiting import until
from tests.vendors.people import SECONDS, Json, Person
from tests.vendors.rows import SERVER, Row
from tests.vendors.stage import Stage

SECRET = "/srv/agents"  # stands in every failure of the agents, and may come out of none
ASKED = "INPUT_REQUIRED"
DONE = "COMPLETED"
PIXEL = {"raw": base64.b64encode(b"\x89PNG").decode(), "mediaType": "image/png"}
Scenario = Callable[["Scene"], Awaitable[None]]


class Otherwise(Exception):
    """Something else than what a scenario wants was seen."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One agent, by its name at the gateway, and two people who know it."""

    stage: Stage
    agent: str
    vendor: str

    @property
    def alice(self) -> Person:
        return Person(self.stage.gateway.url, self.stage.tokens["alice"])

    @property
    def bob(self) -> Person:
        return Person(self.stage.gateway.url, self.stage.tokens["bob"])

    async def says(self, *parts: Json, **more: Any) -> Json:
        return await self.alice.sends(self.agent, *parts, **more)

    async def logged(self, words: str, before: int = 0) -> None:
        """Until the vendor's server wrote these words once more than `before` times."""
        await until(lambda: self.stage.log(self.vendor).count(words) > before, SECONDS, 0.05)


async def row_of(scene: Scene, scenario: Scenario, name: str) -> Row:
    """One scenario, within its time."""
    why = ""
    try:
        async with asyncio.timeout(SECONDS):
            await scenario(scene)
    except (Otherwise, A2AError, OSError, TimeoutError, KeyError, IndexError, ExceptionGroup) as problem:
        why = f"{type(problem).__name__}: {problem!s}" if not isinstance(problem, Otherwise) else str(problem)
    return Row(scene.agent, name, SERVER, why)


def same(found: object, wanted: object, about: object = "") -> None:
    """Raises Otherwise."""
    if found != wanted:
        raise Otherwise(f"{found!r} is not {wanted!r} {about}".rstrip())


def state(task: Json) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_")


def text(task: Json) -> str:
    """Of the last artifact."""
    artifacts = task.get("artifacts") or [{}]
    return "".join(part.get("text", "") for part in artifacts[-1].get("parts", ()))


def prompts(task: Json) -> list[Json]:
    """Those that the task shows as data."""
    return [part["data"] for part in task["status"]["message"]["parts"] if "promptId" in part.get("data", {})]


def ends(task: Json, wanted: str, words: str) -> None:
    same((state(task), text(task)), (wanted, words), task)


async def send(scene: Scene) -> None:
    ends(await scene.says({"text": "hello"}), DONE, "echo: hello")


async def stream(scene: Scene) -> None:
    """Every piece as it comes, and no text twice."""
    events = await scene.alice.streams(scene.agent, {"text": "hello over there"})
    same(state(events[-1]["statusUpdate"]), DONE, events)
    pieces = [event["artifactUpdate"]["artifact"]["parts"][0]["text"] for event in events if "artifactUpdate" in event]
    same("".join(pieces), "echo: hello over there", events)
    if not scene.agent.endswith("-a2a"):
        same(len(pieces) > 1, True, events)


async def conversation(scene: Scene) -> None:
    """A context is one session of one person."""
    first = await scene.says({"text": "count one"})
    ends(first, DONE, "you said 1 things")
    ends(await scene.says({"text": "count two"}, contextId=first["contextId"]), DONE, "you said 2 things")
    ends(await scene.bob.sends(scene.agent, {"text": "count mine"}, contextId=first["contextId"]), DONE, "you said 1 things")


async def failure(scene: Scene) -> None:
    task = await scene.says({"text": "fail now"})
    same(state(task), "FAILED", task)
    same(SECRET in str(task), False, task)
    ends(await scene.says({"text": "hello"}), DONE, "echo: hello")


async def cancel(scene: Scene) -> None:
    """The agent is really at work, and what is said of it afterwards is what its server saw."""
    begun, stopped = (scene.stage.log(scene.vendor).count(words) for words in ("slow began", "slow was stopped"))
    task = await scene.says({"text": "slow please"}, now=True)
    await scene.logged("slow began", begun)
    same(state(await scene.alice.cancels(scene.agent, task["id"])), "CANCELED")
    same(state(await scene.alice.reads(scene.agent, task["id"])), "CANCELED")
    await scene.logged("slow was stopped", stopped)


async def native_graph_cancel(scene: Scene) -> None:
    """Its CancelTask says canceled, and its stream says completed, of one run: what arrives first is what became of the task."""
    begun, stopped = (scene.stage.log(scene.vendor).count(words) for words in ("slow began", "slow was stopped"))
    task = await scene.says({"text": "slow please"}, now=True)
    await scene.logged("slow began", begun)
    ended = state(await scene.alice.cancels(scene.agent, task["id"]))
    same(ended in ("CANCELED", DONE), True, ended)
    await scene.logged("slow was stopped", stopped)


async def tool(scene: Scene) -> None:
    same(await scene.alice.calls(scene.agent, "hello there"), ([], "echo: hello there"))


async def graph_sees(scene: Scene) -> None:
    """A file arrives as a block of the message."""
    ends(await scene.says({"text": "see this"}, PIXEL), DONE, "saw: text image_url")


async def app_sees(scene: Scene) -> None:
    ends(await scene.says({"text": "see this"}, PIXEL), DONE, "saw: image/png")


async def app_saves(scene: Scene) -> None:
    """A file that the agent saved comes along, fetched by its version."""
    task = await scene.says({"text": "save it"})
    files = [part for artifact in task["artifacts"] for part in artifact["parts"] if "raw" in part]
    same((state(task), [base64.b64decode(file["raw"]) for file in files]), (DONE, [b"sku,left"]), task)


async def app_wants_an_account(scene: Scene) -> None:
    """The person gets an address to go to; where they came back to is the answer."""
    task = await scene.says({"text": "log me in"})
    ((prompt,), address) = prompts(task), "https://login.example/authorize?"
    same((state(task), prompt["kind"], prompt["url"].startswith(address)), ("AUTH_REQUIRED", "auth", True), task)
    back = {"authResponseUri": "https://app.example/back?state=s&code=c"}
    ended = await scene.says({"data": {"promptId": prompt["promptId"], "value": back}}, taskId=task["id"])
    ends(ended, DONE, "tool said: {'came back to': 'https://app.example/back?state=s&code=c'}")


async def graph_asks(scene: Scene) -> None:
    """An interrupt, answered by a text; and one, answered by its id."""
    for answer in ({"text": "yes"}, None):
        task = await scene.says({"text": "approve it"})
        ((prompt,), words) = prompts(task), task["status"]["message"]["parts"][0]["text"]
        same((state(task), words, prompt["text"]), (ASKED, "Refund 42 EUR?", "Refund 42 EUR?"), task)
        named = {"data": {"promptId": prompt["promptId"], "value": "yes"}}
        ends(await scene.says(answer or named, taskId=task["id"]), DONE, "decision was: yes")


async def graph_asks_twice(scene: Scene) -> None:
    task = await scene.says({"text": "both please"})
    same((state(task), sorted(prompt["text"] for prompt in prompts(task))), (ASKED, ["Which colour?", "Which size?"]), task)
    said = {"Which colour?": "blue", "Which size?": "L"}
    answers = [{"data": {"promptId": prompt["promptId"], "value": said[prompt["text"]]}} for prompt in prompts(task)]
    ended = await scene.says(*answers, taskId=task["id"])
    texts = sorted(part["text"] for artifact in ended["artifacts"] for part in artifact["parts"])
    same((state(ended), texts), (DONE, ["first: blue", "second: L"]), ended)


async def graph_data(scene: Scene) -> None:
    task = await scene.says({"text": "struct please"})
    data = [part["data"] for artifact in task["artifacts"] for part in artifact["parts"] if "data" in part]
    same((state(task), data), (DONE, [{"refund": {"amount": 42, "currency": "EUR"}}]), task)


async def graph_form(scene: Scene) -> None:
    forms, words = await scene.alice.calls(scene.agent, "approve it", {"answer": "yes"})
    same(([form["message"] for form in forms], words), (["Refund 42 EUR?"], "decision was: yes"))


async def app_waits(scene: Scene) -> None:
    """A long-running call, which gets its result."""
    task = await scene.says({"text": "approve it"})
    same((state(task), prompts(task)[0]["data"]), (ASKED, {"call": "ask_approval", "args": {"amount": 42}}), task)
    answer = {"data": {"promptId": prompts(task)[0]["promptId"], "value": {"status": "approved"}}}
    ends(await scene.says(answer, taskId=task["id"]), DONE, "tool said: {'status': 'approved'}")


async def app_confirms(scene: Scene) -> None:
    """What fits no yes or no is refused, and the task goes on waiting."""
    task = await scene.says({"text": "confirm it"})
    same((state(task), prompts(task)[0]["kind"], prompts(task)[0]["schema"]), (ASKED, "approval", {"type": "boolean"}), task)
    try:
        raise Otherwise(f"taken as an answer: {await scene.says({'text': 'perhaps'}, taskId=task['id'])}")
    except A2AError:
        ends(await scene.says({"text": "yes"}, taskId=task["id"]), DONE, "tool said: {'refunded': 42}")


async def app_is_denied(scene: Scene) -> None:
    task = await scene.says({"text": "confirm it"})
    ended = await scene.says({"text": "no"}, taskId=task["id"])
    same((state(ended), "rejected" in text(ended)), (DONE, True), ended)


async def app_asks(scene: Scene) -> None:
    """Its own tool for questions, with a schema that the answer has to fit."""
    task = await scene.says({"text": "choose one"})
    ((prompt,), schema) = prompts(task), {"enum": ["S", "L"]}
    same((state(task), prompt["text"], prompt["schema"]), (ASKED, "Which size?", schema), task)
    ends(await scene.says({"text": "L"}, taskId=task["id"]), DONE, "tool said: {'result': 'L'}")


async def app_form(scene: Scene) -> None:
    forms, words = await scene.alice.calls(scene.agent, "confirm it", {"answer": True})
    same(
        ([form["requestedSchema"]["properties"] for form in forms], words),
        ([{"answer": {"type": "boolean"}}], "tool said: {'refunded': 42}"),
    )


async def app_form_declined(scene: Scene) -> None:
    forms, words = await scene.alice.calls(scene.agent, "confirm it")
    same((len(forms), "rejected" in words), (1, True), words)


async def native_graph_asks(scene: Scene) -> None:
    task = await scene.says({"text": "approve it"})
    asked = [part["data"]["value"]["question"] for part in task["status"]["message"]["parts"]]
    same((state(task), asked), (ASKED, ["Refund 42 EUR?"]), task)
    ends(await scene.says({"text": "yes"}, taskId=task["id"]), DONE, "decision was: yes")


async def native_graph_form(scene: Scene) -> None:
    """Its question is an artifact of data, which stays beside the answer."""
    forms, words = await scene.alice.calls(scene.agent, "approve it", {"answer": "yes"})
    same((len(forms), words.partition(" {")[0]), (1, "decision was: yes"), (forms, words))


async def native_app_waits(scene: Scene) -> None:
    """Its own dialect: a function response with the id of the call."""
    task = await scene.says({"text": "approve it"})
    call = task["status"]["message"]["parts"][0]["data"]
    same((state(task), call["name"]), (ASKED, "ask_approval"), task)
    answer = {"id": call["id"], "name": call["name"], "response": {"status": "approved"}}
    part = {"data": answer, "metadata": {"adk_type": "function_response"}}
    ends(await scene.says(part, taskId=task["id"]), DONE, "tool said: {'status': 'approved'}")


EVERY: Mapping[str, Scenario] = {"send": send, "stream": stream, "conversation": conversation, "failure": failure, "mcp_tool": tool}
OWN: Mapping[str, Mapping[str, Scenario]] = {
    "langgraph": {
        "question": graph_asks,
        "two_questions": graph_asks_twice,
        "data": graph_data,
        "file": graph_sees,
        "mcp_form": graph_form,
        "cancel": cancel,
    },
    "adk": {
        "file": app_sees,
        "saved_file": app_saves,
        "account": app_wants_an_account,
        "long_running_call": app_waits,
        "question": app_asks,
        "confirmation": app_confirms,
        "denial": app_is_denied,
        "mcp_form": app_form,
        "mcp_form_declined": app_form_declined,
        "cancel": cancel,
    },
    "langgraph-a2a": {"question": native_graph_asks, "mcp_form": native_graph_form, "cancel": native_graph_cancel},
    "adk-a2a": {"question": native_app_waits, "cancel": cancel},
}


def planned(stage: Stage) -> Iterator[tuple[Scene, str, Scenario]]:
    for agent, own in OWN.items():
        scene = Scene(stage, agent, agent.removesuffix("-a2a"))
        yield from ((scene, name, scenario) for name, scenario in {**EVERY, **own}.items())
