"""Two people at a gateway whose upstreams say whose credential and whose session they see; every call is looked at for the other one."""

import asyncio
import hashlib
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from mcp.server.mcpserver import Context, MCPServer
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.fakes.authorization_server import Plain, Shown, Ways, authorization_server, protected, says
from tests.fakes.house import CAPABILITIES, ROLES, TRACEPARENT, CallbackAgent, House, open_house
from tests.fakes.mcp_clients import probed
from tests.fakes.mcp_servers import Gate, mcp_server
from tests.fakes.mcp_wire import EVENTS, document, session
from tests.gateway.behaviour.tools.test_isolation import claims_of
from tests.gateway.behaviour.upstreams.test_connect import Place, address

USERS = ("first", "second")
SETTINGS: dict[str, Any] = {
    "roles": {**ROLES, "less": ["agent:*", "tool:inventory.*", "tool:desk.who"]},
    "users": {"first": {"roles": ["member"]}, "second": {"roles": ["less"]}},
    "telemetry": {"log_level": "error"},
}
NOTHING = "no answer: "
SESSIONS = 4  # of the legacy era, that each person has at the gateway
KINDS = ("credential", "session", "older session", "ruling", "agent", "stream", "foreign task")


@dataclass
class Found:
    """`crossed` has one line for whatever reached the wrong person, `unanswered` for what had no answer."""

    calls: int = 0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    crossed: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    upstream_sessions: int = 0
    hop_tokens: int = 0
    repeated: int = 0


class Bank(Shown):
    """A server of people's own accounts: it answers with the digest of the token that it was shown."""

    def called(self, params: dict[str, Any], shown: str) -> dict[str, Any]:
        return says(json.dumps([digest(shown.removeprefix("Bearer ")), params["arguments"]["text"]]))


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def desk() -> MCPServer:
    """`who` says who has spoken in this session so far, `secret` is for one of them."""
    server = MCPServer("desk")
    seen: dict[str, set[str]] = {}

    @server.tool()
    def who(text: str, context: Context) -> str:
        people = seen.setdefault((context.headers or {}).get("mcp-session-id", ""), set())
        people.add(text.partition("-")[0])
        return json.dumps([sorted(people), text])

    @server.tool()
    def secret(text: str) -> str:
        return json.dumps([["first"], text])

    return server


@asynccontextmanager
async def two_people(folder: Path, database_url: str) -> AsyncIterator["Crossing"]:
    async with (
        open_house(folder, database_url, **SETTINGS) as home,
        authorization_server(Ways(lasts=0)) as issuer,
        protected(Bank(), lambda: issuer) as bank,
        mcp_server("legacy", server=desk()) as (url, gate),
        httpx.AsyncClient(base_url=home.url, timeout=60, limits=httpx.Limits(max_connections=64, max_keepalive_connections=64)) as http,
    ):
        place = Place(home, issuer, bank, Plain())
        await place.registered()
        crossing = Crossing(home, gate, http)
        for user in USERS:
            before = set(issuer.tokens)
            needed = await crossing.tool("inventory", "read", user, "hello", {"elicitation": {"url": {}}})
            await place.connect(address(needed.text), user)
            (token,) = set(issuer.tokens) - before
            crossing.digests[user] = digest(token)
        await crossing.ready(url)
        yield crossing


class WithCard(CallbackAgent):
    """It shows the card that it was registered with, so that no round of the gateway's finds another."""

    card = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            await Response(self.card, media_type="application/json")(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class Crossing:
    """The calls, each of which says what went wrong, or nothing."""

    def __init__(self, home: House, gate: Gate, http: httpx.AsyncClient) -> None:
        self.digests: dict[str, str] = {}
        self.repeated = 0  # requests, because their connection was gone
        self._home = home
        self._gate = gate
        self._http = http
        self._tokens = {user: home.token(user) for user in USERS}
        self._sessions: dict[str, itertools.cycle[str]] = {}
        self._tasks: dict[str, str] = {}
        self._agent = WithCard("support", self._says_who)
        self._acts: dict[str, Callable[[str, str], Awaitable[str]]] = dict(
            zip(
                KINDS,
                (self._credential, self._session, self._older_session, self._ruling, self._message, self._stream, self._foreign),
                strict=True,
            )
        )

    async def ready(self, url: str) -> None:
        await probed(self._home, url, "desk")
        await self._home.agent(self._agent)
        self._agent.card = self._home.gateway.registry.find("default", "support").card_text
        for user in USERS:
            self._sessions[user] = itertools.cycle([await session(self._home, user, "/mcp/desk") for _ in range(SESSIONS)])
            self._tasks[user] = ""

    async def go(self, calls: int, width: int) -> Found:
        """So many calls, `width` at a time, the people and kinds in turn."""
        found, numbers, began = Found(), iter(range(calls)), time.monotonic()

        async def caller() -> None:
            for number in numbers:
                user, kind = USERS[number % 2], KINDS[number // 2 % len(KINDS)]
                wrong = await self._acts[kind](user, f"{user}-{number}")
                found.calls += 1
                found.kinds[kind] += 1
                if wrong:
                    (found.unanswered if wrong.startswith(NOTHING) else found.crossed).append(f"{kind} of {user}: {wrong}")

        await asyncio.gather(*(caller() for _ in range(width)))
        found.seconds, found.repeated = time.monotonic() - began, self.repeated
        found.crossed += self._afterwards()
        found.upstream_sessions, found.hop_tokens = len(self._gate.sessions), len(set(self._agent.tokens))
        return found

    def _afterwards(self) -> list[str]:
        """What the upstreams saw: never a token of a person, and each hop token for the one who asked."""
        seen = json.dumps(self._gate.requests) + json.dumps(self._agent.headers)
        wrong = [f"the token of {user} went out" for user, token in self._tokens.items() if token in seen]
        for token, request in zip(self._agent.tokens, self._agent.requests, strict=True):
            text = request["params"]["message"]["parts"][0]["text"]
            if text.partition("-")[0] != claims_of(token)["sub"]:
                wrong.append(f"a hop token of {claims_of(token)['sub']} with {text}")
        return wrong

    async def _says_who(self, token: str, text: str) -> str:
        await asyncio.sleep(0)
        return f"{claims_of(token)['sub']} asked {text}."

    async def tool(self, server: str, tool: str, user: str, text: str, able: Any = None) -> httpx.Response:
        """Every call has the same JSON-RPC id."""
        meta = {**CAPABILITIES, "io.modelcontextprotocol/clientCapabilities": able or {}}
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tool}
        return await self._post(f"/mcp/{server}", user, "tools/call", {"name": tool, "arguments": {"text": text}, "_meta": meta}, headers)

    async def _post(self, path: str, user: str, method: str, params: Any, headers: dict[str, str]) -> httpx.Response:
        sent = {"authorization": f"Bearer {self._tokens[user]}", "accept": EVENTS, "traceparent": TRACEPARENT, **headers}
        for _ in range(5):
            try:
                return await self._http.post(path, json=document(method, params, 7), headers=sent)
            except httpx.TransportError:  # a connection that the server let go of just then
                self.repeated += 1
        return httpx.Response(503, json={})

    async def _credential(self, user: str, text: str) -> str:
        return differs(await self.tool("inventory", "read", user, text), [self.digests[user], text])

    async def _session(self, user: str, text: str) -> str:
        return differs(await self.tool("desk", "who", user, text), [[user], text])

    async def _older_session(self, user: str, text: str) -> str:
        params = {"name": "who", "arguments": {"text": text}}
        answer = await self._post("/mcp/desk", user, "tools/call", params, {"mcp-session-id": next(self._sessions[user])})
        return differs(answer, [[user], text])

    async def _ruling(self, user: str, text: str) -> str:
        """The same tool, which one may call and the other may not."""
        answer = await self.tool("desk", "secret", user, text)
        if user == "first":
            return differs(answer, [["first"], text])
        return "" if answer.json().get("error", {}).get("code") in (-32010, -32602) else f"allowed: {answer.text}"

    async def _sent(self, user: str, method: str, text: str) -> httpx.Response:
        message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}]}
        return await self._post("/agents/support", user, method, {"message": message}, {"A2A-Version": "1.0"})

    async def _message(self, user: str, text: str) -> str:
        answer = (await self._sent(user, "SendMessage", text)).text
        self._tasks[user] = json.loads(answer).get("result", {}).get("task", {}).get("id", "")
        return strange(user, text, answer)

    async def _stream(self, user: str, text: str) -> str:
        return strange(user, text, (await self._sent(user, "SendStreamingMessage", text)).text)

    async def _foreign(self, user: str, text: str) -> str:
        """The latest task of the other reads like one that never was; one's own is there."""
        other = self._tasks[USERS[1 - USERS.index(user)]]
        headers = {"A2A-Version": "1.0"}
        never = await self._post("/agents/support", user, "GetTask", {"id": "t_never"}, headers)
        theirs = await self._post("/agents/support", user, "GetTask", {"id": other or "t_never"}, headers)
        return "" if (theirs.status_code, theirs.text) == (never.status_code, never.text) else f"saw {other}"


def differs(answer: httpx.Response, wanted: Any) -> str:
    try:
        got = json.loads(answer.json()["result"]["content"][0]["text"])
    except (KeyError, ValueError):
        return f"{NOTHING}{answer.text[:300]}"
    return "" if got == wanted else f"{got} instead of {wanted}"


def strange(user: str, text: str, answer: str) -> str:
    """An answer says who asked what, and nothing of the other person."""
    other = USERS[1 - USERS.index(user)]
    if f"{other}-" in answer or f"{other} asked" in answer:
        return f"something of {other}: {answer[:300]}"
    return "" if f"{user} asked {text}." in answer else f"{NOTHING}{answer[:300]}"
