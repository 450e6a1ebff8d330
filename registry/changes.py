"""What was done to the registry, by whom: one record of the audit for each change, in the same commit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GATEWAY = "gateway"  # looks that nobody ordered
_TOLD = ("family", "name", "status", "url", "owner", "client_id", "card_hash", "delegation", "rank", "sensitivity", "clearance")


@dataclass(frozen=True, slots=True)
class Deed:
    """`by` is the owner key of a person (tenant|issuer|subject), `operator` for the configuration file, or `gateway`.

    `decision_id` is of the ruling that allowed it, where one was needed.
    """

    verb: str  # register | change | approve | refresh | renew-secret | remove
    by: str = GATEWAY
    decision_id: str = ""


LOOK = Deed("refresh")
REGISTERED = Deed("register")
REMOVED = Deed("remove")
RENEWED = Deed("renew-secret")
APPROVED = Deed("approve")


def record_of(deed: Deed, row: Mapping[str, Any]) -> dict[str, Any]:
    """For the audit: what an entry is now, or was when it was removed. Headers and secrets are not among it."""
    issuer, subject = deed.by.split("|", 2)[1:] if deed.by.count("|") > 1 else ("", deed.by)
    return {
        "kind": "registry",
        "tenant": row["tenant"],
        "decision_id": deed.decision_id,
        "txn": "",
        "verb": deed.verb,
        "principal": {"issuer": issuer, "subject": subject},
        **{name: row[name] for name in _TOLD},
        "sensitivities": json.loads(row["sensitivities"]),
        "ceiling": row["ceiling"].split(),
        "trusted_keys": [key.get("kid", "") for key in json.loads(row["trusted_keys"])],
    }
