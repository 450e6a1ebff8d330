"""The sandbox's places are shared out: nobody takes those of others."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from adapters.contract import Call, UpstreamFault
from adapters.mcp_client.wire.messages import McpAnswer, McpRequest, encode
from adapters.sandbox.calculation import DEFAULT_LIMITS, PYTHON_TOOL, CalculationLimits, CalculationResult
from adapters.sandbox.tools import PER_PERSON_MAX, SandboxTools
from tests.fakes.a2a_calls import call_to
from tests.fakes.oauth_bench import grant_of


class Slow:
    """A calculator that counts what it was given, and is done when the test says so."""

    def __init__(self) -> None:
        self.begun = 0
        self.gate = asyncio.Event()

    async def run(self, code: str, inputs: Mapping[str, Any], limits: CalculationLimits = DEFAULT_LIMITS) -> CalculationResult:
        self.begun += 1
        await self.gate.wait()
        return CalculationResult("fake", 1)

    async def close(self) -> None:
        return None


def call_of(user: str) -> Call:
    return replace(call_to("http://127.0.0.1:1", 60), grant=grant_of(user))


def asked() -> McpRequest:
    params = bytes(Raw(encode({"name": PYTHON_TOOL, "arguments": {"code": "1"}})))
    return McpRequest(1, PYTHON_TOOL, b"{}", params, is_modern=True)


async def test_one_person_leaves_places_for_others() -> None:
    slow = Slow()
    tools = SandboxTools(lambda: slow, asyncio.get_running_loop().time)
    running: list[asyncio.Task[McpAnswer]] = [asyncio.create_task(tools.call(call_of("alice"), asked())) for _ in range(PER_PERSON_MAX)]
    await asyncio.sleep(0)
    assert slow.begun == PER_PERSON_MAX
    with pytest.raises(UpstreamFault, match="busy"):
        async with asyncio.timeout(60):
            await tools.call(call_of("alice"), asked())
    running.append(asyncio.create_task(tools.call(call_of("bob"), asked())))
    await asyncio.sleep(0)
    slow.gate.set()
    assert len(await asyncio.gather(*running)) == slow.begun == PER_PERSON_MAX + 1
    await tools.call(call_of("alice"), asked())


class Echo(Slow):
    """A calculator that remembers what it was given."""

    async def run(self, code: str, inputs: Mapping[str, Any], limits: CalculationLimits = DEFAULT_LIMITS) -> CalculationResult:
        self.given = (inputs, limits)
        return CalculationResult("fake", 1)


async def test_exact_calculations_get_decimals() -> None:
    echo = Echo()
    tools = SandboxTools(lambda: echo, asyncio.get_running_loop().time)
    arguments = {"code": "1", "inputs": {"price": 19.99, "count": 3, "more": [0.1]}, "exact": True}
    params = bytes(Raw(encode({"name": PYTHON_TOOL, "arguments": arguments})))
    await tools.call(call_of("alice"), McpRequest(1, PYTHON_TOOL, b"{}", params, is_modern=True))
    assert echo.given[0] == {"price": Decimal("19.99"), "count": 3, "more": [Decimal("0.1")]}
    assert echo.given[1].exact
