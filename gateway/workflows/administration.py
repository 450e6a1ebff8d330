"""Workflows and runs as /api shows and changes them. Permissions are checked by the routes."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import msgspec
from msgspec import UNSET

from adapters.task import TaskState
from gateway.calls.costs.task_costs import read_task_costs
from gateway.tasks.log import TaskLog, TaskRow, to_rfc3339
from gateway.workflows.cloud_events.schedules import ScheduleRow
from gateway.workflows.drawing.mermaid import mermaid_of
from gateway.workflows.drawing.outline import outline_of
from gateway.workflows.drawing.step_states import step_states
from gateway.workflows.drawing.svg import svg_of
from gateway.workflows.drawing.tree import tree_of
from gateway.workflows.dsl.document import CallFunction, Document
from gateway.workflows.dsl.editor_schema import editor_schema
from gateway.workflows.dsl.loading import read_text
from gateway.workflows.dsl.walk import tasks
from gateway.workflows.engine.adapter import EngineParts
from gateway.workflows.engine.checkpoint_steps import CHECKPOINTS
from gateway.workflows.engine.scheduled_starts import ScheduledStarts
from gateway.workflows.engine.trail import attempt_of
from gateway.workflows.engine.waking import RunWaker
from gateway.workflows.expressions.evaluator import ExpressionFailed
from gateway.workflows.problems import BadRelaxation, DocumentRefused, WorkflowHasRuns
from gateway.workflows.publishing.expected_calls import list_calls, read_calls
from gateway.workflows.publishing.registrar import WorkflowRegistrar, declaration_of
from gateway.workflows.runs.estimates import estimate
from gateway.workflows.runs.feed import FeedEntry, FeedPlace, RunFeed, StateChange
from gateway.workflows.runs.journal import CALL, CLAIM, PLAN, Result, StepRow, read_stored_steps
from gateway.workflows.runs.open_effects import children_of, has_stopped, open_effects, tasks_under_way
from gateway.workflows.runs.pages import RunFilter, continuations_of, find_run, list_runs, run_document
from gateway.workflows.runs.people.checkpoints import PENDING, SIGNAL, WITHDRAWN, Answerer, Checkpoint
from gateway.workflows.runs.people.open_checkpoints import Sight
from gateway.workflows.runs.people.relaxations import CheckpointPlace, CheckpointRecord, Relaxation, find_step
from gateway.workflows.runs.standing import Standing
from gateway.workflows.runs.store import RunKey
from gateway.workflows.runs.values import mask_secrets, read_value
from policies.delegation.rulings import Act
from policies.delegation.run_as import act_of_running_as
from registry.cards.card import Registration
from registry.changes import RegistryChange
from registry.store import UnknownName


class RelaxationGiven(Protocol):
    """gateway/ingress/admin/workflows/relaxing.py."""

    step: str
    every: int
    above: str
    reason: str


class WorkflowAdministration:
    """Adds, shows and removes workflows, and shows runs with their steps and checkpoints."""

    def __init__(
        self,
        registrar: WorkflowRegistrar,
        parts: EngineParts,
        waker: RunWaker,
        task_log: TaskLog,
        *,
        starter: ScheduledStarts,
    ) -> None:
        self._registrar = registrar
        self._task_log = task_log
        self._feed = RunFeed(parts.store, task_log)
        self._starter = starter
        self.read_declaration = partial(declaration_of, parts.store, starter)
        self._parts = parts
        self._waker = waker

    async def add(self, tenant: str, owner: str, text: str, change: RegistryChange, *, label: str | None = None) -> dict[str, Any]:
        """Publishes a document. `label`: of its declaration; None: as before. Raises DocumentRefused, NameTaken and Outdated."""
        added = await self._registrar.add(tenant, owner, text, change, label=label)
        await self._starter.reconcile()
        return await self.summary(added)

    async def rights_for(self, text: str) -> list[Act]:
        """What the person who uploads a document needs the right to, beside the upload: to have runs act for a service principal.

        Raises DocumentRefused.
        """
        service = (await read_text(text))[1].document.metadata.gateway.run_as
        return [] if service is None else [act_of_running_as(service)]

    async def check(self, tenant: str, text: str) -> str:
        """The name of the workflow in a text with which nothing is wrong. Raises DocumentRefused."""
        return (await self._registrar.read(tenant, text)).document.name

    async def summary(self, entry: Registration) -> dict[str, Any]:
        """A workflow in a list. `problems`: what of it no longer fits the registry, so that it starts no new runs."""
        found = await self._parts.fitness.problems_of(entry)
        problems = [{"line": each.line, "path": each.path, "reason": each.reason} for each in found]
        return _summary(entry) | {"fits": not problems, "problems": problems}

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of documents, for editors."""
        return editor_schema()

    async def picture(self, tenant: str, name: str, version: str, run: Mapping[str, Any] | None = None) -> str:
        """A version of a workflow as SVG, with the states of the steps of a run document where one is given. Raises UnknownName."""
        document = await self._parts.versions.document(tenant, name, version)
        if document is None:
            raise UnknownName(name)
        return svg_of(document.document.title or name, outline_of(document), step_states(run) if run else {})

    async def show(self, entry: Registration) -> dict[str, Any]:
        """A workflow with its document, its pictures and its versions. Raises UnknownName."""
        version = entry.workflow_version
        text = await self._parts.store.document_of(entry.tenant, entry.name, version)
        document = await self._parts.versions.document(entry.tenant, entry.name, version)
        if text is None or document is None:
            raise UnknownName(entry.name)
        blocks = outline_of(document)
        versions = await self._parts.store.versions_of(entry.tenant, entry.name)
        schedule = await self._starter.schedule_of(entry.tenant, entry.name)
        return await self.summary(entry) | {
            "schedule": None if schedule is None else schedule_document(schedule),
            "document": text,
            "tree": tree_of(entry.name, blocks),
            "mermaid": mermaid_of(blocks),
            "versions": [{"version": each, "created": to_rfc3339(at)} for each, at in versions],
        }

    async def estimate(self, entry: Registration) -> dict[str, Any]:
        """The steps, time, tokens and cost of a run, from past runs, and what each call of the document costs by price and past calls."""
        parts = self._parts
        found = await estimate(parts.store.database, entry.tenant, entry.name, entry.workflow_version, parts.currency)
        calls = await list_calls(entry, self._registrar, parts.versions)
        return found | await parts.store.database.read(lambda connection: read_calls(connection, calls, parts.currency))

    async def check_without_runs(self, tenant: str, name: str) -> None:
        """Raises WorkflowHasRuns while a run of the workflow has not ended."""
        if count := await self._parts.store.open_runs_of(tenant, name):
            runs = "1 run that has" if count == 1 else f"{count} runs that have"
            raise WorkflowHasRuns(f"The workflow has {runs} not ended. Cancel them, or remove the workflow with force, which ends them.")

    async def end_runs(self, tenant: str, name: str) -> None:
        """Ends the suspended runs of a workflow that was removed; those at work fail at their next step."""
        await self._starter.reconcile()
        await self._parts.store.end_all(tenant, name)
        self._waker.wake_soon()

    async def list_runs(
        self, tenant: str, owner: str | None, page: tuple[str, TaskState | Literal["paused", "waiting"] | None, str, int]
    ) -> tuple[list[dict[str, Any]], str | None]:
        """A page of runs, of all owners for None.

        `page`: the workflow, empty for all, the state, None for all, the cursor, and the number of runs. Raises BadCursor.
        """
        found, more = await list_runs(self._parts.store.database, tenant, owner, RunFilter(*page))
        return [run_document(each) for each in found], more

    async def show_run(
        self, tenant: str, owner: str | None, run_id: str, may_answer: Callable[[Checkpoint], bool]
    ) -> tuple[TaskRow, dict[str, Any]] | None:
        """A run with its steps and checkpoints, and its task; None for what is no run of this owner, or of any owner for None."""
        found = await find_run(self._parts.store.database, tenant, owner, run_id)
        if found is None or not (found.run.version or self._registrar.is_workflow(tenant, found.task.agent)):
            return None
        parts, run = self._parts, found.run
        steps = await read_stored_steps(parts.store, run.key)
        checkpoints = await parts.checkpoints.of_run(run.key)
        try:
            document = await parts.versions.document(tenant, run.workflow, run.version)
        except DocumentRefused:  # of a version that another release of the gateway took
            document = None
        children = await children_of(parts.store.database, run.key)
        task = (await self._task_log.read_record(tenant, found.task.owner, run_id)).to_task()
        costs = await parts.store.database.read(lambda connection: read_task_costs(connection, tenant, (found.task.txn,)))
        standing = Standing(found, task, steps, children, open_effects(document, steps, children) if has_stopped(found.task) else [])

        def cost_of(task_id: str) -> dict[str, Any] | None:
            return None if (cost := costs.of(task_id)) is None else cost.to_document(parts.currency)

        more = {
            "summary": standing.text(parts.store.now()),
            "open_effects": [msgspec.to_builtins(each) for each in standing.left_open],
            "input": mask_secrets(run.input),
            "continued_by": await continuations_of(parts.store.database, run.key),
            "cost": cost_of(run_id),
            "steps": [step_document(step) | {"cost": cost_of(step.task_id)} for step in steps if step.kind in (CALL, CLAIM)],
            "under_way": tasks_under_way(steps, children),
            "plans": [mask_secrets(plan_document(step)) for step in steps if step.kind == PLAN],
            "checkpoints": [_checkpoint_in_run(_as_shown(each, found.task), may_answer) for each in checkpoints],
        }
        return found.task, run_document(found) | more

    async def read_events(self, row: TaskRow, after: tuple[int, int]) -> list[dict[str, Any]]:
        """The events of a run after the numbers of its log and of its steps."""
        return [event_document(each) for each in await self._feed.read(row, FeedPlace(*after))]

    async def follow_events(self, row: TaskRow, after: tuple[int, int]) -> AsyncIterator[list[dict[str, Any]]]:
        """Yields events as they happen until the run ends; an empty list where nothing happened."""
        async for found in self._feed.follow(row, FeedPlace(*after)):
            yield [event_document(each) for each in found]

    async def read_value(self, tenant: str, run_id: str, digest: str) -> str | None:
        """The JSON of a large value of a run, or None."""
        return await read_value(self._parts.store, RunKey(tenant, run_id), digest)

    async def find_checkpoint(self, tenant: str, checkpoint_id: str) -> Checkpoint:
        """Raises UnknownCheckpoint."""
        return await self._parts.checkpoints.find(tenant, checkpoint_id)

    async def pending_checkpoints(
        self, tenant: str, is_shown: Callable[[Checkpoint], bool], only_of: str, page: tuple[str, int]
    ) -> tuple[list[Checkpoint], str | None]:
        """A page of open checkpoints: all that are shown, or at most those of the person `only_of` and the escalated ones.

        `page`: the cursor, empty for the first page, and how many at most. Raises BadCursor.
        """
        return await self._parts.open_checkpoints.page(tenant, Sight(is_shown, only_of), *page)

    async def show_checkpoints(self, person: str, found: Sequence[Checkpoint]) -> list[dict[str, Any]]:
        """Checkpoints as /api shows them to a person who may answer them. The audit records the look at those of other people's runs."""
        await self._parts.open_checkpoints.record_looks(person, found)
        return [checkpoint_document(each) for each in found]

    async def checkpoint_records(self, entry: Registration) -> list[dict[str, Any]]:
        """How people answered the checkpoints of the version that new runs begin with."""
        found = await self._parts.relaxations.records(entry.tenant, entry.name, entry.workflow_version)
        return [record_document(each) for each in found]

    async def relax(self, entry: Registration, given: RelaxationGiven, by: str, decision_id: str) -> None:
        """Has only some questions of a checkpoint asked. Raises UnknownCheckpointStep and BadRelaxation."""
        place = await self._find_place(entry, given.step)
        if given.above:
            try:
                await self._parts.evaluator.for_owner(by).compile([given.above], [])
            except ExpressionFailed as error:
                raise BadRelaxation(f"`above` is no jq expression: {error}") from error
        await self._parts.relaxations.set(place, Relaxation(given.every, given.above, by, given.reason), decision_id)

    async def ask_again(self, entry: Registration, step: str, by: str, decision_id: str) -> None:
        """Has every question of a checkpoint asked again. Raises UnknownCheckpointStep."""
        await self._parts.relaxations.remove(await self._find_place(entry, step), by, decision_id)

    async def _find_place(self, entry: Registration, step: str) -> CheckpointPlace:
        """The checkpoint of the current version at a step, which is given by its pointer or its name. Raises UnknownCheckpointStep."""
        document = await self._parts.versions.document(entry.tenant, entry.name, entry.workflow_version)
        steps = [] if document is None else sorted(checkpoint_steps(document))
        return CheckpointPlace(entry.tenant, entry.name, entry.workflow_version, find_step(steps, step))

    async def answer(self, checkpoint: Checkpoint, value: Any, by: str, decision_id: str) -> dict[str, Any]:
        """Stores a person's answer and has the run go on, unless it is paused. Raises BadCheckpointAnswer and CheckpointClosed."""
        answered = await self._parts.checkpoints.answer(checkpoint, value, Answerer(by, decision_id))
        await self._waker.wake(checkpoint.run)
        found = await find_run(self._parts.store.database, checkpoint.run.tenant, None, checkpoint.run.id)
        return checkpoint_document(answered) | {"paused": found is not None and found.run.paused_at is not None}


def _summary(entry: Registration) -> dict[str, Any]:
    """A workflow in a list."""
    card = entry.card
    return {
        "name": entry.name,
        "version": entry.workflow_version,
        "document_version": str(entry.facts.get("document", "")),
        "title": card.name if card else "",
        "summary": card.description if card else "",
        "status": entry.status.value,
        "ceiling": list(entry.ceiling),
        "created": to_rfc3339(entry.created),
        "updated": to_rfc3339(entry.updated),
    }


def event_document(entry: FeedEntry) -> dict[str, Any]:
    """One event of a run. `id` is what a reader names to go on after it."""
    event, name = entry.event, f"{entry.place.task}.{entry.place.step}"
    kind, shown = "step", step_document(event) if isinstance(event, StepRow) else {}
    if isinstance(event, StateChange):
        kind, shown = "state", {"state": event.state.value, "text": event.text}
    return {"id": name, "kind": kind, "at": to_rfc3339(entry.at), **shown}


def schedule_document(schedule: ScheduleRow) -> dict[str, Any]:
    """When a workflow starts next by itself, as whom, and the run that was started last."""
    next_at = None if schedule.next_at is None else to_rfc3339(schedule.next_at)
    return {"run_as": schedule.terms.run_as, "next_at": next_at, "last_run": schedule.last_run or None}


def checkpoint_steps(document: Document) -> set[str]:
    """The steps of a document that ask people."""
    calls = {placed.path: placed.task.call for placed in tasks(document) if isinstance(placed.task, CallFunction)}
    return {path for path, call in calls.items() if CHECKPOINTS.get(call, SIGNAL) != SIGNAL}


def record_document(record: CheckpointRecord) -> dict[str, Any]:
    """How people answered one checkpoint."""
    rule = record.relaxation
    shown = (
        {"every": rule.every, "above": rule.above, "by": rule.author, "reason": rule.reason, "since": to_rfc3339(rule.created)}
        if rule
        else None
    )
    return {
        "step": record.step,
        "kind": record.kind,
        "prompt": record.prompt,
        "opened": record.opened,
        "states": record.states,
        "answers": [{"answer": answer, "count": count} for answer, count in record.answers],
        "median_seconds": record.median_seconds,
        "relaxation": shown,
    }


def step_document(step: StepRow) -> dict[str, Any]:
    """One step of a run: what it received, what it returned or how it failed, who ruled on it, how long it took."""
    key, trail, fault = step.step_key, step.trail, step.result.fault
    shown = (
        _held("value", step.result)
        if fault is UNSET
        else {"fault": {"type": fault.type, "status": fault.status, "detail": fault.detail or ""}}
    )
    return {
        "seq": step.seq,
        "step": key.pointer,
        "key": ":".join(".".join(map(str, numbers)) for numbers in (key.visits, key.attempts)),
        "target": trail.target,
        "attempt": attempt_of(step),
        "task_id": step.task_id,
        "decision_id": trail.decision_id,
        "started": to_rfc3339(step.started),
        "ended": to_rfc3339(step.ended),
        "seconds": round((step.ended - step.started) / 1_000_000, 3),
        "usage": None if trail.usage is UNSET else trail.usage,
        "input_digest": trail.input_digest,
        "output_digest": trail.output_digest,
        **_held("input", trail.input),
        **shown,
    }


def _held(name: str, result: Result) -> dict[str, Any]:
    """A value under its name, or its digest and size where it is large."""
    if result.reference is not UNSET:
        return {f"{name}_reference": {"digest": result.reference.digest, "size": result.reference.size}}
    return {} if result.value is UNSET else {name: mask_secrets(result.value)}


def plan_document(step: StepRow) -> dict[str, Any]:
    """One plan of an agent: `step` is the task that planned, `number` counts its plans from 0."""
    value: Any = step.result.value
    return {"step": step.key.partition("/plans/")[0], "at": to_rfc3339(step.ended), **value}


def _checkpoint_in_run(checkpoint: Checkpoint, may_answer: Callable[[Checkpoint], bool]) -> dict[str, Any]:
    """A checkpoint as all who see the run see it, and whether the reader may answer it."""
    is_open = checkpoint.state == PENDING
    return mask_checkpoint(checkpoint_document(checkpoint)) | {"may_answer": is_open and may_answer(checkpoint)}


def _as_shown(checkpoint: Checkpoint, run: TaskRow) -> Checkpoint:
    """A checkpoint that is still open when its run has ended is withdrawn a moment later."""
    is_open = checkpoint.state == PENDING and run.has_ended
    return msgspec.structs.replace(checkpoint, state=WITHDRAWN) if is_open else checkpoint


def checkpoint_document(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint with its question."""
    answered = {"answer": checkpoint.answer, "answered_by": checkpoint.answered_by} if checkpoint.state == "answered" else {}
    return {
        "id": checkpoint.id,
        "run": checkpoint.run.id,
        "workflow": checkpoint.workflow,
        "step": checkpoint.step,
        "kind": checkpoint.kind,
        "prompt": checkpoint.prompt,
        "schema": checkpoint.schema,
        **({} if checkpoint.subject is None else {"subject": checkpoint.subject}),
        "state": checkpoint.state,
        "owner": checkpoint.owner,
        "created": to_rfc3339(checkpoint.created),
        "expires": to_rfc3339(checkpoint.expires),
        **_escalation_member(checkpoint),
        **answered,
    }


def mask_checkpoint(shown: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without the secrets of its subject and its answer, for all who see the run. Those who may answer see its subject."""
    return shown | {name: mask_secrets(shown[name]) for name in ("subject", "answer") if name in shown}


def _escalation_member(checkpoint: Checkpoint) -> dict[str, Any]:
    escalation = checkpoint.escalation
    if escalation is None:
        return {}
    to = {"roles": list(escalation.roles), "permissions": list(escalation.permissions)}
    return {"escalation": {"at": to_rfc3339(escalation.at), "begun": checkpoint.is_escalated, "to": to}}
