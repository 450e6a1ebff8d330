"""A conversation of one caller with one agent: the session that a new task continues, and the open question that blocks new tasks."""

from collections.abc import Sequence
from uuid import UUID, uuid5

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from adapters.a2a_client.wire.dialects import resumes_by_context
from adapters.contract import ENDPOINT_KEY, VendorRef
from adapters.task import INTERRUPTED
from adapters.upstream.pending_consent import agent_ref
from adapters.vendors.sdk.agent import OpenQuestions
from gateway.storage.database import Database
from gateway.storage.paging import with_index
from gateway.storage.tables import WAITING_STATES, tasks
from gateway.tasks.contracts.prompts import BadPromptAnswer
from gateway.tasks.log import TaskRow, to_task_row
from gateway.tasks.reader import session_id_of
from registry.cards.card import FEATURES, QUESTIONS, Registration

RECENT_TASKS_MAX = 5  # tasks of a conversation that are searched for the agent's ids
_decode_ref = msgspec.json.Decoder(VendorRef).decode


class ConversationWaits(Exception):
    """Another task of the conversation, `task_id`, waits for an answer, and the agent's session holds one question at a time."""

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"The task {task_id} of this conversation waits for an answer, and the agent holds one question at a time. "
            "Answer or cancel that task first, or begin another conversation with a contextId of its own."
        )
        self.task_id = task_id


class OtherTasks(Struct, frozen=True):
    """The other tasks of a task's conversation: all that wait for an answer, and the most recently updated. Both are newest first."""

    waiting: tuple[TaskRow, ...] = ()
    recent: tuple[TaskRow, ...] = ()


async def read_other_tasks(database: Database, row: TaskRow) -> OtherTasks:
    """Reads the other tasks of the task's conversation. Raises ReadFailed.

    Tasks of another parent belong to another conversation, so an agent does not see the conversations of its user.
    """
    return await database.read(lambda connection: _read_other_tasks(connection, row))


async def referenced(database: Database, row: TaskRow, task_ids: Sequence[str]) -> tuple[str, ...]:
    """Returns the agent's ids of the tasks that a message for `row` refers to, in their order. Raises ReadFailed.

    Tasks of other users, agents and parents, and tasks without an agent's id, are left out.
    """
    same = (tasks.c.tenant == row.tenant) & (tasks.c.owner == row.owner) & (tasks.c.agent == row.agent)
    query = select(tasks.c.id, tasks.c.vendor_ref).where(same & (tasks.c.parent_id == row.parent_id) & tasks.c.id.in_(task_ids))
    found = await database.read(lambda connection: connection.execute(query).all())
    known = {each.id: agent_ref(_decode_ref(each.vendor_ref)).task_id for each in found}
    return tuple(dict.fromkeys(own for task_id in task_ids if (own := known.get(task_id))))


def holds_one_question(target: Registration) -> bool:
    """Returns whether a session of this agent holds one open question at a time, as its adapter or its operator declares."""
    features = target.facts.get(FEATURES)
    if features is None:
        return bool(target.upstream.get(QUESTIONS) == OpenQuestions.ONE)
    if features.get("parallel") or not features.get("resumes", True):
        return False
    return bool(features.get("questions", OpenQuestions.ONE) == OpenQuestions.ONE)


def check_no_open_question(target: Registration, others: OtherTasks) -> None:
    """Raises ConversationWaits if a new task would answer, drop or confuse the question of a waiting task."""
    for other in others.waiting:
        if blocks_other_tasks(target, other):
            raise ConversationWaits(other.id)


def check_question_is_current(target: Registration, row: TaskRow, others: OtherTasks) -> None:
    """Checks that the agent's session still holds the question of a waiting task.

    Raises ConversationWaits if the session has another open question, and BadPromptAnswer if the session has moved on without one.
    """
    later = [
        other for other in (*others.waiting, *others.recent) if other.updated > row.updated and _decode_ref(other.vendor_ref).context_id
    ]
    for other in later:
        if blocks_other_tasks(target, other) and other.state in INTERRUPTED:
            raise ConversationWaits(other.id)
    if later:
        raise BadPromptAnswer(
            "message.taskId", "names a task whose question is gone: the conversation went on without an answer. Cancel the task"
        )


def ref_to_continue(target: Registration, row: TaskRow, others: OtherTasks) -> VendorRef | None:
    """Returns the session that a new task continues: the session of the last task, or a new one, or None without an earlier task.

    A new session replaces one that the agent has ended or lost, and one whose last task ended while its question may still be open.
    """
    for last in others.recent:
        ref = _decode_ref(last.vendor_ref)
        if ref.over or (last.has_ended and ref.prompts and holds_one_question(target)):
            return VendorRef(kept=ref.kept, session=str(uuid5(UUID(session_id_of(row)), last.id)))
        if ref.context_id or ref.session:
            where = {ENDPOINT_KEY: ref.extra[ENDPOINT_KEY]} if ENDPOINT_KEY in ref.extra else {}
            return VendorRef(context_id=ref.context_id, extra=where, kept=ref.kept, is_unused=ref.is_unused, session=ref.session)
    return None


def blocks_other_tasks(target: Registration, waiting: TaskRow) -> bool:
    """Returns whether the question of a waiting task is the only one that its session may hold."""
    ref = agent_ref(_decode_ref(waiting.vendor_ref))
    if FEATURES in target.facts:
        return holds_one_question(target) and bool(ref.prompts)
    return bool(ref.task_id) and (resumes_by_context(ref) or holds_one_question(target))


def _read_other_tasks(connection: Connection, row: TaskRow) -> OtherTasks:
    same = (tasks.c.tenant == row.tenant) & (tasks.c.owner == row.owner) & (tasks.c.context_id == row.context_id)
    others = same & (tasks.c.agent == row.agent) & (tasks.c.parent_id == row.parent_id) & (tasks.c.id != row.id)
    query = with_index(select(tasks).where(others).order_by(tasks.c.updated.desc(), tasks.c.id.desc()), tasks, "tasks_context")

    waiting = connection.execute(query.where(tasks.c.state.in_(WAITING_STATES)))
    return OtherTasks(tuple(map(to_task_row, waiting)), tuple(map(to_task_row, connection.execute(query.limit(RECENT_TASKS_MAX)))))
