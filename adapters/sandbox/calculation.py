"""A calculation: its limits, its result, and the definition of its tool."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Protocol

from msgspec import Struct

SANDBOX_KIND: Final = "sandbox"  # of the registration, and its name
PYTHON_TOOL: Final = "python"
CODE_MAX: Final = 64 << 10  # bytes
INPUTS_MAX: Final = 1 << 20  # bytes of JSON
SECONDS_MAX: Final = 30.0


class CalculationLimits(Struct, frozen=True):
    """The limits of a calculation. `output`: bytes of the printed text, and of the value as JSON. `exact`: the value has no float."""

    seconds: float = 1.0  # of execution; at most SECONDS_MAX
    memory: int = 64 << 20  # bytes
    output: int = 64 << 10
    exact: bool = False


DEFAULT_LIMITS: Final = CalculationLimits()
EXACT_LIMITS: Final = CalculationLimits(exact=True)


def to_decimals(value: Any) -> Any:
    """A JSON value with each number that has a fraction as a Decimal of the same digits, so that sums of money are exact."""
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, dict):
        return {name: to_decimals(member) for name, member in value.items()}
    return [to_decimals(element) for element in value] if isinstance(value, list) else value


class CalculationError(Struct, frozen=True, omit_defaults=True):
    """The error of a calculation: a Python error's class, or TimeLimit, MemoryLimit, OutputLimit, NotJson, WorkerLost."""

    type: str
    message: str
    line: int | None = None  # of the code, counted from 1


class CalculationResult(Struct, frozen=True):
    """The result of a calculation. `value` is JSON: None, bool, int, float, str, list, dict. `isolation` is the one in force."""

    isolation: str
    value: Any = None
    output: str = ""
    error: CalculationError | None = None

    def to_document(self) -> dict[str, Any]:
        """The structured content of the result; without `value` when there is an error."""
        return {"output": self.output, **({"error": self.error} if self.error else {"value": self.value})}


class BadCalculation(Exception):
    """The request can't be run at all; the text is safe to show."""


class CalculatorBusy(Exception):
    """Too many calculations are running or waiting."""


class Calculator(Protocol):
    """Runs calculations (adapters/sandbox/worker.py)."""

    async def run(self, code: str, inputs: Mapping[str, Any], limits: CalculationLimits = DEFAULT_LIMITS) -> CalculationResult:
        """Runs a calculation. Raises BadCalculation and CalculatorBusy."""
        ...

    async def close(self) -> None: ...


DESCRIPTION: Final = (
    "Runs Python code for calculations in isolation and returns the value of its last expression. It has math, json, re, datetime, "
    "decimal, dataclasses and more of the standard library's pure parts; no files, no network, no environment, no processes, and no "
    "classes that inherit. Each call begins afresh. It is given 1 second and 64 MiB. What is printed is returned too."
)
DEFINITION: Final[Mapping[str, Any]] = {
    "name": PYTHON_TOOL,
    "title": "Calculate in Python",
    "description": DESCRIPTION,
    "inputSchema": {
        "type": "object",
        "properties": {
            "code": {
                "type": "string",
                "description": "Statements; the value of the last expression is returned.",
                "maxLength": CODE_MAX,
            },
            "inputs": {"type": "object", "description": "Variables that the code finds: name -> JSON value."},
            "exact": {
                "type": "boolean",
                "description": "Numbers with a fraction reach the code as decimal.Decimal, and a value with a float is an error.",
            },
        },
        "required": ["code"],
        "additionalProperties": False,
    },
    "outputSchema": {
        "type": "object",
        "properties": {
            "value": {"description": "The value of the last expression, as JSON."},
            "output": {"type": "string", "description": "What was printed."},
            "error": {
                "type": "object",
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}, "line": {"type": "integer"}},
                "required": ["type", "message"],
            },
        },
        "required": ["output"],
    },
    "annotations": {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False},
}
