"""Records the gateway's own events in the commit of what they tell. Where nothing waits for a type, nothing is written."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec
import structlog

from gateway.events.own_types import OWN_TYPES, RUN_ENDED, TASK_ENDED
from gateway.events.tables import event_outbox
from gateway.storage.database import Batch
from policies.ids import new_id, now_us
from policies.tables import PartialInsert

DATA_MAX: Final = 48 << 10  # bytes of the data of one event, which has to fit into 64 KiB with its attributes
_ROW: Final = PartialInsert(event_outbox, ("tenant", "id", "type", "subject", "owner", "permission", "txn", "data", "at"))
_NONE: Final[frozenset[str]] = frozenset()
_encode = msgspec.json.Encoder(enc_hook=str).encode
log = structlog.get_logger()


class EventRecorder:
    """Writes events to the outbox, from which gateway/workflows/cloud_events/relay.py stores and hands them on."""

    def __init__(
        self,
        everywhere: Collection[str],
        by_tenant: Mapping[str, Collection[str]],
        make_id: Callable[[str], str] = new_id,
        now: Callable[[], int] = now_us,
    ) -> None:
        """`everywhere`: types that are recorded in each tenant; `by_tenant`: those that triggers and webhooks of a tenant wait for."""
        self._everywhere = frozenset(everywhere)
        self._by_tenant = {tenant: frozenset(kinds) for tenant, kinds in by_tenant.items()}
        self._listened: frozenset[tuple[str, str]] = frozenset()
        self._make_id = make_id
        self._now = now

    @property
    def is_configured(self) -> bool:
        """Whether the settings have any of the gateway's own events recorded."""
        return bool(self._everywhere) or any(self._by_tenant.values())

    def wants(self, tenant: str, kind: str) -> bool:
        """Whether anything waits for events of a type: a webhook, a trigger, a workflow, a listening run, or the settings."""
        return kind in self._everywhere or kind in self._by_tenant.get(tenant, _NONE) or (tenant, kind) in self._listened

    def wants_any(self, kinds: Collection[str]) -> bool:
        """Whether anything waits, in any tenant, for one of these types."""
        wanted = (self._everywhere, *self._by_tenant.values(), frozenset(kind for _, kind in self._listened))
        return any(not each.isdisjoint(kinds) for each in wanted)

    def set_listened(self, listened: Collection[tuple[str, str]]) -> None:
        """Replaces the tenants and types that workflows and runs wait for. Called when any process has changed them."""
        self._listened = frozenset(listened)

    def record_event(
        self,
        batch: Batch,
        tenant: str,
        kind: str,
        subject: str,
        data: Mapping[str, Any],
        *,
        owner: str = "",
        permission: str = "",
        txn: str = "",
    ) -> None:
        """Writes an event in the commit of `batch`, where anything waits for its type.

        `owner` is the person whom it concerns, as tenant|issuer|subject. That person sees the event, and so do holders of `permission` and
        of audit:read. `txn` is the transaction that brought the event about, by which circles of events are found.
        """
        assert kind in OWN_TYPES
        if not self.wants(tenant, kind) and not (kind == TASK_ENDED and self.wants(tenant, RUN_ENDED)):  # the relay makes one of the other
            return
        encoded = _encode(data)
        if len(encoded) > DATA_MAX:
            log.warning("event_data_left_out", type=kind, subject=subject[:200], size=len(encoded))
            encoded = b'{"too_large":true}'
        batch.insert(_ROW, (tenant, self._make_id("e"), kind, subject, owner, permission, txn, encoded.decode(), self._now()))


NO_EVENTS: Final = EventRecorder((), {})  # of what is built without settings
