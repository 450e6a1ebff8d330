"""The operations of A2A (1.0 s3.1), for every binding and version alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from adapters.a2a_wire.lists import PAGE_SIZE, ListParams, TaskPage
from adapters.a2a_wire.push import PushListParams, PushPage, PushParams
from adapters.a2a_wire.v1 import BadMessage, SendParams, TaskParams
from adapters.task import Message, PushConfig, StreamResponse, Task
from gateway.broker import Broker, Sending
from gateway.decisions import BadCursor
from gateway.errors import ExtensionRequired, PushNotSupported, UnsupportedOperation
from gateway.ledger import Trail
from gateway.task_pages import Page, TaskPages
from gateway.tasks import TaskEnded, TaskRow, fold, shown
from gateway.turns import Turned
from policies.authority import Caller
from registry.card import Family, Registration

SKILL_SELECTION = "urn:interlock:a2a:skill-selection:1"


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, of which agent, whatever the binding. `extensions` are those of `A2A-Extensions`."""

    caller: Caller
    agent: str
    trail: Trail
    extensions: frozenset[str] = frozenset()
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Numbered:
    """One event of a stream and its number in the task's log, from which a stream can be taken up again."""

    seq: int
    response: StreamResponse


class Operations:
    """Each raises the domain's exceptions, which a binding maps through gateway/errors.py."""

    def __init__(self, broker: Broker, pages: TaskPages) -> None:
        self._broker = broker
        self._pages = pages

    async def send(self, asked: Asked, params: SendParams) -> Task | Message:
        """SendMessage (s3.1.1): waits for the end of the turn unless told not to."""
        sending = self._sending(asked, params)
        act = self._broker.start if params.configuration.return_immediately else self._broker.send
        turned = await act(asked.caller, sending)
        return turned.reply or _task(turned, params.configuration.history_length)

    async def stream(self, asked: Asked, params: SendParams) -> AsyncIterator[Numbered]:
        """SendStreamingMessage (s3.1.2). What can be refused is refused before the first event is asked for."""
        turned = await self._broker.start(asked.caller, self._sending(asked, params))
        return self._events(turned, params.configuration.history_length)

    async def task(self, asked: Asked, params: TaskParams) -> Task:
        """GetTask (s3.1.3)."""
        _check_tenant(asked, params.tenant)
        return _task(await self._broker.task(asked.caller, asked.agent, params.id), params.history_length)

    async def list(self, asked: Asked, params: ListParams) -> TaskPage:
        """ListTasks (s3.1.4): the caller's own tasks with this agent, the last moved first."""
        _check_tenant(asked, params.tenant)
        self._agent(asked)
        size = params.page_size or PAGE_SIZE
        since = _microseconds(params.status_timestamp_after)
        state = params.status.value if params.status else ""
        page = Page(asked.agent, state, params.context_id, params.page_token, size, since)
        try:
            rows, more, total = await self._pages.counted(asked.caller, page)
        except BadCursor:
            raise BadMessage("pageToken", "is not one of ours") from None
        history = params.history_length or 0
        kinds = ["status", *(["message"] if history else []), *(["artifact"] if params.include_artifacts else [])]
        events = await self._pages.events(rows, kinds)
        tasks = tuple(fold(row, events.get(row.id, ()), history) for row in rows)
        return TaskPage(tasks, more or "", size, total)

    async def cancel(self, asked: Asked, params: TaskParams) -> Task:
        """CancelTask (s3.1.5)."""
        _check_tenant(asked, params.tenant)
        return _task(await self._broker.cancel(asked.caller, asked.agent, params.id, asked.trail), params.history_length)

    async def subscribe(self, asked: Asked, params: TaskParams, after: int | None = None) -> AsyncIterator[Numbered]:
        """SubscribeToTask (s3.1.6): the task as it stands, then its events; or, after number `after`, just what came since.

        Raises TaskEnded for a task that is over, unless a stream of it is taken up again.
        """
        _check_tenant(asked, params.tenant)
        turned = await self._broker.task(asked.caller, asked.agent, params.id)
        if after is None:
            if turned.row.ended:
                raise TaskEnded
            return self._events(turned, params.history_length)
        return self._since(turned.row, after)

    async def create_push(self, asked: Asked, params: PushConfig) -> PushConfig:
        """CreateTaskPushNotificationConfig (s3.1.7)."""
        raise PushNotSupported

    async def get_push(self, asked: Asked, params: PushParams) -> PushConfig:
        """GetTaskPushNotificationConfig (s3.1.8)."""
        raise PushNotSupported

    async def list_push(self, asked: Asked, params: PushListParams) -> PushPage:
        """ListTaskPushNotificationConfigs (s3.1.9)."""
        raise PushNotSupported

    async def delete_push(self, asked: Asked, params: PushParams) -> None:
        """DeleteTaskPushNotificationConfig (s3.1.10)."""
        raise PushNotSupported

    async def extended_card(self, asked: Asked) -> dict[str, Any]:
        """GetExtendedAgentCard (s3.1.11)."""
        raise UnsupportedOperation

    def _sending(self, asked: Asked, params: SendParams) -> Sending:
        _check_tenant(asked, params.tenant)
        if params.configuration.task_push_notification_config is not None:
            raise PushNotSupported
        entry = self._agent(asked)
        known = _extensions(entry)
        missing = sorted(uri for uri, required in known.items() if required and uri not in asked.extensions)
        if missing:
            raise ExtensionRequired(missing[0])
        trail = asked.trail
        wanted = sorted(asked.extensions & known.keys())
        if wanted:
            trail = replace(trail, headers={**trail.headers, "A2A-Extensions": ", ".join(wanted)})
        return Sending(
            asked.agent,
            params.message,
            trail,
            skill=_skill(entry, params.message) if SKILL_SELECTION in asked.extensions else "",
            accepted_output_modes=params.configuration.accepted_output_modes,
            idempotency_key=asked.idempotency_key,
        )

    def _agent(self, asked: Asked) -> Registration:
        return self._broker.find(asked.caller, asked.agent, Family.AGENT)

    async def _events(self, turned: Turned, history_length: int | None) -> AsyncIterator[Numbered]:
        yield Numbered(turned.row.last_seq, StreamResponse(task=_task(turned, history_length)))
        async for event in self._broker.follow(turned):
            if (response := shown(turned.row, event)) is not None:
                yield Numbered(event.seq, response)

    async def _since(self, row: TaskRow, after: int) -> AsyncIterator[Numbered]:
        async for event in self._broker.since(row, after):
            if (response := shown(row, event)) is not None:
                yield Numbered(event.seq, response)


def _task(turned: Turned, history_length: int | None) -> Task:
    return fold(turned.row, turned.events, history_length)


def _check_tenant(asked: Asked, tenant: str) -> None:
    """A2A's tenant names the agent behind a shared endpoint; ours is in the path already, so both have to agree."""
    if tenant and tenant != asked.agent:
        raise BadMessage("tenant", "is not that of the endpoint")


def _extensions(entry: Registration) -> dict[str, bool]:
    """The extensions an agent's card declares, and whether each is required (s4.4.4)."""
    document: Any = entry.card.document if entry.card else {}
    declared = document.get("capabilities", {}).get("extensions", [])
    return {str(each["uri"]): each.get("required") is True for each in declared if isinstance(each, dict) and "uri" in each}


def _skill(entry: Registration, message: Message) -> str:
    """The skill that a message names under the skill-selection extension; it has to be on the card."""
    chosen = message.metadata.get(SKILL_SELECTION) if isinstance(message.metadata, dict) else None
    if chosen is None:
        return ""
    known = {skill.id for skill in entry.card.skills} if entry.card else set()
    skill = chosen.get("skillId") if isinstance(chosen, dict) else None
    if skill not in known:
        raise BadMessage(f"message.metadata.{SKILL_SELECTION}.skillId", "is not a skill of this agent")
    return str(skill)


def _microseconds(text: str) -> int:
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadMessage("statusTimestampAfter", "is not a time of RFC 3339") from None
    if moment.tzinfo is None:
        raise BadMessage("statusTimestampAfter", "has no time zone")
    return int(moment.timestamp() * 1_000_000)
