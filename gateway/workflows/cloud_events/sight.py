"""Readers of the gateway's own events, beside the right to receive their type."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.audit.decisions import READ_AUDIT
from gateway.events.own_types import OWN_TYPES
from gateway.events.rules import sensitivity_of
from policies.delegation.approval import DECIDE_APPROVALS
from policies.delegation.rulings import Act
from policies.ids import new_id

OWNER: Final = "interlockowner"  # extension attributes of the gateway's own events
PERMISSION: Final = "interlockpermission"
TRANSACTION: Final = "x"  # prefix of the ids of transactions
_READ_STATE: Final = "state:read:"
CouldAllow = Callable[[Act], bool]


def may_see(kind: str, owner: str, permission: str, *, reader: str, could_allow: CouldAllow) -> bool:
    """Whether a reader sees an event that concerns `owner`. All readers see events of others than the gateway.

    `reader` is the owner key of the person for whom it is read.
    """
    if kind not in OWN_TYPES or (owner and owner == reader):
        return True
    act = _act_of(permission)
    return (act is not None and could_allow(act)) or could_allow(READ_AUDIT)


def may_see_event(event: Mapping[str, Any], reader: str, could_allow: CouldAllow) -> bool:
    """Whether a reader sees an event, by the attributes that it was stored with."""
    return may_see(event["type"], event.get(OWNER, ""), event.get(PERMISSION, ""), reader=reader, could_allow=could_allow)


def transaction_for(event: Mapping[str, Any]) -> str:
    """The id of a transaction of its own for what a sensitive event starts, so that what is ruled on in it counts as having read the event.

    Empty for any other event.
    """
    return new_id(TRANSACTION) if sensitivity_of(event) else ""


def _act_of(permission: str) -> Act | None:
    """The act whose permission lets others than the owner see an event; None for a permission that lets none."""
    if permission == DECIDE_APPROVALS.permission:
        return DECIDE_APPROVALS
    if permission.startswith(_READ_STATE):
        key = permission.removeprefix(_READ_STATE)
        return Act("readState", "Key", key, permission, key.rpartition("/")[0])
    return None
