"""What steps of open runs, and runs that schedules start, are going to do to a subject, as far as the inputs of runs say it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, func, select

from adapters.task import Message, Role, TaskState
from gateway.audit.decisions import READ_AUDIT
from gateway.state.effects.declared import arguments_of_message
from gateway.state.effects.view import PlannedEffect
from gateway.storage.tables import ENDED_STATES, tasks
from gateway.workflows.cloud_events.schedules import ScheduleRow, Schedules
from gateway.workflows.dsl.document import CallFunction, Document, RunTask
from gateway.workflows.dsl.walk import PlacedTask
from gateway.workflows.dsl.walk import tasks as tasks_of
from gateway.workflows.engine.adapter import EngineParts
from gateway.workflows.engine.requests import build_request, resolve_http, sub_run_request
from gateway.workflows.engine.steps import StepRequest
from gateway.workflows.interpreter.claims import CLAIM_PLACE, wanted_claim
from gateway.workflows.interpreter.effects import StepKey, SubRun
from gateway.workflows.interpreter.errors import WorkflowError
from gateway.workflows.interpreter.evaluation import Data, Evaluation, TaskAtWork
from gateway.workflows.interpreter.kinds import prepare_call
from gateway.workflows.interpreter.scope import Scope
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.publishing.needs import Need, needs_of_task
from gateway.workflows.runs.tables import IS_TASK_OF_RUN, workflow_runs, workflow_steps
from policies.callers import Caller
from policies.delegation.rulings import Act, act_of_invoking_agent
from registry.cards.card import WORKFLOW_KIND, Family, Registration
from registry.cards.effects import EffectDeclaration, SubjectMissing
from registry.store import Registry, UnknownName

RUNS_MAX: Final = 50  # open runs that are looked at for one subject, the newest ones
INPUT_MAX: Final = 65_536  # characters; the steps of runs with a longer input are not known


class _Step(Struct, frozen=True):
    """A step of a document that acts on a kind of subject. `declared` is None for a claim. `entry`: whom it calls."""

    placed: PlacedTask
    effect: str
    purpose: str
    target: str
    entry: str = ""
    declared: EffectDeclaration | None = None

    @property
    def place(self) -> str:
        """The place under which the journal of a run has the step."""
        return self.placed.path if self.declared is not None else "/".join((self.placed.path, *CLAIM_PLACE))


class PlannedEffects:
    """Nothing is stored of a plan: the subject of a step follows from the input of its run, where its expressions need nothing else."""

    def __init__(self, registry: Registry, parts: EngineParts, could_allow: Callable[[Caller, Act], bool]) -> None:
        self._registry = registry
        self._store = parts.store
        self._versions = parts.versions
        self._evaluator = parts.evaluator
        self._could_allow = could_allow

    async def find(self, caller: Caller, subject: str) -> list[PlannedEffect]:
        """What open runs do, and the next runs of schedules of workflows that the caller may start or audit."""
        tenant, reader = caller.principal.tenant, caller.principal.owner_key
        found = await self._of_runs(tenant, subject, reader)
        rows = [row for row in await Schedules(self._store).all() if row.tenant == tenant and self._may_know(caller, row.workflow)]
        return [*found, *await self._of_schedules(subject, rows, reader)]

    def _may_know(self, caller: Caller, workflow: str) -> bool:
        return self._could_allow(caller, act_of_invoking_agent(workflow)) or self._could_allow(caller, READ_AUDIT)

    async def _of_runs(self, tenant: str, subject: str, reader: str) -> list[PlannedEffect]:
        """What steps of open runs have not done yet. `reader` (tenant|issuer|subject): whose share of the evaluation it is."""
        names = [
            entry.name for entry in self._workflows(tenant) if await self._steps_of(tenant, entry.name, entry.workflow_version, subject)
        ]
        rows, done = await self._store.database.read(lambda connection: _read_runs(connection, tenant, names)) if names else ([], set())
        found = []
        for row in rows:
            for step in await self._steps_of(tenant, row.workflow, row.version, subject):
                if (row.id, step.place) in done or (row.id, step.entry) in done:
                    continue
                if await self._subject_of(tenant, row.workflow, row.version, step, row.input, reader=reader) == subject:
                    found.append(_planned(step, row.workflow, run_id=row.id, owner=row.owner, at=row.wake_at))
        return found

    async def _of_schedules(self, subject: str, rows: Sequence[ScheduleRow], reader: str) -> list[PlannedEffect]:
        """What the next runs do that these schedules start by time, or may do."""
        found = []
        for row in (row for row in rows if row.next_at is not None):
            for step in await self._steps_of(row.tenant, row.workflow, row.terms.version, subject):
                planned = await self._subject_of(row.tenant, row.workflow, row.terms.version, step, "{}", reader=reader)
                if planned in (subject, ""):
                    found.append(_planned(step, row.workflow, at=row.next_at, is_certain=planned == subject))
        return found

    def _workflows(self, tenant: str) -> list[Registration]:
        return [entry for entry in self._registry.list(tenant, Family.AGENT) if entry.kind == WORKFLOW_KIND]

    async def _document(self, tenant: str, name: str, version: str) -> Document | None:
        try:
            return await self._versions.document(tenant, name, version)
        except DocumentRefused:  # another release of the gateway took it
            return None

    async def _steps_of(self, tenant: str, name: str, version: str, subject: str) -> list[_Step]:
        """The steps of a version that act on subjects of this kind."""
        document, kind = await self._document(tenant, name, version), subject.partition(":")[0]
        return [] if document is None else [step for placed in tasks_of(document) for step in self._acts_of(tenant, placed, kind)]

    def _acts_of(self, tenant: str, placed: PlacedTask, kind: str) -> Iterator[_Step]:
        if (claim := placed.task.metadata.gateway.claim) is not None and _may_be_of_kind(claim.subject, kind):
            yield _Step(placed, claim.effect, "" if "${" in claim.purpose else claim.purpose, "claim")
        for need in needs_of_task(placed.task, placed.path, self._registry.list(tenant, Family.SERVER)):
            if not isinstance(need, Need) or (entry := self._entry(tenant, need.name)) is None:
                continue
            declared = entry.effect_of(need.tool or _skill_of(placed))
            if declared is not None and declared.subject.startswith(f"{kind}:"):
                target = f"tool:{need.name}.{need.tool}" if need.tool else f"agent:{need.name}"
                yield _Step(placed, declared.effect, declared.purpose, target, need.name, declared)

    def _entry(self, tenant: str, name: str) -> Registration | None:
        try:
            return self._registry.find(tenant, name)
        except UnknownName:
            return None

    async def _subject_of(self, tenant: str, name: str, version: str, step: _Step, given: str, *, reader: str) -> str:
        """The subject of a step by the input of its run, as JSON; empty where it depends on more."""
        document = await self._document(tenant, name, version)
        raw = msgspec.json.decode(given)
        evaluation = Evaluation(self._evaluator.for_owner(reader), {"input": raw}, Data(raw))
        scope = Scope(step.placed.path, variables=dict.fromkeys(step.placed.variables))
        try:
            data = raw if document is None else await evaluation.transform_input(document.input, raw, Scope(), None)
            evaluation.data.context = data
            at = TaskAtWork(step.placed.name, {}, data, 0)
            at = replace(at, input=await evaluation.transform_input(step.placed.task.input, data, scope, at))
            if step.declared is None:
                claim = step.placed.task.metadata.gateway.claim
                return "" if claim is None else (await wanted_claim(evaluation, claim, at, scope)).subject
            request = await self._request_of(tenant, evaluation, step.placed, at, scope)
            message = Message("planned", Role.USER, request.parts)
            arguments = arguments_of_message(message)
            return step.declared.subject_of(arguments.get("arguments", {}) if request.tool else arguments)
        except (WorkflowError, SubjectMissing):
            return ""

    async def _request_of(self, tenant: str, evaluation: Evaluation, placed: PlacedTask, at: TaskAtWork, scope: Scope) -> StepRequest:
        """The message of a step. Raises WorkflowError."""
        key = StepKey(placed.path)
        if isinstance(placed.task, RunTask) and (wanted := placed.task.run.workflow) is not None:
            given = await evaluation.value(wanted.input, at.input, scope, at)
            return sub_run_request(SubRun(wanted.namespace, wanted.name, wanted.version, {} if given is None else given, awaited=True))
        call = await prepare_call(evaluation, placed.task, at, scope)
        if call.function == "http":
            call = resolve_http(key, call, self._registry.list(tenant, Family.SERVER))
        return build_request(key, call)[0]


def _planned(step: _Step, workflow: str, **more: Any) -> PlannedEffect:
    return PlannedEffect(step.effect, step.purpose, step.target, workflow, step.placed.path, **more)


def _skill_of(placed: PlacedTask) -> str:
    said = placed.task.with_.get("skill", "") if isinstance(placed.task, CallFunction) else ""
    return said if isinstance(said, str) else ""


def _may_be_of_kind(subject: str, kind: str) -> bool:
    """Whether the subject of a claim, or the text with which its expression begins, is of this kind."""
    return subject.startswith(f"{kind}:") or ("${" in subject and f'"{kind}:' in subject)


def _read_runs(connection: Connection, tenant: str, workflows: Collection[str]) -> tuple[list["Row[Any]"], set[tuple[str, str]]]:
    """The newest open runs, and for each the steps that have ended and the agents and servers that are at work for it."""
    columns = workflow_runs.c
    query = select(columns.id, columns.workflow, columns.version, columns.input, columns.wake_at, tasks.c.owner).join(tasks, IS_TASK_OF_RUN)
    query = query.where(columns.tenant == tenant, columns.workflow.in_(workflows), tasks.c.state.not_in(ENDED_STATES))
    query = query.where(func.length(columns.input) <= INPUT_MAX)
    rows: list[Row[Any]] = list(connection.execute(query.order_by(columns.started.desc(), columns.id).limit(RUNS_MAX)))
    ids = [row.id for row in rows]
    steps = select(workflow_steps.c.run_id, workflow_steps.c.step).where(
        workflow_steps.c.tenant == tenant, workflow_steps.c.run_id.in_(ids)
    )
    at_work = select(tasks.c.parent_id, tasks.c.agent).where(tasks.c.tenant == tenant, tasks.c.parent_id.in_(ids))
    at_work = at_work.where(tasks.c.state.not_in((*ENDED_STATES, TaskState.AUTH_REQUIRED.value)))
    return rows, {(row[0], row[1]) for query in (steps, at_work) for row in connection.execute(query)}
