"""Push notification configs: the webhooks that a task's owner registers for its events."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, Row, func, select, tuple_

from adapters.a2a_client.wire.v1 import BadMessage, check_id
from adapters.contract import UpstreamFault
from adapters.task import PushAuthentication, PushConfig
from adapters.upstream.egress import Egress
from adapters.upstream.targets import EgressRefused
from gateway.storage.database import Batch, Database
from gateway.storage.tables import push_configs
from gateway.tasks.log import TaskRow, UnknownTask
from gateway.tasks.webhooks.outbox import FORMER_WEBHOOK_CONTEXT, WebhookSecrets, webhook_context
from policies.vault.envelope import EnvelopeEncryption

CONFIGS_MAX = 20  # per task
SECRET_MAX = 4096  # characters
LOOKUPS_PER_OWNER = 8  # concurrent name lookups for one user's webhooks in one process
RESOLVE_SECONDS = 5.0  # for the first name lookup of a URL
_SCHEME_PATTERN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 s5.6.2: token
_HEADER_VALUE_PATTERN = re.compile(r"[!-~](?:[ -~]*[!-~])?")  # a header value without surrounding spaces and line breaks
_UPSERT_CONFIG = (
    "INSERT INTO push_configs (tenant, task_id, id, owner, agent, url, secrets, version, cursor, live, created) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, task_id, id) "
    "DO UPDATE SET url = excluded.url, secrets = excluded.secrets, version = excluded.version"
)


class UnknownPushConfig(Exception):
    """The task has no such config."""


class TooManyPushConfigs(Exception):
    """The task has CONFIGS_MAX configs."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A checked config. `version` is the A2A version in which its creator wants the notifications.

    `check_name` looks up the name of the config's URL, after the call that carries the config was granted. Raises BadMessage.
    """

    config: PushConfig
    version: str
    created: int  # microseconds since 1970
    sealing: EnvelopeEncryption
    check_name: Callable[[], Awaitable[None]]

    def write(self, batch: Batch, row: TaskRow, after_seq: int) -> None:
        """Stores the config for the events after number `after_seq`. Raises BadMessage for another task, and TooManyPushConfigs."""
        config = self.config
        if config.task_id not in ("", row.id):
            raise BadMessage("taskId", "is not the task that is asked about")
        others = _configs_of_task(row) & (push_configs.c.id != config.id)
        if batch.connection.execute(select(func.count()).select_from(push_configs).where(others)).scalar_one() >= CONFIGS_MAX:
            raise TooManyPushConfigs
        authentication = config.authentication
        scheme, credentials = ("", "") if isinstance(authentication, UnsetType) else (authentication.scheme, authentication.credentials)
        secrets = msgspec.json.encode(WebhookSecrets(config.token, scheme, credentials)).decode()
        secrets = self.sealing.seal_text(webhook_context(row.tenant, row.id, config.id, config.url), secrets)
        whose = (row.tenant, row.id, config.id, row.owner, row.agent)
        batch.run(_UPSERT_CONFIG, (*whose, config.url, secrets, self.version, after_seq, int(not row.has_ended), self.created))


class WebhookConfigs:
    """The configs of a task, for its owner only. Secrets of a config are never returned."""

    def __init__(
        self,
        database: Database,
        targets: Egress,
        new_id: Callable[[str], str],
        now: Callable[[], int],
        sealing: EnvelopeEncryption,
    ) -> None:
        self._sealing = sealing
        self._database = database
        self._targets = targets
        self._new_id = new_id
        self._now = now
        self._looking: Counter[str] = Counter()  # lookups in flight, by owner

    async def create(self, owner: str, row: TaskRow, config: PushConfig, version: str = "1.0") -> PushConfig:
        """Stores a config for all later events. A config of the same id is replaced and keeps its position.

        Raises BadMessage, TooManyPushConfigs and UnknownTask.
        """
        _check_owner(owner, row)
        others = select(func.count()).select_from(push_configs).where(_configs_of_task(row) & (push_configs.c.id != config.id))
        if await self._database.read(lambda connection: connection.execute(others).scalar_one()) >= CONFIGS_MAX:
            raise TooManyPushConfigs  # before the name lookup
        webhook = self.check_config(config, version, owner=owner)
        await webhook.check_name()
        await self._database.write_or_refuse(lambda batch: webhook.write(batch, row, row.last_seq), BadMessage, TooManyPushConfigs)
        return _without_secrets(webhook.config, row.id)

    def check_config(self, config: PushConfig, version: str, field_prefix: str = "", *, owner: str = "") -> Webhook:
        """Returns the config, with its text checked and with an id. Webhook.check_name looks up its name.

        `field_prefix` is its path in the request, with a dot. Raises BadMessage.
        """
        check_id(config.id, f"{field_prefix}id")
        _check_secrets(config, field_prefix)
        try:
            self._targets.check(config.url)
        except EgressRefused as refused:
            raise BadMessage(f"{field_prefix}url", f"is refused: {refused.public}") from refused
        named = msgspec.structs.replace(config, id=config.id or self._new_id("w"))
        return Webhook(named, version, self._now(), self._sealing, partial(self._check_name, config.url, field_prefix, owner))

    async def _check_name(self, url: str, field_prefix: str, owner: str) -> None:
        try:
            await self._look_up(url, owner)
        except EgressRefused as refused:
            raise BadMessage(f"{field_prefix}url", f"is refused: {refused.public}") from refused
        except (UpstreamFault, TimeoutError):
            pass  # the name has no address yet; each delivery vets the address again

    async def _look_up(self, url: str, owner: str) -> None:
        """Vets the addresses of the URL's name; does nothing for an owner with LOOKUPS_PER_OWNER lookups in flight.

        A lookup cannot be stopped, so it counts until its name server has answered, even if its request has given up. Raises
        EgressRefused, UpstreamFault and TimeoutError.
        """
        if self._looking[owner] >= LOOKUPS_PER_OWNER:
            return
        self._looking[owner] += 1
        looking = asyncio.ensure_future(self._targets.vet(url))
        looking.add_done_callback(lambda done: self._looked_up(owner, done))
        async with asyncio.timeout(RESOLVE_SECONDS):
            await asyncio.shield(looking)

    def _looked_up(self, owner: str, done: "asyncio.Future[None]") -> None:
        self._looking[owner] -= 1
        if not self._looking[owner]:
            del self._looking[owner]
        if not done.cancelled():
            done.exception()  # marks the exception as retrieved: the request may have given up

    async def get(self, owner: str, row: TaskRow, config_id: str) -> PushConfig:
        """Returns one config. Raises UnknownPushConfig and UnknownTask."""
        found = await self._read_configs(owner, row, push_configs.c.id == config_id)
        if not found:
            raise UnknownPushConfig
        return found[0]

    async def list(self, owner: str, row: TaskRow) -> tuple[PushConfig, ...]:
        """Returns all configs, oldest first. Raises UnknownTask."""
        return await self._read_configs(owner, row, push_configs.c.id != "")

    async def page(self, owner: str, row: TaskRow, size: int, token: str) -> tuple[tuple[PushConfig, ...], str]:
        """Returns at most `size` configs after the page that ended with `token`, oldest first, and the token of the next page, or empty.

        Raises BadMessage for an invalid token, and UnknownTask.
        """
        _check_owner(owner, row)
        order = tuple_(push_configs.c.created, push_configs.c.id)
        query = select(push_configs).where(_configs_of_task(row)).order_by(push_configs.c.created, push_configs.c.id).limit(size + 1)
        if token:
            query = query.where(order > tuple_(*_position(token)))
        found = await self._database.read(lambda connection: connection.execute(query).all())
        more = f"{found[size - 1].created}.{found[size - 1].id}" if len(found) > size else ""
        return tuple(self._config_from_row(each) for each in found[:size]), more

    async def delete(self, owner: str, row: TaskRow, config_id: str) -> None:
        """Deletes the config and its deliveries, dead letters included. Deleting an unknown config succeeds. Raises UnknownTask."""
        _check_owner(owner, row)
        key = (row.tenant, row.id, config_id)

        def work(batch: Batch) -> None:
            batch.run("DELETE FROM deliveries WHERE tenant = ? AND task_id = ? AND config_id = ?", key)
            batch.run("DELETE FROM push_configs WHERE tenant = ? AND task_id = ? AND id = ?", key)

        await self._database.write(work)

    async def _read_configs(self, owner: str, row: TaskRow, condition: ColumnElement[bool]) -> tuple[PushConfig, ...]:
        _check_owner(owner, row)
        query = select(push_configs).where(_configs_of_task(row), condition).order_by(push_configs.c.created, push_configs.c.id)
        return await self._database.read(lambda connection: tuple(self._config_from_row(found) for found in connection.execute(query)))

    def _config_from_row(self, row: "Row[Any]") -> PushConfig:
        place = webhook_context(row.tenant, row.task_id, row.id, row.url)
        try:
            secrets = self._sealing.open_text(place, row.secrets, place[:FORMER_WEBHOOK_CONTEXT])
            scheme = msgspec.json.decode(secrets, type=WebhookSecrets).scheme
        except ValueError:  # the row was changed or its key is gone: deliveries have no secrets and log that
            scheme = ""
        return PushConfig(url=row.url, id=row.id, task_id=row.task_id, authentication=PushAuthentication(scheme) if scheme else UNSET)


def _configs_of_task(row: TaskRow) -> ColumnElement[bool]:
    return (push_configs.c.tenant == row.tenant) & (push_configs.c.task_id == row.id) & (push_configs.c.owner == row.owner)


def _position(token: str) -> tuple[int, str]:
    """Returns when the last config of a page was created, and its id. Raises BadMessage."""
    created, _, config_id = token.partition(".")
    if not (config_id and created.isascii() and created.isdigit() and len(created) < 19):
        raise BadMessage("pageToken", "is not a token of this list")
    return int(created), config_id


def _check_owner(owner: str, row: TaskRow) -> None:
    if owner != row.owner:
        raise UnknownTask


def _check_secrets(config: PushConfig, field_prefix: str) -> None:
    """Raises BadMessage if a secret is no valid header value. The error does not quote the secret."""
    authentication = config.authentication
    if not isinstance(authentication, UnsetType):
        if not _SCHEME_PATTERN.fullmatch(authentication.scheme):
            raise BadMessage(f"{field_prefix}authentication.scheme", "is not the name of an authentication scheme")
        _check_secret(authentication.credentials, f"{field_prefix}authentication.credentials")
    _check_secret(config.token, f"{field_prefix}token")


def _check_secret(secret: str, field: str) -> None:
    if secret and (len(secret) > SECRET_MAX or not _HEADER_VALUE_PATTERN.fullmatch(secret)):
        raise BadMessage(field, f"is longer than {SECRET_MAX} characters, or has some that a header can't carry")


def _without_secrets(config: PushConfig, task_id: str) -> PushConfig:
    authentication = config.authentication
    shown = UNSET if isinstance(authentication, UnsetType) else PushAuthentication(authentication.scheme)
    return PushConfig(url=config.url, id=config.id, task_id=task_id, authentication=shown)
