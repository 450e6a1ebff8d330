"""Reads what a planner answered. Before anything of a plan runs, every target, limit and reference in it is checked."""

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
import rfc8785
from pydantic import ValidationError

from gateway.workflows.coordination.plan import (
    AgentStep,
    PlacedStep,
    Plan,
    SetStep,
    StepReference,
    SwitchStep,
    ToolStep,
    digest_of_plan,
    reference_in,
    steps_of,
)
from gateway.workflows.dsl.coordination import PlanArguments
from gateway.workflows.dsl.loading import pointer
from gateway.workflows.dsl.wording import problems_of
from gateway.workflows.expressions.templates import expression_in

SIZE_MAX: Final = 64 << 10  # bytes of a plan
NESTING_MAX: Final = 60  # of its JSON
PROBLEMS_MAX: Final = 20
Found = Iterator[str]


class BadPlan(Exception):
    """The answer is no plan, or one that may not run. `problems` are words for the planner and for readers of the run."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems[:PROBLEMS_MAX])[:2000])
        self.problems = problems[:PROBLEMS_MAX]


def plan_data(answer: Any) -> dict[str, Any]:
    """The JSON of a plan: an object, or a text that is one, fenced as Markdown or not. Raises BadPlan."""
    if isinstance(answer, str):
        answer = _decode(answer)
    if not isinstance(answer, dict):
        raise BadPlan(["the answer is no plan: it is no JSON object"])
    if _is_nested_deeper(answer, NESTING_MAX):
        raise BadPlan([f"the plan is nested deeper than {NESTING_MAX} levels"])
    try:
        digest_of_plan(answer)
        size = len(msgspec.json.encode(answer))
    except (rfc8785.CanonicalizationError, msgspec.MsgspecError, ValueError) as error:
        raise BadPlan(["the plan has numbers or texts that JSON can't have"]) from error
    if size > SIZE_MAX:
        raise BadPlan([f"the plan has {size} bytes, more than {SIZE_MAX}"])
    return answer


def _decode(text: str) -> Any:
    if len(text) > 2 * SIZE_MAX:
        raise BadPlan([f"the plan has more than {SIZE_MAX} bytes"])
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[:-3].partition("\n")[2]
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise BadPlan(["the answer is no plan: it is no JSON"]) from error


def _is_nested_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            member for each in level for member in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
        ]
        if not level:
            return False
    return True


def read_plan(data: Mapping[str, Any], said: PlanArguments, offered: Mapping[str, Any]) -> Plan:
    """The plan, once it is within what the document allows and what was offered to the planner. Raises BadPlan with every problem."""
    try:
        plan = Plan.model_validate(data)
    except ValidationError as error:
        found = problems_of(Plan, data, error.errors(include_url=False, include_input=False))
        raise BadPlan([f"{pointer(*steps) or '/'}: {reason}" for steps, reason in found]) from error
    if problems := [*_limit_problems(plan, said), *_step_problems(plan, said, offered)]:
        raise BadPlan(problems)
    return plan


def _limit_problems(plan: Plan, said: PlanArguments) -> Found:
    steps = list(steps_of(plan))
    if len(steps) > said.limits.steps:
        yield f"the plan has {len(steps)} steps, more than {said.limits.steps}"
    if (depth := max(each.depth for each in steps)) > said.limits.depth:
        yield f"the plan is {depth} lists deep, more than {said.limits.depth}"
    for name, count in Counter(each.name for each in steps).items():
        if count > 1:
            yield f"the plan has {count} steps of the name `{name}`"
        if name == "input":
            yield "no step is named `input`: references to the input of the plan are"


def cost_of(plan: Plan, said: PlanArguments) -> Decimal:
    """The most that the calls of a plan cost, by the document's `costs`; a call without one counts nothing."""
    targets = (target_of(each) for each in steps_of(plan))
    return sum((said.costs.get(target, Decimal(0)) for target in targets if target is not None), Decimal(0))


def target_of(placed: PlacedStep) -> str | None:
    """The name of the agent or the tool that a step calls, or None."""
    match placed.step:
        case AgentStep(with_=call):
            return call.agent
        case ToolStep(with_=call):
            return call.tool
    return None


def _step_problems(plan: Plan, said: PlanArguments, offered: Mapping[str, Any]) -> Found:
    names = {kind: {each["name"] for each in offered[kind]} for kind in ("agents", "tools")}
    for placed in steps_of(plan):
        target = target_of(placed)
        if isinstance(placed.step, AgentStep) and (target not in names["agents"] or target not in said.among.agents):
            yield f"{placed.path}: the agent `{str(target)[:100]}` was not offered"
        if isinstance(placed.step, ToolStep) and (target not in names["tools"] or target not in said.among.tools):
            yield f"{placed.path}: the tool `{str(target)[:100]}` was not offered"
        yield from (f"{placed.path}: {problem}" for value in values_of(placed.step) for problem in _value_problems(value, placed))


def values_of(step: Any) -> Iterator[Any]:
    """The values of a step in which references may stand."""
    match step:
        case AgentStep(with_=call):
            yield call.input
            yield call.skill
        case ToolStep(with_=call):
            yield call.arguments
        case SetStep(set=value):
            yield value
        case SwitchStep(switch=cases):
            yield from (case.when.value.model_dump() for case in cases if case.when is not None)


def has_references(value: Any) -> bool:
    """Whether a reference stands anywhere within a value."""
    if reference_in(value) is not None:
        return True
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(has_references(each) for each in members)


def _value_problems(value: Any, placed: PlacedStep) -> Found:
    if isinstance(value, str):
        if expression_in(value) is not None:
            yield 'has an expression; a plan refers to earlier outputs by {"from": STEP, "path": POINTER}'
    elif (reference := reference_in(value)) is not None:
        try:
            source = StepReference.model_validate(reference).from_
        except ValidationError:
            yield "has a reference that names no step, or whose path is no JSON pointer"
            return
        if source not in placed.before:
            yield f"refers to `{source}`, which is no step that has ended by then"
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _value_problems(each, placed)
