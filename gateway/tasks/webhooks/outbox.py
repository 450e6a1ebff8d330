"""The outbox of push notifications: which event still has to reach which webhook, and when the next attempt is due.

The task's log makes an event durable; a config's `cursor` says up to which event deliveries exist. So an event needs one commit only,
by whichever process, and tasks without configs cost nothing.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, Select, exists, or_, select, text
from sqlalchemy.sql import ColumnElement

from adapters.task import TERMINAL, Role, TaskState
from adapters.upstream.targets import without_path
from gateway.storage.database import Batch, Database
from gateway.storage.paging import first_page
from gateway.storage.tables import ENDED_STATES, deliveries, push_configs, task_events, tasks
from policies.vault.envelope import EnvelopeEncryption

CONFIGS_BEHIND_MAX = 100  # configs that get their deliveries in one transaction
EVENTS_PER_CONFIG_MAX = 500  # events that become deliveries of one config in one transaction
PER_OWNER_MAX = 8  # deliveries to webhooks of one user in flight at once in one process
PER_TENANT_MAX = 32
LEASE_US = 30_000_000  # after which another process acquires a delivery without a result
_PENDING = text("deliveries.state = 'pending'")  # the condition of the partial index
_HAS_WORK = text("SELECT 1 FROM push_configs WHERE live = 1 UNION ALL SELECT 1 FROM deliveries WHERE state = 'pending' LIMIT 1")
_KEY_CONDITION = "tenant = ? AND task_id = ? AND config_id = ? AND seq = ? AND attempts = ?"


log = structlog.get_logger()


class UnknownDelivery(Exception):
    """No such dead letter exists in this tenant."""


class WebhookSecrets(msgspec.Struct, frozen=True):
    """The credentials that a webhook expects."""

    token: str = ""
    scheme: str = ""
    credentials: str = ""

    def __repr__(self) -> str:
        return "Secrets()"


FORMER_WEBHOOK_CONTEXT = 4  # number of leading context parts that earlier versions encrypted with


def webhook_context(tenant: str, task_id: str, config_id: str, url: str) -> tuple[str, ...]:
    """Returns the encryption context of a webhook's secrets.

    The URL is part of it, so that the secrets cannot be sent to another address after a change in the database.
    """
    return ("webhook", tenant, task_id, config_id, url)


class _MessageRole(msgspec.Struct):
    role: Role


_decode_role = msgspec.json.Decoder(_MessageRole).decode
_decode_secrets = msgspec.json.Decoder(WebhookSecrets).decode


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook. `attempts` includes the current one; `version` is the A2A version of the webhook's owner."""

    tenant: str
    task_id: str
    config_id: str
    seq: int
    id: str
    attempts: int
    owner: str
    url: str = field(repr=False)
    version: str
    secrets: WebhookSecrets = field(repr=False)

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """Returns the key of this attempt. It is outdated as soon as another process starts a further attempt."""
        return self.tenant, self.task_id, self.config_id, self.seq, self.attempts


@dataclass(frozen=True, slots=True)
class _ConfigBehind:
    """A config behind its task's log: the missing deliveries, and its cursor after they are added."""

    tenant: str
    task_id: str
    config_id: str
    cursor: int
    seqs: tuple[int, ...]
    new_cursor: int
    is_live: bool


class Outbox:
    """Stores deliveries. Several processes may share it; each delivery is in flight in one of them."""

    def __init__(self, database: Database, new_id: Callable[[str], str], now: Callable[[], int], sealing: EnvelopeEncryption) -> None:
        self._database = database
        self._sealing = sealing
        self._new_id = new_id
        self._now = now

    async def acquire_due(self, count: int, in_flight: Mapping[str, int]) -> list[Delivery]:
        """Acquires at most `count` due deliveries, each the first of its config. `in_flight` counts an owner's deliveries here."""
        late, due = await self._database.read(lambda connection: self._find_work(connection, in_flight))
        if not late and not due:
            return []
        return await self._database.write(lambda batch: self._acquire_due(batch, late, count, in_flight))

    async def complete(self, delivery: Delivery) -> Delivery | None:
        """Deletes a successful delivery, and acquires the next one of the same config if it is due."""
        return await self._database.write(lambda batch: self._complete(batch, delivery))

    async def record_failure(self, delivery: Delivery, reason: str, wait_us: int | None) -> None:
        """Schedules the next attempt after `wait_us` microseconds, or makes the delivery a dead letter if that is None."""
        now = self._now()
        state, next_at = ("dead", now) if wait_us is None else ("pending", now + wait_us)
        statement = f"UPDATE deliveries SET state = ?, reason = ?, next_at = ?, updated = ? WHERE {_KEY_CONDITION}"  # noqa: S608 (a constant)
        await self._database.write(lambda batch: batch.run(statement, (state, reason, next_at, now, *delivery.key)))

    async def list_dead_letters(self, tenant: str, cursor: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """Returns the dead letters of a tenant, newest first, and the cursor of the next page. They contain no secrets."""
        query = _deliveries_with_config(deliveries.c.created, deliveries.c.updated, deliveries.c.reason, push_configs.c.agent)
        query = query.where(text("deliveries.state = 'dead'"), deliveries.c.tenant == tenant)
        if cursor:
            query = query.where(deliveries.c.id < cursor)
        query = query.order_by(deliveries.c.id.desc()).limit(limit + 1)
        rows, following = first_page(await self._database.read(lambda connection: connection.execute(query).all()), limit)
        return [_dead_letter_document(row) for row in rows], following

    async def retry(self, tenant: str, delivery_id: str) -> None:
        """Restarts the attempts of a dead letter, ahead of later deliveries of its config. Raises UnknownDelivery."""
        now = self._now()
        statement = (
            "UPDATE deliveries SET state = 'pending', attempts = 0, next_at = ?, updated = ? WHERE tenant = ? AND id = ? AND state = 'dead'"
        )
        if not await self._database.write(lambda batch: batch.run(statement, (now, now, tenant, delivery_id))):
            raise UnknownDelivery

    async def drop_letter(self, tenant: str, letter_id: str) -> None:
        """Deletes a dead letter; later deliveries of its config go on. Raises UnknownDelivery."""
        statement = "DELETE FROM deliveries WHERE tenant = ? AND id = ? AND state = 'dead'"
        if not await self._database.write(lambda batch: batch.run(statement, (tenant, letter_id))):
            raise UnknownDelivery

    def _find_work(self, connection: Connection, in_flight: Mapping[str, int]) -> tuple[list[_ConfigBehind], bool]:
        if connection.execute(_HAS_WORK).first() is None:  # the usual case
            return [], False
        return _read_configs_behind(connection), connection.execute(self._due_query(in_flight).limit(1)).first() is not None

    def _due_query(self, in_flight: Mapping[str, int]) -> "Select[Any]":
        """Returns the query for due deliveries: the first of each config, of owners and tenants below their bounds."""
        full = [owner for owner, count in in_flight.items() if count >= PER_OWNER_MAX]
        crowded = [tenant for tenant, count in _count_by_tenant(in_flight).items() if count >= PER_TENANT_MAX]
        query = (
            _deliveries_with_config()
            .where(_PENDING, deliveries.c.next_at <= self._now(), _is_first_of_config())
            .order_by(deliveries.c.next_at)
        )
        if crowded:
            query = query.where(deliveries.c.tenant.not_in(crowded))
        return query.where(push_configs.c.owner.not_in(full)) if full else query

    def _acquire_due(self, batch: Batch, behind: Sequence[_ConfigBehind], count: int, in_flight: Mapping[str, int]) -> list[Delivery]:
        for each in behind:
            self._add_deliveries(batch, each)
        query = self._due_query(in_flight).limit(4 * count).with_for_update(of=deliveries, skip_locked=True)
        under_way, tenants = Counter(in_flight), _count_by_tenant(in_flight)
        taken: list[Delivery] = []
        for row in batch.connection.execute(query).all():
            if len(taken) < count and under_way[row.owner] < PER_OWNER_MAX and tenants[row.tenant] < PER_TENANT_MAX:
                under_way[row.owner] += 1
                tenants[row.tenant] += 1
                taken.append(self._acquire(batch, row))
        return taken

    def _add_deliveries(self, batch: Batch, behind: _ConfigBehind) -> None:
        """Adds the missing deliveries of a config, unless another process has added them."""
        moved = "UPDATE push_configs SET cursor = ?, live = ? WHERE tenant = ? AND task_id = ? AND id = ? AND cursor = ? AND live = 1"
        if not batch.run(moved, (behind.new_cursor, int(behind.is_live), behind.tenant, behind.task_id, behind.config_id, behind.cursor)):
            return
        now = self._now()
        for seq in behind.seqs:
            row = {"tenant": behind.tenant, "task_id": behind.task_id, "config_id": behind.config_id, "seq": seq, "id": self._new_id("n")}
            row |= {"attempts": 0, "next_at": now, "state": "pending", "reason": "", "created": now, "updated": now}
            batch.add(deliveries, row)

    def _acquire(self, batch: Batch, row: Any) -> Delivery:
        now = self._now()
        statement = f"UPDATE deliveries SET attempts = attempts + 1, next_at = ?, updated = ? WHERE {_KEY_CONDITION}"  # noqa: S608 (a constant)
        batch.run(statement, (now + LEASE_US, now, row.tenant, row.task_id, row.config_id, row.seq, row.attempts))
        whose = (row.tenant, row.task_id, row.config_id, row.seq, row.id, row.attempts + 1, row.owner)
        return Delivery(*whose, url=row.url, version=row.version, secrets=self._open_secrets(row))

    def _open_secrets(self, row: Any) -> WebhookSecrets:
        """Decrypts the secrets. If that fails, the delivery is sent without them, and the webhook may refuse it."""
        try:
            place = webhook_context(row.tenant, row.task_id, row.config_id, row.url)
            return _decode_secrets(self._sealing.open_text(place, row.secrets, place[:FORMER_WEBHOOK_CONTEXT]))
        except ValueError as error:
            log.error("webhook_secrets_unusable", task_id=row.task_id, why=str(error))
            return WebhookSecrets()

    def _complete(self, batch: Batch, delivery: Delivery) -> Delivery | None:
        if not batch.run(f"DELETE FROM deliveries WHERE {_KEY_CONDITION}", delivery.key):  # noqa: S608 (a constant)
            return None
        same = (deliveries.c.tenant == delivery.tenant) & (deliveries.c.task_id == delivery.task_id)
        query = _deliveries_with_config().where(_PENDING, same, deliveries.c.config_id == delivery.config_id).order_by(deliveries.c.seq)
        row = batch.connection.execute(query.limit(1).with_for_update(of=deliveries)).first()
        return self._acquire(batch, row) if row is not None and row.next_at <= self._now() else None


def _read_configs_behind(connection: Connection) -> list[_ConfigBehind]:
    configs = push_configs.c
    whose = (tasks.c.tenant == configs.tenant) & (tasks.c.id == configs.task_id)
    behind = or_(tasks.c.last_seq > configs.cursor, tasks.c.state.in_(ENDED_STATES))
    query = select(configs.tenant, configs.task_id, configs.id, configs.cursor, tasks.c.last_seq, tasks.c.state).join_from(
        push_configs, tasks, whose
    )
    rows = connection.execute(query.where(text("push_configs.live = 1"), behind).limit(CONFIGS_BEHIND_MAX)).all()
    return [_missing_deliveries(connection, row) for row in rows]


def _missing_deliveries(connection: Connection, row: Any) -> _ConfigBehind:
    match = (task_events.c.tenant == row.tenant) & (task_events.c.task_id == row.task_id)
    query = select(task_events.c.seq, task_events.c.kind, task_events.c.body)
    query = (
        query.where(match, task_events.c.seq.between(row.cursor + 1, row.last_seq)).order_by(task_events.c.seq).limit(EVENTS_PER_CONFIG_MAX)
    )
    events = connection.execute(query).all()
    upto = events[-1].seq if len(events) == EVENTS_PER_CONFIG_MAX else row.last_seq
    seqs = tuple(event.seq for event in events if _is_notified(event))
    live = upto < row.last_seq or TaskState(row.state) not in TERMINAL
    return _ConfigBehind(row.tenant, row.task_id, row.id, row.cursor, seqs, upto, live)


def _is_notified(event: Any) -> bool:
    """Returns whether webhooks are notified of an event. Like streams, they do not get the user's own messages."""
    return event.kind in ("status", "artifact") or (event.kind == "message" and _decode_role(event.body).role is Role.AGENT)


def _count_by_tenant(owners: Mapping[str, int]) -> Counter[str]:
    """Sums counts by owner (tenant|issuer|subject) to counts by tenant."""
    counts: Counter[str] = Counter()
    for owner, count in owners.items():
        counts[owner.partition("|")[0]] += count
    return counts


def _deliveries_with_config(*more: ColumnElement[Any]) -> "Select[Any]":
    row, config = deliveries.c, push_configs.c
    whose = (config.tenant == row.tenant) & (config.task_id == row.task_id) & (config.id == row.config_id)
    columns = (row.tenant, row.task_id, row.config_id, row.seq, row.id, row.attempts, row.next_at)
    return select(*columns, config.owner, config.url, config.version, config.secrets, *more).join_from(deliveries, push_configs, whose)


def _is_first_of_config() -> ColumnElement[bool]:
    """Returns the condition that no earlier event waits for the same webhook."""
    earlier = deliveries.alias("earlier")
    same = (earlier.c.tenant == deliveries.c.tenant) & (earlier.c.task_id == deliveries.c.task_id)
    waits = (earlier.c.config_id == deliveries.c.config_id) & (earlier.c.state == "pending") & (earlier.c.seq < deliveries.c.seq)
    return ~exists().where(same, waits)


def _dead_letter_document(row: Any) -> dict[str, Any]:
    """Returns the JSON of a dead letter. It has only the host of the URL, because the path may be a secret."""
    names = ("id", "task_id", "agent", "owner", "config_id", "seq", "attempts", "reason", "created", "updated")
    return {"kind": "notification", **{name: getattr(row, name) for name in names}, "target": without_path(row.url)}
