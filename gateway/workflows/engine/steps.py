"""Steps that reach others: each is a task of an agent or a tool, delegated with the run's own rights under the step's key."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from msgspec import Struct

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.catalog import UnknownKind
from adapters.contract import UpstreamFault
from adapters.task import INTERRUPTED, Message, Part, Role, Task
from adapters.upstream.egress import EgressRefused
from gateway.calls.agent_calls import AgentCalls
from gateway.calls.agent_requests import AgentRequest
from gateway.calls.authorizer import CallAuthorizer, CallRefused
from gateway.calls.consent.approval_requests import TooManyQuestions
from gateway.calls.costs.causing_runs import CausingRuns
from gateway.calls.limits.meters import BudgetSpent, LimitReached, PayloadTooLarge
from gateway.calls.turns.cancellation import NotCancelable
from gateway.storage.database import Batch, ReadFailed, WriteFailed
from gateway.storage.tables import run_tasks
from gateway.tasks.conversation import ConversationWaits
from gateway.tasks.log import ParentTaskEnded, TaskNotWaiting, TaskRow, UnknownTask, task_from_events
from gateway.tasks.reader import IdempotencyConflict, TaskReader, is_suspended, scoped_idempotency_key
from gateway.tasks.turns.in_flight import TooManyTasks
from gateway.tasks.turns.recorder import TurnState
from gateway.tasks.turns.stores import TaskStores
from gateway.telemetry.spans import TraceContext
from gateway.workflows.engine.results import own_error
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.interpreter.errors import WorkflowError, standard_error
from gateway.workflows.runs.store import RunKey, RunTaken, key_text
from policies.authority import RulingRequest
from policies.callers import Caller, CallerResolver, RolesOutdated, caller_before
from policies.delegation.chain import Delegation
from policies.delegation.kills import Killed
from policies.delegation.rulings import Act, act_of_invoking_agent
from policies.tokens.verifier import TokenRefused
from registry.cards.card import Family, Registration
from registry.health.reachability import NotReachable
from registry.store import Registry, UnknownName, has_workflow

_CANCELLATION_PROBLEMS: Final = (
    TokenRefused, Killed, UnknownTask, NotCancelable, UpstreamFault, LimitReached, TaskNotWaiting, WriteFailed, ReadFailed
)  # fmt: skip
GRANT_ENDED_TEXT: Final = "the grant of the run was revoked, or it has ended with the task that started the run"
KILLED_TEXT: Final = "an operator has stopped the person, the workflow, or an agent that started it"
_STEP_PROBLEMS: Final = (
    CallRefused, UnknownName, UnknownKind, BadMessage, PayloadTooLarge, IdempotencyConflict, NotReachable,
    UpstreamFault, EgressRefused, ConversationWaits, TooManyQuestions
)  # fmt: skip
PLACE_SECONDS: Final = 0.2  # between two attempts at a call for which no place was free
PLACE_ATTEMPTS: Final = 5  # then the run waits without a process
log = structlog.get_logger()


class StepRequest(Struct, frozen=True):
    """A message of a step to an agent, or to a server as an agent. `target` names the target in errors."""

    agent: str
    parts: tuple[Part, ...]
    target: str
    skill: str = ""
    metadata: Mapping[str, Any] = {}
    tool: str = ""  # of a server
    is_deterministic: bool = False


class RightsEnded(Exception):
    """The rights under which a run was started have ended. The run stops, and nothing of it is undone. The message says why."""


class NoPlace(Exception):
    """The limits have no place for a step's call now. `retry_after`: seconds until it may have one."""

    def __init__(self, text: str, retry_after: int) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class SignInNeeded(Exception):
    """The roles of the person who started the run were vouched for too long ago; no step begins until the person signs in again."""


class StepAwaitsTask(Exception):
    """The task of a step waits for a person, or it is a run that is suspended. The step waits with it."""

    def __init__(self, row: TaskRow, task: Task) -> None:
        super().__init__(f"task {row.id} waits")
        self.row = row
        self.task = task


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Whose rights a run's steps have: the grant of the run's task, ruled on again for each step."""

    run: RunKey
    workflow: str
    grant_id: str
    trace: TraceContext
    txn: str = ""
    skill: str = ""  # of the workflow, where its message named one: a person may be allowed that skill only
    is_first_turn: bool = False  # of the run: none of its steps has a task yet


class StarterRights:
    """Checks before each step whether the run could be started now."""

    def __init__(self, authorizer: CallAuthorizer, could_allow: Callable[[Caller, Act], bool]) -> None:
        self._authorizer = authorizer
        self._could_allow = could_allow

    async def check(self, run: Caller, skill: str) -> None:
        """Raises CallRefused, with a recorded decision, when the person may not use the workflow, or this skill of it, any more."""
        starter, workflow = caller_before(run), run.delegation.actor
        act = act_of_invoking_agent(workflow, skill)
        if self._could_allow(starter, act):
            return
        held = run.delegation
        await self._authorizer.rule_or_refuse(starter, RulingRequest(act, run.principal.tenant, task_id=held.task_id, txn=held.txn))


_ANSWER_PROBLEMS: Final = (
    *_STEP_PROBLEMS, SignInNeeded, RightsEnded, TokenRefused, Killed, TaskNotWaiting, UnknownTask, LimitReached, TooManyTasks
)  # fmt: skip


class StepCalls:
    """Delegates steps. A step that is repeated after a crash finds its task by its idempotency key."""

    def __init__(
        self,
        agents: AgentCalls,
        callers: CallerResolver,
        stores: TaskStores,
        registry: Registry,
        rights: StarterRights,
        *,
        causing_runs: CausingRuns,
    ) -> None:
        self._registry = registry
        self._agents = agents
        self._rights = rights
        self._causing_runs = causing_runs
        self._callers = callers
        self._stores = stores
        self._reader = TaskReader(stores.tasks)
        self._starting: dict[str, asyncio.Future[TurnState]] = {}

    async def run(self, identity: RunIdentity, key: StepKey, request: StepRequest) -> tuple[TaskRow, Task]:
        """The task of a step once it has ended. Raises StepAwaitsTask while it waits or is suspended, and WorkflowError for a refusal."""
        begun = await self._begin(identity, key, request)
        turned = await self._reader.wait_for_rest(begun)
        row, task = turned.row, task_from_events(turned.row, turned.events)
        if row.state in INTERRUPTED or is_suspended(row):
            raise StepAwaitsTask(row, task)
        return row, task

    def is_published(self, identity: RunIdentity) -> bool:
        """Whether the workflow of a run is still in the registry."""
        return has_workflow(self._registry, identity.run.tenant, identity.workflow)

    def check_published(self, identity: RunIdentity, instance: str) -> None:
        """Raises WorkflowError where the workflow was removed: its run starts no further step."""
        if not self.is_published(identity):
            raise standard_error("configuration", "the workflow was removed while the run was going on", instance)

    def servers(self, identity: RunIdentity) -> Sequence[Registration]:
        """The servers that a run may name by an address of their API."""
        return self._registry.list(identity.run.tenant, Family.SERVER)

    async def detach(self, identity: RunIdentity, key: StepKey, request: StepRequest) -> TaskRow:
        """The task of a run whose end is not waited for, which goes on after this one has ended. Raises WorkflowError for a refusal."""
        return (await self._begin(identity, key, request, is_detached=True)).row

    def is_in_person(self, held: Delegation) -> bool:
        """Whether a message to a run is of the run's owner: sent to the run itself, or to a run above it that passes the answer on.

        Runs pass on what their owner answers, and nothing else sends messages to their steps.
        """
        return all(has_workflow(self._registry, held.principal.tenant, hop.agent) for hop in held.path[:-1])

    async def answer(self, identity: RunIdentity, agent: str, task_id: str, parts: tuple[Part, ...], answer_id: str) -> None:
        """Sends the owner's answer to the agent of a step whose task waits for it, once for each `answer_id`.

        An answer that can't be sent is logged; the run then asks again, unless the task waits no more. Without the rights of the starter
        nothing is sent: the run ends or waits for the sign-in at its next step.
        """
        message = Message(f"{identity.run.id}:answer:{answer_id}", Role.USER, parts, task_id=task_id)
        try:
            caller = await self.caller(identity, "")
            known = await self._stores.tasks.read_record(identity.run.tenant, caller.principal.owner_key, task_id)
            if any(each.message_id == message.message_id for each in known.to_task().history):
                return
            await self._agents.start(caller, AgentRequest(agent, message, identity.trace))
        except _ANSWER_PROBLEMS as error:
            log.info("answer_not_taken", run=identity.run.id, task_id=task_id, error=type(error).__name__)

    async def cancel(self, identity: RunIdentity, agent: str, key: StepKey) -> None:
        """Has the task of a step stopped whose result is not wanted any more."""
        if (started := self._starting.get(idempotency_key(identity, key))) is not None:
            await asyncio.wait((started,))
        with suppress(*_CANCELLATION_PROBLEMS):
            caller = await self._caller(identity, only_stops=True)
            scoped, principal = scoped_idempotency_key(caller, idempotency_key(identity, key)), caller.principal
            row = await self._stores.tasks.find_by_idempotency_key(principal.tenant, principal.owner_key, agent, scoped)
            if row is not None:
                await self._agents.cancel(caller, agent, row.id, identity.trace)

    async def cancel_task(self, identity: RunIdentity, task_id: str) -> None:
        """Has a task of the run stopped whose result is not wanted any more."""
        with suppress(*_CANCELLATION_PROBLEMS):
            caller = await self._caller(identity, only_stops=True)
            row = await self._stores.tasks.find(identity.run.tenant, caller.principal.owner_key, task_id)
            await self._agents.cancel(caller, row.agent, row.id, identity.trace)

    async def cancel_open_of(self, identity: RunIdentity) -> None:
        """Has every task stopped that a run has caused and that is still open, before the run ends."""
        with suppress(*_CANCELLATION_PROBLEMS):
            caller = await self._caller(identity, only_stops=True)
            run = await self._stores.tasks.find(identity.run.tenant, caller.principal.owner_key, identity.run.id)
            for task in await self._stores.tasks.open_descendants(run):
                if task.parent_id == run.id:
                    with suppress(*_CANCELLATION_PROBLEMS):
                        await self._agents.cancel(caller, task.agent, task.id, identity.trace)

    async def _begin(self, identity: RunIdentity, key: StepKey, request: StepRequest, *, is_detached: bool = False) -> TurnState:
        """Raises WorkflowError, SignInNeeded, RightsEnded, and NoPlace where no place is free for the call for a while."""
        instance = key.pointer
        self.check_published(identity, instance)
        self._check_determinism(identity, request, instance)
        for attempt in range(PLACE_ATTEMPTS):
            try:
                caller = await self.caller(identity, instance)
                if is_detached:
                    caller = await self._callers.resolve_detached(identity.run.tenant, identity.workflow, identity.grant_id)
                started = await self._start_to_the_end(caller, _agent_request(identity, key, request))
                if not has_workflow(self._registry, identity.run.tenant, request.agent):
                    self._causing_runs.learn_step(identity.run.tenant, started.row.id, identity.run.id, instance)
                return started
            except BudgetSpent as spent:
                raise own_error("budget-spent", 429, "Budget Spent", f"{request.target}: {spent}", instance) from spent
            except (LimitReached, TooManyTasks) as busy:
                if attempt + 1 == PLACE_ATTEMPTS:
                    text = f"{request.target}: {str(busy) or 'the run has too many tasks at work'}"
                    raise NoPlace(text, busy.retry_after if isinstance(busy, LimitReached) else 1) from busy
                await asyncio.sleep(PLACE_SECONDS)
            except (TokenRefused, Killed) as error:  # they have ended since they were checked
                raise RightsEnded(f"{instance}: {GRANT_ENDED_TEXT if isinstance(error, TokenRefused) else KILLED_TEXT}") from error
            except ParentTaskEnded as error:
                raise RunTaken from error
            except _STEP_PROBLEMS as error:
                raise _error_of(error, request.target, instance) from error
        raise AssertionError("the last attempt raises or returns")

    async def _start_to_the_end(self, caller: Caller, request: AgentRequest) -> TurnState:
        """Starts a step's task. A start that was begun goes on when the step is canceled, so that no recorded task is left unsent."""
        name = request.idempotency_key or ""
        started = self._starting[name] = asyncio.ensure_future(self._agents.start(caller, request))
        started.add_done_callback(partial(_forget, self._starting, name))
        return await asyncio.shield(started)

    def _check_determinism(self, identity: RunIdentity, request: StepRequest, instance: str) -> None:
        """Raises WorkflowError where a deterministic step would reach a model: operators may take a mark away after the upload."""
        if not request.is_deterministic:
            return
        try:
            marked = self._registry.find(identity.run.tenant, request.agent).model_free
        except UnknownName:
            return  # refused as unknown
        if not request.tool or request.tool not in marked:
            detail = f"the step is deterministic, and {request.target} is not marked as model-free"
            raise own_error("not-deterministic", 403, "Not Deterministic", detail, instance)

    async def caller(self, identity: RunIdentity, instance: str) -> Caller:
        """The run as a caller, whose starter may still run the workflow. Raises SignInNeeded and RightsEnded."""
        try:
            caller = await self._caller(identity)
            await self._rights.check(caller, identity.skill)
        except RolesOutdated as error:
            raise SignInNeeded from error
        except TokenRefused as error:
            raise RightsEnded(f"{instance}: {GRANT_ENDED_TEXT}") from error
        except Killed as error:
            raise RightsEnded(f"{instance}: {KILLED_TEXT}") from error
        except CallRefused as refused:
            decision = refused.ruling.decision
            lost = f"the person who started the run may not run {identity.workflow} any more"
            raise RightsEnded(f"{instance}: {lost} ({decision.reason_id}); interlock why {decision.id}") from refused
        return caller

    async def _caller(self, identity: RunIdentity, *, only_stops: bool = False) -> Caller:
        """The run as a caller. What was begun can be stopped whatever the person's roles are. Raises TokenRefused and Killed."""
        named = (identity.run.tenant, identity.workflow, identity.grant_id)
        if only_stops:
            return await self._callers.resolve_agent_in_turn(*named, with_outdated_roles=True)
        return await self._callers.resolve_agent(*named)


def _forget(starting: "dict[str, asyncio.Future[TurnState]]", name: str, started: "asyncio.Future[TurnState]") -> None:
    starting.pop(name, None)
    if not started.cancelled():
        started.exception()  # of a step that was canceled, nobody else asks for it


def _error_of(error: Exception, target: str, instance: str) -> WorkflowError:
    """What a step fails with where its call was not begun."""
    match error:
        case CallRefused():
            decision = error.ruling.decision
            detail = f"{target}: refused ({decision.reason_id}); interlock why {decision.id}"
            return WorkflowError(standard_error("authorization", detail, instance).fault, decision.id)
        case UnknownName():
            return standard_error("configuration", f"{target}: there is no such agent or server", instance)
        case UnknownKind():
            return standard_error("configuration", f"{target}: {error}", instance)
        case BadMessage() | PayloadTooLarge():
            return standard_error("validation", f"{target}: {error}", instance, 400)
        case IdempotencyConflict():
            detail = f"{target}: the step was begun before with another input, and may have had its effect"
            return own_error("outcome-unknown", 500, "Outcome Unknown", detail, instance)
    if isinstance(error, NotReachable):
        return standard_error("communication", f"{target}: is not reachable now", instance)
    return standard_error("communication", f"{target}: {str(error) or type(error).__name__}", instance)


def idempotency_key(identity: RunIdentity, key: StepKey) -> str:
    """`{run}:{pointer}:{visits}:{attempts}`. A long key has a digest of the whole in place of its beginning."""
    return f"{identity.run.id}:{key_text(key)}"


def _agent_request(identity: RunIdentity, key: StepKey, request: StepRequest) -> AgentRequest:
    """The same request each time a step is repeated: the message's id and the idempotency key are the step's own."""
    name = idempotency_key(identity, key)
    message = Message(name, Role.USER, request.parts)
    metadata = dict(request.metadata) or None
    return AgentRequest(
        request.agent,
        message,
        identity.trace,
        request.skill,
        idempotency_key=name,
        is_key_new=identity.is_first_turn,
        is_watched=True,
        metadata=metadata,
        opening_write=partial(_write_cause, identity.run.id, key.pointer),
    )


def _write_cause(run_id: str, step: str, batch: Batch, row: TaskRow) -> None:
    """Records which step of a run has caused a task."""
    batch.add(run_tasks, {"tenant": row.tenant, "task_id": row.id, "run_id": run_id, "step": step})
