"""Agents whose sessions share state: a question that a task holds is shown in no other task, and answered by none."""

from collections.abc import AsyncIterator, Collection
from contextlib import aclosing
from typing import Any, Final, cast

import msgspec
import structlog
from msgspec.structs import replace
from sqlalchemy import Connection, or_, select, text

from adapters.contract import Adapter, Ask, Call, Event, Failed, Turn, VendorRef
from gateway.storage.database import Database, ReadFailed
from gateway.storage.tables import tasks
from gateway.tasks.contracts.prompts import BadPromptAnswer, open_prompts
from gateway.tasks.events.entries import TaskRow
from gateway.tasks.turns.store import GATEWAY_FAILURE
from registry.cards.card import FEATURES, Registration

FOREIGN_QUESTION: Final = "FOREIGN_QUESTION"  # the kind of a failure: the agent asks what it asked in another conversation
FOREIGN_QUESTION_TEXT: Final = "The agent asks nothing but what it asked in another conversation"
UNREADABLE_TEXT: Final = "The gateway can't read its records now, so it does not know whose question this is"
log = structlog.get_logger()


def shares_questions(target: Registration) -> bool:
    """Whether one session of this agent may tell the questions of another."""
    return bool(target.facts.get(FEATURES, {}).get("shares_questions"))


class OwnQuestionsAdapter:
    """An Adapter around one whose agent shares questions between sessions. What another task of any caller holds is dropped and logged."""

    def __init__(self, inner: Adapter, database: Database, row: TaskRow) -> None:
        self._inner = inner
        self._database = database
        self._row = row

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        async with aclosing(cast("Any", self._inner.run(turn, call))) as events:
            async for event in events:
                yield await self._drop_foreign(event) if isinstance(event, Ask) and event.prompts else event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return await self._inner.cancel(ref, call)

    async def _drop_foreign(self, ask: Ask) -> Event:
        try:
            holders = await find_holders(self._database, self._row, {prompt.id for prompt in ask.prompts})
        except ReadFailed:
            return Failed(UNREADABLE_TEXT, kind=GATEWAY_FAILURE, retryable=True)
        if not holders:
            return ask
        log.warning("question_dropped", agent=self._row.agent, task_id=self._row.id, held_by=holders)
        own = tuple(prompt for prompt in ask.prompts if prompt.id not in holders)
        return replace(ask, prompts=own) if own else Failed(FOREIGN_QUESTION_TEXT, kind=FOREIGN_QUESTION)


async def check_own_question(database: Database, row: TaskRow, turn: Turn) -> None:
    """Whether what a task answers is its own question. Raises BadAnswer where an older task holds it too, and NotRead."""
    holders = await find_holders(database, row, {answer.prompt.id for answer in turn.answers})
    if any(holder < row.id for holder in holders.values()):
        raise BadPromptAnswer("message.taskId", "names a task that shows the question of another conversation; cancel the task")


async def find_holders(database: Database, row: TaskRow, prompt_ids: Collection[str]) -> dict[str, str]:
    """Which other task with the agent waits for the answer to a prompt: its id, by that of the prompt. Raises NotRead."""
    return await database.read(lambda connection: _read_holders(connection, row, prompt_ids)) if prompt_ids else {}


def _read_holders(connection: Connection, row: TaskRow, prompt_ids: Collection[str]) -> dict[str, str]:
    same = (tasks.c.tenant == row.tenant) & (tasks.c.agent == row.agent) & (tasks.c.id != row.id)
    named = or_(*(tasks.c.vendor_ref.contains(msgspec.json.encode(each).decode(), autoescape=True) for each in prompt_ids))
    asking = text("state = 'TASK_STATE_INPUT_REQUIRED'")  # as the index says it
    query = select(tasks.c.id, tasks.c.vendor_ref).where(same, asking, named).order_by(tasks.c.id)
    found: dict[str, str] = {}
    for task_id, vendor_ref in connection.execute(query).all():
        for prompt in open_prompts(vendor_ref):
            if prompt.id in prompt_ids:
                found.setdefault(prompt.id, task_id)
    return found


_: type[Adapter] = OwnQuestionsAdapter
