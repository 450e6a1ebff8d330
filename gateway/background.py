"""Work that nobody waits for: what it fails of is in the log, and lost nowhere."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import structlog

log = structlog.get_logger()


def let_go(work: Coroutine[Any, Any, None], event: str, **named: str) -> "asyncio.Task[None]":
    """Begins it. A failure is logged as `event`, with what is `named`; an end by cancellation is none."""
    task = asyncio.create_task(work)
    task.add_done_callback(partial(_over, event, named))
    return task


def _over(event: str, named: dict[str, str], task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error(event, **named, exc_info=error)
