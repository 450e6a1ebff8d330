"""Changes of the registry: one audit record for each, with its author, in the same commit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GATEWAY = "gateway"  # the author of changes that the gateway found by itself
_RECORDED_COLUMNS = ("family", "name", "status", "url", "owner", "client_id", "card_hash", "delegation", "rank", "sensitivity", "clearance")


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """A change of an entry and its author.

    `by` is the owner key of a person (tenant|issuer|subject), `operator` for the configuration file, or `gateway`. `decision_id` is the
    ruling that allowed it, where one was needed.
    """

    verb: str  # register | change | approve | refresh | renew-secret | remove
    by: str = GATEWAY
    decision_id: str = ""


REFRESHED = RegistryChange("refresh")
REGISTERED = RegistryChange("register")
REMOVED = RegistryChange("remove")
SECRET_RENEWED = RegistryChange("renew-secret")
APPROVED = RegistryChange("approve")


def audit_record_of(registry_change: RegistryChange, row: Mapping[str, Any]) -> dict[str, Any]:
    """The audit record of a change: the entry after it, or before its removal. Has no headers and no secrets."""
    terms = json.loads(row["terms"])
    issuer, subject = registry_change.by.split("|", 2)[1:] if registry_change.by.count("|") > 1 else ("", registry_change.by)
    return {
        "kind": "registry",
        "tenant": row["tenant"],
        "decision_id": registry_change.decision_id,
        "txn": "",
        "verb": registry_change.verb,
        "principal": {"issuer": issuer, "subject": subject},
        **{name: row[name] for name in _RECORDED_COLUMNS},
        "sensitivities": json.loads(row["sensitivities"]),
        **{name: terms.get(name, empty) for name, empty in (("model_free", []), ("prices", {}), ("effects", {}), ("memory", "none"))},
        "label": terms.get("label", ""),
        "ceiling": row["ceiling"].split(),
        "trusted_keys": [key.get("kid", "") for key in json.loads(row["trusted_keys"])],
    }
