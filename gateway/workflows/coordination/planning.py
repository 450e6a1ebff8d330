"""The step `gateway.plan`: an agent plans, the plan is checked, people may approve of it, it runs, and a failed one is planned anew."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import msgspec

from gateway.workflows.coordination.plan import Plan, digest_of_plan, plan_schema, steps_of
from gateway.workflows.coordination.reading import BadPlan, cost_of, has_references, plan_data, read_plan, target_of, values_of
from gateway.workflows.coordination.running import PlanRun
from gateway.workflows.dsl.coordination import PlanArguments
from gateway.workflows.dsl.document import CallFunction
from gateway.workflows.interpreter.effects import Offer, PlannedCall, PreparedCall, Rights, Spent
from gateway.workflows.interpreter.errors import OUTCOME_UNKNOWN, OWN, Fault, WorkflowError
from gateway.workflows.interpreter.evaluation import TaskAtWork
from gateway.workflows.interpreter.interpreter import Interpreter
from gateway.workflows.interpreter.scope import Scope

VALUE_MAX: Final = 64 << 10  # bytes of one earlier plan or output, as the next plan's planner is told
PLAN_REFUSED: Final = f"{OWN}plan-refused"


@dataclass(slots=True)
class _Planning:
    """One step that plans: what it was told, what was offered, what its earlier plans came to, and what they have cost."""

    run: Interpreter
    said: PlanArguments
    request: Mapping[str, Any]
    scope: Scope
    metadata: Mapping[str, Any]  # of the task, which says whether its calls are idempotent
    earlier: list[dict[str, Any]] = field(default_factory=list)
    spent: Decimal = Decimal(0)

    async def work(self) -> Any:
        """The output of the first plan that succeeds. Raises WorkflowError: that of the last plan, when none does."""
        for number in range(self.said.replan + 1):
            place = self.scope.enter("plans", number)
            try:
                return await self._try_plan(number, place)
            except WorkflowError as error:
                is_final = error.fault.type == OUTCOME_UNKNOWN  # the step may have had its effect
                if number == self.said.replan or is_final or not self._has_note_of(number):
                    raise
        raise AssertionError("the last plan returns or raises")

    def _has_note_of(self, number: int) -> bool:
        """Whether a plan came to an end that its planner can learn from; not so when the planner failed, or people denied the plan."""
        return len(self.earlier) == number + 1

    async def _try_plan(self, number: int, place: Scope) -> Any:
        answer = await self._ask_planner(place)
        data: Any = answer
        try:
            data = plan_data(answer)
            read_plan(data, self.said, self.request["offers"])
            kept = await self.run.effects.record_plan(place.key, {"number": number, "digest": digest_of_plan(data), "plan": data})
            data = kept["plan"]
            plan = read_plan(data, self.said, self.request["offers"])
            await self._check_rights(plan, place)
            self._check_cost(plan)
            if self.said.approve:
                await self._ask_people(data, place)
                await self._check_rights(plan, place.enter("approved"))  # days may have passed
        except BadPlan as bad:
            self.earlier.append({"plan": _bounded(data), "done": {}, "problems": bad.problems})
            raise WorkflowError(Fault(PLAN_REFUSED, 403, "Plan Refused", str(bad), self.scope.pointer)) from bad
        return await self._run_plan(plan, data, place)

    async def _ask_planner(self, place: Scope) -> Any:
        given = {**self.request, "earlier": list(self.earlier)}
        call = PreparedCall("gateway.agent", {"agent": self.said.agent, "skill": self.said.skill, "input": given}, None, self.metadata)
        return await self.run.effects.call(place.enter("planner").key, call)

    async def _check_rights(self, plan: Plan, place: Scope) -> None:
        """Rules on every call of a plan with the rights of this moment. Raises BadPlan for any that would be refused."""
        calls = []
        for placed in steps_of(plan):
            if (target := target_of(placed)) is not None:
                values = list(values_of(placed.step))
                is_known = not any(has_references(value) for value in values)
                is_tool = placed.step.call == "gateway.tool"
                calls.append(
                    PlannedCall(
                        placed.path,
                        target,
                        is_tool=is_tool,
                        skill="" if is_tool else placed.step.with_.skill,
                        arguments=values[0] if is_tool and is_known else None,
                    )
                )
        if refused := await self.run.effects.look_up(place.enter("rights").key, Rights(tuple(calls))):
            raise BadPlan(refused)

    def _check_cost(self, plan: Plan) -> None:
        limit, cost = self.said.limits.cost, cost_of(plan, self.said)
        if limit is not None and self.spent + cost > limit:
            before = f" after {self.spent} for earlier plans" if self.spent else ""
            raise BadPlan([f"the plan costs up to {cost}{before}, more than {limit}"])

    async def _settle_cost(self, at_work: PlanRun, place: Scope) -> None:
        """Counts a plan that failed by what its calls have really cost; a call of unknown cost counts as much as `costs` says."""
        if self.said.limits.cost is None:
            return
        found = await self.run.effects.look_up(place.enter("cost").key, Spent(tuple(at_work.calls)))
        for text, target in zip(found, at_work.calls.values(), strict=True):
            self.spent += self.said.costs[target] if text is None else Decimal(text)

    async def _ask_people(self, data: Any, place: Scope) -> None:
        """Waits until people have approved of exactly this plan: another one has another digest, and with it another checkpoint."""
        digest = digest_of_plan(data)
        subject = {"goal": self.request["goal"], "plan": data, "digest": digest}
        asked = {"prompt": self.said.prompt, "expires": self.said.expires}
        await self.run.effects.call(place.enter("approve", digest).key, PreparedCall("gateway.approve", asked, None, {}, subject=subject))

    async def _run_plan(self, plan: Plan, data: Any, place: Scope) -> Any:
        at_work = PlanRun(self.run.effects, self.request["input"], self.metadata)
        try:
            return await at_work.run(plan, place)
        except WorkflowError as error:
            failed = {"step": at_work.failed, "type": error.fault.type, "detail": error.fault.detail or ""}
            self.earlier.append(
                {"plan": data, "done": {name: _bounded(value) for name, value in at_work.outputs.items()}, "failed": failed}
            )
            await self._settle_cost(at_work, place)
            raise


def _bounded(value: Any) -> Any:
    """What a planner is told of an earlier plan or output: the value, or its size where it is large."""
    size = len(msgspec.json.encode(value))
    return value if size <= VALUE_MAX else {"omittedBytes": size}


async def run_plan(run: Interpreter, task: CallFunction, at: TaskAtWork, scope: Scope) -> tuple[Any, str | None]:
    """Has an agent plan, and runs its plan."""
    said = PlanArguments.model_validate(task.with_)
    filled = await run.evaluation.value({"goal": said.goal, "input": said.input, "prompt": said.prompt}, at.input, scope, at)
    offers = await run.effects.look_up(scope.enter("offers").key, Offer(tuple(said.among.agents), tuple(said.among.tools)))
    limits = said.limits.model_dump(mode="json", exclude_none=True)
    costs = {name: str(cost) for name, cost in said.costs.items()}
    request = {
        "goal": filled["goal"],
        "input": filled["input"],
        "offers": offers,
        "limits": limits,
        "costs": costs,
        "schema": plan_schema(),
    }
    said = said.model_copy(update={"prompt": str(filled["prompt"])})
    return await _Planning(run, said, request, scope, at.definition.get("metadata", {})).work(), None
