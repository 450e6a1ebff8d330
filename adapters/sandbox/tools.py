"""The built-in server `sandbox`, called as MCP servers are: its one tool calculates."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from adapters.contract import Call, UpstreamFault
from adapters.mcp_client.wire.messages import McpAnswer, McpRefused, McpRequest, encode
from adapters.sandbox.calculation import DEFINITION, KIND, TOOL, BadCalculation, Busy, Calculated, Calculator
from policies.strict_json import parse
from registry.cards.card import Family, Registration, Status, Tool

META: Final = "dev.interlock/isolation"
OWN_MAX: Final = 16  # calculations of one person that run or wait, which leaves places for others


class SandboxTools:
    """`made` makes the sandbox at the first call, since its library takes memory. `clock` counts the seconds of deadlines."""

    def __init__(self, made: Callable[[], Calculator], clock: Callable[[], float]) -> None:
        self._made = made
        self._clock = clock
        self._sandbox: Calculator | None = None
        self._under_way: Counter[str] = Counter()

    @property
    def calculator(self) -> Calculator:
        if self._sandbox is None:
            self._sandbox = self._made()
        return self._sandbox

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """Raises UpstreamFault and McpRefused; what is wrong with the code is a result with isError."""
        if request.method != "tools/call":
            raise McpRefused(-32601, request.method)
        if request.name != TOOL:
            raise McpRefused(-32602, "no such tool")
        try:
            code, inputs = _arguments(parse(request.params).get("arguments", {}))
            with self._place(call.grant.delegation.principal.owner):
                async with asyncio.timeout(call.deadline - self._clock()):
                    done = await self.calculator.run(code, inputs)
        except BadCalculation as error:
            return _answer(request, {"content": [{"type": "text", "text": str(error)}], "isError": True})
        except Busy:
            raise UpstreamFault("The sandbox is busy; try again later") from None
        except TimeoutError:
            raise UpstreamFault("The sandbox did not answer in time") from None
        return _answer(request, _told(done))

    @contextmanager
    def _place(self, owner: str) -> Iterator[None]:
        """Raises Busy."""
        if self._under_way[owner] >= OWN_MAX:
            raise Busy
        self._under_way[owner] += 1
        try:
            yield
        finally:
            self._under_way[owner] -= 1
            if not self._under_way[owner]:
                del self._under_way[owner]

    async def close(self) -> None:
        if self._sandbox is not None:
            await self._sandbox.close()


def registration(isolation: str) -> Registration:
    """The server as the registry shows it, in every tenant."""
    return Registration(
        tenant="",
        name=KIND,
        family=Family.SERVER,
        kind=KIND,
        status=Status.ACTIVE,
        url="",
        owner="",
        ceiling=("*",),
        delegation="none",
        upstream={},
        facts={"isolation": isolation},
        client_id="",
        card=None,
        card_text="",
        tools=(Tool(TOOL, DEFINITION),),
        card_hash="",
        created=0,
        updated=0,
    )


def _arguments(given: Any) -> tuple[str, Mapping[str, Any]]:
    """Raises BadCalculation."""
    if not isinstance(given, dict) or given.keys() - {"code", "inputs"}:
        raise BadCalculation("the arguments are code, and inputs where there are any")
    code, inputs = given.get("code"), given.get("inputs", {})
    if not isinstance(code, str):
        raise BadCalculation("code must be a string")
    if not isinstance(inputs, dict):
        raise BadCalculation("inputs must be an object: name -> value")
    return code, inputs


def _told(done: Calculated) -> dict[str, Any]:
    structured = done.result()
    told: dict[str, Any] = {"content": [{"type": "text", "text": encode(structured).decode()}], "structuredContent": structured}
    return {**told, "isError": done.error is not None, "_meta": {META: done.isolation}}


def _answer(request: McpRequest, result: Mapping[str, Any]) -> McpAnswer:
    return McpAnswer(encode({**result, "resultType": "complete"} if request.modern else result))
