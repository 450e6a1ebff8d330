"""If-Match of a change of the registry: the version of an entry that the caller has seen."""

from gateway.registration.requests import PreconditionFailed, PreconditionRequired
from gateway.tasks.log import to_rfc3339
from registry.cards.card import Registration


def check_if_match(entry: Registration, if_match: str | None) -> None:
    """Raises PreconditionFailed unless If-Match lists the `updated` of the entry, or is `*` or absent (RFC 9110 s13.1.1)."""
    if (
        if_match is not None
        and if_match.strip() != "*"
        and to_rfc3339(entry.updated) not in (tag.strip().strip('"') for tag in if_match.split(","))
    ):
        raise PreconditionFailed


def check_has_if_match(if_match: str | None) -> None:
    """Raises PreconditionRequired without an explicit If-Match, since the entry may have changed after the approver read it."""
    if if_match is None or if_match.strip() == "*":
        raise PreconditionRequired
