"""What an operator sets of a workflow, as `interlock apply` declares it."""

from typing import Any, Protocol

from gateway.workflows.cloud_events.schedules import ScheduleRow
from registry.cards.card import Registration


class DocumentStore(Protocol):
    """gateway/workflows/runs/store.py."""

    async def document_of(self, tenant: str, name: str, version: str) -> str | None: ...


class ScheduleReader(Protocol):
    """gateway/workflows/engine/scheduled_starts.py."""

    async def schedule_of(self, tenant: str, workflow: str) -> ScheduleRow | None: ...


async def declaration_of(store: DocumentStore, schedules: ScheduleReader, entry: Registration) -> dict[str, Any]:
    """Returns the text of a workflow, and whether its schedule is paused; None for one without a schedule."""
    schedule = await schedules.schedule_of(entry.tenant, entry.name)
    text = await store.document_of(entry.tenant, entry.name, entry.workflow_version)
    return {"document": text or "", "paused": None if schedule is None else schedule.paused_at is not None}
