"""Resumes tasks that waited for people one after another: which failures end a task, which wait for the next round, and how long."""

from collections.abc import Awaitable, Callable, Iterable

import structlog

from adapters.a2a_client.wire.v1 import BadMessage
from gateway.audit.explanations import explain_refusal
from gateway.calls.authorizer import CallRefused
from gateway.calls.consent.approval_requests import TooManyQuestions
from gateway.calls.limits.meters import BudgetSpent, TooManyCalls
from gateway.calls.revocation.running import KILLED, PUBLIC_TEXTS
from gateway.state.effects.repetitions import TaskUnderWay
from gateway.tasks.conversation import ConversationWaits
from gateway.tasks.log import TaskNotWaiting
from policies.callers import RolesOutdated
from policies.delegation.approval_rows import ApprovalGone
from policies.delegation.history import HistoryChanged
from policies.delegation.kills import Killed
from policies.tokens.verifier import TokenRefused
from registry.health.reachability import NotReachable
from registry.store import UnknownName

STALE_TEXT = "The request or its authority is no longer valid; send it again."
FAILED_MAX = 10_000  # tasks whose failures are counted
WAIT_MAX = 300.0  # upper bound of seconds between two attempts at a task
TRY_LATER = (
    *(ApprovalGone, TaskNotWaiting, HistoryChanged, TooManyCalls, BudgetSpent),
    *(ConversationWaits, NotReachable, RolesOutdated, TaskUnderWay),
)
log = structlog.get_logger()


class Rounds:
    """Resumes tasks one after another. A task that fails delays no other, and its own wait doubles with each failure.

    `now` returns seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failed: dict[str, tuple[int, float]] = {}  # task id: failures in a row, and when it is due again

    async def each_by_itself(self, due: Iterable[tuple[str, Callable[[], Awaitable[None]]]]) -> int:
        """Resumes each task that is due and returns how many were attempted. A recent failure postpones its task."""
        count = 0
        for task_id, go_on in due:
            times, again = self._failed.get(task_id, (0, 0.0))
            if self._now() < again:
                continue
            count += 1
            try:
                await go_on()
            except Exception as error:  # noqa: BLE001 (the root of the work on one task)
                log.error("task_not_resumed", task_id=task_id, error=type(error).__name__)
                self._note_failure(task_id, times + 1)
            else:
                self._failed.pop(task_id, None)
        return count

    def _note_failure(self, task_id: str, times: int) -> None:
        if len(self._failed) >= FAILED_MAX:
            self._failed.pop(next(iter(self._failed)))
        self._failed[task_id] = times, self._now() + min(float(1 << min(times, 10)), WAIT_MAX)


async def find_end_reason(resumption: Awaitable[None]) -> str:
    """Returns why a task cannot be resumed, as text for its owner, or an empty text.

    An empty text means that the task was resumed, or that the next run tries again. The next run tries again if another process has the
    task, there is no slot or no room in a budget, the agent is down, another task of its conversation waits for an answer, another task
    does the same work, or the person has to sign in again.
    """
    try:
        await resumption
    except TRY_LATER:
        return ""
    except CallRefused as refused:
        return explain_refusal(refused.ruling.decision)
    except Killed:
        return PUBLIC_TEXTS[KILLED]
    except (TokenRefused, UnknownName, BadMessage, TooManyQuestions):
        return STALE_TEXT
    return ""
