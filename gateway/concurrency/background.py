"""Background work whose result is not awaited: failures are logged."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import structlog

log = structlog.get_logger()


def run_in_background(work: Coroutine[Any, Any, None], event: str, **log_fields: str) -> "asyncio.Task[None]":
    """Starts `work` as a task. A failure is logged as `event` with `log_fields`; a cancellation is not logged."""
    task = asyncio.create_task(work)
    task.add_done_callback(partial(_log_failure, event, log_fields))
    return task


def _log_failure(event: str, log_fields: dict[str, str], task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error(event, **log_fields, exc_info=error)
