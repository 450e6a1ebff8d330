"""Sends notices to the operator's webhooks: signed, in order, each again until the webhook takes or refuses it, or no attempt is left."""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import Connection, func, select

from adapters.contract import UpstreamFault
from adapters.upstream.egress import Egress, EgressRefused
from gateway.storage.database import Batch, Database
from gateway.storage.tables import notice_webhooks, notices
from gateway.tasks.notices.feed import Notice, read_after
from gateway.tasks.webhooks.delivery import ATTEMPT_SECONDS, RESPONSE_BYTES_MAX, RETRY_SECONDS, SIGNATURE_HEADER, WebhookSigner

LEASE_US: Final = 60_000_000  # after which another process sends to a webhook whose process has ended
PASSING: Final = (408, 429)  # of the statuses 4xx, those that don't refuse the notice itself
BATCH_SIZE: Final = 20  # notices of one lease: fewer attempts than a lease has time for
MEDIA_TYPE: Final = "application/cloudevents+json"
_ADD: Final = "INSERT INTO notice_webhooks (id, cursor, attempts, next_at) VALUES (?, ?, 0, 0) ON CONFLICT DO NOTHING"
_LEASE: Final = "UPDATE notice_webhooks SET next_at = ? WHERE id = ? AND next_at <= ?"
_ADVANCE: Final = "UPDATE notice_webhooks SET cursor = ?, attempts = 0, next_at = ? WHERE id = ?"
_POSTPONE: Final = "UPDATE notice_webhooks SET attempts = attempts + 1, next_at = ? WHERE id = ?"
log = structlog.get_logger()


class NoticeNotifier:
    """Sends notices to webhooks. Several processes may share them; one at a time sends to a webhook."""

    def __init__(
        self,
        database: Database,
        egress: Egress,
        signer: WebhookSigner,
        urls: Sequence[str],
        now: Callable[[], int],
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`now` returns microseconds since 1970, `jitter` numbers from 0 to 1."""
        self._database = database
        self._egress = egress
        self._signer = signer
        self._urls = {hashlib.sha256(url.encode()).hexdigest()[:32]: url for url in urls}
        self._now = now
        self._jitter = jitter

    @property
    def rounds(self) -> list[Callable[[], Awaitable[None]]]:
        """For each webhook, what sends it what is due, so that a slow webhook holds up no other."""
        return [partial(self._serve, webhook, url) for webhook, url in self._urls.items()]

    async def run_once(self) -> None:
        """Sends what is due to every webhook. A webhook that is new gets what happens from now on."""
        await asyncio.gather(*(serve() for serve in self.rounds))

    async def _serve(self, webhook: str, url: str) -> None:
        """Sends due notices to one webhook, unless another process is at it."""
        state = await self._database.read(lambda connection: _read_state(connection, webhook))
        if state is None:
            await self._database.write(lambda batch: _add(batch, webhook))
            return
        now = self._now()
        seen = state.cursor
        if state.next_at > now or not await self._database.read(lambda connection: read_after(connection, seen, limit=1)):
            return
        if not await self._database.write(lambda batch: batch.run(_LEASE, (now + LEASE_US, webhook, now))):
            return
        state = await self._database.read(lambda connection: _read_state(connection, webhook)) or state
        cursor = state.cursor
        for notice in await self._database.read(lambda connection: read_after(connection, cursor, limit=BATCH_SIZE)):
            failure = await self._send(url, notice)
            if failure is not None and not failure.is_refusal:
                await self._record_failure(webhook, notice, failure.reason, state.attempts + 1)
                return
            if failure is not None:  # it would be refused again; the feed still has it
                log.error("notice_refused", notice=notice.seq, kind=notice.kind, subject=notice.subject, reason=failure.reason)
            state = _State(notice.seq, 0, 0)
            await self._advance(webhook, state.cursor, self._now() + LEASE_US)
        await self._advance(webhook, state.cursor, self._now())

    async def _advance(self, webhook: str, cursor: int, next_at: int) -> None:
        await self._database.write(lambda batch: batch.run(_ADVANCE, (cursor, next_at, webhook)))

    async def _record_failure(self, webhook: str, notice: Notice, failure: str, attempts: int) -> None:
        """Schedules the next attempt, or leaves the notice out after the last one: the feed still has it."""
        log.warning("notice_failed", notice=notice.seq, kind=notice.kind, attempt=attempts, reason=failure)
        if attempts > len(RETRY_SECONDS):
            log.error("notice_dropped", notice=notice.seq, kind=notice.kind, subject=notice.subject)
            await self._advance(webhook, notice.seq, self._now())
            return
        wait = int(RETRY_SECONDS[attempts - 1] * (0.8 + 0.4 * self._jitter()) * 1_000_000)
        await self._database.write(lambda batch: batch.run(_POSTPONE, (self._now() + wait, webhook)))

    async def _send(self, url: str, notice: Notice) -> "_Failure | None":
        """Returns why the webhook did not take a notice, or None."""
        body = cloud_event(notice, self._signer.issuer)
        headers = {"Content-Type": MEDIA_TYPE, SIGNATURE_HEADER: self._signer.sign_for(url, _id_of(notice), body)}
        try:
            async with self._egress.stream("POST", url, headers=headers, body=body, timeout=ATTEMPT_SECONDS) as answer:
                with suppress(UpstreamFault):
                    await answer.read(RESPONSE_BYTES_MAX)
                return _failure_of(answer.status)
        except (UpstreamFault, EgressRefused) as fault:
            return _Failure(fault.public)


class _Failure(msgspec.Struct, frozen=True):
    """Why a webhook did not take a notice, and whether it refused the notice, which it would do again."""

    reason: str
    is_refusal: bool = False


class _State(msgspec.Struct, frozen=True):
    """Up to which notice a webhook has all, how often the next one failed, and when it is due."""

    cursor: int
    attempts: int
    next_at: int


def cloud_event(notice: Notice, source: str) -> bytes:
    """A notice as a CloudEvent 1.0 in JSON."""
    at = datetime.fromtimestamp(notice.at / 1_000_000, UTC).isoformat().replace("+00:00", "Z")
    head: dict[str, Any] = {"specversion": "1.0", "type": f"interlock.{notice.kind}.v1", "source": source, "id": _id_of(notice), "time": at}
    data = {"tenant": notice.tenant, "owner": notice.owner, "task_id": notice.task_id, **notice.body}
    return msgspec.json.encode(head | {"subject": notice.subject, "datacontenttype": "application/json", "data": data})


def _failure_of(status: int) -> _Failure | None:
    if 200 <= status < 300:
        return None
    return _Failure(f"the webhook answered with HTTP {status}", 400 <= status < 500 and status not in PASSING)


def _id_of(notice: Notice) -> str:
    return f"notice-{notice.seq}"


def _read_state(connection: Connection, webhook: str) -> "_State | None":
    row = connection.execute(select(notice_webhooks).where(notice_webhooks.c.id == webhook)).first()
    return None if row is None else _State(row.cursor, row.attempts, row.next_at)


def _add(batch: Batch, webhook: str) -> None:
    newest = batch.connection.execute(select(func.max(notices.c.seq))).scalar() or 0
    batch.run(_ADD, (webhook, newest))
