"""The conversation of a context, as tasks already store it, under the rights of the caller."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gateway.state.memory.access import MemoryRights, note_reading
from gateway.state.memory.facts import PERSON, act_of_reading, scope_named
from policies.authority import RulingRequest
from policies.callers import Caller


class UnknownContext(Exception):
    """There is no such context, or the caller may not know of it."""


class ConversationText(Protocol):
    """One text of a task, and its author: `person` or the name of an agent."""

    @property
    def speaker(self) -> str: ...

    @property
    def text(self) -> str: ...


class ConversationTask(Protocol):
    """What was said in one task."""

    @property
    def task_id(self) -> str: ...

    @property
    def agent(self) -> str: ...

    @property
    def created(self) -> int: ...

    @property
    def sensitivity(self) -> int: ...

    @property
    def texts(self) -> Sequence[ConversationText]: ...


class ConversationReader(Protocol):
    """gateway/tasks/contexts.py."""

    async def context_of_task(self, tenant: str, owner: str, task_id: str) -> tuple[str, str] | None:
        """The context of a task and its calling task; None without such a task."""
        ...

    async def read(
        self,
        tenant: str,
        owner: str,
        context_id: str,
        *,
        parent_id: str | None,
        may_see: Callable[[str], bool],
        clearance: int,
        cursor: str,
        limit: int,
    ) -> tuple[Sequence[ConversationTask], str | None]:
        """A page of tasks and the cursor of the next."""
        ...


class ContextAccess:
    """Shows people the conversations of their contexts, and an agent that of the context in which it works now."""

    def __init__(self, conversations: ConversationReader, rights: MemoryRights) -> None:
        self._conversations = conversations
        self._rights = rights

    async def read(self, caller: Caller, context_id: str, cursor: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """A page of tasks with their texts, the newest task first. `created` is in microseconds since 1970.

        An agent needs `memory: read`, and is shown the tasks that the same caller began. Raises UnknownContext, BadCursor and CallRefused.
        """
        person, held = caller.principal, caller.delegation
        act = act_of_reading(scope_named(PERSON, person))
        await self._rights.rulings.grant_or_refuse(caller, RulingRequest(act, person.tenant))
        parent: str | None = None
        if held.path:
            own = await self._conversations.context_of_task(person.tenant, person.owner_key, held.task_id)
            if own is None or own[0] != context_id:
                raise UnknownContext
            parent = own[1]
        permissions = held.effective_permissions()
        found, following = await self._conversations.read(
            person.tenant,
            person.owner_key,
            context_id,
            parent_id=parent,
            may_see=lambda agent: permissions.covers(f"agent:{agent}"),
            clearance=self._rights.clearance_of(caller),
            cursor=cursor,
            limit=limit,
        )
        if not found and following is None and not cursor:
            raise UnknownContext
        await note_reading(self._rights, caller, act, [task.sensitivity for task in found])
        return [_document(task) for task in found], following


def _document(task: ConversationTask) -> dict[str, Any]:
    texts = [{"speaker": each.speaker, "text": each.text} for each in task.texts]
    return {"task_id": task.task_id, "agent": task.agent, "created": task.created, "texts": texts}
