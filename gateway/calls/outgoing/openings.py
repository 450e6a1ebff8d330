"""The commit that opens or continues a task."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import IntegrityError

from gateway.storage.database import Batch, WriteFailed
from gateway.tasks.log import IdempotencyKeyUsed, ParentTaskEnded
from gateway.tasks.turns.recorder import TurnState
from gateway.tasks.turns.stores import TaskStores
from policies.tokens.verifier import TokenRefused

R = TypeVar("R")


async def commit_opening(
    stores: TaskStores, work: Callable[[Batch], R], opened: TurnState, on_abandoned: Callable[[], object] | None = None
) -> R:
    """Runs `work`, which writes the first or the next events of a task, and publishes them to followers.

    Returns what `work` returns; anything but None says that it wrote nothing. Raises IdempotencyKeyUsed, TaskMoved, and TokenRefused if
    the task that caused this one has ended. Calls `on_abandoned` if the caller was canceled during the commit.
    """
    row = opened.row

    def finish_abandoned(refusal: R) -> None:
        if refusal is None:
            stores.tasks.publish(row, opened.events)
            if on_abandoned is not None:
                on_abandoned()

    try:
        refusal = await stores.database.write(work, finish_abandoned)
    except ParentTaskEnded:
        raise TokenRefused("grant-ended") from None
    except IntegrityError as error:
        raise (WriteFailed("an id was taken") if row.idempotency_key is None else IdempotencyKeyUsed()) from error
    if refusal is None:
        stores.tasks.publish(row, opened.events)
    return refusal
