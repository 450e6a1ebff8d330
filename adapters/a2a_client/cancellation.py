"""CancelTask at an A2A agent (s3.1.5), and the state of the task afterwards."""

from collections.abc import Awaitable, Callable
from typing import Final

from adapters.a2a_client.peers import A2APeers
from adapters.a2a_client.wire.transport import METHOD_NOT_FOUND, TASK_NOT_CANCELABLE, TASK_NOT_FOUND, UNSUPPORTED_OPERATION, PeerError
from adapters.contract import Call, CannotCancel
from adapters.task import INTERRUPTED, TERMINAL, TaskState

_POLL_FIRST: Final = 0.05  # seconds
_POLL_MAX: Final = 2.0
_POLL_GROWTH: Final = 1.6
_NOTHING_TO_CANCEL: Final = (METHOD_NOT_FOUND, UNSUPPORTED_OPERATION, TASK_NOT_CANCELABLE, TASK_NOT_FOUND)


async def cancel_task(peers: A2APeers, call: Call, task_id: str, sleep: Callable[[float], Awaitable[None]]) -> bool:
    """Cancels a task and returns whether the agent shows it as canceled.

    Raises UpstreamFault, and CannotCancel where the agent has no such method or the task still waits for an answer.
    """
    try:
        task = await peers.task(call, task_id, cancel=True)
    except PeerError as error:
        if error.code in (METHOD_NOT_FOUND, UNSUPPORTED_OPERATION):
            raise CannotCancel from error
        if error.code == TASK_NOT_CANCELABLE:
            return await _was_canceled(peers, call, task_id)
        if error.code == TASK_NOT_FOUND:
            return False
        raise
    delay = _POLL_FIRST
    while task.status.state not in TERMINAL | INTERRUPTED:
        await sleep(delay)
        delay = min(delay * _POLL_GROWTH, _POLL_MAX)
        task = await peers.task(call, task_id)
    if task.status.state in INTERRUPTED:
        raise CannotCancel
    return task.status.state is TaskState.CANCELED


async def request_cancellation(peers: A2APeers, call: Call, task_id: str) -> bool:
    """Sends one CancelTask and returns whether the response shows the task as canceled. Raises UpstreamFault."""
    try:
        return (await peers.task(call, task_id, cancel=True)).status.state is TaskState.CANCELED
    except PeerError as error:
        if error.code in _NOTHING_TO_CANCEL:
            return False
        raise


async def _was_canceled(peers: A2APeers, call: Call, task_id: str) -> bool:
    """Whether a task that its agent refuses to cancel is already canceled. Raises CannotCancel for one that waits for an answer."""
    try:
        task = await peers.task(call, task_id)
    except PeerError:
        return False
    if task.status.state in INTERRUPTED:
        raise CannotCancel
    return task.status.state is TaskState.CANCELED
