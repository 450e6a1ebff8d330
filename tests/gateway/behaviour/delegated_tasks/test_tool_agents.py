"""MCP servers as A2A agents: a message names a tool, the caller's permission for that tool decides, the result is the artifact."""

import base64
import json
from typing import Any

import pytest
from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from tests.fakes.a2a_agents import serving
from tests.fakes.house import CallbackAgent, House, ToolServer
from tests.fakes.mcp_servers import Era
from tests.fakes.reception import Reception
from tests.gateway.behaviour.tools.test_catalogue import registered

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


def inventory() -> MCPServer:
    server = MCPServer("inventory")

    @server.tool()
    def check(sku: str) -> dict[str, int]:
        """Looks at the stock."""
        return {"left": len(sku)}

    @server.tool()
    def say(text: str) -> str:
        return text

    @server.tool(structured_output=False)
    def picture() -> Image:
        return Image(data=PIXEL, format="png")

    @server.tool()
    def fail() -> str:
        raise ToolError("no luck")

    return server


@pytest.fixture
def desk(home: House) -> Reception:
    return Reception(home)


async def told(desk: Reception, part: dict[str, Any], user: str = "admin", **more: Any) -> Any:
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [part]}
    answer = await desk.home.rpc(
        "/agents/inventory", desk.home.token(user, **more), "SendMessage", {"message": message}, **{"A2A-Version": "1.0"}
    )
    return answer.json()


def result(answer: Any) -> list[dict[str, Any]]:
    task = answer["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED", answer
    return list(task["artifacts"][0]["parts"])


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_data_part_and_a_text_call_the_same_tool(desk: Reception, era: Era) -> None:
    await registered(desk, "inventory", era, inventory())
    for part in (
        {"data": {"tool": "check", "arguments": {"sku": "1234567"}}},
        {"text": 'tool: check {"sku": "1234567"}'},
        {"text": '  tool:check\n{"sku":\n"1234567"} '},
    ):
        parts = result(await told(desk, part))
        assert parts[0] == {"data": {"left": 7}, "mediaType": "application/json"}
        assert parts[1]["text"].split() == ["{", '"left":', "7", "}"]
    (image,) = result(await told(desk, {"data": {"tool": "picture"}}))
    assert image["mediaType"] == "image/png" and base64.b64decode(image["raw"]) == PIXEL


async def test_the_task_is_kept_with_the_decision_on_the_tool(desk: Reception) -> None:
    await registered(desk, "inventory", "both", inventory())
    task = (await told(desk, {"text": 'tool: say {"text": "hi"}'}, "alice"))["result"]["task"]
    again = await desk.home.send_get(desk.home.token("alice"), "inventory", task["id"])
    assert again["result"]["artifacts"] == task["artifacts"]
    kept = (await desk.ask("GET", f"/api/tasks/{task['id']}", "alice")).json()
    decision = (await desk.ask("GET", f"/api/decisions/{kept['decision_id']}", "alice")).json()
    assert (decision["action"], decision["resource"], decision["task_id"]) == ("callTool", "inventory.say", task["id"])


async def test_a_tools_error_is_a_failed_task(desk: Reception) -> None:
    await registered(desk, "inventory", "both", inventory())
    for part in ({"text": "tool: fail"}, {"text": 'tool: say {"text": 5}'}):
        task = (await told(desk, part))["result"]["task"]
        assert task["status"]["state"] in ("TASK_STATE_FAILED", "TASK_STATE_REJECTED")


async def test_who_may_not_call_the_tool_may_not_call_it_as_an_agent(desk: Reception) -> None:  # attack AUT-07
    server = await desk.home.server("inventory", "check", "reserve")
    refused = await told(desk, {"text": "tool: reserve"}, "bob")
    assert refused["error"]["code"] == -32010
    assert refused["error"]["data"][1]["missing"] == ["tool:inventory.reserve (user)"]
    assert (await told(desk, {"text": "tool: reserve"}, scope="tool:inventory.check"))["error"]["data"][1]["missing"] == [
        "tool:inventory.reserve (token)"
    ]
    assert (await told(desk, {"text": "tool: reserve"}, scope="agent:*"))["error"]["code"] == -32010
    assert server.calls == []
    result(await told(desk, {"text": "tool: check"}, "bob"))
    assert [name for name, _ in server.calls] == ["check"]


async def test_to_those_who_may_not_know_of_it_the_server_is_no_agent(desk: Reception) -> None:
    await desk.home.server("inventory", "check")
    hidden = await told(desk, {"text": "tool: check"}, "nora")
    malformed = await told(desk, {"text": "hello"}, "nora")
    assert hidden["error"] == malformed["error"]
    answer = await desk.home.send(desk.home.token("nora"), "nowhere", "hello")
    assert hidden["error"] == answer["error"]


@pytest.mark.parametrize(
    "part",
    [
        {"text": "check the stock of 7"},
        {"text": "tool: nothing"},
        {"text": "tool: check {"},
        {"text": 'tool: check {"sku": 1, "sku": 2}'},
        {"text": 'tool: check {"sku": "7"} please'},
        {"data": {"tool": "check", "arguments": []}},
        {"data": {"tool": "check", "more": 1}},
        {"data": ["check"]},
        {"url": "https://example.org/"},
    ],
)
async def test_a_message_that_names_no_tool_is_told_how_to(desk: Reception, part: dict[str, Any]) -> None:
    server = await desk.home.server("inventory", "check")
    answer = await told(desk, part)
    assert answer["error"]["code"] == -32602, answer
    assert server.calls == []


async def test_the_public_card_names_no_tools_and_the_extended_card_callable_ones(desk: Reception) -> None:
    await desk.home.server("inventory", "check", "reserve")
    card = (await desk.home.http.get("/agents/inventory/.well-known/agent-card.json")).json()
    assert [skill["id"] for skill in card["skills"]] == ["call-tool"] and "reserve" not in str(card)
    assert card["supportedInterfaces"][0]["url"].endswith("/agents/inventory")
    for user, skills in (("bob", ["check"]), ("alice", ["check", "reserve"])):
        answer = await desk.home.rpc("/agents/inventory", desk.home.token(user), "GetExtendedAgentCard", {}, **{"A2A-Version": "1.0"})
        assert [skill["id"] for skill in answer.json()["result"]["skills"]] == skills
    await desk.post("/api/virtual-servers", name="front", tools=["*"])
    for name in ("front", "nowhere"):
        assert (await desk.home.http.get(f"/agents/{name}/.well-known/agent-card.json")).status_code == 404


async def test_an_agent_calls_it_with_what_it_was_handed_and_no_more(desk: Reception) -> None:
    server = await desk.home.server("inventory", "check", "reserve")
    answers: list[Any] = []

    async def act(token: str, text: str) -> str:
        exchanged = await desk.home.exchanged("sales", token, "/agents/inventory", "tool:inventory.check")
        for tool in ("check", "reserve"):
            answers.append(await desk.home.send(exchanged, "inventory", f"tool: {tool}"))
        return "done"

    await desk.home.agent(CallbackAgent("sales", act), ceiling=("tool:inventory.check",))
    await desk.home.send(desk.home.token("alice"), "sales", "go")
    assert answers[0]["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED", answers
    assert answers[1]["error"]["data"][1]["missing"] == ["tool:inventory.reserve (token)"]
    assert [name for name, _ in server.calls] == ["check"]


class Asking(ToolServer):
    """A server of 2026-07-28 whose tool asks before it answers."""

    def __init__(self, requests: Any) -> None:
        super().__init__()
        self.requests = requests
        self.retries: list[dict[str, Any]] = []

    def result(self, params: Any) -> Any:
        if "inputResponses" not in params:
            return {"resultType": "input_required", "inputRequests": self.requests, "requestState": "theirs"}
        self.retries.append(params)
        return {"resultType": "complete", "content": [{"type": "text", "text": json.dumps(params["inputResponses"])}]}


async def asking(desk: Reception, requests: Any) -> Asking:
    server = Asking(requests)
    url = await desk.home.stack.enter_async_context(serving(server))
    await desk.home.server("inventory", "check", url=url)
    return server


def form(**properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": schema}}


async def answered(desk: Reception, task: Any, part: dict[str, Any], user: str = "bob") -> Any:
    message = {"messageId": "m2", "role": "ROLE_USER", "parts": [part], "taskId": task["id"], "contextId": task["contextId"]}
    given = desk.home.token(user), "SendMessage", {"message": message}
    return (await desk.home.rpc("/agents/inventory", *given, **{"A2A-Version": "1.0"})).json()


async def test_what_a_tool_asks_the_task_asks_and_the_answer_reaches_the_tool(desk: Reception) -> None:
    server = await asking(desk, {"who": form(name={"type": "string"})})
    task = (await told(desk, {"data": {"tool": "check", "arguments": {"sku": "7"}}}, "bob"))["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    said = task["status"]["message"]["parts"]
    assert said[0]["text"] == "Who?" and said[1]["data"]["promptId"] == "who" and "name" in said[1]["data"]["schema"]["properties"]
    assert "theirs" not in str(task)
    refused = await answered(desk, task, {"data": {"promptId": "who", "value": {"name": 5}}})
    assert refused["error"]["code"] == -32602 and server.retries == []
    done = await answered(desk, task, {"data": {"promptId": "who", "value": {"name": "Ada"}}})
    (part,) = result(done)
    assert json.loads(part["text"]) == {"who": {"action": "accept", "content": {"name": "Ada"}}}
    (retry,) = server.retries
    assert (retry["name"], retry["arguments"], retry["requestState"]) == ("check", {"sku": "7"}, "theirs")


async def test_nobody_answers_for_another_and_a_right_that_is_gone_is_gone(desk: Reception) -> None:
    server = await asking(desk, {"who": form(name={"type": "string"})})
    task = (await told(desk, {"text": "tool: check"}, "bob"))["result"]["task"]
    part = {"data": {"promptId": "who", "value": {"name": "Eve"}}}
    assert (await answered(desk, task, part, "alice"))["error"]["code"] == -32001
    narrowed = desk.home.token("bob", "tool:inventory.reserve")
    message = {"messageId": "m2", "role": "ROLE_USER", "parts": [part], "taskId": task["id"]}
    answer = await desk.home.rpc("/agents/inventory", narrowed, "SendMessage", {"message": message}, **{"A2A-Version": "1.0"})
    assert answer.json()["error"]["code"] in (-32010, -32001) and server.retries == []


async def test_an_address_that_a_tool_wants_visited_is_told_and_a_word_goes_on(desk: Reception) -> None:
    visit = {"method": "elicitation/create", "params": {"mode": "url", "message": "Sign in", "url": "https://sign.example/in"}}
    await asking(desk, {"sign": visit})
    task = (await told(desk, {"text": "tool: check"}, "bob"))["result"]["task"]
    assert "https://sign.example/in" in task["status"]["message"]["parts"][0]["text"]
    (part,) = result(await answered(desk, task, {"text": "done"}))
    assert json.loads(part["text"]) == {"sign": {"action": "accept"}}


async def test_a_task_that_waits_for_an_answer_can_be_cancelled(desk: Reception) -> None:
    server = await asking(desk, {"who": form(name={"type": "string"})})
    task = (await told(desk, {"text": "tool: check"}, "bob"))["result"]["task"]
    given = desk.home.token("bob"), "CancelTask", {"id": task["id"]}
    ended = (await desk.home.rpc("/agents/inventory", *given, **{"A2A-Version": "1.0"})).json()
    assert ended["result"]["status"]["state"] == "TASK_STATE_CANCELED" and server.retries == []


@pytest.mark.parametrize(
    "requests",
    [{}, {"s": {"method": "sampling/createMessage", "params": {}}}, {"e": {"method": "elicitation/create", "params": {"message": 5}}}],
)
async def test_what_no_person_can_be_asked_fails_the_task(desk: Reception, requests: Any) -> None:
    await asking(desk, requests)
    answer = await told(desk, {"text": "tool: check"}, "bob")
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_FAILED"
