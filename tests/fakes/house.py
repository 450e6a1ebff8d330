"""A whole gateway in this process, on a real database, with agents and a tool server on loopback."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.server.app import build_application
from gateway.server.composition.process import Gateway
from gateway.server.settings import Settings
from gateway.timeouts import Timeouts
from policies.delegation.chain import Principal
from policies.tokens.verifier import DEVELOPMENT_ISSUER, mint_development_token
from registry.cards.card import Family, McpTool, Registration, RegistrationStatus
from registry.cards.reader import read_card
from registry.rows import Candidate
from tests.fakes.a2a_agents import loopback, serving
from tests.fakes.timeouts import LONG_TIMEOUTS

URL = "http://interlock.test"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"  # of every request of `House.http`: errors name their trace, and tests compare whole errors
HTTP = "gateway.server.sockets.http_protocol:HttpProtocol"  # as gateway/server/app.py has it
CAPABILITIES = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
ROLES = {
    "operator": ["*"],
    "member": ["agent:*", "tool:*"],
    "sales": ["agent:*", "tool:inventory.*"],
    "support": ["agent:*", "tool:inventory.check"],
    "nobody": [],
}
USERS = {"alice": {"roles": ["sales"]}, "bob": {"roles": ["support"]}, "nora": {"roles": ["nobody"]}}
Act = Callable[[str, str], Awaitable[str]]


class CallbackAgent:
    """An A2A 1.0 agent. What it does with its hop token and the text it got is up to the test."""

    def __init__(self, name: str, act: Act | None = None) -> None:
        self.name = name
        self.act = act or self._echo
        self.artifacts = 1
        self.state = "TASK_STATE_COMPLETED"
        self.more: list[dict[str, Any]] = []  # parts of each artifact, beside the text
        self.metadata: dict[str, Any] = {}  # of its tasks
        self.message: dict[str, Any] = {}  # of their status
        self.tokens: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def _echo(self, token: str, text: str) -> str:
        return f"{self.name} got: {text}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        request = json.loads(body)
        self.headers.append(headers)
        if "message" not in request["params"]:
            await _answered(send, {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "no such method"}})
            return
        self.requests.append(request)
        self.tokens.append(headers.get("authorization", "").removeprefix("Bearer "))
        said = await self.act(self.tokens[-1], request["params"]["message"]["parts"][0].get("text", ""))
        task = {
            "id": f"{self.name}-task-{len(self.requests)}",
            "contextId": request["params"]["message"].get("contextId") or f"{self.name}-context",
            "status": {"state": self.state, **({"message": self.message} if self.message else {})},
            "metadata": self.metadata,
            "artifacts": [
                {"artifactId": f"answer-{number}" if number else "answer", "parts": [{"text": said}, *self.more]}
                for number in range(self.artifacts)
            ],
        }
        await _answered(send, {"jsonrpc": "2.0", "id": request["id"], "result": {"task": task}})


async def _answered(send: Any, answer: dict[str, Any]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


class ToolServer:
    """An MCP server of 2026-07-28 whose every tool answers with what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.bytes: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        body = message.get("body", b"")
        self.bytes.append(body + b"\n".join(key + b": " + value for key, value in scope["headers"]))
        request = json.loads(body)
        params = request["params"]
        if "name" in params:
            self.calls.append((params["name"], params.get("arguments", {})))
        answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": self.result(params)}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": answer})

    def result(self, params: Any) -> Any:
        return {"content": [{"type": "text", "text": json.dumps(params.get("arguments", {}))}], "resultType": "complete"}


class House:
    """The gateway, and the questions that tests put to it through its front door."""

    def __init__(self, gateway: Gateway, stack: AsyncExitStack) -> None:
        self.gateway = gateway
        self.stack = stack
        self.url = gateway.settings.public_url
        self.app = build_application(gateway)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url=self.url, timeout=60, headers={"traceparent": TRACEPARENT}
        )
        self.secrets: dict[str, tuple[str, str]] = {}

    def token(self, user: str, scope: str | None = None, tenant: str = "default", ttl: int = 3600, audience: str = "") -> str:
        return mint_development_token(self.gateway.keys, Principal(tenant, DEVELOPMENT_ISSUER, user), audience or self.url, scope, ttl)

    async def agent(self, agent: CallbackAgent, ceiling: tuple[str, ...] = ("*",), **more: Any) -> CallbackAgent:
        """Serves an agent on loopback and registers it."""
        url = await self.stack.enter_async_context(serving(agent))
        await self.registered(agent.name, url, ceiling, **more)
        return agent

    async def registered(self, name: str, url: str, ceiling: tuple[str, ...] = ("*",), **more: Any) -> Registration:
        facts = {"interface": url, "binding": "JSONRPC", "version": "1.0", "streaming": False, "tenant": "", **more.pop("facts", {})}
        text = json.dumps(
            {
                "name": name,
                "description": f"{name} of the tests",
                "version": "1",
                "capabilities": more.pop("capabilities", {}),
                "defaultInputModes": ["text/plain"],
                "defaultOutputModes": ["text/plain"],
                "supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
                "skills": [{"id": "quote", "name": "Quote", "description": "Makes a quote", "tags": ["sales"]}],
            }
        )
        given = {"tenant": "default", "owner": "operator", "status": RegistrationStatus.ACTIVE, **more}
        candidate = Candidate(
            name=name,
            family=Family.AGENT,
            kind="a2a",
            url=url,
            ceiling=ceiling,
            facts=facts,
            card=read_card(json.loads(text)),
            card_text=text,
            **given,
        )
        entry, secret = await self.gateway.registry.add(candidate)
        self.secrets[name] = (entry.client_id, secret)
        await self.gateway.database.refresh_epochs()
        return entry

    async def server(self, name: str, *tools: str, **more: Any) -> ToolServer:
        """Serves a tool server on loopback and registers it."""
        server = ToolServer()
        url = more.get("url") or await self.stack.enter_async_context(serving(server))
        entry = Candidate(
            tenant="default",
            name=name,
            family=Family.SERVER,
            kind="mcp",
            url=f"{url}/mcp",
            owner="operator",
            status=more.get("status", RegistrationStatus.ACTIVE),
            ceiling=more.get("ceiling", ("*",)),
            facts={"era": "modern", "protocol_version": "2026-07-28"},
            tools=tuple(McpTool(tool, {"name": tool, "inputSchema": more.get("schema", {"type": "object"})}) for tool in tools),
            resources=more.get("resources", ()),
        )
        await self.gateway.registry.add(entry)
        await self.gateway.database.refresh_epochs()
        return server

    async def rpc(self, path: str, token: str, method: str, params: Any, **headers: str) -> httpx.Response:
        sent = {"authorization": f"Bearer {token}", "content-type": "application/json", **headers}
        return await self.http.post(path, json={"jsonrpc": "2.0", "id": 7, "method": method, "params": params}, headers=sent)

    async def send(self, token: str, agent: str, text: str, method: str = "SendMessage", **more: Any) -> Any:
        """The JSON of an A2A answer. `more`: members of the message, `configuration`, `headers`."""
        headers = {"A2A-Version": "1.0", **more.pop("headers", {})}
        configuration = more.pop("configuration", None)
        message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}], **more}
        params = {"message": message} | ({"configuration": configuration} if configuration else {})
        return (await self.rpc(f"/agents/{agent}", token, method, params, **headers)).json()

    async def send_get(self, token: str, agent: str, task_id: str) -> Any:
        """The JSON of a GetTask answer."""
        return (await self.rpc(f"/agents/{agent}", token, "GetTask", {"id": task_id}, **{"A2A-Version": "1.0"})).json()

    async def call(self, token: str, path: str, tool: str, arguments: dict[str, Any]) -> httpx.Response:
        """A tools/call of revision 2026-07-28."""
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tool}
        return await self.rpc(path, token, "tools/call", {"name": tool, "arguments": arguments, "_meta": CAPABILITIES}, **headers)

    async def exchange(self, agent: str, subject_token: str, resource: str, scope: str, **more: str) -> httpx.Response:
        """RFC 8693 as `agent`."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject_token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "resource": f"{self.url}{resource}",
            "scope": scope,
            **more,
        }
        return await self.http.post("/oauth/token", data=form, auth=self.secrets[agent])

    async def exchanged(self, agent: str, subject_token: str, resource: str, scope: str) -> str:
        answer = await self.exchange(agent, subject_token, resource, scope)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


@asynccontextmanager
async def house(home: Path, database_url: str, *, timeouts: Timeouts = LONG_TIMEOUTS, **settings: Any) -> AsyncIterator[House]:
    """A started gateway; everything is ended afterwards."""
    given = {"roles": ROLES, "users": USERS, "server": {"public_url": URL}, "sandbox": "off", **settings}
    given["sign_in"] = {"development": "on", **settings.get("sign_in", {})}
    gateway = Gateway(Settings(home=home, database={"url": database_url}, **given), timeouts=timeouts)
    async with AsyncExitStack() as stack:
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        built = House(gateway, stack)
        stack.push_async_callback(built.http.aclose)
        yield built


@asynccontextmanager
async def open_house(home: Path, database_url: str, **settings: Any) -> AsyncIterator[House]:
    """The same, reached over a socket of loopback too; `url` is its address."""
    with loopback() as listener:
        server = {"public_url": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        async with house(home, database_url, server=server, **settings) as built, serving(built.app, listener, HTTP):
            yield built


@asynccontextmanager
async def two(home: Path, database_url: str, **settings: Any) -> AsyncIterator[tuple[House, House]]:
    """Two processes that share a home and a database. Only the first is reached over a socket."""
    async with (
        open_house(home, database_url, **settings) as one,
        house(home, database_url, server={"public_url": one.url}, **settings) as other,
    ):
        yield one, other
