"""The plan that an agent writes: a small part of the DSL as data. Nothing in it is ever evaluated as an expression."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal

import rfc8785
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from gateway.workflows.dsl.constructs import POINTER, STEP_NAME

GIVEN: Final = "input"  # what references to the input of the step begin with
StepName = Annotated[str, Field(pattern=STEP_NAME)]
Pointer = Annotated[str, Field(max_length=500, pattern=POINTER)]


class PlanPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


class StepReference(PlanPart):
    """The value at a JSON pointer in the output of an earlier step, or in the `input`."""

    from_: StepName = Field(alias="from")
    path: Pointer = ""


class AgentArguments(PlanPart):
    agent: Annotated[str, Field(max_length=64)]
    skill: Annotated[str, Field(max_length=128)] = ""
    input: Any = ""


class ToolArguments(PlanPart):
    tool: Annotated[str, Field(max_length=200)]
    arguments: dict[str, Any] = Field(default_factory=dict)


class AgentStep(PlanPart):
    call: Literal["gateway.agent"]
    with_: AgentArguments = Field(alias="with")


class ToolStep(PlanPart):
    call: Literal["gateway.tool"]
    with_: ToolArguments = Field(alias="with")


class DoStep(PlanPart):
    do: "Steps"


class Branches(PlanPart):
    branches: "Steps"


class ForkStep(PlanPart):
    """Runs its branches at once. Its output is the list of theirs."""

    fork: Branches


class SetStep(PlanPart):
    set: Any


class Condition(PlanPart):
    """What must hold of a value: exactly one of the comparisons."""

    value: StepReference
    equals: Any = None
    at_least: float | None = Field(None, alias="atLeast")
    at_most: float | None = Field(None, alias="atMost")

    @model_validator(mode="after")
    def _is_one(self) -> "Condition":
        if len({"equals", "at_least", "at_most"} & self.model_fields_set) != 1:
            raise ValueError("needs exactly one of `equals`, `atLeast` and `atMost`")
        return self

    def holds(self, value: Any) -> bool:
        """Whether the value meets the condition. Only numbers are more or less than others."""
        if "equals" in self.model_fields_set:
            return bool(value == self.equals) and isinstance(value, bool) == isinstance(self.equals, bool)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return value >= self.at_least if self.at_least is not None else self.at_most is not None and value <= self.at_most


class PlanCase(PlanPart):
    when: Condition | None = None
    do: "Steps"


class SwitchStep(PlanPart):
    """Runs the first case whose condition holds; one without a condition always does. Its output is that case's, or null."""

    switch: list[PlanCase] = Field(min_length=1, max_length=20)


def _kind_of(value: Any) -> str | None:
    if isinstance(value, BaseModel):
        return type(value).__name__
    if not isinstance(value, Mapping):
        return None
    if "call" in value:
        return {"gateway.agent": "AgentStep", "gateway.tool": "ToolStep"}.get(str(value["call"]))
    return next((kind for member, kind in _KINDS.items() if member in value), None)


_KINDS: Final = {"do": "DoStep", "fork": "ForkStep", "switch": "SwitchStep", "set": "SetStep"}
PlanStep = Annotated[
    Annotated[AgentStep, Tag("AgentStep")]
    | Annotated[ToolStep, Tag("ToolStep")]
    | Annotated[DoStep, Tag("DoStep")]
    | Annotated[ForkStep, Tag("ForkStep")]
    | Annotated[SwitchStep, Tag("SwitchStep")]
    | Annotated[SetStep, Tag("SetStep")],
    Discriminator(
        _kind_of,
        custom_error_type="no_step",
        custom_error_message="is no step: it is one of call (gateway.agent, gateway.tool), do, fork, switch, set",
    ),
]
Steps = Annotated[list[Annotated[dict[StepName, PlanStep], Field(min_length=1, max_length=1)]], Field(min_length=1, max_length=200)]


class Plan(PlanPart):
    """Steps that follow each other, each an object of one member, its name. The output of the last one is that of the plan."""

    do: Steps


class PlacedStep(Struct, frozen=True):
    """One step of a plan. `depth` counts the lists around it; `before` names the steps that have ended when it runs."""

    path: str
    name: str
    step: Any
    depth: int
    before: frozenset[str]


def steps_of(plan: Plan) -> Iterator[PlacedStep]:
    """Every step of a plan, each before those within it."""
    return _walk(plan.do, "/do", 1, frozenset((GIVEN,)))


def _walk(steps: Any, path: str, depth: int, before: frozenset[str]) -> Iterator[PlacedStep]:
    for index, item in enumerate(steps):
        ((name, step),) = item.items()
        placed = PlacedStep(f"{path}/{index}/{name}", name, step, depth, before)
        yield placed
        yield from _within(placed)
        before = before | _ended_with(name, step)


def _within(placed: PlacedStep) -> Iterator[PlacedStep]:
    step, path, depth, before = placed.step, placed.path, placed.depth + 1, placed.before
    match step:
        case DoStep(do=steps):
            yield from _walk(steps, f"{path}/do", depth, before)
        case ForkStep(fork=fork):
            for index, item in enumerate(fork.branches):  # one branch does not see another
                ((name, branch),) = item.items()
                inner = PlacedStep(f"{path}/fork/branches/{index}/{name}", name, branch, depth, before)
                yield inner
                yield from _within(inner)
        case SwitchStep(switch=cases):
            for index, case in enumerate(cases):
                yield from _walk(case.do, f"{path}/switch/{index}/do", depth, before)


def _ended_with(name: str, step: Any) -> frozenset[str]:
    """The names that later steps may refer to once a step has ended: its own, and those within it that surely ran."""
    found = frozenset((name,))
    items = step.do if isinstance(step, DoStep) else step.fork.branches if isinstance(step, ForkStep) else ()
    return found.union(*(_ended_with(*next(iter(item.items()))) for item in items))


def reference_in(value: Any) -> Mapping[str, Any] | None:
    """The reference that a value is: an object of `from` and at most `path`; None for any other value."""
    if isinstance(value, Mapping) and "from" in value and not set(value) - {"from", "path"}:
        return value
    return None


@cache
def plan_schema() -> dict[str, Any]:
    """The JSON Schema of a plan, for planners."""
    return Plan.model_json_schema()


def digest_of_plan(plan: Any) -> str:
    """The digest of exactly this plan: sha256, in hex, of its canonical JSON (RFC 8785)."""
    return hashlib.sha256(rfc8785.dumps(plan)).hexdigest()
