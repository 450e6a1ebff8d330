"""The built-in server `sandbox`, called like MCP servers: its only tool calculates."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from adapters.contract import Call, UpstreamFault
from adapters.mcp_client.wire.messages import McpAnswer, McpRefused, McpRequest, answer_with, encode
from adapters.sandbox.calculation import (
    DEFAULT_LIMITS,
    DEFINITION,
    EXACT_LIMITS,
    PYTHON_TOOL,
    SANDBOX_KIND,
    BadCalculation,
    CalculationLimits,
    CalculationResult,
    Calculator,
    CalculatorBusy,
    to_decimals,
)
from policies.strict_json import parse
from registry.cards.built_in import build_built_in_registration
from registry.cards.card import Registration

ISOLATION_KEY: Final = "dev.interlock/isolation"
PER_PERSON_MAX: Final = 16  # running or waiting calculations of one person, which leaves capacity for others


class SandboxTools:
    """Calls of the sandbox. `make_calculator` is called on the first call, since its library takes memory. `clock` counts seconds."""

    def __init__(self, make_calculator: Callable[[], Calculator], clock: Callable[[], float]) -> None:
        self._make_calculator = make_calculator
        self._clock = clock
        self._sandbox: Calculator | None = None
        self._in_flight: Counter[str] = Counter()

    @property
    def calculator(self) -> Calculator:
        if self._sandbox is None:
            self._sandbox = self._make_calculator()
        return self._sandbox

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """Calls the tool. Raises UpstreamFault and McpRefused; an error of the code is a result with isError."""
        if request.method != "tools/call":
            raise McpRefused(-32601, request.method)
        if request.name != PYTHON_TOOL:
            raise McpRefused(-32602, "no such tool")
        try:
            code, inputs, limits = _read_arguments(parse(request.params).get("arguments", {}))
            with self._reserve_place(call.grant.delegation.principal.owner_key):
                async with asyncio.timeout(call.deadline - self._clock()):
                    done = await self.calculator.run(code, inputs, limits)
        except BadCalculation as error:
            return answer_with(request, {"content": [{"type": "text", "text": str(error)}], "isError": True})
        except CalculatorBusy:
            raise UpstreamFault("The sandbox is busy; try again later") from None
        except TimeoutError:
            raise UpstreamFault("The sandbox did not answer in time") from None
        return answer_with(request, _tool_result(done))

    @contextmanager
    def _reserve_place(self, owner: str) -> Iterator[None]:
        """Counts a calculation of a person. Raises CalculatorBusy."""
        if self._in_flight[owner] >= PER_PERSON_MAX:
            raise CalculatorBusy
        self._in_flight[owner] += 1
        try:
            yield
        finally:
            self._in_flight[owner] -= 1
            if not self._in_flight[owner]:
                del self._in_flight[owner]

    async def close(self) -> None:
        if self._sandbox is not None:
            await self._sandbox.close()


def sandbox_registration(isolation: str) -> Registration:
    """The registration of the server, the same in every tenant."""
    return build_built_in_registration(SANDBOX_KIND, SANDBOX_KIND, (DEFINITION,), facts={"isolation": isolation})


def _read_arguments(arguments: Any) -> tuple[str, Mapping[str, Any], CalculationLimits]:
    """The code, inputs and limits of a call. Raises BadCalculation."""
    if not isinstance(arguments, dict) or arguments.keys() - {"code", "inputs", "exact"}:
        raise BadCalculation("the arguments must be code and, optionally, inputs and exact")
    code, inputs, exact = arguments.get("code"), arguments.get("inputs", {}), arguments.get("exact", False)
    if not isinstance(code, str):
        raise BadCalculation("code must be a string")
    if not isinstance(inputs, dict):
        raise BadCalculation("inputs must be an object: name -> value")
    if not isinstance(exact, bool):
        raise BadCalculation("exact must be true or false")
    return (code, to_decimals(inputs), EXACT_LIMITS) if exact else (code, inputs, DEFAULT_LIMITS)


def _tool_result(done: CalculationResult) -> dict[str, Any]:
    structured = done.to_document()
    content_members: dict[str, Any] = {"content": [{"type": "text", "text": encode(structured).decode()}], "structuredContent": structured}
    return {**content_members, "isError": done.error is not None, "_meta": {ISOLATION_KEY: done.isolation}}
