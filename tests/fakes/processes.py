"""The inner parts of a gateway without its doors and loops: one process of several on a database, calling scripted agents."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from adapters.contract import Call, Done, Event, Progress, RefLearned, Turn, VendorRef
from adapters.mcp_client.wire.messages import McpAnswer, McpRequest
from adapters.task import Message, Part, Role, text_of
from gateway.calls.agent_requests import AgentRequest
from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.outgoing.upstreams import Upstreams
from gateway.calls.resumption.takeover import Takeover
from gateway.calls.server_calls import ToolServerRequest
from gateway.server.composition.calls import build_calls
from gateway.server.composition.process import Gateway
from gateway.server.settings import Settings
from gateway.storage.tables import processes
from gateway.tasks.log import TaskLog, TaskRecord
from gateway.tasks.turns.stores import TaskStores
from gateway.telemetry.spans import TraceContext
from gateway.telemetry.upstream_calls import CallTelemetry
from policies.callers import Caller
from policies.delegation.chain import Principal
from policies.delegation.rulings import act_of_calling_tool
from policies.ids import new_id, now_us
from policies.tokens.verifier import DEVELOPMENT_ISSUER, mint_development_token
from registry.cards.card import Family, McpTool, RegistrationStatus
from registry.rows import Candidate
from tests.fakes.house import ROLES, URL, USERS
from tests.fakes.looks import looking
from tests.fakes.outages import Shaky
from tests.fakes.timeouts import LONG_TIMEOUTS

Script = Callable[[Turn, Call], AsyncIterator[Event]]


class ScriptedAgents:
    """The adapter of every kind. What each call does is up to `script`; a first step is always `Ref`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Call]] = []  # text, call
        self.cancels: list[VendorRef] = []
        self.cancel_calls: list[Call] = []
        self.names = True  # whether its first word is the task's name
        self.confirms = True
        self.stop: Callable[[VendorRef], Awaitable[bool]] | None = None  # in place of `confirms`
        self.gate = asyncio.Event()
        self.script: Script = self._done

    async def load(self, kind: str) -> None:
        """It is there."""

    def adapter(self, kind: str, upstream: Any = None) -> "ScriptedAgents":
        return self

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        self.calls.append((text_of(turn.message.parts), call))
        if self.names:
            yield RefLearned(VendorRef("c", f"v-{len(self.calls)}"))
        async for event in self.script(turn, call):
            yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        self.cancels.append(ref)
        self.cancel_calls.append(call)
        return self.confirms if self.stop is None else await self.stop(ref)

    async def _done(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield Done()

    async def at_work(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Says that it works, and ends when the gate opens."""
        yield Progress()
        await self.gate.wait()
        yield Done()


class ScriptedTools:
    """The pool of MCP upstreams."""

    def __init__(self) -> None:
        self.calls: list[McpRequest] = []
        self.result = b"{}"

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        self.calls.append(request)
        return McpAnswer(self.result)


class Process:
    """One of them. Its writes and reads of tasks go through `shaky`."""

    def __init__(self, gateway: Gateway, agents: ScriptedAgents, tools: ScriptedTools) -> None:
        self.gateway = gateway
        self.agents = agents
        self.tools = tools
        self.shaky = Shaky(gateway.database)
        self.ahead = 0  # microseconds by which the clock of tasks is ahead
        tasks = TaskLog(self.shaky, lambda: now_us() + self.ahead, gateway.process)  # type: ignore[arg-type]  # it does what is needed
        self.memory = TaskStores(self.shaky, gateway.audit, gateway.rulings.grants, tasks, new_id, now_us)  # type: ignore[arg-type]  # see above
        outside = Upstreams(agents, tools, lambda _: {}, 60.0, 60.0)
        ledger = CallAuthorizer(gateway.rulings.authority, gateway.rulings.hop_tokens, self.memory, outside, gateway.rulings.spool)
        telemetry = CallTelemetry(gateway.metrics)
        self.calls = calls = build_calls(
            gateway.registry,
            ledger,
            self.memory,
            outside,
            gateway.front_door,
            telemetry=telemetry,
            costs=gateway.calls.parts.costs,
            timeouts=gateway.timeouts,
            find_facts=gateway.calls.parts.find_facts,
        )
        self.takeover = Takeover(
            calls.parts,
            calls.resumed_turns,
            gateway.rulings.authority,
            gateway.rulings.caller_resolver,
            stores=self.memory,
            turns=calls.turns,
        )

    async def caller(self, user: str = "alice") -> Caller:
        token = mint_development_token(self.gateway.keys, Principal("default", DEVELOPMENT_ISSUER, user), URL, None, 3600)
        return await self.gateway.rulings.caller_resolver.authenticate(token, (URL,))

    async def registered(self) -> "Process":
        """With an agent `sales` and a server `inventory`."""
        for name, family, kind in (("sales", Family.AGENT, "a2a"), ("inventory", Family.SERVER, "mcp")):
            tools = (McpTool("check", {"name": "check", "inputSchema": {"type": "object"}}),) if family is Family.SERVER else ()
            given = {"owner": "operator", "status": RegistrationStatus.ACTIVE, "url": f"http://{name}.test/", "tools": tools}
            await self.gateway.registry.add(Candidate(tenant="default", name=name, family=family, kind=kind, **given))
        return self

    async def looked(self, task_id: str, user: str = "alice") -> TaskRecord:
        """A task as it stands, read past all shakiness."""
        log = TaskLog(self.gateway.database, now_us, self.gateway.process)
        return await log.read_record("default", (await self.caller(user)).principal.owner_key, task_id)


def sending(text: str, **more: Any) -> AgentRequest:
    message = {name: more.pop(name) for name in ("task_id", "context_id", "message_id") if name in more}
    return AgentRequest(
        "sales", Message(**{"message_id": "m_1", **message}, role=Role.USER, parts=(Part(text=text),)), TraceContext(), **more
    )


def tool_call(text: str) -> ToolServerRequest:
    return ToolServerRequest(
        "inventory",
        act_of_calling_tool("inventory", "check"),
        {"sku": text},
        McpRequest(7, "check", b"{}", b"{}", is_modern=True),
        TraceContext(),
    )


@asynccontextmanager
async def process(home: Path, database_url: str, agents: ScriptedAgents | None = None, **more: Any) -> AsyncIterator[Process]:
    """Started as far as it needs to be: nothing happens by itself, but that it looks for what others did."""
    settings = Settings(home=home, database={"url": database_url}, roles=ROLES, users=USERS, server={"public_url": URL}, **more)
    gateway = Gateway(settings, timeouts=LONG_TIMEOUTS)
    gateway.database.start()
    await gateway.database.refresh_epochs()
    await gateway.registry.reload()
    row = {"id": gateway.process, "started": now_us(), "seen": now_us()}
    await gateway.database.write(lambda batch: gateway.audit.begin_chain(batch.connection, batch))
    await gateway.database.write(lambda batch: batch.add(processes, row))
    built = Process(gateway, agents or ScriptedAgents(), ScriptedTools())
    async with looking(built.memory.tasks):
        yield built
    await built.calls.close()
    await gateway.webhooks.egress.close()
    await gateway.egress.close()
    gateway.database.close()
