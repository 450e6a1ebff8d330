"""The operations of A2A (1.0 s3.1), for every binding and version alike."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from adapters.a2a_client.wire.lists import PAGE_SIZE, ListParams, TaskPage
from adapters.a2a_client.wire.push import PushListParams, PushPage, PushParams
from adapters.a2a_client.wire.v1 import BadMessage, SendParams, TaskParams
from adapters.task import Message, PushConfig, Role, StreamResponse, Task
from gateway.calls.broker import Broker, Sending
from gateway.calls.cancellation import CAUSED, told_of
from gateway.calls.limits.open_streams import Places
from gateway.calls.outgoing.upstreams import Trail
from gateway.ingress.a2a_server import extensions
from gateway.ingress.http.errors import NoExtendedCard, PushNotSupported, UnsupportedOperation
from gateway.storage.paging import BadCursor
from gateway.tasks.events.entries import OPENING_EVENTS, lone_reply
from gateway.tasks.log import TaskEnded, TaskEvent, TaskRow, fold, shown
from gateway.tasks.pages import Page, TaskPages
from gateway.tasks.reader import TaskReader
from gateway.tasks.turns.store import Turned
from gateway.tasks.webhooks.configs import CONFIGS_MAX, Push, Webhook
from policies.callers import Caller
from registry.cards.card import Family, Registration
from registry.cards.republish import RESUMPTION, SKILL_SELECTION
from registry.names import FRONT_DOOR
from registry.store import UnknownName

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOLD_SECONDS = 0.5  # that a stream waits for an agent's Message before it shows the Task
_MICROSECOND = timedelta(microseconds=1)
ExtendedCard = Callable[[Registration, Caller], Mapping[str, Any]]  # of which agent, for whom; in 1.0


class Asked(Struct, frozen=True):
    """Who asks, of which agent, whatever the binding. `extensions` are those of `A2A-Extensions`.

    `version` is the caller's, in which webhooks are told too. `last_event_id` is the number of the last event that was seen.
    """

    caller: Caller
    agent: str
    trail: Trail
    extensions: frozenset[str] = frozenset()
    idempotency_key: str | None = None
    version: str = "1.0"
    last_event_id: int | None = None


class Numbered(Struct, frozen=True):
    """One event of a stream and its number in the task's log, from which a stream can be taken up again."""

    seq: int
    response: StreamResponse


Stream = AsyncGenerator[list[Numbered], None]  # each time as many events as there are


@dataclass(frozen=True, slots=True)
class Offered:
    """What is there to be asked for beside messages. None: not offered, and no card says so."""

    reader: TaskReader
    pages: TaskPages
    push: Push | None = None
    extended_card: ExtendedCard | None = None
    places: Places = field(default_factory=Places)


class Operations:
    """Each raises the domain's exceptions, which a binding maps through gateway/ingress/http/errors.py."""

    def __init__(self, broker: Broker, offered: Offered) -> None:
        self._broker = broker
        self._offered = offered
        self._reader = offered.reader

    def activated(self, asked: Asked) -> list[str]:
        """The extensions in force for this request, for the answer's A2A-Extensions."""
        if not asked.extensions:
            return []
        try:
            return extensions.activated(self._broker.callees.known(asked.caller, asked.agent), asked.extensions)
        except UnknownName:
            return []

    async def send(self, asked: Asked, params: SendParams) -> Task | Message:
        """SendMessage (s3.1.1): waits for the end of the turn unless told not to."""
        sending = await self._sending(asked, params)
        if params.configuration.return_immediately:
            return _task(await self._broker.start(asked.caller, sending), params.configuration.history_length)
        turned = await self._broker.send(asked.caller, sending)
        return lone_reply(turned.events) or _task(turned, params.configuration.history_length)

    async def stream(self, asked: Asked, params: SendParams) -> Stream:
        """SendStreamingMessage (s3.1.2). What can be refused is refused before the first event is asked for.

        An agent that answers a new task with a Message within HOLD_SECONDS is streamed as this one Message. Otherwise the Task comes
        first, as soon as the agent begins a task, so that callers know its id; a later Message is in the last status.
        """
        place = self._offered.places.take(asked.caller.principal.owner)
        turned = await self._broker.start(asked.caller, await self._sending(asked, params))
        events = self._reader.follow(turned)  # holds the task's tail meanwhile
        if (reply := await self._reader.lone_reply(turned, HOLD_SECONDS)) is not None:
            return place.during(_one_message(asked, OPENING_EVENTS + 1, reply))
        return place.during(_events(asked, turned.row, events, _first(turned, params.configuration.history_length)))

    async def task(self, asked: Asked, params: TaskParams) -> Task:
        """GetTask (s3.1.3)."""
        _check_tenant(asked, params.tenant)
        return _task(await self._reader.task(asked.caller, asked.agent, params.id), params.history_length)

    async def list(self, asked: Asked, params: ListParams) -> TaskPage:
        """ListTasks (s3.1.4): the caller's own tasks with this agent, the last moved first."""
        _check_tenant(asked, params.tenant)
        self._broker.callees.known(asked.caller, asked.agent)
        size = params.page_size or PAGE_SIZE
        since = _microseconds(params.status_timestamp_after)
        state = params.status.value if params.status else ""
        page = Page("" if asked.agent == FRONT_DOOR else asked.agent, state, params.context_id, params.page_token, size, since)
        try:
            rows, more, total = await self._offered.pages.counted(asked.caller, page)
        except BadCursor:
            raise BadMessage("pageToken", "is not one of ours") from None
        history = params.history_length or 0
        kinds = ["status", *(["message"] if history else []), *(["artifact"] if params.include_artifacts else [])]
        events = await self._offered.pages.events(rows, kinds)
        tasks = tuple(fold(row, events.get(row.id, ()), history) for row in rows)
        return TaskPage(tasks, more or "", size, total)

    async def cancel(self, asked: Asked, params: TaskParams) -> Task:
        """CancelTask (s3.1.5). What became of the tasks it had caused stands in the answer's metadata."""
        _check_tenant(asked, params.tenant)
        stopped = await self._broker.cancel(asked.caller, asked.agent, params.id, asked.trail)
        task = _task(stopped, params.history_length)
        told = told_of(stopped, everything=not asked.caller.delegation.path)
        return replace(task, metadata={**(task.metadata or {}), CAUSED: told}) if told else task

    async def subscribe(self, asked: Asked, params: TaskParams) -> Stream:
        """SubscribeToTask (s3.1.6): the task as it stands, then its events until it ends; or, after the last event that was seen,
        just what came since, as long as the task has had such an event.

        Raises TaskEnded for a task that is over, unless a stream of it is taken up again.
        """
        _check_tenant(asked, params.tenant)
        place = self._offered.places.take(asked.caller.principal.owner)
        after = asked.last_event_id
        turned = await self._reader.task(asked.caller, asked.agent, params.id)
        if after is not None and after <= turned.row.last_seq:
            return place.during(_events(asked, turned.row, self._reader.since(turned.row, after)))
        if turned.row.ended:
            raise TaskEnded
        events = self._reader.since(turned.row, turned.row.last_seq)
        return place.during(_events(asked, turned.row, events, _first(turned, params.history_length)))

    async def create_push(self, asked: Asked, params: PushConfig) -> PushConfig:
        """CreateTaskPushNotificationConfig (s3.1.7)."""
        push = self._push(asked, params.tenant)
        row = await self._reader.row(asked.caller, asked.agent, params.task_id)
        return await push.create(row.owner, row, params, asked.version)

    async def get_push(self, asked: Asked, params: PushParams) -> PushConfig:
        """GetTaskPushNotificationConfig (s3.1.8). In 0.3 the id may be left out, which asks for the task's first."""
        push = self._push(asked, params.tenant)
        row = await self._reader.row(asked.caller, asked.agent, params.task_id)
        config_id = params.id or next((config.id for config in await push.list(row.owner, row)), "")
        return await push.get(row.owner, row, config_id)

    async def list_push(self, asked: Asked, params: PushListParams) -> PushPage:
        """ListTaskPushNotificationConfigs (s3.1.9)."""
        push = self._push(asked, params.tenant)
        row = await self._reader.row(asked.caller, asked.agent, params.task_id)
        return PushPage(*await push.page(row.owner, row, params.page_size or CONFIGS_MAX, params.page_token))

    async def delete_push(self, asked: Asked, params: PushParams) -> None:
        """DeleteTaskPushNotificationConfig (s3.1.10): one that is gone already may be deleted again."""
        push = self._push(asked, params.tenant)
        row = await self._reader.row(asked.caller, asked.agent, params.task_id)
        await push.delete(row.owner, row, params.id)

    async def extended_card(self, asked: Asked, tenant: str = "") -> Mapping[str, Any]:
        """GetExtendedAgentCard (s3.1.11), for this caller."""
        _check_tenant(asked, tenant)
        entry = self._broker.callees.known(asked.caller, asked.agent)
        if self._offered.extended_card is None:
            raise UnsupportedOperation
        if entry.card is None:
            raise NoExtendedCard
        return self._offered.extended_card(entry, asked.caller)

    def _push(self, asked: Asked, tenant: str) -> Push:
        _check_tenant(asked, tenant)
        if self._offered.push is None:
            raise PushNotSupported
        return self._offered.push

    async def _sending(self, asked: Asked, params: SendParams) -> Sending:
        """What is handed to the broker. Callers who may not know of the agent get no other refusal than the broker's, and no sooner.

        Raises BadMessage for a message in the agent's role: whatever a caller sends comes from the client (A2A 1.0 s4.1.5).
        """
        if params.message.role is not Role.USER:
            raise BadMessage("message.role", "must be that of the user: only messages of the agent have the agent's role")
        try:
            return await self._addressed(asked, params)
        except UnknownName as unknown:
            await self._broker.unknown.check_name(unknown, asked.caller, asked.agent, params.message, asked.trail.trace_id)
            raise

    async def _addressed(self, asked: Asked, params: SendParams) -> Sending:
        """Raises UnknownName where it depends on the agent, and the caller may not know of it; else the broker does."""
        _check_tenant(asked, params.tenant)
        trail, skill = asked.trail, ""
        if asked.extensions or self._declares_extensions(asked):
            entry = self._broker.callees.known(asked.caller, asked.agent)
            extensions.check_required(entry, asked.extensions)
            trail = replace(trail, headers={**trail.headers, **extensions.for_agent(entry, asked.extensions)})
            skill = extensions.selected_skill(entry, params.message) if SKILL_SELECTION in asked.extensions else ""
        configuration = params.configuration
        return Sending(
            asked.agent,
            params.message,
            trail,
            skill=skill,
            accepted_output_modes=configuration.accepted_output_modes,
            idempotency_key=asked.idempotency_key,
            metadata=params.metadata or None,
            webhook=await self._webhook(asked, configuration.task_push_notification_config),
        )

    def _declares_extensions(self, asked: Asked) -> bool:
        try:
            return bool(extensions.declared(self._broker.callees.entry(asked.caller, asked.agent, Family.AGENT)))
        except UnknownName:
            return False

    async def _webhook(self, asked: Asked, config: PushConfig | None) -> Webhook | None:
        if config is None:
            return None
        self._broker.callees.known(asked.caller, asked.agent)
        push = self._push(asked, config.tenant)
        where, owner = "configuration.taskPushNotificationConfig.", asked.caller.principal.owner
        return await push.vetted(config, asked.version, where, owner=owner)


async def _one_message(asked: Asked, seq: int, message: Message) -> Stream:
    """The stream of an agent that answered with a Message (s3.1.2)."""
    response = StreamResponse(message=message)
    yield [Numbered(seq, extensions.numbered(response, seq) if RESUMPTION in asked.extensions else response)]


async def _events(
    asked: Asked, row: TaskRow, batches: AsyncGenerator[tuple[TaskEvent, ...], None], first: Numbered | None = None
) -> Stream:
    """What a stream shows of a task's events, as many as there are at a time; told their numbers where the resumption extension
    is asked for."""
    marked = RESUMPTION in asked.extensions
    if first is not None:
        yield [Numbered(first.seq, extensions.numbered(first.response, first.seq)) if marked else first]
        first = None  # a quiet stream holds on to nothing
    async with aclosing(batches):
        async for events in batches:
            answers = ((event.seq, shown(row, event)) for event in events)
            seen = [Numbered(seq, extensions.numbered(one, seq) if marked else one) for seq, one in answers if one is not None]
            if seen:
                yield seen
            del answers, events, seen


def _first(turned: Turned, history_length: int | None) -> Numbered:
    return Numbered(turned.row.last_seq, StreamResponse(task=_task(turned, history_length)))


def _task(turned: Turned, history_length: int | None) -> Task:
    return fold(turned.row, turned.events, history_length)


def _check_tenant(asked: Asked, tenant: str) -> None:
    """A2A's tenant names the agent behind a shared endpoint, as our path does already: whoever means another one finds none."""
    if tenant and tenant != asked.agent:
        raise UnknownName(tenant)


def _microseconds(text: str) -> int:
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadMessage("statusTimestampAfter", "is not a time of RFC 3339") from None
    if moment.tzinfo is None:
        raise BadMessage("statusTimestampAfter", "has no time zone")
    return (moment - _EPOCH) // _MICROSECOND
