"""What the settings say of events: which webhooks are sent which types, and what starts what. Each way is a row in the event's commit."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.events.own_types import is_wanted, own_types_of
from gateway.events.tables import event_deliveries
from gateway.storage.database import Batch
from policies.delegation.history import SENSITIVITY_MAX
from policies.ids import new_id
from policies.tables import PartialInsert

HOPS: Final = "interlockhops"  # extension attribute: how many runs and triggers that events started led to the event
SENSITIVITY: Final = "interlocksensitivity"  # extension attribute: of what the event was computed from, 1 to 3; absent: 0
HOPS_MAX: Final = 16
LETTER: Final = "n"  # prefix of ids of everything that may become a dead letter, so that they sort among each other
LOOP_TEXT: Final = f"event-loop: more than {HOPS_MAX} starts by events led to this event, so it starts nothing"
_DELIVERY: Final = PartialInsert(
    event_deliveries,
    ("tenant", "id", "webhook", "subject", "event_id", "event", "attempts", "next_at", "state", "reason", "created", "updated"),
)
_START: Final = (
    "INSERT INTO event_starts (tenant, id, name, start, subject, event_id, event, requesters, attempts, next_at, state, reason, created, "
    "updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)


class WebhookRule(Struct, frozen=True):
    """A webhook of the settings that is sent events. `secret` is a reference to the secret, such as env:NAME."""

    tenant: str
    url: str
    secret: str
    types: tuple[str, ...]

    @property
    def id(self) -> str:
        """The name of the webhook in the database, which does not have its URL."""
        return hashlib.sha256(f"{self.tenant} {self.url}".encode()).hexdigest()[:32]

    def __repr__(self) -> str:
        return f"WebhookRule({self.id})"


class TriggerRule(Struct, frozen=True):
    """A trigger of the settings. One of `workflow`, `agent` and `tool` names what is started, by whose rights `run_as` says.

    `filter` has attributes that are compared as they are, and conditions `${ … }`. `given` is the template of the input, the message or
    the arguments; None has the event's data sent as it is.
    """

    tenant: str
    name: str
    type: str
    run_as: str
    filter: Mapping[str, Any] = {}
    workflow: str = ""
    agent: str = ""
    skill: str = ""
    tool: str = ""
    given: Any = None

    @property
    def target(self) -> str:
        """The entry of the registry that is called."""
        return self.workflow or self.agent or self.tool.partition(".")[0]

    @property
    def literals(self) -> dict[str, Any]:
        """The attributes of the filter that are compared as they are."""
        return {name: value for name, value in self.filter.items() if name != "data" and not is_condition(value)}


class RoutedEvent(Struct, frozen=True):
    """An event that is being stored, with its JSON, and the people behind it: a JSON array of tenant|issuer|subject."""

    event: Mapping[str, Any]
    text: str
    requesters: str
    at: int  # microseconds since 1970


class EventRoutes:
    """Writes what becomes of an event, in the commit that stores it."""

    def __init__(self, webhooks: Sequence[WebhookRule], triggers: Sequence[TriggerRule]) -> None:
        self.webhooks = tuple(webhooks)
        self.triggers = {(rule.tenant, rule.name): rule for rule in triggers}

    def own_types_by_tenant(self) -> dict[str, set[str]]:
        """The types of the gateway's own events that a tenant's webhooks and triggers name."""
        found: dict[str, set[str]] = {}
        for webhook in self.webhooks:
            found.setdefault(webhook.tenant, set()).update(own_types_of(webhook.types))
        for rule in self.triggers.values():
            found.setdefault(rule.tenant, set()).update(own_types_of([rule.type]))
        return found

    def write(self, batch: Batch, tenant: str, routed: RoutedEvent) -> int:
        """Writes the deliveries and starts of an event, and returns how many starts."""
        kind = routed.event["type"]
        for webhook in self.webhooks:
            if webhook.tenant == tenant and is_wanted(webhook.types, kind):
                _write_delivery(batch, webhook, routed)
        rules = [rule for rule in self.triggers.values() if rule.tenant == tenant and is_wanted([rule.type], kind)]
        return sum(_write_start(batch, rule, routed) for rule in rules if could_match(rule.literals, routed.event))


def could_match(attributes: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether an event has the attributes of a filter that are no conditions."""
    return all(event.get(name) == value for name, value in attributes.items())


def sensitivity_of(event: Mapping[str, Any]) -> int:
    """The sensitivity of what an event was computed from, 0 to 3. Only the gateway sets it."""
    given = event.get(SENSITIVITY, 0)
    return min(max(given, 0), SENSITIVITY_MAX) if isinstance(given, int) else SENSITIVITY_MAX


def is_condition(value: Any) -> bool:
    """Whether a value of a filter is evaluated, and not compared as it is."""
    return isinstance(value, str) and value.strip().startswith("${") and value.strip().endswith("}")


def start_key(event: Mapping[str, Any]) -> str:
    """The idempotency key of what an event starts."""
    return f"event:{hashlib.sha256(msgspec.json.encode([event['source'], event['id']])).hexdigest()}"


def _write_delivery(batch: Batch, webhook: WebhookRule, routed: RoutedEvent) -> None:
    names = (webhook.tenant, new_id(LETTER), webhook.id, routed.event.get("subject", ""), routed.event["id"])
    batch.insert(_DELIVERY, (*names, routed.text, 0, routed.at, "pending", "", routed.at, routed.at))


def _write_start(batch: Batch, rule: TriggerRule, routed: RoutedEvent) -> int:
    is_loop = routed.event.get(HOPS, 0) > HOPS_MAX
    state, reason = ("dead", LOOP_TEXT) if is_loop else ("pending", "")
    names = (rule.tenant, new_id(LETTER), rule.name, start_key(routed.event), routed.event.get("subject", ""), routed.event["id"])
    values = (*names, routed.text, routed.requesters, routed.at, state, reason, routed.at, routed.at)
    return batch.run(_START, values)
