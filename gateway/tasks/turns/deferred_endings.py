"""Writes endings of tasks later that the database did not accept in time."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gateway.storage.database import ReadFailed, WriteFailed

RETRY_FIRST_SECONDS = 0.1  # doubled after each failure, up to RETRY_MAX_SECONDS
RETRY_MAX_SECONDS = 5.0
TURN_ENDING, STOP_ENDING = "turn", "stop"  # the agent's ending of its turn, or a stop by the gateway
log = structlog.get_logger()


class DeferredEndings:
    """The endings still to be written, by task and kind."""

    def __init__(self, pause: Callable[[float], Awaitable[None]]) -> None:
        self._pause = pause
        self._retries: dict[tuple[str, str], asyncio.Task[None]] = {}

    def retry_until_written(self, task_id: str, kind: str, write: Callable[[], Awaitable[object]]) -> None:
        """Repeats `write` until it succeeds. Does nothing if the task has a pending ending of this kind."""
        key = (task_id, kind)
        if key not in self._retries:
            self._retries[key] = asyncio.create_task(self._retry(task_id, write))
            self._retries[key].add_done_callback(lambda _: self._retries.pop(key, None))

    def __contains__(self, task_id: object) -> bool:
        return any((task_id, kind) in self._retries for kind in (TURN_ENDING, STOP_ENDING))

    def __len__(self) -> int:
        return len(self._retries)

    async def close(self) -> None:
        """Gives up on the endings that are not written yet."""
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
                log.info("ending_written", task_id=task_id)
                return
            except (WriteFailed, ReadFailed) as error:
                log.warning("ending_postponed", task_id=task_id, error=type(error).__name__)
            except Exception:  # the root of an asyncio task: takeover later finds and ends the lost task
                log.exception("ending_lost", task_id=task_id)
                return
