"""The operations of A2A (1.0 s3.1), which all bindings and versions share."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from adapters.a2a_client.wire.lists import PAGE_SIZE, ListParams, TaskPage
from adapters.a2a_client.wire.push import PushListParams, PushPage, PushParams
from adapters.a2a_client.wire.v1 import BadMessage, SendParams, TaskParams
from adapters.task import Message, PushConfig, Role, StreamResponse, Task, encode
from gateway.calls.agent_calls import AgentCalls
from gateway.calls.agent_requests import AgentRequest
from gateway.calls.limits.open_streams import OpenStreams, StreamSlot
from gateway.calls.turns.cancellation import CAUSED_TASKS_KEY, caused_tasks_metadata
from gateway.ingress.a2a_server import extensions
from gateway.ingress.http.errors import NoExtendedCard, PushNotSupported, UnsupportedOperation
from gateway.storage.paging import BadCursor
from gateway.tasks.events.entries import OPENING_EVENTS, encoded_response, is_shown, lone_reply
from gateway.tasks.log import TaskEnded, TaskEvent, TaskRow, stream_response, task_from_events
from gateway.tasks.pages import TaskFilter, TaskPages
from gateway.tasks.reader import TaskReader
from gateway.tasks.turns.recorder import TurnState
from gateway.tasks.webhooks.configs import CONFIGS_MAX, Webhook, WebhookConfigs
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller
from registry.cards.card import Family, Registration
from registry.cards.republish import RESUMPTION, SKILL_SELECTION
from registry.names import FRONT_DOOR
from registry.store import UnknownName

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOLD_SECONDS = 0.5  # a stream waits that long for an agent's Message before it sends the Task
_MICROSECOND = timedelta(microseconds=1)
ExtendedCard = Callable[[Registration, Caller], Awaitable[Mapping[str, Any]]]  # returns the extended card of an agent for a caller, in 1.0


class OperationRequest(Struct, frozen=True):
    """A request of any binding: the caller, the agent and the service parameters.

    `extensions` are those of `A2A-Extensions`. `version` is the caller's, and that of its webhooks' notifications. `last_event_id` is the
    number of the last event that the client has received.
    """

    caller: Caller
    agent: str
    trace_context: TraceContext
    extensions: frozenset[str] = frozenset()
    idempotency_key: str | None = None
    version: str = "1.0"
    last_event_id: int | None = None


class SequencedEvent(Struct, frozen=True):
    """One event of a stream and its number in the task's log, after which a stream can resume: composed, or an entry of the log."""

    seq: int
    composed: StreamResponse | None = None
    entry: tuple[TaskRow, TaskEvent] | None = None

    @property
    def response(self) -> StreamResponse:
        """Returns the event as an object, for bindings that translate it."""
        response = self.composed if self.entry is None else stream_response(*self.entry)
        assert response is not None
        return response

    @property
    def encoded(self) -> bytes:
        """Returns the event as JSON of A2A 1.0."""
        return (None if self.entry is None else encoded_response(*self.entry)) or encode(self.composed)


class OperationStream(Protocol):
    """The events of a stream, in batches of all that are available at that time. Its reader closes it, also before its end."""

    def __aiter__(self) -> AsyncIterator[list[SequencedEvent]]: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OperationDependencies:
    """What the operations other than sending read and write.

    Webhooks or extended cards that are None are not offered, and no card declares them.
    """

    reader: TaskReader
    task_pages: TaskPages
    webhook_configs: WebhookConfigs | None = None
    extended_card: ExtendedCard | None = None
    open_streams: OpenStreams = field(default_factory=OpenStreams)


class Operations:
    """Performs the operations. Each raises domain exceptions, which a binding maps through gateway/ingress/http/errors.py."""

    def __init__(self, agent_calls: AgentCalls, dependencies: OperationDependencies) -> None:
        self._agent_calls = agent_calls
        self._dependencies = dependencies
        self._reader = dependencies.reader

    def extensions_in_force(self, request: OperationRequest) -> list[str]:
        """Returns the extensions in force for this request, for the answer's A2A-Extensions."""
        if not request.extensions:
            return []
        try:
            return extensions.extensions_in_force(self._agent_calls.callees.find_visible(request.caller, request.agent), request.extensions)
        except UnknownName:
            return []

    async def send(self, request: OperationRequest, params: SendParams) -> Task | Message:
        """SendMessage (s3.1.1): returns after the turn has ended, or at once with `returnImmediately`."""
        agent_request = await self._build_agent_request(request, params)
        if params.configuration.return_immediately:
            return _task_from_state(await self._agent_calls.start(request.caller, agent_request), params.configuration.history_length)
        turn_state = await self._agent_calls.send(request.caller, agent_request)
        return lone_reply(turn_state.events) or _task_from_state(turn_state, params.configuration.history_length)

    async def stream(self, request: OperationRequest, params: SendParams) -> OperationStream:
        """SendStreamingMessage (s3.1.2): every refusal is raised before the first event is read.

        An agent that answers a new task with a Message within HOLD_SECONDS is streamed as this one Message. Otherwise the Task comes first,
        as soon as the agent begins a task, so that callers know its id. A later Message is in the last status.
        """
        slot = self._dependencies.open_streams.acquire(request.caller.principal.owner_key)
        turn_state = await self._agent_calls.start(request.caller, await self._build_agent_request(request, params))
        events = self._reader.follow_turn(turn_state, until_drain=True)  # follows the task from here on, so that no event is missed
        if (reply := await self._reader.lone_reply(turn_state, HOLD_SECONDS)) is not None:
            return slot.hold_during(_one_message(request, OPENING_EVENTS + 1, reply))
        snapshot = _snapshot_event(turn_state, params.configuration.history_length)
        return _TaskStream(request, turn_state.row, events, snapshot, slot=slot)

    async def get_task(self, request: OperationRequest, params: TaskParams) -> Task:
        """GetTask (s3.1.3)."""
        _check_tenant(request, params.tenant)
        return _task_from_state(await self._reader.read_task(request.caller, request.agent, params.id), params.history_length)

    async def list_tasks(self, request: OperationRequest, params: ListParams) -> TaskPage:
        """ListTasks (s3.1.4): returns the caller's own tasks with this agent, the most recently changed first."""
        _check_tenant(request, params.tenant)
        self._agent_calls.callees.find_visible(request.caller, request.agent)
        size = params.page_size or PAGE_SIZE
        since = _parse_timestamp_us(params.status_timestamp_after)
        state = params.status.value if params.status else ""
        page = TaskFilter("" if request.agent == FRONT_DOOR else request.agent, state, params.context_id, params.page_token, size, since)
        try:
            rows, more, total = await self._dependencies.task_pages.read_page_and_total(request.caller, page)
        except BadCursor:
            raise BadMessage("pageToken", "was not issued by this list") from None
        tasks = await self._dependencies.task_pages.read_encoded(rows, params.history_length or 0, params.include_artifacts)
        return TaskPage(tasks, more or "", size, total)

    async def cancel(self, request: OperationRequest, params: TaskParams) -> Task:
        """CancelTask (s3.1.5). The answer's metadata has the outcome of each task below it."""
        _check_tenant(request, params.tenant)
        stopped = await self._agent_calls.cancel(request.caller, request.agent, params.id, request.trace_context)
        task = _task_from_state(stopped, params.history_length)
        caused_tasks = caused_tasks_metadata(stopped, name_tasks=not request.caller.delegation.path)
        return replace(task, metadata={**(task.metadata or {}), CAUSED_TASKS_KEY: caused_tasks}) if caused_tasks else task

    async def subscribe(self, request: OperationRequest, params: TaskParams) -> OperationStream:
        """SubscribeToTask (s3.1.6): streams the task and then its events until it ends.

        With a `last_event_id` that the task's log has, the stream has only the events after it. Raises TaskEnded for a task that has ended,
        unless such a stream resumes.
        """
        _check_tenant(request, params.tenant)
        slot = self._dependencies.open_streams.acquire(request.caller.principal.owner_key)
        after = request.last_event_id
        turn_state = await self._reader.read_task(request.caller, request.agent, params.id)
        if after is not None and after <= turn_state.row.last_seq:
            return _TaskStream(request, turn_state.row, self._reader.follow_task(turn_state.row, after), slot=slot)
        if turn_state.row.has_ended:
            raise TaskEnded
        events = self._reader.follow_task(turn_state.row, turn_state.row.last_seq)
        return _TaskStream(request, turn_state.row, events, _snapshot_event(turn_state, params.history_length), slot=slot)

    async def create_push(self, request: OperationRequest, params: PushConfig) -> PushConfig:
        """CreateTaskPushNotificationConfig (s3.1.7)."""
        push = self._require_webhook_configs(request, params.tenant)
        row = await self._reader.find_row(request.caller, request.agent, params.task_id)
        return await push.create(row.owner, row, params, request.version)

    async def get_push(self, request: OperationRequest, params: PushParams) -> PushConfig:
        """GetTaskPushNotificationConfig (s3.1.8). In 0.3 the id may be left out, which means the task's first config."""
        push = self._require_webhook_configs(request, params.tenant)
        row = await self._reader.find_row(request.caller, request.agent, params.task_id)
        config_id = params.id or next((config.id for config in await push.list(row.owner, row)), "")
        return await push.get(row.owner, row, config_id)

    async def list_push(self, request: OperationRequest, params: PushListParams) -> PushPage:
        """ListTaskPushNotificationConfigs (s3.1.9)."""
        push = self._require_webhook_configs(request, params.tenant)
        row = await self._reader.find_row(request.caller, request.agent, params.task_id)
        return PushPage(*await push.page(row.owner, row, params.page_size or CONFIGS_MAX, params.page_token))

    async def delete_push(self, request: OperationRequest, params: PushParams) -> None:
        """DeleteTaskPushNotificationConfig (s3.1.10): deleting a config that does not exist succeeds."""
        push = self._require_webhook_configs(request, params.tenant)
        row = await self._reader.find_row(request.caller, request.agent, params.task_id)
        await push.delete(row.owner, row, params.id)

    async def get_extended_card(self, request: OperationRequest, tenant: str = "") -> Mapping[str, Any]:
        """GetExtendedAgentCard (s3.1.11) for this caller. Raises UnsupportedOperation and NoExtendedCard."""
        _check_tenant(request, tenant)
        entry = self._agent_calls.callees.find_visible(request.caller, request.agent)
        if self._dependencies.extended_card is None:
            raise UnsupportedOperation
        if entry.card is None:
            raise NoExtendedCard
        return await self._dependencies.extended_card(entry, request.caller)

    def _require_webhook_configs(self, request: OperationRequest, tenant: str) -> WebhookConfigs:
        _check_tenant(request, tenant)
        if self._dependencies.webhook_configs is None:
            raise PushNotSupported
        return self._dependencies.webhook_configs

    async def _build_agent_request(self, request: OperationRequest, params: SendParams) -> AgentRequest:
        """Builds the request to AgentCalls. A caller who may not know of the agent gets only the denial of an unknown name.

        Raises BadMessage for a message in the agent's role: a message that a caller sends comes from the client (A2A 1.0 s4.1.5).
        """
        if params.message.role is not Role.USER:
            raise BadMessage("message.role", "must be ROLE_USER (0.3: user), since the client sends the message")
        try:
            return self._build_for_visible_agent(request, params)
        except UnknownName as unknown:
            await self._agent_calls.unknown_name_denials.check_name(
                unknown, request.caller, request.agent, params.message, request.trace_context.trace_id
            )
            raise

    def _build_for_visible_agent(self, request: OperationRequest, params: SendParams) -> AgentRequest:
        """Builds the request to AgentCalls. Raises UnknownName when a parameter depends on an agent that the caller may not know of."""
        _check_tenant(request, params.tenant)
        trace_context, skill = request.trace_context, ""
        if request.extensions or self._declares_extensions(request):
            entry = self._agent_calls.callees.find_visible(request.caller, request.agent)
            extensions.check_required_extensions(entry, request.extensions)
            trace_context = replace(
                trace_context, headers={**trace_context.headers, **extensions.extension_header_for_agent(entry, request.extensions)}
            )
            skill = extensions.selected_skill(entry, params.message) if SKILL_SELECTION in request.extensions else ""
        configuration = params.configuration
        return AgentRequest(
            request.agent,
            params.message,
            trace_context,
            skill=skill,
            accepted_output_modes=configuration.accepted_output_modes,
            idempotency_key=request.idempotency_key,
            metadata=params.metadata or None,
            webhook=self._check_webhook(request, configuration.task_push_notification_config),
        )

    def _declares_extensions(self, request: OperationRequest) -> bool:
        try:
            card = self._agent_calls.callees.find_registered(request.caller, request.agent, Family.AGENT).card
            return card is not None and bool(card.extensions)
        except UnknownName:
            return False

    def _check_webhook(self, request: OperationRequest, config: PushConfig | None) -> Webhook | None:
        """Reads the text of a webhook. Its name is looked up after the grant: a refused caller causes no lookup."""
        if config is None:
            return None
        self._agent_calls.callees.find_visible(request.caller, request.agent)
        push = self._require_webhook_configs(request, config.tenant)
        where, owner = "configuration.taskPushNotificationConfig.", request.caller.principal.owner_key
        return push.check_config(config, request.version, where, owner=owner)


async def _one_message(request: OperationRequest, seq: int, message: Message) -> AsyncGenerator[list[SequencedEvent], None]:
    """Streams the Message of an agent that answered without a task (s3.1.2)."""
    response = StreamResponse(message=message)
    yield [SequencedEvent(seq, extensions.with_event_number(response, seq) if RESUMPTION in request.extensions else response)]


class _TaskStream:
    """A task's events in batches, numbered in their metadata when the request names the resumption extension."""

    def __init__(
        self,
        request: OperationRequest,
        row: TaskRow,
        batches: AsyncGenerator[tuple[TaskEvent, ...], None],
        first_event: SequencedEvent | None = None,
        *,
        slot: StreamSlot,
    ) -> None:
        self._slot = slot  # held here alone, so that it is freed with the stream
        self._is_marked = RESUMPTION in request.extensions
        self._row = row
        self._batches = batches
        self._first_event = first_event

    def __aiter__(self) -> AsyncIterator[list[SequencedEvent]]:
        return self

    async def __anext__(self) -> list[SequencedEvent]:
        if self._first_event is not None:
            first, self._first_event = self._first_event, None  # a quiet stream must not keep the event in memory
            return [_with_number(first)] if self._is_marked else [first]
        async for events in self._batches:
            shown = [SequencedEvent(event.seq, entry=(self._row, event)) for event in events if is_shown(event)]
            if shown:
                return [_with_number(each) for each in shown] if self._is_marked else shown
            del events, shown
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._batches.aclose()


def _with_number(event: SequencedEvent) -> SequencedEvent:
    """Returns the event with its number in its metadata."""
    return SequencedEvent(event.seq, extensions.with_event_number(event.response, event.seq))


def _snapshot_event(turn_state: TurnState, history_length: int | None) -> SequencedEvent:
    return SequencedEvent(turn_state.row.last_seq, StreamResponse(task=_task_from_state(turn_state, history_length)))


def _task_from_state(turn_state: TurnState, history_length: int | None) -> Task:
    return task_from_events(turn_state.row, turn_state.events, history_length)


def _check_tenant(request: OperationRequest, tenant: str) -> None:
    """Raises UnknownName for a tenant other than the agent.

    A2A's tenant names the agent behind a shared endpoint; here the path names it already.
    """
    if tenant and tenant != request.agent:
        raise UnknownName(tenant)


def _parse_timestamp_us(text: str) -> int:
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadMessage("statusTimestampAfter", "is not an RFC 3339 time") from None
    if moment.tzinfo is None:
        raise BadMessage("statusTimestampAfter", "has no time zone")
    return (moment - _EPOCH) // _MICROSECOND
