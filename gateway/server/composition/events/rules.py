"""Builds events: sources that send them, webhooks that are sent them, triggers, and the recorder of the gateway's own."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.contract import UpstreamFault
from adapters.upstream.egress import Egress
from gateway.events.deliveries import EventDeliveries
from gateway.events.own_types import REGISTRY_CHANGED, own_types_of
from gateway.events.queue import EventQueue
from gateway.events.recorder import EventRecorder
from gateway.events.rules import EventRoutes, TriggerRule, WebhookRule
from gateway.events.settings import TriggerSettings
from gateway.events.sources import EventSources, SourceRule
from gateway.events.standard_webhooks import BadSecret, read_secrets
from gateway.events.starts import TriggerStarts
from gateway.events.tables import event_deliveries, event_starts
from gateway.server.settings import BadSettings, Settings, resolve_credential
from gateway.storage.database import Batch, Database
from policies.audit.log import AuditLog
from policies.ids import now_us


@dataclass(frozen=True, slots=True)
class EventParts:
    """The events of one process. What reads and starts by them is in gateway/workflows, which is loaded when it is needed."""

    recorder: EventRecorder
    routes: EventRoutes
    sources: EventSources
    starts: TriggerStarts

    @property
    def need_engine(self) -> bool:
        """Whether the settings have events stored or started by, so that what does it is loaded at the start."""
        return bool(self.routes.triggers) or self.recorder.is_configured


@dataclass(frozen=True, slots=True)
class EventRules:
    """What the settings say of events, checked."""

    sources: list[SourceRule]
    webhooks: list[WebhookRule]
    triggers: list[TriggerRule]


def read_event_rules(settings: Settings) -> EventRules:
    """Returns what the settings say of events. Raises BadSettings for what can't work, such as a secret that is not there."""
    sources = [_source_rule(name, each) for name, each in settings.events.sources.items()]
    webhooks = [WebhookRule(each.tenant, each.url, each.secret, tuple(each.types)) for each in settings.events.webhooks]
    for number, webhook in enumerate(webhooks):
        _check_secret(f"events.webhooks[{number}].secret", webhook.secret)
    return EventRules(sources, webhooks, [_trigger_rule(settings, number, each) for number, each in enumerate(settings.triggers)])


def build_events(settings: Settings, rules: EventRules, database: Database) -> EventParts:
    """Builds the events of one process."""
    routes = EventRoutes(rules.webhooks, rules.triggers)
    queue = EventQueue(database, event_starts, "name", now_us)
    return EventParts(
        recorder=EventRecorder(own_types_of(settings.events.record), routes.own_types_by_tenant()),
        routes=routes,
        sources=EventSources(rules.sources, resolve_credential),
        starts=TriggerStarts(database, queue, routes.triggers, now_us),
    )


def build_deliveries(events: EventParts, database: Database, egress: Egress) -> EventDeliveries:
    """Builds what sends events to webhooks, through the egress guard."""
    queue = EventQueue(database, event_deliveries, "webhook", now_us)
    return EventDeliveries(queue, events.routes.webhooks, egress, resolve_credential, time.time)


def record_registry_change(audit: AuditLog, recorder: EventRecorder, batch: Batch, record: Mapping[str, Any]) -> None:
    """Writes the audit record of a change of the registry, and its event where anything waits for it. Both say nothing of secrets."""
    audit.record(batch, record)
    if recorder.wants(record["tenant"], REGISTRY_CHANGED):
        data = {name: record.get(name) for name in ("verb", "family", "name", "status")}
        recorder.record_event(batch, record["tenant"], REGISTRY_CHANGED, f"{record['family']}/{record['name']}", data)


def _source_rule(name: str, given: Any) -> SourceRule:
    """The rule of a source. Raises BadSettings."""
    place = f"events.sources.{name}"
    _check_secret(f"{place}.secret", given.secret)
    if given.schema_ is not None:
        from gateway.workflows.cloud_events.inbound import SourceSchemaRefused, build_validator

        try:
            build_validator(given.schema_)
        except SourceSchemaRefused as error:
            raise BadSettings(f"{place}.schema: {error}") from error
    return SourceRule(given.tenant, name, given.secret, tuple(given.types), given.schema_, given.subject)


def _trigger_rule(settings: Settings, number: int, given: TriggerSettings) -> TriggerRule:
    """The rule of a trigger, in the tenant of its service principal. Raises BadSettings."""
    service = settings.service_principals.get(given.run_as)
    if service is None:
        raise BadSettings(f"triggers[{number}].run_as: `service_principals` has no {given.run_as}")
    template = given.input if given.workflow else given.message or None if given.agent else given.arguments
    named = {"workflow": given.workflow, "agent": given.agent, "skill": given.skill, "tool": given.tool}
    return TriggerRule(service.tenant, given.name, given.type, given.run_as, given.filter, given=template, **named)


def _check_secret(place: str, reference: str) -> None:
    """Raises BadSettings for a secret that is missing or can't sign. It is read again at each use, so that it can be changed."""
    try:
        read_secrets(resolve_credential(reference))
    except UpstreamFault as fault:
        raise BadSettings(f"{place}: {fault.cause or fault.public}") from fault
    except BadSecret as error:
        raise BadSettings(f"{place}: {error}") from error
