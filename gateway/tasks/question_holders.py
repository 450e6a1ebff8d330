"""Agents whose sessions share questions: each question is shown and answered only in the task that holds it."""

from collections.abc import AsyncIterator, Collection
from contextlib import aclosing
from typing import Any, Final, cast

import structlog
from msgspec.structs import replace
from sqlalchemy import Connection, select, text

from adapters.contract import Adapter, Ask, Call, Event, Failed, Turn, VendorRef
from gateway.storage.database import Database, ReadFailed
from gateway.storage.tables import task_prompts, tasks
from gateway.tasks.contracts.prompts import BadPromptAnswer
from gateway.tasks.log import TaskRow, prompt_digest
from gateway.tasks.turns.recorder import GATEWAY_FAILURE
from registry.cards.card import FEATURES, Registration

FOREIGN_QUESTION: Final = "FOREIGN_QUESTION"  # failure kind: the agent repeats a question of another conversation
FOREIGN_QUESTION_TEXT: Final = "The agent repeated only questions of another conversation"
UNREADABLE_TEXT: Final = "The gateway cannot read its records now, so it cannot tell to which task the question belongs"
log = structlog.get_logger()


def shares_questions(target: Registration) -> bool:
    """Returns whether a session of this agent may repeat questions of another session."""
    return bool(target.facts.get(FEATURES, {}).get("shares_questions"))


class OwnQuestionsAdapter:
    """Wraps the adapter of an agent that shares questions between sessions. Drops and logs questions that another task holds."""

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
    """Raises BadPromptAnswer if an older task holds the question that the turn answers, and ReadFailed."""
    holders = await find_holders(database, row, {answer.prompt.id for answer in turn.answers})
    if any(holder < row.id for holder in holders.values()):
        raise BadPromptAnswer("message.taskId", "names a task that shows the question of another conversation; cancel the task")


async def find_holders(database: Database, row: TaskRow, prompt_ids: Collection[str]) -> dict[str, str]:
    """Returns which other task of the agent holds each prompt: task ids by prompt id. Raises ReadFailed."""
    return await database.read(lambda connection: _read_holders(connection, row, prompt_ids)) if prompt_ids else {}


def _read_holders(connection: Connection, row: TaskRow, prompt_ids: Collection[str]) -> dict[str, str]:
    same = (tasks.c.tenant == row.tenant) & (tasks.c.agent == row.agent) & (tasks.c.id != row.id)
    by_digest = {prompt_digest(each): each for each in prompt_ids}
    owned = (task_prompts.c.tenant == tasks.c.tenant) & (task_prompts.c.task_id == tasks.c.id)
    is_waiting = text("tasks.state = 'TASK_STATE_INPUT_REQUIRED'")  # as the index says it
    named = task_prompts.c.prompt_digest.in_(by_digest)
    query = select(tasks.c.id, task_prompts.c.prompt_digest).join(tasks, owned).where(same, is_waiting, named).order_by(tasks.c.id)
    found: dict[str, str] = {}
    for task_id, digest in connection.execute(query).all():
        found.setdefault(by_digest[digest], task_id)
    return found


_: type[Adapter] = OwnQuestionsAdapter
