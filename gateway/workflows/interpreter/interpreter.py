"""Interprets one run of a document. Deterministic: when its effects answer the same, it takes the same path."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from gateway.workflows.dsl.constructs import Output, Timeout
from gateway.workflows.dsl.determinism import DETERMINISTIC
from gateway.workflows.dsl.document import COMPOSITE, Document, Extension, TaskBase, kind_of
from gateway.workflows.dsl.extras import BlockClaim
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.interpreter.claims import CLAIM_PLACE, wanted_claim
from gateway.workflows.interpreter.compensations import ORDER, Compensations, FinishedStep, UndoPlan, decode_plan, undo, with_open_steps
from gateway.workflows.interpreter.effects import Effects, RunSuspended, StepKey
from gateway.workflows.interpreter.errors import Fault, WorkflowError, standard_error
from gateway.workflows.interpreter.evaluation import Evaluation, TaskAtWork, moment
from gateway.workflows.interpreter.gates import check_output
from gateway.workflows.interpreter.scope import Scope

CONTINUE: Final = "continue"
EXIT: Final = "exit"
END: Final = "end"
CONTEXT: Final = StepKey("$context")  # the place of the run's context, which is one value
TASKS_RUN_MAX: Final = 100_000  # by one interpretation of a run
TASKS_BETWEEN_TURNS: Final = 500  # of the event loop
VISITS_MAX: Final = 10_000  # how often one task may run within one scope, by `then` going back


class RunEnded(Exception):
    """A task said `then: end`: the run completes with this output, whatever else was under way."""

    def __init__(self, output: Any) -> None:
        super().__init__("the run ends")
        self.output = output


class TaskFunction(Protocol):
    """Runs one kind of task on its transformed input. Returns its raw output, and where to go on when the task itself decides that."""

    async def __call__(self, run: "Interpreter", task: Any, at: TaskAtWork, scope: Scope) -> tuple[Any, str | None]: ...


class Interpreter:
    """One run. `kinds` has a function for each kind of task."""

    def __init__(
        self,
        document: Document,
        evaluator: Evaluator,
        effects: Effects,
        kinds: Mapping[type, TaskFunction],
        run_id: str,
        *,
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        self.document = document
        self.effects = effects
        self._kinds = kinds
        self._evaluator = evaluator
        self._run_id = run_id
        self.evaluation = Evaluation(evaluator, {})
        self._compensations = Compensations()
        self._task_count = 0
        self._is_undoing = False
        self._inputs = dict(inputs or {})  # what tasks get as input instead, by their pointer, when they run for the first time

    async def run(self, input: Any) -> Any:
        """The run's output. Raises WorkflowError when it faults, after the functions that undo its finished steps.

        Once its undoing has begun, a run does nothing else: the document is not interpreted again.
        """
        self._begin(input)
        if (begun := await self.effects.recorded(ORDER)) is not None:
            raise WorkflowError(await self._undo(decode_plan(begun)))
        try:
            return await self._run_document(input)
        except WorkflowError as error:
            raise WorkflowError(await self.undo(error.fault)) from error

    async def stop(self, input: Any, fault: Fault) -> Any:
        """Ends a run whose effects begin nothing new: finds what it has done, and undoes that.

        Returns the output where nothing was left to do. Raises WorkflowError with this fault, or with the one that the run had before.
        """
        try:
            return await self.run(input)
        except RunSuspended:
            if self._is_undoing:
                raise
            raise WorkflowError(await self.undo(fault)) from None

    async def undo(self, fault: Fault) -> Fault:
        """Undoes the finished steps of a run that faulted. Returns the fault, whose detail names the steps that could not be undone."""
        self._is_undoing = True
        self.effects.abandon(StepKey(""))
        try:
            plan = await self._compensations.plan(self.effects, fault, self.evaluation.data.context)
        except WorkflowError as error:
            return with_open_steps(fault, [f"any step ({error})"])
        return await self._undo(plan)

    async def _undo(self, plan: UndoPlan) -> Fault:
        self._is_undoing = True
        self._task_count = 0  # however long the run was, it can be undone
        self.evaluation.data.context = plan.context
        try:
            return await undo(plan, self.effects, self._run_function)
        except WorkflowError as error:  # the journal takes no more
            return with_open_steps(plan.fault, [f"other steps ({error})"])

    async def _run_function(self, name: str, given: Any, scope: Scope) -> object:
        try:
            return await self.run_task(name, self.document.use.functions[name], given, scope)
        except RunEnded as ended:
            return ended.output

    def _begin(self, input: Any) -> None:
        shown = {"id": self._run_id, "definition": self.document.model_dump(mode="json", exclude_unset=True), "input": input}
        self.evaluation = Evaluation(self._evaluator, {**shown, "startedAt": moment(self.effects.now())})

    async def _run_document(self, input: Any) -> Any:
        document, root = self.document, Scope()
        data = await self.evaluation.transform_input(document.input, input, root, None)
        self.evaluation.data.context = data
        try:
            if document.timeout is None:
                output, _ = await self.run_list(document.do, data, root.enter("do"))
            else:
                limit = await self._limit(document.timeout, data, root, None)
                output, _ = await self._within(limit, root, self.run_list(document.do, data, root.enter("do")))
        except RunEnded as ended:
            output = ended.output
        return await self.evaluation.transform_output(document.output, output, root, None)

    async def run_list(self, items: Sequence[Mapping[str, TaskBase]], data: Any, scope: Scope) -> tuple[Any, str]:
        """Runs tasks in their order, or in that of their `then`. Returns the last output, and EXIT when a task left the list early."""
        places = {name: index for index, item in enumerate(items) for name in item}
        visits: dict[str, int] = {}
        index = 0
        while index < len(items):
            ((name, task),) = items[index].items()
            count = visits[name] = visits.get(name, -1) + 1
            here = scope.enter(index, pointer_step(name)).visit(count)
            if count >= VISITS_MAX:
                raise standard_error("runtime", f"the task ran {VISITS_MAX} times without an end", here.pointer)
            data, then = await self.run_task(name, task, data, here)
            if then == EXIT:
                return data, EXIT
            index = index + 1 if then == CONTINUE else places[then]
        return data, CONTINUE

    async def run_task(self, name: str, task: TaskBase, raw: Any, scope: Scope) -> tuple[Any, str]:
        """Runs one task with its extensions. Returns its transformed output and where to go on. Raises WorkflowError and RunEnded."""
        await self._count_task(scope)
        raw = self._inputs.pop(scope.pointer, raw)
        at = TaskAtWork(name, task.model_dump(mode="json", exclude_unset=True), raw, self.effects.now())
        if task.if_ is not None and not await self.evaluation.holds(task.if_, raw, scope, at):
            return raw, CONTINUE
        if task.metadata.gateway.kind == DETERMINISTIC:
            scope = replace(scope, is_deterministic=True)
        self.effects.entered(scope.key, raw)
        try:
            if (claim := task.metadata.gateway.claim) is None:
                output, then = await self._with_extensions(task, at, scope)
            else:
                output, then = await _run_within_claim(self, claim, at, scope, partial(self._with_extensions, task, at))
        except WorkflowError as error:
            self.effects.left(scope.key, None, error.fault)
            raise
        self.effects.left(scope.key, output, None)
        if (function := task.metadata.gateway.compensate) is not None:
            finished = FinishedStep(scope.key, function, raw, output)
            self._compensations.add(finished)
            self.effects.hold(StepKey(f"{scope.pointer}#undo", scope.visits, scope.attempts), [raw, output])
        if then == END:
            raise RunEnded(output)
        return output, then

    async def _count_task(self, scope: Scope) -> None:
        """Lets other work of this process run now and then, and ends a run that interprets tasks without an end. Raises WorkflowError."""
        self._task_count += 1
        if self._task_count > TASKS_RUN_MAX:
            raise standard_error("runtime", f"the run has interpreted more than {TASKS_RUN_MAX} tasks", scope.pointer)
        if self._task_count % TASKS_BETWEEN_TURNS == 0:
            await asyncio.sleep(0)

    async def _with_extensions(self, task: TaskBase, at: TaskAtWork, scope: Scope) -> tuple[Any, str]:
        extensions = [] if scope.in_extension else [each async for each in self._extensions(at, scope)]
        for place, extension in extensions:
            output, then = await self.run_list(extension.before, at.raw_input, place.enter("before"))
            if then == EXIT:  # it answers in the task's place
                return output, task.then or CONTINUE
        if task.timeout is None:
            output, then = await self._flow(task, at, scope)
        else:
            limit = await self._limit(task.timeout, at.raw_input, scope, at)
            output, then = await self._within(limit, scope, self._flow(task, at, scope))
        for place, extension in extensions:
            await self.run_list(extension.after, output, place.enter("after"))
        return output, then

    async def _flow(self, task: TaskBase, at: TaskAtWork, scope: Scope) -> tuple[Any, str]:
        """The data flow of one task (DSL 1.0.3, "Data Flow"): input, the task itself, output, export."""
        evaluation = self.evaluation
        data = await evaluation.transform_input(task.input, at.raw_input, scope, at)
        at = replace(at, input=data)
        raw, then = await self._kinds[type(task)](self, task, at, scope)
        at = replace(at, raw_output=raw)
        output = await evaluation.transform_output(task.output, raw, scope, at)
        await check_output(self, task, output, scope, at)
        await self.export(task.export, output, scope, replace(at, output=output))
        return output, then or task.then or CONTINUE

    async def export(self, export: Output, output: Any, scope: Scope, at: TaskAtWork) -> None:
        """Makes what a task exports the run's context, whose size counts towards that of the run. Raises WorkflowError."""
        await self.evaluation.export(export, output, scope, at)
        if export.as_ is not None:
            self.effects.hold(CONTEXT, self.evaluation.data.context)

    async def _extensions(self, at: TaskAtWork, scope: Scope) -> AsyncIterator[tuple[Scope, Extension]]:
        """The extensions that apply to a task, each with its place in the document."""
        kind = (kind_of(at.definition) or "").partition(" ")[0]
        for index, item in enumerate(self.document.use.extensions):
            ((name, extension),) = item.items()
            applies = extension.extend in ("all", kind) or (extension.extend == "composite" and kind in COMPOSITE)
            if applies and (extension.when is None or await self.evaluation.holds(extension.when, at.raw_input, scope, at)):
                yield replace(scope.enter("extensions", index, pointer_step(name)), in_extension=True), extension

    async def _limit(self, given: Timeout | str, data: Any, scope: Scope, at: TaskAtWork | None) -> int:
        found = self.document.use.timeouts[given] if isinstance(given, str) else given
        return await self.evaluation.duration(found.after, data, scope, at)

    async def _within(self, limit: int, scope: Scope, work: Awaitable[tuple[Any, str]]) -> tuple[Any, str]:
        try:
            async with self.effects.time_limit(scope.key, limit):
                return await work
        except TimeoutError as error:
            raise standard_error("timeout", f"took longer than {limit / 1000:g} seconds", scope.pointer) from error


def pointer_step(name: str) -> str:
    """A name as one step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


async def _run_within_claim(
    run: Interpreter, claim: BlockClaim, at: TaskAtWork, scope: Scope, work: Callable[[Scope], Awaitable[tuple[Any, str]]]
) -> tuple[Any, str]:
    """Runs a task under the claim that it asks for. Its expressions find the claim as `$claim`."""
    place = scope.enter(*CLAIM_PLACE)
    ended: RunEnded | None = None
    done: tuple[Any, str] = (None, CONTINUE)
    async with run.effects.claim(place.key, await wanted_claim(run.evaluation, claim, at, place)) as held:
        try:
            done = await work(scope.bind({"claim": held}))
        except RunEnded as error:  # the claim is released as after any end of the task
            ended = error
    if ended is not None:
        raise ended
    return done
