"""What could not be kept in time is kept later, while its task is known to be looked after."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gateway.storage.database import NotKept, NotRead

RETRY_FIRST = 0.1  # seconds, doubled up to
RETRY_MAX = 5.0
TURN, STOP = "turn", "stop"  # whose ending
log = structlog.get_logger()


class Late:
    """What is still to be kept, by task and what it is: its turn's ending, and one by somebody else's hand."""

    def __init__(self, pause: Callable[[float], Awaitable[None]]) -> None:
        self._pause = pause
        self._waiting: dict[tuple[str, str], asyncio.Task[None]] = {}

    def keep(self, task_id: str, what: str, act: Callable[[], Awaitable[object]]) -> None:
        """Tries until it is kept. What is tried already is not tried twice."""
        key = (task_id, what)
        if key not in self._waiting:
            self._waiting[key] = asyncio.create_task(self._keep(task_id, act))
            self._waiting[key].add_done_callback(lambda _: self._waiting.pop(key, None))

    def __contains__(self, task_id: object) -> bool:
        return any((task_id, what) in self._waiting for what in (TURN, STOP))

    def __len__(self) -> int:
        return len(self._waiting)

    async def close(self) -> None:
        """Gives up on what is still to be kept."""
        for waiting in self._waiting.values():
            waiting.cancel()
        await asyncio.gather(*self._waiting.values(), return_exceptions=True)

    async def _keep(self, task_id: str, act: Callable[[], Awaitable[object]]) -> None:
        seconds = RETRY_FIRST
        while True:
            await self._pause(seconds)
            seconds = min(2 * seconds, RETRY_MAX)
            try:
                await act()
                log.info("ending_kept", task_id=task_id)
                return
            except (NotKept, NotRead) as error:
                log.warning("ending_waits", task_id=task_id, error=type(error).__name__)
            except Exception:  # a task's root: the task is found to be abandoned, and ended without the answer
                log.exception("ending_lost", task_id=task_id)
                return
