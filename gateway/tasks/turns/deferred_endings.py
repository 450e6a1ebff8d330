"""What could not be kept in time is kept later, while its task is known to be looked after."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gateway.storage.database import ReadFailed, WriteFailed

RETRY_FIRST_SECONDS = 0.1  # seconds, doubled up to
RETRY_MAX_SECONDS = 5.0
TURN_ENDING, STOP_ENDING = "turn", "stop"  # whose ending
log = structlog.get_logger()


class DeferredEndings:
    """What is still to be kept, by task and what it is: its turn's ending, and one by somebody else's hand."""

    def __init__(self, pause: Callable[[float], Awaitable[None]]) -> None:
        self._pause = pause
        self._retries: dict[tuple[str, str], asyncio.Task[None]] = {}

    def retry_until_written(self, task_id: str, kind: str, write: Callable[[], Awaitable[object]]) -> None:
        """Tries until it is kept. What is tried already is not tried twice."""
        key = (task_id, kind)
        if key not in self._retries:
            self._retries[key] = asyncio.create_task(self._retry(task_id, write))
            self._retries[key].add_done_callback(lambda _: self._retries.pop(key, None))

    def __contains__(self, task_id: object) -> bool:
        return any((task_id, what) in self._retries for what in (TURN_ENDING, STOP_ENDING))

    def __len__(self) -> int:
        return len(self._retries)

    async def close(self) -> None:
        """Gives up on what is still to be kept."""
        for waiting in self._retries.values():
            waiting.cancel()
        await asyncio.gather(*self._retries.values(), return_exceptions=True)

    async def _retry(self, task_id: str, write: Callable[[], Awaitable[object]]) -> None:
        seconds = RETRY_FIRST_SECONDS
        while True:
            await self._pause(seconds)
            seconds = min(2 * seconds, RETRY_MAX_SECONDS)
            try:
                await write()
                log.info("ending_kept", task_id=task_id)
                return
            except (WriteFailed, ReadFailed) as error:
                log.warning("ending_waits", task_id=task_id, error=type(error).__name__)
            except Exception:  # a task's root: the task is found to be abandoned, and ended without the answer
                log.exception("ending_lost", task_id=task_id)
                return
