"""Sends events to the webhooks of the settings: signed as Standard Webhooks has it, in order per subject, retried, and dead in the end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog

from adapters.contract import UpstreamFault
from adapters.upstream.egress import Egress, EgressRefused
from adapters.upstream.targets import without_path
from gateway.events.queue import EventQueue, QueuedRow
from gateway.events.rules import WebhookRule
from gateway.events.standard_webhooks import BadSecret, read_secrets, sign

PARALLEL_MAX: Final = 16  # requests to one webhook at once
ATTEMPT_SECONDS: Final = 15.0
RESPONSE_MAX: Final = 1 << 16  # bytes of an answer that are read, so that the connection can be used again
GONE: Final = 410  # the webhook wants nothing of this event any more (Standard Webhooks, "Reliability and retries")
MEDIA_TYPE: Final = "application/cloudevents+json"
REMOVED_TEXT: Final = "the settings name this webhook no more"
ReadSecret = Callable[[str], str]  # the value of env:NAME or file:PATH; raises UpstreamFault
log = structlog.get_logger()


class EventDeliveries:
    """Sends what is due to each webhook. Several processes share the work."""

    def __init__(
        self, queue: EventQueue, webhooks: Sequence[WebhookRule], egress: Egress, read_secret: ReadSecret, now: Callable[[], float]
    ) -> None:
        """`now` returns seconds since 1970."""
        self._queue = queue
        self._webhooks = {webhook.id: webhook for webhook in webhooks}
        self._egress = egress
        self._read_secret = read_secret
        self._now = now

    @property
    def rounds(self) -> list[Callable[[], Awaitable[None]]]:
        """For each webhook, what sends it what is due, so that a slow webhook holds up no other."""
        return [partial(self._serve, webhook) for webhook in self._webhooks.values()]

    async def run_once(self) -> None:
        """Sends what is due to every webhook."""
        await asyncio.gather(*(serve() for serve in self.rounds))

    async def sweep(self) -> None:
        """Ends deliveries to webhooks that the settings name no more, and deletes old dead letters."""
        await self._queue.end_foreign(list(self._webhooks), REMOVED_TEXT)

    async def _serve(self, webhook: WebhookRule) -> None:
        while rows := await self._queue.acquire(PARALLEL_MAX, webhook.id):
            await asyncio.gather(*(self._attempt(webhook, row) for row in rows))

    async def _attempt(self, webhook: WebhookRule, row: QueuedRow) -> None:
        failure, is_lasting = await self._send(webhook, row)
        if not failure:
            await self._queue.finish(row)
            return
        is_dead = await self._queue.record_failure(row, failure, is_lasting=is_lasting)
        log.warning(
            "event_not_delivered", event_id=row.columns.event_id[:200], letter=row.id, attempt=row.attempts, dead=is_dead, reason=failure
        )

    async def _send(self, webhook: WebhookRule, row: QueuedRow) -> tuple[str, bool]:
        """Why the webhook did not take an event, or an empty text, and whether it never will."""
        body = row.columns.event.encode()
        try:
            secrets = read_secrets(self._read_secret(webhook.secret))
            headers = {"Content-Type": MEDIA_TYPE, **sign(secrets, row.id, int(self._now()), body)}
            async with self._egress.stream("POST", webhook.url, headers=headers, body=body, timeout=ATTEMPT_SECONDS) as answer:
                with suppress(UpstreamFault):
                    await answer.read(RESPONSE_MAX)
                is_taken = 200 <= answer.status < 300
                return "" if is_taken else f"the webhook answered with HTTP {answer.status}", answer.status == GONE
        except (UpstreamFault, EgressRefused) as fault:
            return fault.public, isinstance(fault, EgressRefused)
        except BadSecret as error:
            return f"the secret of the webhook {error}", False

    async def list_dead_letters(self, tenant: str, cursor: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """The events that a webhook did not take, the newest first. They contain no secrets and no content."""
        rows, following = await self._queue.list_dead_letters(tenant, cursor, limit)
        return [self._letter_of(row) for row in rows], following

    def _letter_of(self, row: Any) -> dict[str, Any]:
        webhook = self._webhooks.get(row.webhook)
        target = "" if webhook is None else without_path(webhook.url)  # the path may be a secret
        return {**letter_members(row), "kind": "event", "target": target, "agent": None, "task_id": None}

    async def retry(self, tenant: str, delivery_id: str) -> None:
        """Sends an event again, starting with the first attempt. Raises UnknownLetter."""
        await self._queue.retry(tenant, delivery_id)

    async def drop_letter(self, tenant: str, letter_id: str) -> None:
        """Gives a delivery up for good. Raises UnknownLetter."""
        await self._queue.drop_letter(tenant, letter_id)


def letter_members(row: Any) -> dict[str, Any]:
    """What a dead letter of an event says, whether it was to be sent or to start something."""
    names = ("id", "event_id", "subject", "attempts", "reason", "created", "updated")
    return {name: getattr(row, name) for name in names}
