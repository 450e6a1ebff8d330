"""What a claim is: its holder, how long it is held, and when it stands in the way of another act."""

from typing import Final

from msgspec import Struct

ALL_EFFECTS: Final = "*"
PRIORITY_MAX: Final = 1000


class Holder(Struct, frozen=True):
    """A person at work, the agents of the chain, and the task and transaction in which they act. Empty: the person alone."""

    owner: str  # tenant|issuer|subject
    chain: tuple[str, ...] = ()
    task_id: str = ""
    txn: str = ""

    @property
    def agent(self) -> str:
        """The agent that acts; empty for the person."""
        return self.chain[-1] if self.chain else ""

    def covers(self, other: "Holder") -> bool:
        """Whether `other` is this holder, or an agent that this holder called in the same transaction.

        A person that acts directly has no transaction, and covers only what the person does directly.
        """
        if self.owner != other.owner or other.chain[: len(self.chain)] != self.chain:
            return False
        return self.txn == other.txn if self.chain or self.txn else not other.chain


def claim_id_of(decision_id: str) -> str:
    """The id of the claim that an act takes while it lasts."""
    return f"cl{decision_id[1:]}"


class ClaimRequest(Struct, frozen=True):
    """A claim that a holder wants. Times are microseconds."""

    tenant: str
    subject: str
    effect: str
    holder: Holder
    purpose: str
    priority: int
    lease: int
    cool_down: int = 0
    decision_id: str = ""


class Claim(Struct, frozen=True):
    """A claim as it is stored. Moments are microseconds since 1970 by the clock of the database.

    `token` is the fencing token. Each newer claim on the subject has a higher one, for ever.
    """

    id: str
    subject: str
    effect: str
    holder: Holder
    purpose: str
    priority: int
    token: int
    created: int
    until: int
    cool_down: int = 0
    state: str = "held"
    ended: int | None = None
    ended_as: str = ""
    ended_by: str = ""
    decision_id: str = ""

    @property
    def is_of_call(self) -> bool:
        """Whether a call took it by its declared effect, and not a holder who asked for it."""
        return bool(self.decision_id) and self.id == claim_id_of(self.decision_id)

    @property
    def free_at(self) -> int:
        """When it stands in the way of no other act any more, if nothing else happens."""
        return self.until + self.cool_down

    def is_held(self, now: int) -> bool:
        """Whether its holder has it: it has not been ended, and its lease runs."""
        return self.state == "held" and now < self.until

    def is_cooling(self, now: int) -> bool:
        """Whether it has ended, and its cool-down still runs."""
        return self.state != "ended" and self.until <= now < self.free_at

    def concerns(self, effect: str) -> bool:
        """Whether it is about this effect, one of them being for all effects included."""
        return ALL_EFFECTS in (self.effect, effect) or self.effect == effect

    def blocks(self, holder: Holder, effect: str, now: int) -> bool:
        """Whether it stands in the way of an act with an effect, unless that has a higher priority. A cool-down binds its holder too."""
        if not self.concerns(effect):
            return False
        return self.is_cooling(now) or (self.is_held(now) and not self.holder.covers(holder))
