"""The board of a gateway in this process, for people over /api and for agents over MCP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.house import CallbackAgent, House, house

ROLES = {
    "operator": ["*"],
    "member": ["agent:*", "tool:*"],
    "desk": ["agent:*", "tool:*", "resource:*", "state:read:customer/42", "state:write:customer/42"],
    "reader": ["agent:*", "tool:*", "resource:*", "state:read:customer/42"],
    "four": ["state:read:customer/4", "state:write:customer/4"],
    "steward": ["state:read:customer/*"],
}
USERS = {name: {"roles": [role]} for name, role in (("ann", "desk"), ("rita", "reader"), ("fay", "four"), ("stu", "steward"))}
KEY = "customer/42/status"


class BoardHome:
    """Questions to one gateway."""

    def __init__(self, home: House) -> None:
        self.home = home

    async def ask(self, method: str, path: str, user: str = "ann", body: Any = None, **headers: str) -> httpx.Response:
        """A request to /api/state/PATH; `headers` with _ for -. `user` may be tenant|name."""
        tenant, _, name = user.rpartition("|")
        token = self.home.token(name, tenant=tenant or "default")
        sent = {"authorization": f"Bearer {token}", **{key.replace("_", "-"): value for key, value in headers.items()}}
        content = None if body is None else json.dumps(body).encode()
        return await self.home.http.request(method, f"/api/state{path}", content=content, headers=sent)

    async def put(self, key: str, value: Any, user: str = "ann", **headers: str) -> httpx.Response:
        return await self.ask("PUT", f"/{key}", user, value, **headers)

    async def value(self, key: str, user: str = "ann") -> Any:
        """The document of a value that is there."""
        answer = await self.ask("GET", f"/{key}", user)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def call(self, token: str, tool: str, **arguments: Any) -> Any:
        """The structured result of a tool of the server `state`."""
        answer = (await self.home.call(token, "/mcp/state", tool, arguments)).json()
        assert "result" in answer, answer
        return answer["result"]["structuredContent"]

    async def agent(self, name: str, **more: Any) -> "BoardAgent":
        """Registers an agent that calls the tools of `state` as its message says."""
        agent = BoardAgent(self, name)
        await self.home.agent(agent, **more)
        return agent

    async def permissions_ruled_on(self) -> list[tuple[str, bool]]:
        """The permissions of all recorded decisions about the board, with what was decided."""
        items = (await self.home.http.get("/api/audit?kind=decision&limit=200", headers=self._operator)).json()["items"]
        found = [(each["permission"], each["allowed"]) for each in items]
        return [each for each in found if each[0].startswith("state:")]

    @property
    def _operator(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.home.token('admin')}"}


class BoardAgent(CallbackAgent):
    """An agent whose message is JSON: {"tool": …, "arguments": …} for the server `state`. It answers with the tool's result."""

    def __init__(self, board: BoardHome, name: str) -> None:
        super().__init__(name, self._call_tool)
        self._board = board
        self.scope = "*"  # that it exchanges its token for

    async def _call_tool(self, token: str, text: str) -> str:
        wanted = json.loads(text)
        own = await self._board.home.exchanged(self.name, token, "/mcp/state", self.scope)
        answers = [await self._board.home.call(own, "/mcp/state", each["tool"], each["arguments"]) for each in wanted["calls"]]
        return json.dumps([answer.json() for answer in answers])

    async def asked(self, user: str, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
        """What the tools answered when a person asked the agent to call them, one after another in one task."""
        text = json.dumps({"calls": [{"tool": tool, "arguments": arguments} for tool, arguments in calls]})
        answer = await self._board.home.send(self._board.home.token(user), self.name, text)
        answers = json.loads(answer["result"]["task"]["artifacts"][0]["parts"][0]["text"])
        return [each["result"]["structuredContent"] if "result" in each else each["error"] for each in answers]


@asynccontextmanager
async def board_home(path: Path, database_url: str, **settings: Any) -> AsyncIterator[BoardHome]:
    """A started gateway with the board."""
    async with house(path / "home", database_url, **{"roles": ROLES, "users": USERS, **settings}) as home:
        yield BoardHome(home)
