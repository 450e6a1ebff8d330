"""Memory as people and agents use it through a whole gateway."""

from typing import Any

from sqlalchemy import select, text

from gateway.storage.database import Database
from policies.tables import transaction_history
from tests.fakes.house import ROLES, CallbackAgent, House
from tests.fakes.reception import Reception

OWN = ["memory:read:person", "memory:write:person"]
MEMORY_ROLES: dict[str, list[str]] = {
    **ROLES,
    "sales": ["agent:*", "tool:*", "resource:*", *OWN],
    "support": ["agent:*", "tool:*", "resource:*", *OWN, "memory:read:workflow:*", "memory:write:workflow:*"],
}


class MemoryDesk(Reception):
    """Requests to /api/memory, which succeed."""

    async def put(self, said: str, user: str = "alice", **more: Any) -> dict[str, Any]:
        answer = await self.ask("POST", "/api/memory", user, {"text": said, **more})
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json())

    async def found(self, query: str = "", user: str = "alice", scope: str = "person", **more: Any) -> list[str]:
        return [each["text"] for each in (await self.page(query, user, scope, **more))["items"]]

    async def page(self, query: str = "", user: str = "alice", scope: str = "person", **more: Any) -> dict[str, Any]:
        token = more.pop("token", None) or self.home.token(user)
        params = {"q": query, "scope": scope, **more}
        answer = await self.home.http.get("/api/memory", params=params, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


class RememberingAgents:
    """Agents that use the tools of memory in a task of a person's."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.results: list[Any] = []

    async def add(self, name: str, tool: str, arguments: dict[str, Any], **entry: Any) -> None:
        """An agent that calls one tool of memory, with the arguments given here, whatever it is sent."""

        async def act(token: str, _text: str) -> str:
            self.results.append(await self.call(name, token, tool, arguments))
            return "done"

        await self.home.agent(CallbackAgent(name, act), **entry)

    async def call(self, name: str, token: str, tool: str, arguments: dict[str, Any]) -> Any:
        own = await self.home.exchanged(name, token, "/mcp/memory", "*")
        answer = await self.home.call(own, "/mcp/memory", tool, arguments)
        body = answer.json()
        return body.get("error") or body["result"]["structuredContent"]

    async def send(self, name: str, user: str = "alice") -> Any:
        sent = await self.home.send(self.home.token(user), name, "go")
        assert "result" in sent, sent
        return self.results[-1]


async def taint_of(home: House) -> list[int]:
    query = select(transaction_history.c.taint)
    return sorted(await home.gateway.database.read(lambda connection: list(connection.execute(query).scalars())))


async def every_row(database: Database) -> dict[str, str]:
    """The rows of each table of the database, those of the index's own tables too, as one text."""
    names = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    }

    def dump(connection: Any) -> dict[str, str]:
        tables = connection.execute(text(names[connection.dialect.name])).scalars().all()
        return {table: repr(connection.execute(text(f'SELECT * FROM "{table}"')).all()) for table in tables}

    return await database.read(dump)
