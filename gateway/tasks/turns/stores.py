"""The stores that the parts of a call share."""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.storage.database import Database
from gateway.tasks.log import TaskLog
from gateway.tasks.turns.journal import DEFAULT_TURN_LIMITS, TurnLimits
from policies.audit.log import AuditLog
from policies.delegation.grants import Grants


@dataclass(frozen=True, slots=True)
class TaskStores:
    """The stores of tasks, whose writes share one commit."""

    database: Database
    audit: AuditLog
    grants: Grants
    tasks: TaskLog
    new_id: Callable[[str], str]
    now: Callable[[], int]
    turn_limits: TurnLimits = DEFAULT_TURN_LIMITS
