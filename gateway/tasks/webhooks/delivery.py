"""Delivers notifications to webhooks: signed, in order, and retried a limited number of times."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from adapters.a2a_client.wire.v03 import task_json
from adapters.contract import UpstreamFault
from adapters.task import encode
from adapters.upstream.egress import Egress, EgressRefused
from gateway.tasks.log import TaskLog, TaskRecord, UnknownTask, stream_response, task_from_events
from gateway.tasks.webhooks.outbox import Delivery, Outbox
from policies.keys.signing import SigningKeys

DELIVERY_ROUND_SECONDS = 0.25
CONCURRENT_MAX = 40  # concurrent deliveries of one process; one tenant may have fewer
ATTEMPT_SECONDS = 15.0  # seconds for one attempt (A2A 1.0 s4.3.3: 10 to 30)
RETRY_SECONDS = (1, 4, 15, 60, 300, 1800)  # seconds between attempts, plus or minus a fifth
SIGNATURE_SECONDS = 300  # lifetime of a signature
RESPONSE_BYTES_MAX = 1 << 16  # bytes of a response that are read, so that the connection can be reused
CLOSING_SECONDS = 2.0
SIGNATURE_HEADER = "Interlock-Signature"
SIGNATURE_TYPE = "webhook+jwt"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WebhookSigner:
    """Signs notifications, so that a webhook can verify sender, receiver, time and content. `now` returns seconds since 1970."""

    signing_keys: SigningKeys
    issuer: str
    now: Callable[[], float]

    def sign(self, delivery: Delivery, body: bytes) -> str:
        """Returns a JWT for the keys of the gateway's JWKS. `jti` is the same for each attempt; `sha256` is the body's digest in hex."""
        return self.sign_for(delivery.url, delivery.id, body)

    def sign_for(self, url: str, id: str, body: bytes) -> str:
        """Returns the JWT for a notification to a URL that is no task's webhook. `id` becomes its `jti`."""
        at = int(self.now())
        claims = {"iss": self.issuer, "aud": url, "iat": at, "exp": at + SIGNATURE_SECONDS, "jti": id}
        return self.signing_keys.sign({**claims, "sha256": hashlib.sha256(body).hexdigest()}, SIGNATURE_TYPE)


class WebhookDelivery:
    """Delivers the notifications of one process. Deliveries without a result are sent again, by this or another process."""

    def __init__(
        self, outbox: Outbox, tasks: TaskLog, egress: Egress, signer: WebhookSigner, jitter: Callable[[], float] = random.random
    ) -> None:
        """`jitter` returns numbers from 0 to 1, which spread the retries over time."""
        self._outbox = outbox
        self._tasks = tasks
        self._egress = egress
        self._signer = signer
        self._jitter = jitter
        self._in_flight: dict[asyncio.Task[None], str] = {}

    async def run_once(self) -> None:
        """Acquires due deliveries and starts to send them, without waiting for the results."""
        free = CONCURRENT_MAX - len(self._in_flight)
        if free <= 0:
            return
        for delivery in await self._outbox.acquire_due(free, Counter(self._in_flight.values())):
            task = asyncio.create_task(self._send_in_order(delivery))
            self._in_flight[task] = delivery.owner
            task.add_done_callback(lambda done: self._in_flight.pop(done, None))

    async def close(self) -> None:
        """Waits CLOSING_SECONDS for deliveries in flight and cancels the rest, which another process sends again."""
        if self._in_flight:
            await asyncio.wait(list(self._in_flight), timeout=CLOSING_SECONDS)
        for task in list(self._in_flight):
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def _send_in_order(self, first: Delivery) -> None:
        """Sends a delivery and the next ones of the same config, as long as they succeed."""
        delivery: Delivery | None = first
        try:
            while delivery is not None:
                delivery = await self._attempt(delivery)
        except Exception:  # the root of an asyncio task: a delivery without a result is sent again
            log.exception("push_broke", task_id=first.task_id)

    async def _attempt(self, delivery: Delivery) -> Delivery | None:
        """Makes one attempt. Returns the next delivery of the config after a success, else None."""
        lasting, failure = False, ""
        try:
            content = await self._build_body(delivery)
            failure = await self._post(delivery, *content) if content else ""
        except EgressRefused as refused:
            lasting, failure = True, f"refused: {refused.public}"
        except UnknownTask:
            lasting, failure = True, "the task is gone"
        if not failure:
            return await self._outbox.complete(delivery)
        lasting = lasting or delivery.attempts > len(RETRY_SECONDS)
        await self._outbox.record_failure(delivery, failure, None if lasting else self._retry_delay_us(delivery.attempts))
        log.warning("push_failed", delivery=delivery.id, task_id=delivery.task_id, attempt=delivery.attempts, dead=lasting, reason=failure)
        return None

    def _retry_delay_us(self, attempts: int) -> int:
        """Returns the microseconds until the next attempt."""
        return int(RETRY_SECONDS[attempts - 1] * (0.8 + 0.4 * self._jitter()) * 1_000_000)

    async def _post(self, delivery: Delivery, body: bytes, media_type: str) -> str:
        """Returns why the delivery failed, or an empty text after success. Raises EgressRefused."""
        headers = {"Content-Type": media_type, SIGNATURE_HEADER: self._signer.sign(delivery, body), **_credential_headers(delivery)}
        try:
            async with self._egress.stream("POST", delivery.url, headers=headers, body=body, timeout=ATTEMPT_SECONDS) as answer:
                with suppress(UpstreamFault):
                    await answer.read(RESPONSE_BYTES_MAX)
                return "" if 200 <= answer.status < 300 else f"the webhook answered with HTTP {answer.status}"
        except UpstreamFault as fault:
            return fault.public

    async def _build_body(self, delivery: Delivery) -> tuple[bytes, str] | None:
        """Returns the body and its media type, or None if the webhook gets no notification of the event.

        A2A 1.0 gets the stream update for the event (s4.3.3), A2A 0.3 the task as it was after the event.
        """
        row = await self._tasks.find(delivery.tenant, delivery.owner, delivery.task_id)
        if delivery.version.startswith("0."):
            record = await self._tasks.read_record(row.tenant, row.owner, row.id)
            return encode(task_json(_task_as_of(record, delivery.seq))), "application/json"
        record = await self._tasks.read_since(row, delivery.seq - 1)
        response = stream_response(record.row, record.events[0])
        return None if response is None else (encode(response), "application/a2a+json")


def _task_as_of(record: TaskRecord, seq: int) -> Any:
    return task_from_events(record.row, [event for event in record.events if event.seq <= seq])


def _credential_headers(delivery: Delivery) -> dict[str, str]:
    secrets, headers = delivery.secrets, {}
    if secrets.token:
        headers["X-A2A-Notification-Token"] = secrets.token
    if secrets.credentials:
        headers["Authorization"] = f"{secrets.scheme} {secrets.credentials}"
    return headers
