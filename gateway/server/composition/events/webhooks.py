"""Builds the webhooks: configurations, outbox and delivery."""

import time
from dataclasses import dataclass

from adapters.upstream.egress import Egress
from adapters.upstream.host_names import SystemResolver
from gateway.events.deliveries import EventDeliveries
from gateway.server.composition import capacity
from gateway.server.composition.events.rules import EventParts, build_deliveries
from gateway.server.settings import Settings
from gateway.storage.database import Database
from gateway.tasks.log import TaskLog
from gateway.tasks.notices.feed import NoticeFeed
from gateway.tasks.notices.notifier import NoticeNotifier
from gateway.tasks.webhooks.configs import WebhookConfigs
from gateway.tasks.webhooks.delivery import WebhookDelivery, WebhookSigner
from gateway.tasks.webhooks.outbox import Outbox
from policies.ids import new_id, now_us
from policies.keys.signing import SigningKeys
from policies.vault.envelope import EnvelopeEncryption

WEBHOOK_LOOKUPS = 64  # concurrent lookups of host names of webhooks; agents and servers have separate threads


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Push notifications (A2A 1.0 s4.3): their configurations, the outbox, and the delivery, which has an egress of its own."""

    egress: Egress
    configs: WebhookConfigs
    outbox: Outbox
    delivery: WebhookDelivery
    notices: NoticeFeed
    notifier: NoticeNotifier
    events: EventDeliveries


def build_webhooks(
    settings: Settings, keys: SigningKeys, database: Database, tasks: TaskLog, envelope: EnvelopeEncryption, *, events: EventParts
) -> Webhooks:
    """Builds the webhooks of one process, whose requests go through the egress guard."""
    resolver = SystemResolver(threads=WEBHOOK_LOOKUPS, queue=WEBHOOK_LOOKUPS)
    egress = Egress(settings.allowed_targets, lookup=resolver, connections=(capacity.connections_max(settings), 0))
    outbox = Outbox(database, new_id, now_us, envelope)
    signer = WebhookSigner(keys, settings.public_url, time.time)
    return Webhooks(
        egress=egress,
        configs=WebhookConfigs(database, egress, new_id, now_us, envelope),
        outbox=outbox,
        delivery=WebhookDelivery(outbox, tasks, egress, signer),
        notices=NoticeFeed(database),
        notifier=NoticeNotifier(database, egress, signer, settings.notify, now_us),
        events=build_deliveries(events, database, egress),
    )
