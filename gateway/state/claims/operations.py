"""Claims as callers make them, through /api and through tools: what they need permission for, and what they learn."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.state.claims.claim import ALL_EFFECTS, PRIORITY_MAX, Claim, ClaimRequest, Holder
from gateway.state.claims.store import SECOND, ClaimPage, SubjectClaims
from gateway.state.subjects.names import BadSubject, check_effect, check_subject, key_prefix_of
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant

LEASE_SECONDS: Final = 600
LEASE_SECONDS_MAX: Final = 86_400
COOL_DOWN_SECONDS_MAX: Final = 366 * 86_400
WAIT_SECONDS_MAX: Final = 60
PRIORITY: Final = 100
ORDINARY_PRIORITY_MAX: Final = 500  # a claim of a higher priority needs state:write:KIND/ID/claims/urgent
PURPOSE_MAX: Final = 200


class BadClaim(ValueError):
    """A member of a claim is invalid. `field` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class ClaimOrder(Struct, frozen=True):
    """A claim that a caller asks for."""

    subject: str
    effect: str = ALL_EFFECTS
    purpose: str = ""
    priority: int = PRIORITY
    seconds: int = LEASE_SECONDS
    cool_down_seconds: int = 0
    wait_seconds: int = 0

    def check(self) -> None:
        """Raises BadClaim."""
        for field, check in (("subject", check_subject), ("effect", check_effect)):
            try:
                check(getattr(self, field))
            except BadSubject as error:
                raise BadClaim(field, str(error)) from error
        if len(self.purpose) > PURPOSE_MAX or not self.purpose.isprintable():
            raise BadClaim("purpose", f"must be one line of text, of at most {PURPOSE_MAX} characters")
        for field, least, most in (
            ("priority", 0, PRIORITY_MAX),
            ("seconds", 1, LEASE_SECONDS_MAX),
            ("cool_down_seconds", 0, COOL_DOWN_SECONDS_MAX),
            ("wait_seconds", 0, WAIT_SECONDS_MAX),
        ):
            _check_number(field, getattr(self, field), least, most)


@dataclass(frozen=True, slots=True)
class ClaimRulings:
    """The rulings that claims need. `authorize` records its ruling and raises CallRefused unless it is a Grant."""

    authorize: Callable[[Caller, Act], Awaitable[Grant]]
    could_allow: Callable[[Caller, Act], bool]


class ClaimOperations:
    """Takes, renews, releases and lists claims with the rights of the caller, which is the holder."""

    def __init__(self, claims: SubjectClaims, rulings: ClaimRulings) -> None:
        self._claims = claims
        self._rulings = rulings

    async def take(self, caller: Caller, order: ClaimOrder) -> Claim:
        """Raises BadClaim, CallRefused, ClaimDenied, CoolingDown and TooManyClaims."""
        order.check()
        lease, cool_down = order.seconds * SECOND, order.cool_down_seconds * SECOND
        who = (caller.principal.tenant, order.subject, order.effect, holder_of(caller))
        wanted = ClaimRequest(*who, order.purpose, order.priority, lease, cool_down)
        grant = await self._rulings.authorize(caller, act_of_claiming(wanted))
        may_read = self._rulings.could_allow(caller, act_of_reading_claims(order.subject))
        wanted = replace(wanted, decision_id=grant.decision.id)
        return await self._claims.take(wanted, order.wait_seconds, lambda other: describe_holder(other, caller, may_read))

    async def renew(self, caller: Caller, claim_id: str, token: int, seconds: int) -> Claim:
        """Raises UnknownClaim, ClaimLost and CallRefused."""
        found = await self._claims.find(caller.principal.tenant, claim_id)
        await self._rulings.authorize(caller, act_of_claiming(found, "renew-claim"))
        return await self._claims.renew(caller.principal.tenant, claim_id, holder_of(caller), token, seconds * SECOND)

    async def release(self, caller: Caller, claim_id: str, token: int, cool_down_seconds: int | None = None) -> Claim:
        """Ends a claim of the caller, which needs no permission. Raises BadClaim, UnknownClaim and ClaimLost."""
        if cool_down_seconds is not None:
            _check_number("cool_down_seconds", cool_down_seconds, 0, COOL_DOWN_SECONDS_MAX)
        cool_down = None if cool_down_seconds is None else cool_down_seconds * SECOND
        return await self._claims.release(caller.principal.tenant, claim_id, holder_of(caller), token, cool_down)

    async def list_on(self, caller: Caller, subject: str, before: tuple[int, str] | None, limit: int) -> tuple[list[Claim], int]:
        """The claims on a subject: all of them for callers that may read them, else the own ones. Returns the time too. Raises BadClaim."""
        try:
            name = check_subject(subject)
        except BadSubject as error:
            raise BadClaim("subject", str(error)) from error
        may_read = self._rulings.could_allow(caller, act_of_reading_claims(name))
        owner = "" if may_read else caller.principal.owner_key
        return await self._claims.list_open(caller.principal.tenant, ClaimPage(owner, name, before, limit))

    async def list_own(self, caller: Caller, before: tuple[int, str] | None, limit: int) -> tuple[list[Claim], int]:
        """The caller's own claims, and the time now."""
        return await self._claims.list_open(caller.principal.tenant, ClaimPage(caller.principal.owner_key, "", before, limit))

    async def list_all(self, caller: Caller, before: tuple[int, str] | None, limit: int) -> tuple[list[Claim], int]:
        """The claims of all people, for callers that were authorized to read them, and the time now."""
        return await self._claims.list_open(caller.principal.tenant, ClaimPage("", "", before, limit))


def _check_number(field: str, number: int, least: int, most: int) -> None:
    """Raises BadClaim."""
    if not least <= number <= most:
        raise BadClaim(field, f"must be a whole number from {least} to {most}")


def holder_of(caller: Caller) -> Holder:
    """The holder of what the caller claims."""
    delegation = caller.delegation
    return Holder(caller.principal.owner_key, tuple(hop.agent for hop in delegation.path), delegation.task_id, delegation.txn)


def act_of_claiming(wanted: ClaimRequest | Claim, verb: str = "take-claim") -> Act:
    """The act of claiming a subject. High priorities have a permission of their own, since such a claim ends those of others."""
    urgent = "/urgent" if wanted.priority > ORDINARY_PRIORITY_MAX else ""
    name = f"{key_prefix_of(wanted.subject)}claims{urgent}"
    return Act("writeState", "Key", name, f"state:write:{name}", name.rpartition("/")[0], verb)


def act_of_reading_claims(subject: str) -> Act:
    """The act of reading the claims on a subject."""
    name = f"{key_prefix_of(subject)}claims"
    return Act("readState", "Key", name, f"state:read:{name}", name.rpartition("/")[0])


def act_of_reading_subject(subject: str) -> Act:
    """The act of reading all that is known of a subject."""
    name = key_prefix_of(subject).removesuffix("/")
    return Act("readState", "Key", name, f"state:read:{name}", name.rpartition("/")[0])


def describe_holder(claim: Claim, caller: Caller, may_read: bool) -> str:
    """The holder in words: by name for the same person and for callers that may read the subject's claims."""
    holder = claim.holder
    if holder.owner == caller.principal.owner_key:
        return f"Your agent {holder.agent}" if holder.agent else "You"
    if not may_read:
        return "Another person's agent" if holder.agent else "Another person"
    person = holder.owner.split("|", 2)[-1]
    return f"{person}'s agent {holder.agent}" if holder.agent else person


def claim_document(claim: Claim, now: int) -> dict[str, Any]:
    """A claim as JSON, for its holder and for callers that may read the subject's claims."""
    holder = claim.holder
    return {
        "id": claim.id,
        "subject": claim.subject,
        "effect": claim.effect,
        "purpose": claim.purpose,
        "priority": claim.priority,
        "state": "held" if claim.is_held(now) else "cooling" if claim.is_cooling(now) else "ended",
        "token": claim.token,
        "created": to_rfc3339(claim.created),
        "until": to_rfc3339(claim.until),
        "cool_down_until": to_rfc3339(claim.free_at) if claim.cool_down else None,
        "holder": {"owner": holder.owner, "agent": holder.agent, "chain": list(holder.chain), "task_id": holder.task_id},
    }
